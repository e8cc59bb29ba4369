"""Confidence sequences: intervals that stay valid however often they are looked at, for audits that may stop early.

Looking at an ordinary 95 % interval after every few documents and stopping when it excludes a limit is wrong far more
often than in 5 % of all audits. A confidence sequence holds the truth at all looks at once, with probability 1 − α.
This one is Robbins' normal mixture: for documents of equal size with a known variance, let S_t be the sum of t of them,
in standard deviations. For every λ, exp(λ S_t − λ² t / 2) is a martingale of mean 1, and so is its mixture over
λ ~ N(0, ρ²),

    M_t = (1 + t ρ²)^−½ · exp(ρ² S_t² / (2 (1 + t ρ²)))

By Ville's inequality M_t ever reaches 1/α with probability α at most. Solved for the mean in standard errors, S_t / √t,

    q_t² = (1 + 1/r) · (log(1 + r) + 2 log(1/α))        with r = t ρ²

(Robbins 1970, Annals of Mathematical Statistics 41, 1397-1409). Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024,
Annals of Statistics 52, 2613-2640) show that q_t estimated standard errors are an asymptotic confidence sequence for
any mean with a finite variance: it may be wrong by what is negligible beside its width as the first look comes later.

Standard errors of few documents are too small too often. Here the mixture is therefore over the mean divided by the
unknown standard deviation (Wang & Ramdas 2023, arXiv:2310.03722, the Gaussian mixture), which is to q what Student's t
is to z: exact for independent normal documents of equal size, from two documents on, wider than q, and the same in
the limit. With n documents, k = 1 + n ρ² and A = (√k / α)^(2/n),

    Q_n² = (n − 1) (A − 1) / (1 − A / k)                where A < k; before that nothing can be shown, and Q is infinite

Documents of unequal size tell less about the variance: in the exponent and in n − 1, n is then Kish's effective number
(Σ tokens)² / Σ tokens², which only widens. ρ makes q smallest at a quarter of the documents; it is chosen before they
are scored, as it has to be.

An audit at confidence 1 − α spends α/2 on all early looks together, and α/2 on an ordinary jackknife-t interval of the
whole text. Both are about the documents' population, of which the text is a sample, and rest on documents in random
order, with a variance. Neither sees what no scored document shows: a fault that sits in a few documents only, so that
these are far out on one side, makes both miss more often than they say, and early looks most. That is why none comes
before a tenth of the text, and why `analysis.stopping` says where a look may decide nothing.
`tests/simulations/early_stopping.py` says how often the sequence alone is wrong, for many kinds of documents.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import lambertw, stdtrit

from lossprobe.analysis.stats.resampling import Floats

FEWEST = 10  # documents at the first look
FIRST_SHARE = 0.1  # of the documents at the first look
GROWTH = 1.2  # documents from look to look
LAST_EARLY = 0.9  # share of the documents after which only the whole text is looked at
TUNED_SHARE = 0.25  # of the documents, where the sequence is narrowest
EARLY_ERROR = 0.5  # share of the risk (1 less the confidence) that all early looks spend; the last one spends the rest


def looks(documents: int) -> list[int]:
    """Return after how many documents an audit looks; the last is all of them, and about a dozen come before it.

    >>> looks(102)
    [10, 12, 15, 18, 22, 27, 33, 40, 48, 58, 70, 84, 102]
    >>> looks(2000)[:3], looks(11), looks(1)
    ([200, 240, 288], [11], [1])
    """
    found, count = [], max(FEWEST, round(FIRST_SHARE * documents))
    while count < LAST_EARLY * documents:
        found.append(count)
        count = math.ceil(GROWTH * count)
    return [*found, documents]


def effective_clusters(tokens: npt.ArrayLike) -> Floats:
    """Return how many clusters of equal size tell as much about a variance (Kish 1965): (Σ tokens)² / Σ tokens².

    Args:
        tokens: [..., G], sizes of the clusters, not all 0: whatever the statistic is a mean over.

    Returns:
        float64 [...], between 1 and G.

    >>> float(effective_clusters([100, 100, 100])), float(effective_clusters([10, 20, 70]))
    (3.0, 1.8518518518518519)
    """
    sizes = np.asarray(tokens, float)
    effective: Floats = sizes.sum(axis=-1) ** 2 / (sizes**2).sum(axis=-1)
    return effective


def sequence_quantile(
    clusters: npt.ArrayLike, planned: int, confidence: float, effective: npt.ArrayLike | None = None
) -> Floats:
    """Return how many jackknife standard errors to each side hold the truth at all early looks at once.

    Args:
        clusters: documents scored so far.
        planned: documents of the whole text, known before; any number is valid, and this one makes it narrow in time.
        confidence: of the whole audit, between 0 and 1; the early looks miss with half of the rest.
        effective: `effective_clusters` of those scored so far; None for documents of equal size.

    Returns:
        float64 in the shape of the arguments; infinite where so few documents can show nothing. An estimate whose
        standard error is 0, as all that were scored agree, has no interval by this: it is no early decision.

    At 95 %, half of 5 % is α = 0.025. Tuned to t = 25 of 100 documents, r − log(1 + r) = 2 log 40 gives r = 9.7529,
    k = 1 + r, and with a known variance q = √(1 + r) = 3.2792. From 25 documents of equal size, A = (√k / α)^(2/25) =
    1.47715 and Q² = 24 · 0.47715 / (1 − A / k) = 13.2754; were they worth 12 of equal size, A = 2.25409 and
    Q² = 11 · 1.25409 / (1 − A / k) = 17.4537.

    >>> sequence_quantile(25, 100, 0.95).round(4), sequence_quantile(25, 100, 0.95, effective=12.0).round(4)
    (np.float64(3.6435), np.float64(4.1778))
    """
    count = np.asarray(clusters, float)
    given = count if effective is None else np.minimum(np.asarray(effective, float), count)
    known = np.maximum(given, 1.0)
    alpha = EARLY_ERROR * (1.0 - confidence)
    log_k = np.log1p(count * mixture_variance(planned, alpha))
    log_a = (log_k - 2.0 * np.log(alpha)) / known
    possible = log_a < log_k  # never from one document, as alpha is below 1
    short = np.where(possible, log_k - log_a, 1.0)  # by how much A is below k
    square = (known - 1.0) * np.expm1(np.where(possible, log_a, 0.0)) / -np.expm1(-short)
    quantile: Floats = np.where(possible, np.sqrt(square), np.inf)
    return quantile


def last_quantile(clusters: npt.ArrayLike, confidence: float) -> Floats:
    """Return the quantile of the last look, at the whole text: Student's t with what the early looks left to spend.

    Args:
        clusters: documents of the text.
        confidence: of the whole audit.

    Returns:
        float64 in the shape of `clusters`; NaN below two.

    At 95 % the interval of the whole text is one of 97.5 %:

    >>> last_quantile(102, 0.95).round(4)
    np.float64(2.2753)
    """
    freedom = np.asarray(clusters, float) - 1.0
    tail = (1.0 - EARLY_ERROR) * (1.0 - confidence) / 2.0
    quantile: Floats = np.where(freedom > 0, stdtrit(np.maximum(freedom, 1.0), 1.0 - tail), np.nan)
    return quantile


def mixture_variance(planned: int, alpha: float) -> float:
    """Return ρ², for which q is smallest at a quarter of the documents, but not before the first look can be.

    The minimum is where r − log(1 + r) = 2 log(1/α), which −W₋₁(−α²/e) − 1 solves.
    """
    r = -float(lambertw(-(alpha**2) / math.e, -1).real) - 1.0
    return r / max(float(FEWEST), TUNED_SHARE * planned)
