"""What each scored token says about the model's probabilities: SQL over `tokens`, and sums of it per cluster.

The event is top-1: x = `top_prob`, o = 1 where the first choice was the token. Beside it n = loss, H = entropy,
W = varentropy, and the Brier score over the vocabulary, Σ_v (p_v − 1{v = token})² = Σ p² − 2 p(token) + 1.
"""

from __future__ import annotations

import pandas as pd

from lossprobe.analysis.clusters import Clusters
from lossprobe.errors import OutputError
from lossprobe.run.reader import Run
from lossprobe.units import visible

TARGET_PROB = "exp(-loss_nats::DOUBLE)"
MISS = f"(1 - {TARGET_PROB})"  # probability of every other entry
CONFIDENCE = "top_prob::DOUBLE"
CORRECT = "(top_id = token_id)::INTEGER::DOUBLE"
TOP5 = "(rank + ties <= 5)::INTEGER::DOUBLE"  # a tie counts against the model
# Where p(token) is near 1 the float32 sum of p^2 cancels; but with q the probabilities of the others the score is
# (1 - p)^2 + sum of q^2, and the last lies between 0 and (sum of q)^2 = (1 - p)^2.
BRIER = f"least(greatest(sum_p2::DOUBLE - 2 * {TARGET_PROB} + 1, {MISS} ** 2), 2 * {MISS} ** 2)"
FINITE = "coalesce(isfinite(loss_nats + entropy_nats + varentropy + top_prob + sum_p2), FALSE)"

OUTCOMES = {
    "tokens": "1",
    "nats": "loss_nats::DOUBLE",
    "entropy": "entropy_nats::DOUBLE",
    "varentropy": "varentropy::DOUBLE",
    "confidence": CONFIDENCE,
    "correct": CORRECT,
    "top5": TOP5,
    "brier": BRIER,
    "spread": f"{CONFIDENCE} * (1 - {CONFIDENCE})",
    "nats2": "loss_nats::DOUBLE ** 2",
    "excess2": "(loss_nats::DOUBLE - entropy_nats::DOUBLE) ** 2",
    "gap2": f"({CONFIDENCE} - {CORRECT}) ** 2",
    "brier2": f"{BRIER} ** 2",
    "confidence2": f"{CONFIDENCE} ** 2",
    "confidence_correct": f"{CONFIDENCE} * {CORRECT}",
}


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
        One row per (key, cluster), in order, with the columns of `OUTCOMES` (float64; `tokens` is a count).

    Raises:
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    sums = ", ".join(f"sum({sql})::DOUBLE AS {name}" for name, sql in OUTCOMES.items())
    frame = run.query(f"""
        SELECT {key} AS key, {clusters.sql} AS cluster, {sums}, count(*) FILTER (NOT {FINITE}) AS broken
        FROM {source} WHERE unscored IS NULL AND {where} GROUP BY ALL ORDER BY ALL""")
    if frame["broken"].any():
        refuse_not_finite(run)
    return frame.drop(columns="broken")


def refuse_not_finite(run: Run) -> None:
    """Name the first scored token with a number that is missing, NaN or infinite.

    Raises:
        OutputError: there is one.
    """
    frame = run.query(f"""
        SELECT document, token FROM tokens WHERE unscored IS NULL AND NOT {FINITE}
        ORDER BY document, token LIMIT 1""")
    if len(frame):
        document, token = frame.iloc[0]
        raise OutputError(
            "run.not_finite",
            f"{visible(str(run.path), 200)}: document {document}, token {token}: a stored number is not finite",
            hint="check it with lossprobe verify, and score again",
        )
