"""What became of each token over the checkpoints: learned, unstable, forgotten or never learned.

A token counts as below at a checkpoint where its loss is below a threshold (1 nat: a probability above 37 %). A
forgetting event is a pair of neighbouring checkpoints of which the first is below and the second is not; Toneva et al.
(2019, "An empirical study of example forgetting during deep neural network learning", ICLR) count them for examples
that a classifier gets right. Every scored token is in exactly one state:

    learned     below at the last checkpoint, without a forgetting event
    unstable    below at the last checkpoint, after one forgetting event or more
    forgotten   not below at the last checkpoint, but below at an earlier one
    never       below at no checkpoint
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.options import STATES as STATES
from lossprobe.analysis.stats.resampling import Floats

LEARNED, UNSTABLE, FORGOTTEN, NEVER = range(len(STATES))
NOT_LEARNED = -1


@dataclass(frozen=True)
class TokenStates:
    """The states of n tokens over K checkpoints.

    Attributes:
        so_far: int8 [K, n], the state as if the series ended at each checkpoint, a place in `STATES`; the last row is
            the state of the whole series.
        learned_at: int64 [n], the place of the first checkpoint from which on the token stays below; `NOT_LEARNED`
            where it is not below at the end.
        forgettings: int64 [n], its forgetting events.
    """

    so_far: npt.NDArray[np.int8] = field(repr=False)
    learned_at: npt.NDArray[np.int64] = field(repr=False)
    forgettings: npt.NDArray[np.int64] = field(repr=False)

    @property
    def last(self) -> npt.NDArray[np.int8]:
        """The state of each token over the whole series, int8 [n]."""
        state: npt.NDArray[np.int8] = self.so_far[-1]
        return state


def token_states(losses: Floats, learned_below: float) -> TokenStates:
    """Return the states of n tokens by their losses at K checkpoints, float64 [K, n] in nats.

    Four tokens at three checkpoints: one stays below 1 nat from the second on, one comes back, one is lost, one never
    gets there:

    >>> found = token_states(np.array([[2, 0.5, 0.5, 2], [0.5, 2, 2, 2], [0.5, 0.5, 2, 2.0]]), 1.0)
    >>> [STATES[state] for state in found.last], found.learned_at.tolist(), found.forgettings.tolist()
    (['learned', 'unstable', 'forgotten', 'never'], [1, 2, -1, -1], [0, 1, 1, 0])
    """
    below = losses < learned_below
    count = len(below)
    ever = np.logical_or.accumulate(below, axis=0)
    events = below[:-1] & ~below[1:]
    lost = np.zeros_like(below)
    np.logical_or.accumulate(events, axis=0, out=lost[1:])
    so_far = np.where(below, np.where(lost, UNSTABLE, LEARNED), np.where(ever, FORGOTTEN, NEVER)).astype(np.int8)
    last_above = np.where((~below).any(axis=0), count - 1 - (~below[::-1]).argmax(axis=0), -1)
    learned_at = np.where(below[-1], last_above + 1, NOT_LEARNED).astype(np.int64)
    return TokenStates(so_far, learned_at, events.sum(axis=0, dtype=np.int64))


def median_place(learned_at: npt.NDArray[np.int64], tokens: int) -> int | None:
    """Return the place of the first checkpoint from which on half of some tokens are below, or None.

    Args:
        learned_at: int64 [K], how many of the tokens are below from each checkpoint on, and not before.
        tokens: how many tokens there are; those that are not below at the end count as learned after all checkpoints.

    >>> median_place(np.array([1, 2, 3]), 6), median_place(np.array([1, 2, 3]), 13)
    (1, None)
    """
    reached = np.flatnonzero(2 * learned_at.cumsum() >= tokens)
    return int(reached[0]) if tokens and len(reached) else None
