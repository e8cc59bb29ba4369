"""What each scored token says about the model's probabilities: SQL over `tokens`, and sums of it per cluster.

The event is top-1: x = `top_prob`, o = 1 where the first choice was the token. Beside it n = loss, H = entropy,
W = varentropy, and the Brier score over the vocabulary, Σ_v (p_v − 1{v = token})² = Σ p² − 2 p(token) + 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.errors import OutputError
from lossprobe.run.copies import NUMBERED
from lossprobe.run.reader import Run
from lossprobe.run.shown import shown_run

TARGET_PROB = "exp(-loss_nats::DOUBLE)"
MISS = f"(1 - {TARGET_PROB})"  # probability of every other entry
TOP_PROB = "top_prob::DOUBLE"
CORRECT = "(top_id = token_id)::INTEGER::DOUBLE"
TOP5 = "(rank + ties <= 5)::INTEGER::DOUBLE"  # a tie counts against the model
# Where p(token) is near 1 the float32 sum of p^2 cancels; but with q the probabilities of the others the score is
# (1 - p)^2 + sum of q^2, and the last lies between 0 and (sum of q)^2 = (1 - p)^2.
BRIER = f"least(greatest(sum_p2::DOUBLE - 2 * {TARGET_PROB} + 1, {MISS} ** 2), 2 * {MISS} ** 2)"
SCORED = "(SELECT * FROM tokens WHERE unscored IS NULL)"
FINITE = """(coalesce(isfinite(loss_nats + entropy_nats + varentropy + top_prob + sum_p2), FALSE)
             AND rank + ties + top_id IS NOT NULL)"""
ROUNDING_VARIANCE = 1e-10  # per token; a float32 loss or confidence is off by up to 1e-6, a tenth of its root

OUTCOMES = {
    "tokens": "1",
    "nats": "loss_nats::DOUBLE",
    "entropy": "entropy_nats::DOUBLE",
    "varentropy": "varentropy::DOUBLE",
    "confidence": TOP_PROB,
    "correct": CORRECT,
    "top5": TOP5,
    "brier": BRIER,
    "spread": f"{TOP_PROB} * (1 - {TOP_PROB})",
    "nats2": "loss_nats::DOUBLE ** 2",
    "excess2": "(loss_nats::DOUBLE - entropy_nats::DOUBLE) ** 2",
    "gap2": f"({TOP_PROB} - {CORRECT}) ** 2",
    "brier2": f"{BRIER} ** 2",
    "confidence2": f"{TOP_PROB} ** 2",
    "confidence_correct": f"{TOP_PROB} * {CORRECT}",
    "copies": "1",
}
# Each token counts as often as its text is there in the group: k copies of a deviation have k² times its variance.
TIMES_COPIES = ("varentropy", "spread", "copies")


def outcome_sums(
    run: Run, clusters: Clusters, key: str = "0", source: str = "tokens", where: str = "TRUE"
) -> pd.DataFrame:
    """Return the sums of every outcome over the scored tokens of each group and cluster, computed out of core.

    Args:
        run: the run.
        clusters: what intervals resample.
        key: SQL expression that names a row's group.
        source: SQL relation with the columns of `tokens`.
        where: SQL condition on its rows.

    Returns:
        One row per (key, cluster), in order, with the columns of `OUTCOMES` (float64; `tokens` is a count, `copies`
        the sum over them of how many copies of their text the group holds, as many without copies).

    Raises:
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    sums = ", ".join(f"sum({sql})::DOUBLE AS {name}" for name, sql in OUTCOMES.items())
    groups = f"{key} AS key, {clusters.sql} AS cluster"
    rows = f"{sums}, count(*) FILTER (NOT {FINITE}) AS broken FROM {source} WHERE unscored IS NULL AND {where}"
    if run.copies.documents == run.copies.distinct:
        frame = run.query(f"SELECT {groups}, {rows} GROUP BY ALL ORDER BY ALL")
    else:
        texts = f"SELECT {groups}, {NUMBERED} AS text, count(DISTINCT document) AS times, {rows} GROUP BY ALL"
        totals = ", ".join(f"sum({name}{' * times' * (name in TIMES_COPIES)}) AS {name}" for name in OUTCOMES)
        frame = run.query(f"""
            SELECT key, cluster, {totals}, sum(broken) AS broken FROM ({texts}) GROUP BY ALL ORDER BY ALL""")
    if frame["broken"].any():
        refuse_not_finite(run)
    return frame.drop(columns="broken")


def refuse_not_finite(run: Run, source: str = SCORED, finite: str = FINITE) -> None:
    """Name the first scored token with a number that is missing, NaN or infinite.

    Args:
        run: the run.
        source: SQL relation of scored rows, with `document` and `token`.
        finite: SQL condition on a row, true or false, that its numbers are finite.

    Raises:
        OutputError: there is one.
    """
    frame = run.query(f"SELECT document, token FROM {source} WHERE NOT {finite} ORDER BY document, token LIMIT 1")
    if len(frame):
        document, token = frame.iloc[0]
        raise not_finite(run, f"document {document}, token {token}: a stored number")


def not_finite(run: Run, what: str) -> OutputError:
    """Return the error that something stored in a run is missing, NaN or infinite, which scoring never writes."""
    return OutputError(
        "run.not_finite",
        f"{shown_run(run.path)}: {what} is not finite",
        hint="check it with lossprobe verify, and score again",
    )


def standard_errors(deviation: Floats, variance: Floats, tokens: Floats) -> Floats:
    """Return deviations in standard errors; NaN where predictions are so certain that rounding would decide.

    Args:
        deviation: sums over tokens of what is 0 on average for a calibrated model, of any shape.
        variance: what their variances would be, of the same shape.
        tokens: how many tokens each is a sum over.

    A deviation of 6 with the variance 9, and one of a single certain token:

    >>> standard_errors(np.array([6.0, 1e-6]), np.array([9.0, 1e-12]), np.array([100, 1])).tolist()
    [2.0, nan]
    """
    known = variance > ROUNDING_VARIANCE * tokens
    z: Floats = np.divide(
        deviation, np.sqrt(np.where(known, variance, 1.0)), out=np.full(known.shape, np.nan), where=known
    )
    return z
