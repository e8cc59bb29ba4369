"""Groups of contexts and positions by powers of two: 1, 2 to 3, 4 to 7 and so on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.stats.resampling import Floats

Ints = npt.NDArray[np.int64]

OCTAVES = 32  # a context is an int32


def octaves(context: Floats) -> Ints:
    """Return the largest k with 2^k ≤ context, for contexts from 1 on.

    >>> octaves(np.array([1.0, 2, 3, 4, 1023, 1024])).tolist()
    [0, 1, 1, 2, 9, 10]
    """
    return np.frexp(context)[1].astype(np.int64) - 1


def octave_sql(column: str) -> str:
    """Return SQL for the largest k with 2^k ≤ position."""
    return f"CAST(floor(log2({column}) + 1e-12) AS INTEGER)"


def octave_name(key: int, longest: int) -> str:
    """Return the name of contexts from 2^key to 2^(key + 1) − 1, of which none is above the longest.

    >>> [octave_name(0, 256), octave_name(7, 256), octave_name(8, 256), octave_name(8, 300)]
    ['1', '128-255', '256', '256-300']
    """
    first, last = 2**key, min(2 ** (key + 1) - 1, longest)
    return str(first) if first == last else f"{first}-{last}"
