"""One text under every protocol: which tokens each tool scores, and how far its loss is from the default's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.protocols.protocols import ProtocolScore
from lossprobe.analysis.shown import Shown
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.run.reader import Run
from lossprobe.units import format_count, format_perplexity, perplexity, plural

OWN = "lossprobe"


@dataclass(frozen=True)
class Refusal:
    """A tool that would refuse the text or the model.

    Attributes:
        protocol: its name.
        reason: why, in one line.
    """

    protocol: str
    reason: str


@dataclass(frozen=True)
class ProtocolTable(Shown):
    """What every tool would say of one text.

    Attributes:
        results: what is known of each tool.
        notes: what a reader must know, one line each.
        table: a row per protocol, lossprobe's own first: protocol, headline (name of the number that the tool prints
            first), value, nats_per_token (plain mean over the tokens in it), difference_nats (to lossprobe's own),
            tokens_scored, tokens_unscored, mean_context, why (in what it differs, or why there is no number).
    """

    results: list[ProtocolScore]
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        known = self.table.dropna(subset=["nats_per_token"])
        losses = dict(zip(known["protocol"], known["nats_per_token"], strict=True))
        low, high = min(losses, key=losses.__getitem__), max(losses, key=losses.__getitem__)
        ends = [f"{format_perplexity(perplexity(losses[name]))} ({name})" for name in (low, high)]
        return (
            f"the same model on the same text: token perplexity {' to '.join(ends)}, by windows, BOS and tokens alone"
        )


def compare_protocols(own: Run, results: Sequence[ProtocolScore | Refusal]) -> ProtocolTable:
    """Return the results side by side, with the differences to lossprobe's own windows.

    Args:
        own: the run with lossprobe's own windows.
        results: what each tool would say, or why it would refuse.
    """
    mean = own.query("""
        SELECT avg(loss_nats::DOUBLE) AS nats, avg(context) AS context, count(*) AS tokens
        FROM tokens WHERE unscored IS NULL""").iloc[0]
    base = float(mean["nats"])
    first = {
        "protocol": OWN,
        "headline": "token_perplexity",
        "value": perplexity(base),
        "nats_per_token": base,
        "difference_nats": 0.0,
        "tokens_scored": int(mean["tokens"]),
        "tokens_unscored": int(own.counts["tokens"]) - int(mean["tokens"]),
        "mean_context": float(mean["context"]),
        "why": _own_windows(own),
    }
    rows = [first, *(_row(result, base) for result in results)]
    known = [result for result in results if isinstance(result, ProtocolScore)]
    notes = [f"{result.protocol}: {note}" for result in known for note in result.notes]
    table = pd.DataFrame(rows).astype({"tokens_scored": "Int64", "tokens_unscored": "Int64", "value": float})
    return ProtocolTable(known, notes, table)


def _own_windows(own: Run) -> str:
    windows = own.settings.windows
    bos = "no BOS" if windows.bos_id is None else "BOS before each document"
    kept = windows.context - windows.stride + 1
    return f"{bos}; windows of {format_count(windows.context)}, {plural(kept, 'token')} carried over; per token"


def _row(result: ProtocolScore | Refusal, base: float) -> dict[str, object]:
    if isinstance(result, Refusal):
        return {
            "protocol": result.protocol,
            "headline": PROTOCOLS[result.protocol].headline,
            "why": f"no number: {result.reason}",
        }
    return {
        "protocol": result.protocol,
        "headline": result.headline,
        "value": result.value,
        "nats_per_token": result.nats_per_token,
        "difference_nats": result.nats_per_token - base,
        "tokens_scored": result.tokens_scored,
        "tokens_unscored": sum(result.tokens_unscored.values()),
        "mean_context": result.mean_context,
        "why": PROTOCOLS[result.protocol].why,
    }
