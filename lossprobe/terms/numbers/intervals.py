"""How far a number would move over other texts."""

from __future__ import annotations

from lossprobe.terms.term import number

NUMBERS = (
    number(
        "interval",
        "The 95 % interval of a number: where it would lie for other texts of the same kind.",
        formula="estimate ± t(G − 1) · SE, SE² = (G − 1) / G · Σ (θ_(c) − mean θ_(·))² over G documents, where "
        "θ_(c) is the number without document c and t(G − 1) the 97.5 % quantile of Student's t",
        unit="that of the number",
        how_to_read="In a single document blocks of 4,096 tokens are left out, and the interval is a lower bound on "
        "the width; a note says so. It says nothing about other training runs. Single tokens are never resampled: "
        "neighbours are correlated.",
        source="delete-one jackknife with Student's t: Miller 1974; Efron & Tibshirani 1993, ch. 11",
        command="lossprobe perplexity",
        aliases=("low", "high", "interval_unit", "clusters"),
    ),
    number(
        "design_effect",
        "How much more the mean varies over documents than over as many independent tokens.",
        formula="variance of the mean over documents / variance of independent tokens",
        unit="ratio",
        how_to_read="Its square root says how many times too narrow an interval over single tokens would be.",
        command="lossprobe calibration",
    ),
)
