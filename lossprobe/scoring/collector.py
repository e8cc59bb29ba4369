"""Puts the results of batches back into text order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lossprobe.plan.part_scores import LADDER_TEMPERATURES, PartScores
from lossprobe.plan.rows import Rows
from lossprobe.scoring.head import HeadResult
from lossprobe.scoring.histogram import HistogramBins

BINS = HistogramBins()


class Collector:
    """Puts the results of batches, which are scored longest first, back into text order.

    Attributes:
        rows: the part.
        lead: number of rows before the part's first own row, which are context only.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.lead = int(np.argmax(rows.own))
        self._size = len(rows) - self.lead
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._histograms: dict[int, npt.NDArray[np.float64]] = {}
        self._ladders: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []

    def add(
        self,
        own: npt.NDArray[np.int64],
        documents: npt.NDArray[np.int64],
        sampled: npt.NDArray[np.int64],
        result: HeadResult,
    ) -> None:
        """Add the results of a batch.

        Args:
            own: int64 [N], the place of each scored row among the part's own rows.
            documents: the documents of the batch, in the order of the groups of `result`.
            sampled: the places of the rows whose ladder is kept.
            result: the measurements.
        """
        for name, values in result.columns.items():
            self._columns.setdefault(name, np.zeros(self._size, values.dtype))[own] = values
        for index, document in enumerate(documents):
            held = self._histograms.get(int(document), 0.0)
            self._histograms[int(document)] = held + result.histogram[:, index]
        if len(sampled):
            self._ladders.append((sampled, result.ladder))

    def finish(self) -> PartScores:
        """Return the scores of the part."""
        documents = sorted(self._histograms)
        histogram = [self._histograms[document] for document in documents]
        rows = np.concatenate([rows for rows, _ in self._ladders]) if self._ladders else np.empty(0, np.int64)
        ladder = (
            np.concatenate([part for _, part in self._ladders])
            if self._ladders
            else np.empty((0, len(LADDER_TEMPERATURES)))
        )
        order = np.argsort(rows)
        return PartScores(
            columns=self._columns,
            histogram_documents=np.array(documents, np.int64),
            histogram=np.stack(histogram, axis=1) if histogram else np.empty((3, 0, BINS.count)),
            ladder_rows=rows[order],
            ladder=ladder[order],
        )
