"""What the predicted distribution says by itself."""

from __future__ import annotations

from lossprobe.terms.term import number

NUMBERS = (
    number(
        "entropy",
        "How unsure the model says it is: the mean loss that it expects of its own prediction.",
        formula="E[−log p] under the predicted distribution; the varentropy is Var[log p]",
        unit="nats; the varentropy in nats²",
        how_to_read="High where many tokens could follow. Compare it with the loss: see nll_minus_entropy_nats.",
        command="lossprobe tokens",
    ),
)
