"""What a place costs, and how it looks: joins places in a document with its tokens and its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.secrets import SECRET, SHOWN, without_secrets
from lossprobe.analysis.defects.token_blocks import DocumentTokens
from lossprobe.text.counts import next_character, this_character
from lossprobe.units import visible_bytes

AROUND_BYTES, MIDDLE_BYTES, DATA_BYTES = 20, 40, 12
OPEN, CLOSE = "⟦", "⟧"
HIDDEN = ("encoded-data", "secret")  # which may be keys: only their beginning is shown


@dataclass(frozen=True)
class TokenSums:
    """Sums over the tokens of one document, to look up those of a span.

    Attributes:
        tokens: the document's.
        scored, nats: int64 and float64 [n + 1], how many have a loss before each token, and the sum of these.
    """

    tokens: DocumentTokens
    scored: npt.NDArray[np.int64] = field(repr=False)
    nats: npt.NDArray[np.float64] = field(repr=False)

    @staticmethod
    def of(tokens: DocumentTokens) -> TokenSums:
        """Return the sums of a document."""
        known = np.isfinite(tokens.loss_nats)
        scored = np.concatenate([[0], np.cumsum(known)]).astype(np.int64)
        return TokenSums(tokens, scored, np.concatenate([[0.0], np.cumsum(np.where(known, tokens.loss_nats, 0.0))]))

    def rows(self, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the first token and the end of those that each span of bytes touches."""
        edges = np.array(spans, np.int64).reshape(-1, 2)
        first = np.searchsorted(self.tokens.stops, edges[:, 0], "right")
        last = np.searchsorted(self.tokens.starts, edges[:, 1], "left")
        return list(zip(first.tolist(), np.maximum(first, last).tolist(), strict=True))

    def of_spans(self, spans: Sequence[tuple[int, int]]) -> tuple[int, float, int]:
        """Return scored tokens, their loss in nats and their bytes in spans of bytes that are in order."""
        count, nats, size, done = 0, 0.0, 0, 0
        for first, last in self.rows(spans):
            first = max(first, done)
            if last > first:
                scored = int(self.scored[last] - self.scored[first])
                count += scored
                nats += float(self.nats[last] - self.nats[first])
                size += int(self.tokens.stops[last - 1] - self.tokens.starts[first]) if scored else 0
                done = last
        return count, nats, size

    def of_union(self, places: Sequence[Found]) -> tuple[int, float]:
        """Return scored tokens and their loss in all places together, each token once."""
        change = np.zeros(len(self.scored), np.int64)
        for place in places:
            for first, last in self.rows(place.counted):
                change[first] += 1
                change[last] -= 1
        inside = np.cumsum(change)[:-1] > 0
        losses = self.tokens.loss_nats[inside]
        known = np.isfinite(losses)
        return int(known.sum()), float(losses[known].sum())


def excerpt(data: bytes, place: Found) -> str:
    """Return a place between marks with what stands around it, safe to print; no secret is whole.

    >>> excerpt("couldnâ€™t be".encode(), Found("mojibake", 6, 14, "UTF-8 read as Windows-1252"))
    'couldn⟦â€™⟧t be'
    """
    start, stop = place.start, place.stop
    first, last = max(0, start - AROUND_BYTES), min(len(data), stop + AROUND_BYTES)
    middle = (
        data[start:stop] if stop - start <= MIDDLE_BYTES else data[start : next_character(data, start + MIDDLE_BYTES)]
    )
    if place.cause in HIDDEN:
        middle = middle[: SHOWN if place.cause == "secret" else DATA_BYTES]
    shown = visible_bytes(without_secrets(middle))
    cut = "…" if len(middle) < stop - start else ""
    before = visible_bytes(data[next_character(data, first) : start])
    after = visible_bytes(data[stop : this_character(data, last)])
    return f"{before}{OPEN}{shown}{cut}{CLOSE}{after}"


def masked(data: bytes) -> bytes:
    """Return a text of the same length in which stars stand for all but the first bytes of every secret."""
    if without_secrets(data) is data:
        return data
    return SECRET.sub(lambda match: match[0][:SHOWN] + b"*" * (len(match[0]) - SHOWN), data)
