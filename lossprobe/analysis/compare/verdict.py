"""What a mean difference says about two models: which is better, that it is rounding, or nothing."""

from __future__ import annotations

from lossprobe.analysis.stats.interval import Interval

# Up to this a mean difference is rounding, as of one model on two processors: float32 numbers from 8 to 16 lie so far
# apart, and logits are of that size.
ROUNDING_NATS = 1e-6


def verdict(mean: float | None, interval: Interval, second: str) -> str:
    """Return "NAME is better", "NAME is worse", "no difference shown", or "no test was possible" without an interval.

    Args:
        mean: loss of the second model − loss of the first, in nats, averaged over the tokens.
        interval: its interval.
        second: name of the second model.
    """
    if interval.low is None or interval.high is None:
        return "no test was possible"
    if is_rounding(mean) or interval.low <= 0.0 <= interval.high:
        return "no difference shown"
    return f"{second} is {'worse' if interval.low > 0.0 else 'better'}"


def is_rounding(mean: float | None) -> bool:
    """Return whether a mean difference, in nats a token or bits a byte, says nothing about the models.

    >>> is_rounding(-6e-8), is_rounding(2e-5)
    (True, False)
    """
    return mean is not None and abs(mean) <= ROUNDING_NATS


def rounding_note(mean: float | None) -> list[str]:
    """Return a line that says so of a mean difference in nats; nothing of 0 and of other differences."""
    if not mean or not is_rounding(mean):
        return []
    return [f"a mean difference of {mean:.1e} nats is within rounding ({ROUNDING_NATS:g}) and shows nothing"]
