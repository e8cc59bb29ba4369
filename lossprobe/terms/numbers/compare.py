"""Two models on one text: the numbers of `compare`.

In the formulas d is the loss of the second model minus that of the first on the same token.
"""

from __future__ import annotations

from lossprobe.terms.term import number

COMPARE = "lossprobe compare A B TEXT"
BY = "lossprobe compare A B TEXT --by class"
KL = "lossprobe compare A B TEXT --kl"

NUMBERS = (
    number(
        "mean_difference_nats",
        "How much higher the loss of the second model is on the same tokens.",
        formula="mean of loss(B) − loss(A)",
        unit="nats per token",
        how_to_read="Positive when B is worse. No difference is shown where the interval holds 0.",
        source="paired test over documents, Student's t",
        command=COMPARE,
        aliases=("difference_nats",),
    ),
    number(
        "perplexity_ratio",
        "The perplexity of the second over that of the first.",
        formula="exp(mean_difference_nats); of gap: exp(gap_nats)",
        unit="ratio",
        how_to_read="1.01 is 1 % more perplexity.",
        command=COMPARE,
    ),
    number(
        "accuracy_difference",
        "The share of tokens whose first choice was right, of B minus that of A.",
        unit="share of tokens",
        command=COMPARE,
    ),
    number(
        "correlation",
        "How alike the losses of both models are over the tokens (Pearson).",
        how_to_read="Near 1 pairing removes most of the noise of the text.",
        command=COMPARE,
    ),
    number(
        "sd_difference_nats",
        "The standard deviation of d over the tokens.",
        unit="nats",
        command=COMPARE,
    ),
    number(
        "p_value",
        "How often two equal models would differ as much on such a text.",
        formula="two-sided Student's t over documents (or blocks), clusters − 1 degrees of freedom",
        command=COMPARE,
    ),
    number(
        "minimum_detectable_nats",
        "The difference that such a text shows with 80 % power at the 5 % level.",
        formula="2.8 standard errors",
        unit="nats per token",
        how_to_read="A text with a larger one cannot decide a smaller difference: use more text.",
        command=COMPARE,
        aliases=("minimum_detectable",),
    ),
    number(
        "tokens_for_one_percent",
        "How many tokens of such a text show 1 % more perplexity with 80 % power.",
        formula="tokens · (minimum_detectable_nats / ln 1.01)²",
        unit="tokens",
        command=COMPARE,
    ),
    number(
        "tokens_to_decide",
        "How many tokens in all until the interval would exclude 0, if the mean stayed as it is.",
        unit="tokens",
        how_to_read="An even chance, since the mean moves as well. No value where the interval excludes 0 already.",
        command=COMPARE,
    ),
    number("tokens", "How many tokens were scored; in compare, by both models.", unit="tokens", command=COMPARE),
    number("left_out", "How many tokens only one of the models scored.", unit="tokens", command=COMPARE),
    number(
        "forgotten",
        "How many tokens went from below 1 nat to above 3.",
        unit="tokens",
        command="lossprobe compare A B TEXT --by token",
    ),
    number(
        "learned",
        "How many tokens went from above 3 nats to below 1.",
        unit="tokens",
        command="lossprobe compare A B TEXT --by token",
    ),
    number(
        "p_holm",
        "The p-value of a slice, adjusted over all slices that were tested, shown or not.",
        how_to_read="Below 0.05: at most 5 % of texts without any difference show one such slice.",
        source="Holm 1979, Scandinavian Journal of Statistics 6, 65-70",
        command=BY,
    ),
    number(
        "contribution_nats",
        "What a slice adds to the mean difference.",
        formula="Σ d of the slice / all tokens",
        unit="nats per token",
        how_to_read="Over a partition they sum to mean_difference_nats.",
        command=BY,
    ),
    number(
        "difference_bits_per_byte",
        "The difference of two models with other tokenizers, of B minus A.",
        formula="the text is cut where both end a token; each model's losses are summed between the cuts, over bytes "
        "that both scored",
        unit="bits per byte",
        how_to_read="Positive when B is worse.",
        command=COMPARE,
        aliases=("first_bits_per_byte", "second_bits_per_byte"),
    ),
    number(
        "mean_kl_nats",
        "How far the predictions of B are from those of A: the mean KL divergence.",
        formula="Σ p_A log(p_A / p_B) per token, mean over tokens; kl_nats_qN: its quantile N over tokens",
        unit="nats per token",
        how_to_read="0 for equal predictions. It sees changes that the loss of the text does not.",
        source="Kullback–Leibler divergence",
        command=KL,
        aliases=("kl_nats_qN", "kl_percentiles", "kl"),
    ),
    number(
        "infinite_kl_tokens",
        "Tokens where B gives probability 0 to an entry that A allows.",
        unit="tokens",
        how_to_read="One such token makes mean_kl_nats infinite, without an interval.",
        command=KL,
    ),
    number(
        "same_top_share",
        "The share of tokens on which both models have the same first choice.",
        unit="share of tokens",
        command=KL,
    ),
    number(
        "rms_target_prob_change",
        "How much the probabilities of the tokens themselves changed.",
        formula="√ mean (p_B − p_A)²; target_prob_change_qN: quantile N of p_B − p_A over tokens",
        unit="probability",
        command=KL,
        aliases=("target_prob_change_qN", "target_prob_change_percentiles"),
    ),
    number(
        "first_mean_loss",
        "The mean loss of the first model (second_mean_loss: of the second) on the same tokens.",
        unit="nats per token",
        command=KL,
        aliases=("second_mean_loss",),
    ),
)
