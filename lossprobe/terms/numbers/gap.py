"""Train against validation loss: the numbers of `gap`."""

from __future__ import annotations

from lossprobe.terms.term import number

GAP = "lossprobe gap MODEL TRAIN VALIDATION"

NUMBERS = (
    number(
        "gap_nats",
        "How much higher the validation loss is than the training loss.",
        formula="validation loss − training loss; interval: difference ± t(ν) √(s₁² + s₂²), with the jackknife errors "
        "s₁, s₂ of both texts and ν = (s₁² + s₂²)² / (s₁⁴ / (G₁ − 1) + s₂⁴ / (G₂ − 1))",
        unit="nats per token",
        how_to_read="A gap cannot be told from a validation text that is harder for another reason: take both from one "
        "source, and see gap_same_mix_nats.",
        source="unpaired interval: Welch 1947, Satterthwaite",
        command=GAP,
    ),
    number(
        "gap_share",
        "The gap as a share of the validation loss.",
        formula="gap_nats / validation loss",
        unit="share",
        how_to_read="0.05: the training loss is 5 % lower than the validation loss.",
        command=GAP,
    ),
    number(
        "gap_same_mix_nats",
        "The gap where both texts had the same mix of token classes.",
        formula="Σ_k w_k (v_k − t_k) over the classes k of tokens (word starts, punctuation, …), w_k their share of "
        "the validation text, v_k and t_k their validation and training loss",
        unit="nats per token",
        how_to_read="gap_nats minus this is what a different mix explains.",
        command=GAP,
    ),
    number(
        "gap_by_frequency",
        "The gap of tokens grouped by how often they occur in the training text, outside their own document.",
        unit="nats per token",
        how_to_read="A gap in the rare groups alone points at entries known by heart. The own document is left out "
        "because a validation token's document is never in the training text: counted, rare training tokens would "
        "look hard even to a model that has learned nothing.",
        command=GAP,
        aliases=("frequency",),
    ),
    number(
        "verdict",
        "What gap, compare, selfcheck or an audit concludes.",
        formula="gap: from the lower ends of gap_nats and gap_same_mix_nats, both: at most 1 % of the validation loss "
        "“no gap shown”, above 10 % “over-fitted”, between them “a gap”; without an interval “cannot tell”",
        how_to_read="The limits are conventions. One checkpoint shows how much better the model knows its training "
        "text, not whether training went on too long: for that, look for a validation loss that rises again over "
        "training.",
        command=GAP,
    ),
    number(
        "memorised",
        "Documents that the model knows by heart.",
        formula="at least 32 scored tokens and a mean loss below 0.1 nats per token (90 % a token)",
        unit="documents, tokens",
        how_to_read="In a validation text these are copies of training text, or text that anybody could foresee.",
        command=GAP,
        aliases=("judged_documents", "short_documents", "share_of_documents"),
    ),
)
