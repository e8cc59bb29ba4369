"""The number that another tool would print, from a run that scored what that tool scores."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import pandas as pd

from lossprobe.analysis.options import LoggedOptions
from lossprobe.analysis.protocols.measures import FORMULAS, TRAINERS, Sums
from lossprobe.analysis.shown import Shown
from lossprobe.errors import NothingToScoreError, UsageError
from lossprobe.plan.protocol import LeftOut
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.run.reader import Run
from lossprobe.units import format_count, format_perplexity, plural

KEPT = {
    LeftOut.NOTHING: "true",
    LeftOut.TAIL: "token <= (tokens - 1) // {context} * {context}",  # targets of windows that the document fills
    LeftOut.BLOCK_TAIL: "token < tokens // ({context} + 1) * ({context} + 1)",
    LeftOut.NO_BYTES: "byte_stop > byte_start",
}


@dataclass(frozen=True)
class ProtocolScore(Shown):
    """What one tool would say of a text.

    Attributes:
        protocol: its name, one of `PROTOCOLS`.
        tool: the program that it stands for.
        headline: name of the number that the tool prints first.
        value: that number; None where the tool itself gives none, and `notes` says why.
        nats_per_token: mean loss of the tokens in the headline, each weighing the same.
        tokens_read: tokens, a BOS included.
        tokens_scored: tokens in the headline.
        tokens_unscored: the others by reason; adds up to `tokens_read` with the scored ones.
        mean_context: mean number of tokens seen before a token in the headline.
        context: most tokens seen before one.
        documents: texts that the tool sees.
        notes: what a reader must know, one line each.
        table: one row per number: measure, value, unit, count.
    """

    protocol: str
    tool: str
    headline: str
    value: float | None
    nats_per_token: float
    tokens_read: int
    tokens_scored: int
    tokens_unscored: dict[str, int]
    mean_context: float
    context: int
    documents: int
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        reasons = ", ".join(f"{reason} {format_count(count)}" for reason, count in self.tokens_unscored.items())
        scored = plural(self.tokens_scored, "token")
        return (
            f"{self.protocol}: {self.headline} {format_perplexity(self.value)} over {scored} "
            f"with {self.mean_context:,.1f} tokens of context on average; unscored: {reasons or 'none'}"
        )


def measure_protocol(run: Run, protocol: str, logged: LoggedOptions | None = None) -> ProtocolScore:
    """Return what a tool would say, from a run with that tool's windows (see `passes.protocols`).

    Args:
        run: the run.
        protocol: a name of `PROTOCOLS`.
        logged: batches, ranks and the like of a trainer; None for the defaults.

    Raises:
        UsageError: an option of trainers that the tool does not have.
        NothingToScoreError: the run holds no token that the tool scores.
    """
    about = PROTOCOLS[protocol]
    sums = replace(_sums(run, protocol), logged=logged_options(protocol, logged))
    notes: list[str] = []
    special = run.counts.get("special_strings", 0)
    if special and about.special_strings == "text":
        notes.append(
            f"{plural(special, 'special string')} of the text read as control ids, which {protocol} itself reads as "
            "text: `special_strings` text"
        )
    rows = FORMULAS[about.measure](sums, notes)
    counts = run.counts
    unscored = {**counts["unscored_tokens"], **sums.left_out}
    return ProtocolScore(
        protocol=protocol,
        tool=about.tool,
        headline=about.headline,
        value=next(value for name, value, _, _ in rows if name == about.headline),
        nats_per_token=sums.mean,
        tokens_read=counts["tokens"],
        tokens_scored=sums.tokens,
        tokens_unscored={reason: count for reason, count in unscored.items() if count},
        mean_context=sums.context_sum / sums.tokens,
        context=run.context,
        documents=counts["documents"],
        notes=notes,
        table=pd.DataFrame(rows, columns=["measure", "value", "unit", "count"]).astype({"value": float}),
    )


def logged_options(protocol: str, given: LoggedOptions | None) -> LoggedOptions:
    """Return the options of a trainer, or refuse those that were given for a tool that is none.

    Raises:
        UsageError: the protocol is not one of a trainer.
    """
    if given is None or given == LoggedOptions() or PROTOCOLS[protocol].measure in TRAINERS:
        return given or LoggedOptions()
    name = next(each.name for each in fields(given) if getattr(given, each.name) != each.default)
    raise UsageError("protocol.option", f"`{name}`: only for the protocols of trainers, and {protocol} is none")


def _sums(run: Run, protocol: str) -> Sums:
    """Return the sums over the tokens that a tool scores; what it leaves out of them is counted by reason."""
    left_out = PROTOCOLS[protocol].left_out
    condition = KEPT[left_out].format(context=run.context)
    frame = run.query(f"""
        SELECT {condition} AS kept, count(*) AS tokens, sum(loss_nats::DOUBLE) AS nats,
               sum(loss_nats::DOUBLE ** 2) AS squares, sum(context)::BIGINT AS contexts
        FROM tokens JOIN (SELECT document, tokens FROM documents) USING (document)
        WHERE unscored IS NULL GROUP BY 1 ORDER BY 1""")
    kept, rest = frame[frame["kept"]], frame[~frame["kept"]]
    if kept.empty:
        raise NothingToScoreError("text.nothing_to_score", f"{run.text_name}: no token that {protocol} scores")
    return Sums(
        run,
        tokens=int(kept["tokens"].sum()),
        nats=float(kept["nats"].sum()),
        squares=float(kept["squares"].sum()),
        context_sum=int(kept["contexts"].sum()),
        left_out={left_out.value: int(rest["tokens"].sum())},
    )
