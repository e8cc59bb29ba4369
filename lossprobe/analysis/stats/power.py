"""Computes how many tokens a text needs to show a difference, from the standard error on a smaller text."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import ndtri

from lossprobe.analysis.stats.jackknife import CONFIDENCE, t_quantile

POWER = 0.80
DETECTABLE = float(ndtri((1 + CONFIDENCE) / 2) + ndtri(POWER))  # 2.80 standard errors
HOPELESS = 1e-6  # a mean of less than this many standard errors is no mean to decide about


def tokens_to_detect(nats: float, error: float | None, tokens: int) -> int | None:
    """Return how many tokens detect a difference with 80 % power at the two-sided 5 % level, None without an error.

    Args:
        nats: the mean difference to detect.
        error: standard error of the mean difference over `tokens` tokens; it holds variance and design effect.
        tokens: how many tokens it was found on.

    Independent differences with a variance of 1 nat² need (2.801585 / 0.00995033)² tokens for 1 % of perplexity:

    >>> tokens_to_detect(math.log(1.01), 0.01, 10_000)
    79275
    """
    if not error:
        return None
    return math.ceil(tokens * (DETECTABLE * error / nats) ** 2)


def tokens_to_decide(
    mean: float | None, error: float | None, tokens: int, clusters: int, confidence: float = CONFIDENCE
) -> int | None:
    """Return on how many tokens in all the interval would just exclude 0, were the mean to stay as it is.

    With f times the tokens there are f times the clusters, and the error is √f times smaller: the answer is the least
    f with |mean| ≥ t(f G − 1) · error / √f.

    Returns:
        the number; None where the interval excludes 0 already, or never would (mean or error 0 or
            not given, or a mean below a millionth of the error).

    A mean of half its standard error over 1,001 clusters needs (1.960118 / 0.5)² = 15.3683 times as many tokens:

    >>> tokens_to_decide(0.001, 0.002, 10_000, 1001)
    153683
    """
    if not mean or not error:
        return None
    ratio = abs(mean) / error

    def excess(factor: float) -> float:
        return ratio * math.sqrt(factor) - float(t_quantile(factor * clusters, confidence))

    if excess(1.0) > 0.0:
        return None
    if ratio < HOPELESS:
        return None
    most = (float(t_quantile(clusters, confidence)) / ratio) ** 2  # enough even for the few clusters there are
    factor = most if excess(most) <= 0.0 else float(brentq(excess, 1.0, most, rtol=1e-12))
    return math.ceil(factor * tokens)
