"""Sums over the spans of two tokenizations, and the statistics that are functions of them.

Over the spans i of b_i bytes, with d_i = second − first in bits, the difference in bits per byte is

    r = Σ d_i / Σ b_i        variance if spans were independent: n / (n − 1) · Σ (d_i − r b_i)² / (Σ b_i)²
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd

from lossprobe.analysis.compare.byte_spans import SharedText, Spans
from lossprobe.analysis.rows.paired import Ints
from lossprobe.analysis.stats.group_means import GroupMeans
from lossprobe.analysis.stats.interval import Estimate
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.units import NATS_PER_BIT

BLOCK_BYTES = 16_384
MOST_CLUSTERS = 10_000
CUTS = ("one token in both", "split by the first only", "split by the second only", "split by both")
ROUNDING = 1e-12  # a variance smaller than this share of its sum of squares is none


class SpanSums:
    """Sums over the spans that both models scored, and the bytes of the others.

    Attributes:
        unit: what intervals resample: "document", or "block" where both scored something in one text only.
        spans: int64 [4], compared spans by `CUTS`.
        tokens: int64 [2], scored tokens of each model in them.
        left_out: reason → bytes that are not compared.
        seen: bytes of all spans, compared or not.
    """

    def __init__(self, text: SharedText, top: int) -> None:
        """Start from nothing.

        Args:
            text: the text that is cut.
            top: most spans kept as increased, and as decreased.
        """
        texts, cluster = np.unique(text.texts[text.scored], return_inverse=True)
        self.unit = "document" if len(texts) > 1 else "block"
        self.spans, self.tokens = np.zeros(len(CUTS), np.int64), np.zeros(2, np.int64)
        self.left_out: Counter[str] = Counter(text.left_out)
        self.seen = 0
        self._reasons, self._top = text.reasons, top
        self._last_block = max(
            0, int(text.sizes[text.scored].max(initial=0)) // BLOCK_BYTES - 1
        )  # it takes what is left over
        self._cluster = np.zeros(len(text.sizes), np.int64)
        self._cluster[text.scored] = cluster % MOST_CLUSTERS
        count = int(self._cluster.max(initial=0)) + 1 if self.unit == "document" else self._last_block + 1
        self._sums = np.zeros((count, len(CUTS), 3))  # nats of the first and of the second model, and bytes
        self._of_document = np.zeros((len(text.sizes), 3))  # likewise
        # of first bits, second bits, their difference, and bytes
        self._moments, self._products = np.zeros(4), np.zeros((4, 4))
        self._up, self._down = np.empty((0, 5)), np.empty((0, 5))

    def add(self, spans: Spans) -> None:
        """Add consecutive spans."""
        size = spans.stop - spans.start
        self.seen += int(size.sum())
        counted = spans.unscored == 0
        self._leave_out(size[~counted], spans.unscored[~counted])
        document, start, size = spans.document[counted], spans.start[counted], size[counted]
        nats, tokens = spans.nats[:, counted], spans.tokens[:, counted]
        cut = (tokens[0] > 1) + 2 * (tokens[1] > 1)
        blocks = np.minimum(start // BLOCK_BYTES, self._last_block)
        cell = (self._cluster[document] if self.unit == "document" else blocks) * len(CUTS) + cut
        shape = self._sums.shape[:2]
        for index, weight in enumerate((*nats, size)):
            self._of_document[:, index] += np.bincount(document, weight, len(self._of_document))
            self._sums[..., index] += np.bincount(cell, weight, shape[0] * shape[1]).reshape(shape)
        self.spans += np.bincount(cut, minlength=len(CUTS))
        self.tokens += tokens.sum(axis=1)
        first, second = nats / NATS_PER_BIT
        rows = np.stack([first, second, second - first, size])
        self._moments += rows.sum(axis=1)
        self._products += np.einsum("in,jn->ij", rows, rows)  # not BLAS: the same digits on any number of threads
        found = np.stack([document, start, start + size, first, second], axis=1)
        self._up = _extremes(self._up, found, 1, self._top)
        self._down = _extremes(self._down, found, -1, self._top)

    def _leave_out(self, size: Ints, unscored: Ints) -> None:
        """Count the bytes of spans under the first of their reasons."""
        for code, reason in enumerate(self._reasons):
            chosen = (unscored & -unscored) == 1 << code
            if chosen.any():
                self.left_out[reason] += int(size[chosen].sum())

    @property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return bool(np.isfinite(self._sums).all())

    @property
    def documents(self) -> int:
        """Documents with compared bytes."""
        return int((self._of_document[:, 2] > 0).sum())

    @property
    def clusters(self) -> int:
        """Documents or blocks with compared bytes, at most 10,000 documents."""
        return int((self._sums[..., 2].sum(axis=1) > 0).sum())

    def size(self, cut: int | None = None) -> int:
        """Return the compared bytes, of all spans or of one of `CUTS`."""
        return int(self._chosen(cut)[:, 2].sum())

    @property
    def bytes_per_token(self) -> list[float]:
        """Compared bytes per token of each model."""
        return [self.size() / int(tokens) for tokens in self.tokens]

    def bits_per_byte(self, cut: int | None = None) -> tuple[Estimate, Estimate, Estimate]:
        """Return bits per byte of the first and the second model, and their difference; NaN without bytes."""
        chosen = self._chosen(cut)
        first, second, size = chosen[chosen[:, 2] > 0].T
        if not len(size):
            nothing = Estimate(math.nan)
            return nothing, nothing, nothing
        one, other, difference = (
            jackknife_ratio(nats / NATS_PER_BIT, size) for nats in (first, second, second - first)
        )
        return one, other, difference

    def by_group(self, group: Ints) -> pd.DataFrame:
        """Return the difference of groups of documents in bits per byte, with its interval over documents.

        Args:
            group: int64 [D], the group of each document, from 0.

        Returns:
            one row per group with compared bytes, in order: row (its number), documents, bytes, first_bits_per_byte,
            second_bits_per_byte, difference_bits_per_byte, low, high (NaN with fewer than two clusters), clusters.
        """
        first, second, size = self._of_document.T
        means = GroupMeans(group, self._cluster, size)
        table = means.table((second - first) / NATS_PER_BIT, "difference_bits_per_byte")
        table = table.rename(columns={"tokens": "bytes"})
        held, rows = size > 0, table["row"].to_numpy()
        sums = [np.bincount(group[held], values[held])[rows] for values in (first, second, np.ones_like(size))]
        names = ("first_bits_per_byte", "second_bits_per_byte")
        for name, nats in zip(names, sums, strict=False):
            table[name] = nats / NATS_PER_BIT / table["bytes"]
        table["documents"] = sums[2].astype(np.int64)
        return table[["row", "documents", "bytes", *names, "difference_bits_per_byte", "low", "high", "clusters"]]

    def contribution(self, cut: int) -> float:
        """Return what the spans of one of `CUTS` add to the difference in bits per byte."""
        first, second, _ = self._chosen(cut).sum(axis=0)
        return float((second - first) / NATS_PER_BIT / self._chosen(None)[:, 2].sum())

    def correlation(self) -> float | None:
        """Return Pearson's correlation of the models' bits over spans; None where one of them does not vary."""
        count = int(self.spans.sum())
        means, squares = self._moments[:2] / count, self._products[:2, :2] / count
        covariance = squares - np.outer(means, means)
        if (np.diag(covariance) <= ROUNDING * np.diag(squares)).any():
            return None
        return float(np.clip(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]), -1.0, 1.0))

    def design_effect(self) -> float | None:
        """Return the variance of the difference over clusters by that of independent spans; None where none varies."""
        chosen, spans = self._chosen(None), int(self.spans.sum())
        difference, size = (chosen[:, 1] - chosen[:, 0]) / NATS_PER_BIT, chosen[:, 2]
        ratio = float(difference.sum() / size.sum())
        squares = self._products[2, 2] - 2 * ratio * self._products[2, 3] + ratio**2 * self._products[3, 3]
        if self.clusters < 2 or squares <= ROUNDING * self._products[2, 2]:
            return None
        over_clusters = self.clusters / (self.clusters - 1) * ((difference - ratio * size) ** 2).sum()
        return float(over_clusters / (spans / (spans - 1) * squares))

    def largest(self) -> Floats:
        """Return float64 [k, 5] of the largest increases and then decreases, each with the largest first.

        Columns: document, first byte, end, bits of the first and of the second model.
        """
        return np.concatenate([self._up, self._down])

    def _chosen(self, cut: int | None) -> Floats:
        """Return [clusters, 3]: nats of both models, and bytes."""
        chosen: Floats = self._sums.sum(axis=1) if cut is None else self._sums[:, cut]
        return chosen


def _extremes(old: Floats, new: Floats, sign: int, top: int) -> Floats:
    """Return the `top` rows with the largest change in one direction, the largest first, ties in text order."""
    change = sign * (new[:, 4] - new[:, 3])
    least = np.partition(change, -top)[-top] if 0 < top < len(change) else 0.0
    rows = np.concatenate([old, new[(change > 0) & (change >= least)]])
    order = np.lexsort((rows[:, 1], rows[:, 0], -sign * (rows[:, 4] - rows[:, 3])))
    return rows[order[:top]]
