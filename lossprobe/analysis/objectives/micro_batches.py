"""Compares the mean of micro-batch means, where all batches weigh the same, with the mean loss over all tokens.

Gradient accumulation, loader averages and loss curves often average the means of micro-batches. With n_k tokens and
mean L_k in micro-batch k,

    mean of means = Σ n_k L_k / Σ n_k − Cov_k(n_k, L_k) / mean n_k          (population covariance; exact)

Short micro-batches usually have higher loss (short texts, little context), so the mean of means usually reads high.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from lossprobe.run.reader import Run


def measure_micro_batches(run: Run, source: str, values: Mapping[str, str], sizes: Sequence[int]) -> pd.DataFrame:
    """Return, for each micro-batch size, the token mean of every value beside the mean of its micro-batch means.

    A micro-batch is N consecutive windows of the run, in order: windows 0 to N − 1, N to 2 N − 1, …, the last one with
    what is left. Windows are counted over the whole run and a document's last window has fewer tokens, which makes the
    sizes unequal; batches without a row of the source do not count.

    Args:
        run: the run.
        source: SQL relation of scored rows with a column `window`.
        values: name → SQL expression over the source.
        sizes: windows per micro-batch, each at least 1.

    Returns:
        One row per size and value: `windows` (per micro-batch), `batches`, `objective`, `mean` (token-weighted),
        `mean_of_means`, `covariance_term` (Cov_k(n_k, L_k) / mean n_k, which is mean − mean_of_means).

    Two windows of 3 tokens with mean 1 and of 1 token with mean 5: the token mean is (3 + 5) / 4 = 2, the mean of means
    3; n_k − 2 is (1, −1) and L_k − 3 is (−2, 2), so the covariance is −2, over mean n_k = 2 it is −1, and 2 − (−1) = 3.
    """
    sums = ", ".join(f"sum({sql}) AS s{index}" for index, sql in enumerate(values.values()))
    per_batch = ", ".join(f"sum(s{index}) AS s{index}" for index in range(len(values)))
    measures = ", ".join(
        f"sum(s{index}) / sum(n) AS mean{index}, avg(s{index} / n) AS means{index}, "
        f"covar_pop(n, s{index} / n) / avg(n) AS term{index}"
        for index in range(len(values))
    )
    branches = " UNION ALL ".join(
        f"SELECT {place} AS place, count(*) AS batches, {measures} "
        f"FROM (SELECT sum(n) AS n, {per_batch} FROM windows GROUP BY number // {int(size)})"
        for place, size in enumerate(sizes)
    )
    wide = run.query(f"""
        WITH windows AS MATERIALIZED (
            SELECT "window"::BIGINT AS number, count(*)::DOUBLE AS n, {sums} FROM {source} GROUP BY 1)
        SELECT * FROM ({branches}) ORDER BY place""")
    rows = [
        (size, int(row["batches"]), name, row[f"mean{index}"], row[f"means{index}"], row[f"term{index}"])
        for size, row in zip(sizes, wide.to_dict("records"), strict=True)
        for index, name in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["windows", "batches", "objective", "mean", "mean_of_means", "covariance_term"])
