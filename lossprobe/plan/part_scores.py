"""The measurements of one part of a plan, as plain arrays that can be sent between processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# T = 2^(j/4) from 1/4 to 4. The half of every T ≥ 1/2 is on the ladder too, and log Σ p² at T follows from both:
# it is lse(z / (T/2)) - 2 lse(z / T), with lse the log-sum-exp.
STEPS_PER_OCTAVE = 4
LADDER_TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (step / STEPS_PER_OCTAVE) for step in range(-8, 9))


@dataclass(frozen=True)
class RoutingSums:
    """What the load-balancing loss of a mixture of experts is made of, for each of W windows; see `run.schema`.

    Attributes:
        document, window, tokens: int64 [W], in ascending order of the windows.
        probability: float64 [W, L, E], sums of the probabilities of the E experts in the L routers.
        slots: int64 [W, L, E], tokens for which each expert was chosen.
    """

    document: npt.NDArray[np.int64]
    window: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    slots: npt.NDArray[np.int64]


@dataclass(frozen=True)
class PartScores:
    """The measurements of one part.

    Attributes:
        columns: name of a statistic → its values, [N] over the part's own rows; 0 for unscored rows, which the store
            writes as missing.
        histogram_documents: int64 [G], numbers of the documents with scored rows, ascending.
        histogram: float64 [3, G, bins]; see `scoring.histogram.probability_histogram`.
        ladder_rows: int64 [S], indices of the own rows whose temperature ladder was kept, ascending.
        ladder: float64 [S, 17], log-sum-exp(z / T) at `LADDER_TEMPERATURES`.
        routing: sums of the routers of a mixture of experts; None for other models.
    """

    columns: dict[str, npt.NDArray[Any]]
    histogram_documents: npt.NDArray[np.int64]
    histogram: npt.NDArray[np.float64]
    ladder_rows: npt.NDArray[np.int64]
    ladder: npt.NDArray[np.float64]
    routing: RoutingSums | None = None


def joined(shares: Sequence[PartScores]) -> PartScores:
    """Return the scores of a part of which each of several processes has measured some rows, and left 0 for the others.

    Sums over the routers, which all processes have alike, are those of the first.
    """
    names = list(dict.fromkeys(name for each in shares for name in each.columns))
    columns = {name: np.sum([each.columns[name] for each in shares if name in each.columns], axis=0) for name in names}
    documents = np.unique(np.concatenate([each.histogram_documents for each in shares]))
    histogram = np.zeros((3, len(documents), shares[0].histogram.shape[-1]))
    for each in shares:
        histogram[:, np.searchsorted(documents, each.histogram_documents)] += each.histogram
    rows = np.concatenate([each.ladder_rows for each in shares])
    ladder = np.concatenate([each.ladder for each in shares])
    order = np.argsort(rows)
    return PartScores(columns, documents, histogram, rows[order], ladder[order], shares[0].routing)
