"""Checkpoints of a training run: the numbers of `series`."""

from __future__ import annotations

from lossprobe.terms.term import number

SERIES = "lossprobe series CHECKPOINTS TEXT"

NUMBERS = (
    number(
        "learned_share",
        "The share of the tokens in each state up to a step: learned, unstable, forgotten, never learned.",
        formula="below: loss < --learned-below (1 nat, probability above 37 %); learned: below at the last checkpoint, "
        "and never above after the first time below; unstable: below at the last, but above in between; forgotten: "
        "below at some checkpoint, not at the last; never: below at none",
        unit="share of tokens",
        how_to_read="Every token is in exactly one state, so that the four shares add up to 1. A table by step has the "
        "shares as if the training had ended there.",
        source="forgetting events: Toneva et al. 2019",
        command=SERIES,
        aliases=("unstable_share", "forgotten_share", "never_share", "learned_below"),
    ),
    number(
        "forgettings",
        "How often a token was below the threshold at one checkpoint and not at the next.",
        formula="Σ over neighbouring checkpoints of 1{loss before < --learned-below ≤ loss after}; of a slice the sum "
        "over its tokens",
        unit="events",
        how_to_read="It depends on how many checkpoints there are: between two that are far apart a token may be "
        "forgotten and learned again.",
        source="Toneva et al. 2019, An empirical study of example forgetting, ICLR",
        command="lossprobe series CHECKPOINTS TEXT --by class",
    ),
    number(
        "median_step_learned",
        "The step from which on half of the tokens of a slice are below the threshold for good.",
        formula="the first step s at which at least half of the tokens are below at every checkpoint from s on; no "
        "value where fewer are below at the last checkpoint",
        unit="step",
        how_to_read="It says in which order slices are learned. The first checkpoint stands for all steps before it.",
        command="lossprobe series CHECKPOINTS TEXT --by class",
    ),
    number(
        "settled_at_step",
        "The first checkpoint that no later one is better than beyond noise.",
        formula="paired t-test over documents (or blocks) of every pair of checkpoints on the same tokens; p adjusted "
        "over all pairs by Holm's rule, 5 %",
        unit="step",
        how_to_read="The last checkpoint: the loss was still falling. It says nothing about texts of another kind.",
        source="Holm 1979, Scandinavian Journal of Statistics 6, 65-70",
        command=SERIES,
        aliases=("best_at_step", "worse_at_end"),
    ),
    number(
        "minus_bigram_nats",
        "The loss of a checkpoint minus that of a bigram model of the text itself; minus_unigram_nats of a unigram "
        "model.",
        formula="p(w) = (c(w) + T / V) / (N + T), p(w | u) = (c(u, w) + T(u) p(w)) / (N(u) + T(u)), with the counts c "
        "and N and the kinds T of the other nine of ten parts of the text, V entries in the vocabulary",
        unit="nats per token",
        how_to_read="Negative: the model knows more than which token follows which in this text. The counts are those "
        "of the text itself, which the model may never have seen.",
        source="Witten & Bell 1991, IEEE Transactions on Information Theory 37, 1085-1094",
        command=SERIES,
        aliases=("minus_unigram_nats", "better_from_step"),
    ),
)
