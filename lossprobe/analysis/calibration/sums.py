"""Every sum over scored tokens that the calibration of a run needs, from one reading of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.calibration.bins import equal_mass_edges, equal_width_edges
from lossprobe.analysis.calibration.measures import ErrorSums
from lossprobe.analysis.calibration.smooth_ece import GRID
from lossprobe.analysis.calibration.temperature_fit import sample_clusters
from lossprobe.analysis.calibration.vocabulary import vocabulary_sums
from lossprobe.analysis.rows.outcomes import OUTCOMES, outcome_sums, refuse_not_finite
from lossprobe.analysis.rows.scored_rows import CellSums, Ints, scored_rows
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run

# What numpy computes to the same last digit as SQL and in less time: products, and squares of float32 numbers, which
# are exact. Other powers are left to SQL, whose power of 2 now and then rounds otherwise than a product.
PRODUCTS = {
    "nats2": ("nats", "nats"),
    "confidence2": ("confidence", "confidence"),
    "confidence_correct": ("confidence", "correct"),
}
COUNTS = ("tokens", "copies")
COLUMNS = {name: sql for name, sql in OUTCOMES.items() if name not in (*COUNTS, *PRODUCTS, "spread")}
BINNED = ("confidence", "correct", "confidence2", "confidence_correct")
OF_SAMPLE = ("nats", "entropy")


@dataclass(frozen=True)
class CalibrationSums:
    """The sums of a run.

    Attributes:
        outcomes: what `outcomes.outcome_sums` returns for the clusters.
        sampled: the same for those of `temperature_fit.sample_clusters`, at least `cluster`, `tokens`, `nats` and
            `entropy`.
        binned: sums by bin.
    """

    outcomes: pd.DataFrame = field(repr=False)
    sampled: pd.DataFrame = field(repr=False)
    binned: ErrorSums = field(repr=False)


def read_sums(run: Run, clusters: Clusters) -> CalibrationSums:
    """Return the sums of a run by clusters, equal to the last digit to those of a query for each.

    Where documents are copies of others these queries are made: they weigh the copies.

    Raises:
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    merged = sample_clusters(run)
    if run.copies.documents != run.copies.distinct:
        return CalibrationSums(outcome_sums(run, clusters), outcome_sums(run, merged), ErrorSums.read(run, clusters))
    width, mass = equal_width_edges(), equal_mass_edges(run)
    outcomes, sampled = CellSums([name for name in OUTCOMES if name not in COUNTS]), CellSums(OF_SAMPLE)
    by_width, by_mass = CellSums(BINNED, len(width) + 1), CellSums(BINNED, len(mass) + 1)
    residuals = CellSums(("residual", "spread"), GRID)
    for rows in scored_rows(run, clusters, {**COLUMNS, "sum_p2": "sum_p2"}):
        values = _with_products(rows.values)
        confidence = values["confidence"]
        if not all(np.isfinite(values[name].sum()) for name in (*COLUMNS, "sum_p2")):
            refuse_not_finite(run)
        outcomes.add(rows.cluster, values)
        sampled.add(rows.cluster % merged.count if merged.count < clusters.count else rows.cluster, values)
        by_width.add(rows.cluster * (len(width) + 1) + numbers_of_bins(confidence, width), values)
        by_mass.add(rows.cluster * (len(mass) + 1) + numbers_of_bins(confidence, mass), values)
        cell = np.clip(confidence * GRID, 0, GRID - 1).astype(np.int64)
        residuals.add(rows.cluster * GRID + cell, values)
    return CalibrationSums(
        _frame(outcomes),
        _frame(sampled),
        ErrorSums(
            equal_width=by_width.stacked(),
            equal_mass=by_mass.stacked(),
            width_edges=width,
            mass_edges=mass,
            vocabulary=vocabulary_sums(run, clusters),
            residuals=residuals.stacked(),
        ),
    )


def numbers_of_bins(values: Floats, edges: Floats) -> Ints:
    """Return how many of the inner edges of bins each value reaches, int64 [n].

    >>> numbers_of_bins(np.array([0.0, 0.25, 1.0]), np.array([0.25, 0.5])).tolist()
    [0, 1, 2]
    """
    number = np.zeros(len(values), np.uint8)  # comparing with each of a few edges is faster than to search them
    for edge in edges:
        number += values >= edge
    return number.astype(np.int64)


def _with_products(values: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the values with what is computed from them."""
    confidence = values["confidence"]
    products = {name: values[one] * values[other] for name, (one, other) in PRODUCTS.items()}
    residual, spread = confidence - values["correct"], confidence * (1 - confidence)
    return {**values, **products, "residual": residual, "spread": spread}


def _frame(sums: CellSums) -> pd.DataFrame:
    """Return sums of clusters as `outcomes.outcome_sums` does."""
    present = sums.present()
    tokens = sums.tokens[present].astype(np.float64)
    columns = {"key": 0, "cluster": present, **{name: values[present] for name, values in sums.sums.items()}}
    frame = pd.DataFrame({**columns, **dict.fromkeys(COUNTS, tokens)})
    return frame[["key", "cluster", *(name for name in OUTCOMES if name in frame)]]
