"""Decides when an audit must not stop early: with too few documents, or when a few documents decide the mean.

No interval sees what no scored document shows, and Student's t, early or late, misses too often on the side of a long
tail: with documents of skewness κ by about κ / √n · (2 q² + 1) φ(q) / 6, with φ the normal density (Hall 1992, The
Bootstrap and Edgeworth Expansion, §2.6); where κ / √n is `MOST_SKEW`, that is half of what the last look may miss.
Losses have no upper bound, and without one no method can do better. So an early look decides only where

- what single documents add to the estimate has a skewness, towards the limit, of at most `MOST_SKEW` √documents; for a
  fail, of as much beside what chance does;
- the mean losses of all documents of the text under the baseline are as little skewed, to either side: a change is
  likely to sit where documents are unlike the rest, and few of these may have been scored;
- for a pass, there are so many documents that one of a kind which makes up `RARE` of all is among them but for the risk
  of all early looks (72 at 95 %), and at least `PASS_SHARE` of the text, so that the same holds of a fault in 13
  documents, however large the text is. Fewer are enough where the limit is so far away that documents of such a kind
  would have to be worse by more than a document can be (`audit.checks.metrics.Metric.worst`).

A fail needs no such number of documents: it is wrong only where a few that were not scored are better by as much.
`tests/simulations/early_skew.py` says how often each is wrong with this rule and without, and what it costs.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.stats.confidence_sequence import EARLY_ERROR
from lossprobe.analysis.stats.resampling import Floats

MOST_SKEW = 0.1  # skewness over the root of the documents
CHANCE = 1.645  # standard errors of a normal sample's skewness
RARE = 0.05  # share of documents: a kind of them that a pass must not miss
PASS_SHARE = 0.25  # of the documents of the text


def skewness(values: npt.ArrayLike) -> Floats:
    """Return the skewness of values, m₃ / m₂^1.5 of their central moments.

    Args:
        values: [..., G], one a document, G at least 1.

    Returns:
        float64 [...]; 0 where all agree but for rounding.

    Where one of 20 documents differs, (1 − 2p) / √(p (1 − p)) with p = 1/20:

    >>> skewness(np.eye(20)[0]).round(4)
    np.float64(4.1295)
    """
    given = np.asarray(values, float)
    centred = given - given.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1)
    flat = variance <= (4.0 * np.finfo(float).eps) ** 2 * (given**2).mean(axis=-1)
    found: Floats = np.where(flat, 0.0, (centred**3).mean(axis=-1) / np.where(flat, 1.0, variance) ** 1.5)
    return found


def most_skewness(documents: int, *, passed: bool) -> float:
    """Return the largest skewness with which so many documents may decide.

    A fail may show as much more as 1 of 20 normal samples does, whose skewness varies by √(6 / n).

    >>> most_skewness(100, passed=True), round(most_skewness(100, passed=False), 3)
    (1.0, 1.403)
    """
    return MOST_SKEW * math.sqrt(documents) + (0.0 if passed else CHANCE * math.sqrt(6.0 / documents))


def documents_to_pass(confidence: float) -> int:
    """Return how many documents hold one of a kind that makes up `RARE` of all, but for the risk of early looks.

    >>> documents_to_pass(0.95), round(0.95**72, 4)
    (72, 0.0249)
    """
    return math.ceil(math.log(_risk(confidence)) / math.log1p(-RARE))


def beyond_doubt(distance: npt.ArrayLike, worst: float, documents: int, confidence: float) -> npt.NDArray[np.bool_]:
    """Return whether no kind of documents that is likely to have been missed could bring an estimate to its limit.

    Of n documents none is of a kind that makes up log(1/α) / n of all with probability α at most. Were these worse by
    `worst`, they would move the mean by worst · log(1/α) / n.

    Args:
        distance: of the estimate from the limit.
        worst: the most by which one document can be worse, in the same unit.
        documents: that were scored.
        confidence: of the audit.

    >>> beyond_doubt([2.0, 3.0], 10.0, 15, 0.95)  # 10 · 3.689 / 15 = 2.46
    array([False,  True])
    """
    found: npt.NDArray[np.bool_] = np.asarray(distance, float) * documents > -worst * math.log(_risk(confidence))
    return found


def _risk(confidence: float) -> float:
    """Return what all early looks of an audit spend."""
    return EARLY_ERROR * (1.0 - confidence)
