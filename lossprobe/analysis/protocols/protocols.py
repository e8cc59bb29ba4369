"""The number that another tool would print, from a run that scored what that tool scores."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.per_byte import rewriting_note, why_not_per_word
from lossprobe.errors import NothingToScoreError
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.plan.windows import Layout
from lossprobe.run.reader import Run
from lossprobe.units import bits, format_count, format_perplexity, perplexity, plural

WHITE_SPACE = re.compile(r"\s+")
INFINITE_FROM = 20.0  # nats: FundamentaLLM prints no perplexity above
FULL_WINDOWS = "token <= (tokens - 1) // {context} * {context}"  # targets of windows that the document fills


@dataclass(frozen=True)
class ProtocolScore:
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


@dataclass(frozen=True)
class _Sums:
    """Sums over the tokens in a headline, from which every number is made."""

    run: Run
    tokens: int
    nats: float
    squares: float
    context_sum: int
    left_out: dict[str, int]

    @property
    def mean(self) -> float:
        return self.nats / self.tokens


Row = tuple[str, float | None, str, int]
Measure = Callable[[_Sums, list[str]], list[Row]]


def measure_protocol(run: Run, protocol: str) -> ProtocolScore:
    """Return what a tool would say, from a run with that tool's windows (see `protocol_pass`).

    Args:
        run: the run.
        protocol: a name of `PROTOCOLS`.

    Raises:
        NothingToScoreError: the run holds no token that the tool scores.
    """
    about = PROTOCOLS[protocol]
    sums = _sums(run, protocol)
    notes: list[str] = []
    special = run.counts.get("special_strings", 0)
    if special and about.special_strings == "text":
        notes.append(
            f"{plural(special, 'special string')} of the text read as control ids, which {protocol} itself reads as "
            "text: --special-strings text"
        )
    rows = MEASURES[protocol](sums, notes)
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


def _sums(run: Run, protocol: str) -> _Sums:
    """Return the sums over the tokens that a tool scores; what it leaves out of them is counted by reason."""
    left_out, condition = "", "true"
    if protocol in ("fundamentallm", "nanogpt"):
        left_out, condition = "tail", FULL_WINDOWS.format(context=run.context)
    elif protocol == "levanter":
        left_out, condition = "no_bytes", "byte_stop > byte_start"
    frame = run.query(f"""
        SELECT {condition} AS kept, count(*) AS tokens, sum(loss_nats::DOUBLE) AS nats,
               sum(loss_nats::DOUBLE ** 2) AS squares, sum(context)::BIGINT AS contexts
        FROM tokens JOIN (SELECT document, tokens FROM documents) USING (document)
        WHERE unscored IS NULL GROUP BY 1 ORDER BY 1""")
    kept, rest = frame[frame["kept"]], frame[~frame["kept"]]
    if kept.empty:
        raise NothingToScoreError("text.nothing_to_score", f"{run.text_name}: no token that {protocol} scores")
    return _Sums(
        run,
        tokens=int(kept["tokens"].sum()),
        nats=float(kept["nats"].sum()),
        squares=float(kept["squares"].sum()),
        context_sum=int(kept["contexts"].sum()),
        left_out={left_out: int(rest["tokens"].sum())},
    )


def _lm_eval(sums: _Sums, notes: list[str]) -> list[Row]:
    """Sums over all documents, per word, per byte and in bits, as in the tasks that use `loglikelihood_rolling`."""
    run = sums.run
    words = _words(run)
    if words is None:
        notes.append("word_perplexity: not given, the run was stored with --no-text")
    size = int(run.counts["bytes"])
    documents = int(run.counts["documents"])
    whole = _whole_text(run, "word_perplexity, byte_perplexity and bits_per_byte", notes)
    return [
        ("word_perplexity", perplexity(sums.nats / words) if whole and words else None, "per word", words or 0),
        ("byte_perplexity", perplexity(sums.nats / size) if whole else None, "per byte", size),
        ("bits_per_byte", bits(sums.nats) / size if whole else None, "bits per byte", size),
        ("loglikelihood", -sums.nats, "nats, all documents", documents),
    ]


def _words(run: Run) -> int | None:
    """Return the pieces between white space, counted as the tool does: an edge of white space adds an empty one."""
    total = 0
    for batch in run.batches("SELECT text FROM documents ORDER BY document"):
        for text in batch.column(0).to_pylist():
            if text is None:
                return None
            total += 1 + sum(1 for _ in WHITE_SPACE.finditer(text))
    return total


def _whole_text(run: Run, what: str, notes: list[str]) -> bool:
    """Return whether a loss can be held against the whole text, and note why not, or what to know of it."""
    refused = why_not_per_word(run.counts)
    note = f"{what}: refused, {refused}" if refused else rewriting_note(run.counts)
    if note:
        notes.append(note)
    return refused is None


def _paloma(sums: _Sums, notes: list[str]) -> list[Row]:
    """Sums over all documents, per token, character and byte."""
    counts = sums.run.counts
    size, characters = int(counts["bytes"]), int(counts["characters"])
    whole = _whole_text(sums.run, "character_perplexity, byte_perplexity and bits_per_byte", notes)
    return [
        ("token_perplexity", perplexity(sums.mean), "per token", sums.tokens),
        ("character_perplexity", perplexity(sums.nats / characters) if whole else None, "per character", characters),
        ("byte_perplexity", perplexity(sums.nats / size) if whole else None, "per byte", size),
        ("bits_per_byte", bits(sums.nats) / size if whole else None, "bits per byte", size),
    ]


def _documented_loop(sums: _Sums, notes: list[str]) -> list[Row]:
    """The mean of each window weighs one token less than it scores: the loop takes off a token for the shift of labels.

    With 29 tokens scored by windows of 7, 4, 4, 4, 4, 4 and 2 tokens the weights are 7, 3, 3, 3, 3, 3 and 1. Without
    overlap no weight is too small, since the first label of each window is a token that the shift does take off.
    """
    run = sums.run
    overlapping = run.manifest["settings"]["windows"]["layout"] == Layout.ROLLING
    frame = run.query("""
        SELECT count(*) AS tokens, sum(loss_nats::DOUBLE) AS nats, min("window") AS number
        FROM tokens WHERE unscored IS NULL GROUP BY "window" ORDER BY "window" """)
    weights = frame["tokens"] - (overlapping & (frame["number"] > 0)).astype(int)
    value: float | None = perplexity(float((frame["nats"] / frame["tokens"] * weights).sum() / weights.sum()))
    size = run.context + 1
    if not overlapping and run.counts["tokens"] % size == 1:
        value = None
        notes.append("the loop itself gives nan: its last window holds one token, so the mean of no label enters")
    return [
        ("perplexity", value, "weights of the loop", int(weights.sum())),
        ("perplexity_corrected", perplexity(sums.mean), "per token", sums.tokens),
    ]


def _mean_of_tokens(sums: _Sums, _: list[str]) -> list[Row]:
    return [
        ("perplexity", perplexity(sums.mean), "per token", sums.tokens),
        ("nll", sums.mean, "nats per token", sums.tokens),
    ]


def _evaluate(sums: _Sums, notes: list[str]) -> list[Row]:
    """The arithmetic mean of exp(mean loss) of each document."""
    frame = sums.run.query(
        "SELECT avg(loss_nats::DOUBLE) AS nats FROM tokens WHERE unscored IS NULL GROUP BY document ORDER BY document"
    )
    empty = int(sums.run.counts["documents"]) - len(frame)
    if empty:
        notes.append(f"{plural(empty, 'document')} without a scored token left out; evaluate itself refuses them")
    limit = sums.run.manifest["settings"]["checkpoint"]["context_length"]
    long = int(sums.run.scalar("SELECT count(*) FROM documents WHERE tokens > ?", [limit])) if limit else 0
    if long and sums.run.context >= limit:
        notes.append(f"{plural(long, 'document')} longer than the model's {format_count(limit)} tokens, run past them")
    values = [perplexity(nats) for nats in frame["nats"]]
    return [
        ("mean_perplexity", math.fsum(values) / len(values), "mean over documents", len(values)),
        ("token_perplexity", perplexity(sums.mean), "per token", sums.tokens),
    ]


def _llama_cpp(sums: _Sums, _: list[str]) -> list[Row]:
    """The mean over tokens, and its error as if they were independent: PPL · √(variance / (n − 1))."""
    variance = max(0.0, sums.squares / sums.tokens - sums.mean**2)
    value = perplexity(sums.mean)
    error = value * math.sqrt(variance / (sums.tokens - 1)) if sums.tokens > 1 else None
    return [
        ("perplexity", value, "per token", sums.tokens),
        ("perplexity_error", error, "± of independent tokens", sums.tokens),
        ("nll", sums.mean, "nats per token", sums.tokens),
    ]


def _levanter(sums: _Sums, notes: list[str]) -> list[Row]:
    """Bits of the tokens that hold bytes, over all bytes of the text."""
    size = int(sums.run.counts["bytes"])
    if not _whole_text(sums.run, "bits_per_byte", notes):
        return [("bits_per_byte", None, "bits per byte", size)]
    if not sums.run.counts["spans_tile"]:
        notes.append("bits_per_byte: refused, which tokens hold bytes is a guess with this tokenizer")
        return [("bits_per_byte", None, "bits per byte", size)]
    return [("bits_per_byte", bits(sums.nats) / size, "bits per byte", size)]


def _validation_loss(sums: _Sums, _: list[str]) -> list[Row]:
    return [
        ("val_loss", sums.mean, "nats per token", sums.tokens),
        ("perplexity", math.inf if sums.mean >= INFINITE_FROM else perplexity(sums.mean), "per token", sums.tokens),
    ]


MEASURES: dict[str, Measure] = {
    "lm-eval": _lm_eval,
    "paloma": _paloma,
    "transformers": _documented_loop,
    "transformers-corrected": _mean_of_tokens,
    "evaluate": _evaluate,
    "llama.cpp": _llama_cpp,
    "levanter": _levanter,
    "fundamentallm": _validation_loss,
    "nanogpt": _validation_loss,
}
