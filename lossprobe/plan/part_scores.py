"""What is measured of one part of a plan: plain arrays, whoever scores it and wherever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# 2^(j/4) from T = 1/4 to 4: with every T its half is on the ladder too, so Σ p² is known at each T ≥ 1/2.
STEPS_PER_OCTAVE = 4
LADDER_TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (step / STEPS_PER_OCTAVE) for step in range(-8, 9))


@dataclass(frozen=True)
class PartScores:
    """What was measured of one part.

    Attributes:
        columns: statistic → [N] over the part's own rows; 0 where unscored, which the store makes empty.
        histogram_documents: int64 [G], documents with scored rows, ascending.
        histogram: float64 [3, G, bins]; see `probability_histogram`.
        ladder_rows: int64 [S], own rows whose temperature ladder was kept, ascending.
        ladder: float64 [S, 17].
    """

    columns: dict[str, npt.NDArray[Any]]
    histogram_documents: npt.NDArray[np.int64]
    histogram: npt.NDArray[np.float64]
    ladder_rows: npt.NDArray[np.int64]
    ladder: npt.NDArray[np.float64]
