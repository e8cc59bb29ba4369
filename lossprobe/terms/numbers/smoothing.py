"""What label smoothing in training did: numbers of `calibration`."""

from __future__ import annotations

from lossprobe.terms.term import number

CALIBRATION = "lossprobe calibration"

NUMBERS = (
    number(
        "effective_smoothing",
        "The ε of label smoothing that the predictions look like, by three estimates.",
        formula="slope: 1 − 1 / slope of accuracy on confidence; tail: excess probability of "
        "unlikely entries; mode: V times the most frequent probability, V being the size of the vocabulary",
        how_to_read="“Consistent” only if the three agree within a factor 1.5. It describes the predictions, "
        "not how the model was trained: temperature, noise and distillation can look like smoothing, over-training can "
        "hide it. The limits were set on one small model.",
        command=CALIBRATION,
        aliases=(
            "epsilon",
            "slope_epsilon",
            "slope_epsilon_interval",
            "tail_epsilon",
            "mode_epsilon",
            "tail_iqr_nats",
            "tau",
        ),
    ),
    number(
        "nll_difference",
        "The loss of a model minus that of the first one on the same tokens, before and after each gets its own "
        "held-out temperature.",
        formula="mean of loss(model) − loss(first model)",
        unit="nats per token",
        how_to_read="Negative: this model is better. The bins below it are of the mean loss of both models.",
        command="lossprobe calibration A B TEXT",
        aliases=("smaller_nll",),
    ),
    number(
        "perplexity_inflation_bound",
        "The most by which label smoothing itself can raise the perplexity.",
        formula="1 / (1 − ε), ε as stated by --smoothing, else as the predictions show it",
        unit="ratio",
        how_to_read="A perplexity_ratio above it has another cause beside the smoothing.",
        command="lossprobe calibration A B TEXT",
    ),
)
