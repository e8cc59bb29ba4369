"""The results of a comparison through bytes: how much two models differ in bits per byte, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.compare.verdict import is_rounding
from lossprobe.analysis.stats.interval import Interval
from lossprobe.units import plural

CONTEXTS = "largest contexts: "  # how the note of both models' contexts begins


@dataclass(frozen=True)
class ByteCounts:
    """The text that a comparison rests on.

    Attributes:
        documents: documents with compared bytes.
        spans: compared spans.
        bytes_compared: UTF-8 bytes in them.
        bytes_left_out: reason → bytes that neither model is judged by: the reasons of `unscored` (the first in the
            alphabet where a span has several), "no_tokens" (a tokenizer made none of a document), "spans_are_a_guess"
            (its offsets do not tile the document). With `bytes_compared` they add up to the text.
    """

    documents: int
    spans: int
    bytes_compared: int
    bytes_left_out: dict[str, int]


@dataclass(frozen=True)
class ByteDifference:
    """How much two models differ on the same bytes.

    Attributes:
        first_bits_per_byte, second_bits_per_byte: of each model over the compared bytes.
        difference_bits_per_byte: second − first, and its interval.
        first_bytes_per_token, second_bytes_per_token: how far each tokenizer compresses the compared bytes.
        correlation: of the two models' bits, over spans.
    """

    first_bits_per_byte: float
    second_bits_per_byte: float
    difference_bits_per_byte: float
    difference_bits_per_byte_interval: Interval
    first_bytes_per_token: float
    second_bytes_per_token: float
    correlation: float | None


@dataclass(frozen=True)
class ByteEvidence:
    """The evidence of a text for a difference in bits per byte: test, interval and smallest detectable difference.

    Attributes:
        design_effect: variance of the difference over clusters, divided by that of independent spans.
        p_value: of no difference, two-sided, Student's t; 1 where the models do not differ at all.
        minimum_detectable: 2.8 standard errors: the difference, in bits per byte, that such a text shows with 80 %
            power.
    """

    design_effect: float | None
    p_value: float | None
    minimum_detectable: float | None


@dataclass(frozen=True)
class ByteComparison:
    """Two models on the same bytes; differences are second − first, so that a positive one says the second is worse.

    Intervals are 95 % delete-one jackknife-t over documents (more than 10,000 are merged into so many), in a single
    document over blocks of 16 KiB. A number is None (NaN in a frame) where it cannot be given.

    Attributes:
        first, second: names of the models, distinct.
        counts: the bytes that are compared, and those left out.
        difference: how much the models differ.
        evidence: how sure that is.
        interval_unit: "document" or "block", and `clusters`, how many of them the intervals resample.
        largest: the spans that changed most, increases first and then decreases, each with the largest first: document,
            byte_start, byte_stop, text (at most 120 characters; empty without a stored text), first_bits, second_bits,
            difference_bits.
        by_cut: where the difference comes from, one row for each kind of cut: cut, spans, bytes, share_of_bytes,
            first_bits_per_byte, second_bits_per_byte, difference_bits_per_byte, low, high, contribution_bits_per_byte
            (difference · share; they sum to the whole difference).
        by_file: the files of the text, where there are several: file, documents, bytes, share_of_bytes,
            first_bits_per_byte, second_bits_per_byte, difference_bits_per_byte, low, high, clusters; empty otherwise.
        notes: what a reader must know, one line each.
        table: one row per measure: measure, value, low, high, unit.
    """

    first: str
    second: str
    counts: ByteCounts
    difference: ByteDifference
    evidence: ByteEvidence
    interval_unit: str
    clusters: int
    largest: pd.DataFrame = field(repr=False)
    by_cut: pd.DataFrame = field(repr=False)
    by_file: pd.DataFrame = field(repr=False)
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        difference, interval = (
            self.difference.difference_bits_per_byte,
            self.difference.difference_bits_per_byte_interval,
        )
        low, high = interval
        clear = low is not None and high is not None and not low <= 0.0 <= high and not is_rounding(difference)
        lower = self.first if difference > 0 else self.second
        verdict = f" ({lower} is lower)" if clear else " (not clear which is lower)" if difference else ""
        if low is None:
            verdict = " (no test was possible)"
        over = plural(self.counts.bytes_compared, "byte")
        ends = interval.shown("+.4f")
        return f"{self.second} − {self.first}: {difference:+.4f} bits per byte {ends} over {over}{verdict}"
