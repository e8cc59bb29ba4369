"""Whether a ranking of answers follows their length, apart from which answer is the chosen one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from lossprobe.analysis.stats.interval import Estimate, Interval
from lossprobe.analysis.stats.proportion import QUANTILE, newcombe, wilson

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
FEWEST = 4  # pairs for an interval of a rank correlation


@dataclass(frozen=True)
class LengthBias:
    """How a score follows the length of the answers, over the pairs whose answers differ in length.

    A ranking that follows the label alone is right as often where the chosen answer is the longer one as where it is
    the shorter one. So the difference of these two shares is what length adds; the share in which the longer answer
    wins depends on how often the chosen one is longer, too.

    Attributes:
        score: "sum" or "per token".
        pairs: pairs whose answers differ in length.
        longer_wins: share of them in which the longer answer has the higher score, and `longer_wins_interval`.
        right_where_longer: share ranked right among those whose chosen answer is the longer one, and
            `right_where_longer_interval`; None without such pairs.
        right_where_shorter: the same where it is the shorter one, and `right_where_shorter_interval`.
        length_bias: right_where_longer − right_where_shorter, and `length_bias_interval`: above 0 the score favours
            longer answers, below 0 shorter ones; None without pairs of both kinds.
        rank_correlation: Spearman's correlation of the difference in score with the difference in tokens, and
            `rank_correlation_interval`; None where one of them is always the same.
    """

    score: str
    pairs: int
    longer_wins: float | None
    longer_wins_interval: Interval
    right_where_longer: float | None
    right_where_longer_interval: Interval
    right_where_shorter: float | None
    right_where_shorter_interval: Interval
    length_bias: float | None
    length_bias_interval: Interval
    rank_correlation: float | None
    rank_correlation_interval: Interval

    @property
    def finding(self) -> str | None:
        """What is said of it: nothing unless the interval of `length_bias` leaves out 0."""
        low, high = self.length_bias_interval
        if low is None or high is None or low <= 0 <= high:
            return None
        assert self.longer_wins is not None
        assert self.right_where_longer is not None
        assert self.right_where_shorter is not None
        longer = low > 0
        share = self.longer_wins if longer else 1 - self.longer_wins
        return (
            f"length bias: by the {'sum' if self.score == 'sum' else 'mean per token'} the "
            f"{'longer' if longer else 'shorter'} answer wins in {share:.1%} of the pairs: right in "
            f"{self.right_where_longer:.1%} where the chosen one is longer, {self.right_where_shorter:.1%} where it is "
            f"shorter (difference {100 * (self.length_bias or 0):+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}])"
        )


def measure_length_bias(score: str, margin: Floats, longer: Floats, distinct: npt.NDArray[np.int64]) -> LengthBias:
    """Return how a score follows length.

    Args:
        score: "sum" or "per token".
        margin: float64 [N], score of the chosen answer minus that of the rejected one.
        longer: float64 [N], tokens of the chosen answer minus those of the rejected one.
        distinct: int64 [N], equal for copies of a pair, which intervals count once.
    """
    differ = longer != 0
    wins = np.where(longer > 0, margin > 0, margin < 0)
    wins_of, more, less = (
        share(event, chosen, distinct)
        for event, chosen in ((wins, differ), (margin > 0, longer > 0), (margin > 0, longer < 0))
    )
    bias = None if more is None or less is None else newcombe(more, less)
    correlation = rank_correlation(margin[differ], longer[differ], len(np.unique(distinct[differ])))
    return LengthBias(
        score,
        int(differ.sum()),
        *(part for each in (wins_of, more, less, bias, correlation) for part in _parts(each)),  # type: ignore[arg-type]
    )


def share(event: Flags, chosen: Flags, distinct: npt.NDArray[np.int64]) -> Estimate | None:
    """Return the share of chosen pairs with an event, with Wilson's interval over distinct pairs; None without any."""
    if not chosen.any():
        return None
    return wilson(float(event[chosen].mean()), len(np.unique(distinct[chosen])))


def rank_correlation(one: Floats, other: Floats, count: int) -> Estimate | None:
    """Return Spearman's rank correlation with the interval of Bonett & Wright 2000; None where one never changes.

    Args:
        one: float64 [N].
        other: float64 [N].
        count: how many independent pairs of values these are.

    >>> rank_correlation(np.arange(9.0), np.arange(9.0) ** 2, 9).value
    1.0
    """
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    value = float(np.clip(np.corrcoef(rankdata(one), rankdata(other))[0, 1], -1, 1))
    if count < FEWEST or abs(value) == 1:
        return Estimate(value)
    half = QUANTILE * math.sqrt((1 + value**2 / 2) / (count - 3))
    middle = math.atanh(value)
    return Estimate(value, Interval(math.tanh(middle - half), math.tanh(middle + half)))


def _parts(found: Estimate | None) -> tuple[float | None, Interval]:
    return (None, Interval(None, None)) if found is None else (found.value, found.interval)
