"""The formulas of the losses that people train with, as SQL over the stored columns, declared once.

With n = −log p(token), U the mean of −log p over the V entries and p the token's own probability, a loss smoothed by ε
is in the two conventions in use

    torch, Hugging Face:  (1 − ε) n + ε U                          target ε / V on every entry, 1 − ε more on the token
    fairseq:              (1 − ε) n + ε (V U − n) / (V − 1)        target 1 − ε on the token, ε / (V − 1) on the others

and fairseq's with ε is torch's with ε V / (V − 1). The gradient of the logits is p_v − target_v.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossprobe.analysis.options import where_option
from lossprobe.errors import UsageError
from lossprobe.options.declare import option, options_of
from lossprobe.options.kinds import MAX_COUNT, Counts, Flag, Number
from lossprobe.run.filters import where_sql

BATCH_TOKENS = 2048  # two windows of 1,024 tokens: a common batch of one device


@dataclass(frozen=True)
class ObjectiveOptions:
    """The choices of `objectives`.

    Attributes:
        smoothing: ε of the smoothed losses, 0 to 1.
        focal: γ of the focal loss, at least 0.
        margin: δ of the ranking loss in nats, at least 0.
        z_weight: α of the z-loss, at least 0.
        micro_batch: windows per micro-batch, each at least 1.
        batch_tokens: tokens of a batch under a mean loss, for float16, at least 1.
        where: conditions that tokens must meet; see `filters.where_sql`.
        full_windows: only rows of windows that hold as many input tokens as the context allows.

    Raises:
        UsageError: a number out of its range, or a condition that cannot be read.
    """

    smoothing: float = option(0.1, Number(0, 1), "Label smoothing, in both conventions.", metavar="EPS")
    focal: float = option(2.0, Number(0), "Focal loss.", metavar="GAMMA")
    margin: float = option(
        1.0, Number(0), "Ranking loss: margin that the token must have before the hardest other entry.", metavar="NATS"
    )
    z_weight: float = option(1e-4, Number(0), "Weight of the z-loss.", metavar="ALPHA")
    micro_batch: tuple[int, ...] = option(
        (1, 8), Counts(), "Windows per micro-batch, for the mean of micro-batch means.", metavar="N[,N...]"
    )
    batch_tokens: int = option(
        BATCH_TOKENS,
        Number(1, MAX_COUNT, whole=True),
        "Tokens of a batch under a mean loss, for what float16 gradients lose.",
        metavar="N",
    )
    where: tuple[str, ...] = where_option()
    full_windows: bool = option(False, Flag(), "Only full windows, as trainers that drop the tail evaluate.")

    def __post_init__(self) -> None:
        for name, declared in options_of(ObjectiveOptions).items():
            kind, value = declared.kind, getattr(self, name)
            if isinstance(kind, Number) and not (math.isfinite(value) and kind.low <= value <= kind.high):
                within = f"from {kind.low:g} to {kind.high:.12g}" if math.isfinite(kind.high) else "of at least 0"
                raise UsageError("objectives.range", f"{name} {value}: must be a number {within}")
        if min(self.micro_batch, default=1) < 1:
            raise UsageError("objectives.range", "windows of a micro-batch must be at least 1")
        where_sql(self.where)

    @property
    def selects(self) -> bool:
        """Whether some rows of the run can be left out."""
        return bool(self.where) or self.full_windows

    def condition(self, context: int) -> str:
        """Return the SQL condition on rows of `tokens` of a run with windows of `context` input tokens.

        A window that starts at token s is full where its document goes on to token s + `context`. Looking the length up
        in a list keeps the rows in order and the memory small, which a join of the rows does not.
        """
        length = "(SELECT list(tokens ORDER BY document) FROM documents)[document + 1]"
        full = f" AND token - context + {context} < {length}" if self.full_windows else ""
        return where_sql(self.where) + full


@dataclass(frozen=True)
class Objective:
    """One way to score a token.

    Attributes:
        name: its column, with the convention where there is more than one.
        convention: formula in short words, with the parameter.
        sql: expression over `scored_source`.
        unit: unit of one token's value.
        parameter: "" or name and value, which columns of single tokens carry too.
    """

    name: str
    convention: str
    sql: str
    unit: str = "nats"
    parameter: str = ""

    @property
    def column(self) -> str:
        """Name of a column of single tokens, such as `focal_nats_gamma_2`."""
        return f"{self.name}_{self.parameter.replace(' ', '_')}" if self.parameter else self.name


def objectives_of(options: ObjectiveOptions, vocab_size: int) -> tuple[Objective, ...]:
    """Return every objective, in the order of the table."""
    eps, gamma, delta, alpha = (
        f"{name} {value:.12g}"
        for name, value in (
            ("eps", options.smoothing),
            ("gamma", options.focal),
            ("delta", options.margin),
            ("alpha", options.z_weight),
        )
    )
    e, v = options.smoothing, float(vocab_size)
    others = max(1.0, v - 1)  # a vocabulary of one entry has no others, and none of their loss
    hard, uniform = f"{_sql(1 - e)} * n", f"{_sql(e)} * u"
    spread = f"{_sql(e / others)} * greatest(0, {_sql(v)} * u - n)"
    gap = f"(miss - {_sql(e * (1 - 1 / v))})"  # the token's own entry: target - p
    rest = f"others2 - {_sql(2 * e / v)} * miss + {_sql((v - 1) * (e / v) ** 2)}"
    torch, fairseq = "torch: eps/V on every entry", "fairseq: eps/(V-1) on the others"
    return (
        Objective("nll_nats", "-log p", "n"),
        Objective("smoothed_torch_nats", f"{torch}, {eps}", f"{hard} + {uniform}", parameter=eps),
        Objective("smoothed_fairseq_nats", f"{fairseq}, {eps}", f"{hard} + {spread}", parameter=eps),
        Objective("smoothed_hard_part_nats", f"(1 - eps) nll, of both, {eps}", hard, parameter=eps),
        Objective("smoothed_torch_uniform_part_nats", f"eps U, {eps}", uniform, parameter=eps),
        Objective("smoothed_fairseq_uniform_part_nats", f"eps (V U - nll)/(V-1), {eps}", spread, parameter=eps),
        Objective("focal_nats", f"(1-p)^gamma nll, {gamma}", f"pow(miss, {_sql(options.focal)}) * n", parameter=gamma),
        Objective(
            "margin_ranking_nats", f"hardest other entry, {delta}", f"greatest(0, {_sql(options.margin)} - margin)",
            parameter=delta,
        ),
        Objective("z_loss", f"alpha log_z^2, {alpha}", f"{_sql(options.z_weight)} * log_z * log_z", "nats²", alpha),
        Objective("gradient_l1", "of the logits: 2 (1-p)", "2 * miss", ""),
        Objective("gradient_l2", "of the logits: sqrt(Brier)", "sqrt(miss * miss + others2)", ""),
        Objective("gradient_linf", "of the logits: 1-p", "miss", ""),
        Objective(
            "gradient_l2_smoothed_torch", f"{torch}, {eps}", f"sqrt(greatest(0, {gap} * {gap} + {rest}))", "", eps
        ),
    )  # fmt: skip


def smoothed_floors(smoothing: float, vocab_size: int) -> tuple[float, float]:
    """Return the entropy in nats of the smoothed target, torch's and fairseq's: the least that the loss can be.

    >>> [round(floor, 6) for floor in smoothed_floors(0.1, 2048)]
    [1.087016, 1.087496]
    """
    return (
        _entropy(1 - smoothing + smoothing / vocab_size, smoothing / vocab_size, vocab_size - 1),
        _entropy(1 - smoothing, smoothing / max(1, vocab_size - 1), vocab_size - 1),
    )


def _entropy(on_token: float, elsewhere: float, others: int) -> float:
    """Return −Σ q log q of a target with `on_token` once and `elsewhere` on every other entry."""
    return sum(-count * q * math.log(q) for q, count in ((on_token, 1), (elsewhere, others)) if q > 0)


def scored_source(condition: str) -> str:
    """Return a SQL relation of the scored rows that meet a condition, in float64.

    Beside the keys of a row, its `window` and `context`: `n` (loss), `u` (uniform loss), `margin`, `log_z`, `miss`
    (1 − p of the token), `others2` (Σ p² of the other entries), `s2` (Σ p² of all) and `top` (the largest p).

    Where the model is confident, 1 − exp(−n) and Σ p² − p² would cancel. So miss = 2 t / (1 + t) with t = tanh(n / 2),
    and others2 is kept within what the best other entry b allows, b² ≤ others2 ≤ b (1 − p): √(miss² + others2) is then
    off by less than 10 % however small it is.
    """
    return f"""(
        SELECT *, least(best * miss, greatest(best * best, s2 - p * p)) AS others2 FROM (
            SELECT *, 2 * t / (1 + t) AS miss, exp(-n) AS p,
                   CASE WHEN top_id = token_id THEN exp(-n - margin) ELSE top END AS best FROM (
                SELECT document, token, token_id, "window", context, top_id, top_prob::DOUBLE AS top,
                       loss_nats::DOUBLE AS n, uniform_loss_nats::DOUBLE AS u, margin_nats::DOUBLE AS margin,
                       log_z::DOUBLE AS log_z, sum_p2::DOUBLE AS s2, tanh(loss_nats::DOUBLE / 2) AS t
                FROM tokens WHERE unscored IS NULL AND ({condition}))))"""


def _sql(value: float) -> str:
    """Return a number as a SQL literal that is read as the same float64, not as a decimal."""
    return f"{value:.17e}"
