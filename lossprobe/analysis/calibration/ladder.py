"""The sampled rows of a run and their log-sum-exp at any temperature from 1/4 to 4, without the logits.

With β = 1/T and A(β) = log Σ exp(β z), a run stores A at 17 temperatures for a sample of its rows. Everything here is
said of the spread g(β) = A(β) − β max z ≥ 0, which has no large numbers in it, and of the token's distance δ below the
top logit, δ = max z − z(token) ≥ 0:

    loss = g(β) + β δ      confidence = exp(−g(β))      Σ p² = exp(g(2β) − 2 g(β))

Between the stored temperatures g is a spline in log β. The first two derivatives at T = 1 are stored as well, as
entropy H and varentropy W: dg/dlog β = g − H, d²g/dlog β² = g − H + W. So two quintic splines, one on either side of
T = 1, meet there with the right slope and curvature.

The spline is inexact where g bends sharply between two stored temperatures. For T from 0.4 to 2.5, and rows like those
of a language model, the mean of g was found right to 3e-7 nats with a vocabulary of 64, to 2e-6 with 2,048 and to 2e-5
with 50,257, a single row to 1e-3; beyond, all of it about ten times worse. Where every row has a large flat tail under
one top entry, at which label smoothing aims, they bend together, and with 50,257 entries the mean is off by 2e-3 there.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import BSpline, make_interp_spline

from lossprobe.analysis.rows.outcomes import BRIER, CORRECT, TOP_PROB, not_finite
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run

Integers = npt.NDArray[np.int64]

# The run stores T ascending, log_z_t0 at 1/4; here β ascends.
COLUMNS = tuple(f"log_z_t{index}" for index in reversed(range(17)))
LOG_BETA = tuple(step / 4 * math.log(2.0) for step in range(-8, 9))
ONE = LOG_BETA.index(0.0)
FEATURES = len(LOG_BETA) + 2
DEGREE = 5
ROUNDING = 1e-9  # in log β
COLDEST_BRIER = LOG_BETA[-1] - math.log(2.0) + ROUNDING  # T = 1/2: at half of it Σ p² needs A


@dataclass(frozen=True)
class LadderRows:
    """The sampled rows, in text order; S rows.

    Attributes:
        document, token: int64 [S], which token a row is.
        cluster: int64 [S], its cluster, as the expression `Clusters.sql` names it.
        loss_nats, entropy_nats, confidence, correct, brier: float64 [S], as stored, at T = 1.
        below_top_nats: float64 [S], δ: top logit minus the token's.
        spread: float64 [S, 19], g at `LOG_BETA`, then its first and second derivative by log β at T = 1.
    """

    document: Integers
    token: Integers
    cluster: Integers
    loss_nats: Floats
    entropy_nats: Floats
    confidence: Floats
    correct: Floats
    brier: Floats
    below_top_nats: Floats
    spread: Floats

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class LadderScores:
    """What the sampled rows say at other temperatures.

    Attributes:
        loss_nats, confidence: float64 [S].
        brier: float64 [S]; NaN at T < 1/2, where Σ p² would need a temperature below 1/4.
    """

    loss_nats: Floats
    confidence: Floats
    brier: Floats


def sampled_rows(run: Run, clusters: Clusters) -> LadderRows:
    """Return the rows of a run whose temperature ladder was kept; none where it holds another ladder than ours.

    Args:
        run: the run.
        clusters: what intervals resample.

    Raises:
        OutputError: a stored log-sum-exp is NaN or infinite, which scoring never writes.
    """
    held = run.query("SELECT * FROM ladder LIMIT 0").columns
    nothing = ", ".join(f"NULL::DOUBLE AS {name}" for name in COLUMNS)
    ladder = "ladder" if set(COLUMNS) <= set(held) else f"(SELECT document, token, {nothing} FROM ladder LIMIT 0)"
    frame = run.query(f"""
        SELECT document::BIGINT AS document, token, ({clusters.sql})::BIGINT AS cluster,
               loss_nats::DOUBLE AS loss, entropy_nats::DOUBLE AS entropy, {TOP_PROB} AS confidence,
               {CORRECT} AS correct, {BRIER} AS brier, greatest(0, -margin_nats::DOUBLE) AS below_top,
               varentropy::DOUBLE AS varentropy, {", ".join(COLUMNS)}
        FROM tokens JOIN {ladder} USING (document, token) WHERE unscored IS NULL ORDER BY document, token""")
    document, token, cluster = (frame[name].to_numpy(np.int64) for name in frame.columns[:3])
    log_z = frame[list(COLUMNS)].to_numpy(np.float64)
    wrong = ~np.isfinite(log_z).all(axis=1)
    if wrong.any():
        raise not_finite(run, f"document {document[wrong][0]}, token {token[wrong][0]}: a stored log-sum-exp")
    loss, entropy, confidence, correct, brier, below_top, varentropy = frame.iloc[:, 3:10].to_numpy(np.float64).T
    spread = spread_of(log_z, confidence, entropy, varentropy)
    return LadderRows(document, token, cluster, loss, entropy, confidence, correct, brier, below_top, spread)


def spread_of(log_z: Floats, confidence: Floats, entropy: Floats, varentropy: Floats) -> Floats:
    """Return float64 [S, 19], g of each row at `LOG_BETA` and its two derivatives at T = 1.

    Args:
        log_z: [S, 17], A at `LOG_BETA`, in nats.
        confidence: [S], probability of the top choice at T = 1.
        entropy: [S], at T = 1, in nats.
        varentropy: [S], at T = 1, in nats².
    """
    at_one = -np.log(confidence)
    top = log_z[:, ONE] - at_one
    slope = at_one - entropy
    return np.column_stack([log_z - np.exp(LOG_BETA) * top[:, None], slope, slope + varentropy])


def weights(log_beta: npt.ArrayLike, derivative: int = 0) -> Floats:
    """Return what turns the 19 numbers of `LadderRows.spread` into g, or its derivative by log β.

    Args:
        log_beta: [P], where; between −log 4 and log 4.
        derivative: its order.

    Returns:
        float64 [P, 19]; `spread @ weights.T` is [S, P].

    g = log 2 for two equal logits, at every temperature:

    >>> spread = np.array([math.log(2.0)] * 17 + [0.0, 0.0])
    >>> [round(float(value), 12) for value in weights([-1.0, 0.1]) @ spread]
    [0.69314718056, 0.69314718056]
    """
    at = np.atleast_1d(np.asarray(log_beta, np.float64))
    result = np.zeros((len(at), FEATURES))
    hot, cold = _splines()
    below = at < 0.0
    ends = [*range(len(LOG_BETA), FEATURES)]
    result[np.ix_(below, [*range(ONE + 1), *ends])] = hot(at[below], derivative)
    result[np.ix_(~below, [*range(ONE, len(LOG_BETA)), *ends])] = cold(at[~below], derivative)
    return result


@functools.cache
def _splines() -> tuple[BSpline, BSpline]:
    """Return the splines below and above β = 1 of eleven unit vectors: nine values of g, and two derivatives at 1."""
    size = ONE + 3
    values = np.eye(ONE + 1, size)
    derivatives = [(order, np.eye(size)[ONE + order]) for order in (1, 2)]
    hot, cold = np.split(np.array(LOG_BETA), [ONE])
    hot = np.append(hot, 0.0)
    before: Any = (None, derivatives)  # typed Any: the stubs know names of conditions only
    after: Any = (derivatives, None)
    # At the free ends "not a knot": no knot at the nodes next to them, as many as there are conditions elsewhere.
    knots_hot = np.r_[[hot[0]] * (DEGREE + 1), hot[3:-1], [0.0] * (DEGREE + 1)]
    knots_cold = np.r_[[0.0] * (DEGREE + 1), cold[1:-3], [cold[-1]] * (DEGREE + 1)]
    return (
        make_interp_spline(hot, values, DEGREE, t=knots_hot, bc_type=before),
        make_interp_spline(cold, values, DEGREE, t=knots_cold, bc_type=after),
    )


def tempered(rows: LadderRows, log_beta: Floats) -> LadderScores:
    """Return loss, confidence and Brier score of each row at a temperature of its own.

    Args:
        rows: the S sampled rows.
        log_beta: [S], −log T of each row.
    """
    spread = _spread_at(rows, log_beta)
    loss = spread + np.exp(log_beta) * rows.below_top_nats
    confidence, target = np.exp(-spread), np.exp(-loss)
    twice, coldest = log_beta + math.log(2.0), LOG_BETA[-1]
    sum_p2 = np.exp(_spread_at(rows, np.minimum(twice, coldest)) - 2.0 * spread)
    missed = np.expm1(-loss) ** 2  # as in `outcomes`: the others have between none of it and all
    brier = np.clip(sum_p2 - 2.0 * target + 1.0, missed, 2.0 * missed)
    return LadderScores(loss, confidence, np.where(log_beta <= COLDEST_BRIER, brier, np.nan))


def _spread_at(rows: LadderRows, log_beta: Floats) -> Floats:
    return np.asarray(np.maximum((weights(log_beta) * rows.spread).sum(axis=1), 0.0))
