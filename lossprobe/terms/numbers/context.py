"""What more context gains: the numbers of `positions`."""

from __future__ import annotations

from lossprobe.terms.term import number

NUMBERS = (
    number(
        "loss50_minus_loss500",
        "What more context gains: the mean loss with about 50 tokens of context minus that with about 500.",
        formula="mean loss with 45–55 tokens of context − mean loss with 450–550 (symmetric about 500 where the "
        "context ends earlier), over the documents or blocks that have both",
        unit="nats per token",
        how_to_read="Positive means that context helps. Both means are over the same documents: over all tokens it "
        "would also be a difference between long and short documents. A note says how many these are, if not all. "
        "Without a value the context is shorter than 501 tokens, or no document has both. Olsson et al. give it the "
        "other sign.",
        source="in-context learning score, Olsson et al. 2022",
        command="lossprobe positions",
        aliases=("early_range", "late_range"),
    ),
    number(
        "fit",
        "A power law through the mean loss by context: a + b (t + 1)^−α with t tokens of context.",
        formula="least squares over quarter-octave bins, each weighted by the standard error of its mean, from "
        "a jackknife over at most 20 groups of documents (or blocks)",
        unit="a and b in nats",
        how_to_read="It describes the curve and must not be extrapolated. Far fewer runs of residuals (consecutive "
        "bins on one side of the curve) than expected, or residuals along smooth waves that are farther from 0 than "
        "the documents differ (`residual_shape_p`), mean that the curve has another shape: where chance gives that in "
        "less than 1 % of fits, no fit is given, and a note tells the numbers and where the loss is off the curve. In "
        "100 documents of 512 tokens a step or a bump of 0.15 nats is found nearly always, one of 0.1 nats in about "
        "half of texts; what is smaller passes.",
        source="Kaplan et al. 2020; number of runs: Wald & Wolfowitz 1940; waves: Hotelling's T²",
        command="lossprobe positions --plot",
        aliases=("power_law", "alpha", "residual_runs", "residual_runs_expected", "residual_shape_p"),
    ),
)
