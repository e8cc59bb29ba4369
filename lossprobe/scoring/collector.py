"""Puts the results of batches back into text order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lossprobe.plan.part_scores import LADDER_TEMPERATURES, PartScores
from lossprobe.plan.rows import Rows
from lossprobe.scoring.head import HeadResult
from lossprobe.scoring.histogram import HistogramBins

BINS = HistogramBins()


class NonFiniteLossError(ValueError):
    """The loss of a token is NaN or infinite; the caller names the token to the user.

    Attributes:
        row: index of its row in the part.
        loss: its loss.
    """

    def __init__(self, row: int, loss: float) -> None:
        super().__init__(f"row {row}: the loss is {loss}")
        self.row = row
        self.loss = loss


@dataclass(frozen=True)
class _Batch:
    """The arguments of `Collector.add`."""

    own: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.int64]
    result: HeadResult


class Collector:
    """Puts the results of batches, which are scored longest first, back into text order.

    Results of a GPU are read in `finish`, when they are there, so that it need not wait for the next batch.

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
        self._coming: list[_Batch] = []

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

        Raises:
            NonFiniteLossError: a loss is NaN or infinite; on a GPU `finish` raises it.
        """
        batch = _Batch(own, documents, sampled, result)
        if result.device.type == "cuda":
            self._coming.append(batch)
        else:
            self._put(batch)

    def _put(self, batch: _Batch) -> None:
        """Put the results of a batch, which are on the CPU, into their places."""
        losses = batch.result.columns["loss_nats"].numpy()
        wrong = np.flatnonzero(~np.isfinite(losses))
        if len(wrong):
            raise NonFiniteLossError(int(batch.own[wrong[0]]) + self.lead, float(losses[wrong[0]]))
        for name, tensor in batch.result.columns.items():
            values = tensor.numpy()
            self._columns.setdefault(name, np.zeros(self._size, values.dtype))[batch.own] = values
        histogram = batch.result.histogram
        spread = (BINS.from_whole(histogram) if histogram.dtype == torch.int64 else histogram).numpy()
        for index, document in enumerate(batch.documents):
            held = self._histograms.get(int(document), 0.0)
            self._histograms[int(document)] = held + spread[:, index]
        if len(batch.sampled):
            self._ladders.append((batch.sampled, batch.result.ladder.numpy()))

    def finish(self) -> PartScores:
        """Return the scores of the part; those of a GPU must have arrived.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
        """
        for batch in self._coming:
            self._put(batch)
        self._coming.clear()
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
