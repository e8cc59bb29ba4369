"""The verdict on a gap between train and validation loss: which number decides, and its limits."""

from __future__ import annotations

from collections.abc import Sequence

from lossprobe.analysis.stats.interval import Interval

SMALL_SHARE = 0.01  # of the validation loss: a gap that is not shown to be larger does not count as one
LARGE_SHARE = 0.10  # of the validation loss: a gap that is shown to be larger is called over-fitting
NO_GAP, A_GAP, OVER_FITTED, UNDECIDED = "no gap shown", "a gap", "over-fitted", "cannot tell"

VERDICT_NOTE = (
    "verdict: from the smaller of the lower ends of gap_nats and gap_same_mix_nats, as a share of the validation loss: "
    f"up to {SMALL_SHARE:.0%} is “{NO_GAP}”, up to {LARGE_SHARE:.0%} “{A_GAP}”, above that “{OVER_FITTED}”"
)


def judge_gap(intervals: Sequence[Interval], validation_nats: float) -> str:
    """Return the verdict from the intervals of a gap and of the gap at the same mix of classes.

    The lower ends count, so that chance alone makes a gap in at most one of forty pairs of texts. The limits are
    conventions: .053 nats of 1.287 (4 %) is a normal gap, and a model that loses a tenth of its validation loss or more
    on text it has seen owes that to the text, not to the language.

    >>> judge_gap([Interval(0.02, 0.086)], 1.287), judge_gap([Interval(1.8, 2.0)], 2.1)
    ('a gap', 'over-fitted')
    """
    low = lower_end(intervals)
    if low is None:
        return UNDECIDED
    if low <= SMALL_SHARE * validation_nats:
        return NO_GAP
    return OVER_FITTED if low > LARGE_SHARE * validation_nats else A_GAP


def lower_end(intervals: Sequence[Interval]) -> float | None:
    """Return the number that decides: the smaller lower end of both intervals; None without that of the gap itself."""
    if intervals[0].low is None:
        return None
    return min(low for low, _ in intervals if low is not None)
