"""Two models on one text: the numbers of `compare`."""

from __future__ import annotations

from lossprobe.terms.term import number

COMPARE = "lossprobe compare A B TEXT"
BY = "lossprobe compare A B TEXT --by class"
KL = "lossprobe compare A B TEXT --kl"

NUMBERS = (
    number(
        "mean_difference_nats",
        "How much higher the loss of the second model is on the same tokens.",
        formula="mean of loss(B) − loss(A), A being the first and B the second model",
        unit="nats per token",
        how_to_read="Positive when B is worse. No difference is shown where the interval contains 0, nor by a mean of "
        "at most 1e-6 nats, which is rounding.",
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
        "How much higher the share of tokens is that were the first choice of the second model.",
        formula="accuracy of B − accuracy of A, A being the first and B the second model",
        unit="share of tokens",
        how_to_read="Positive when B is better.",
        command=COMPARE,
    ),
    number(
        "correlation",
        "How alike the losses of both models are, token by token.",
        formula="Pearson's correlation over the tokens",
        unit="between −1 and 1",
        how_to_read="Near 1 pairing removes most of the noise of the text.",
        command=COMPARE,
    ),
    number(
        "sd_difference_nats",
        "How much the difference of the losses varies from token to token.",
        formula="standard deviation of loss(B) − loss(A) over the tokens",
        unit="nats",
        command=COMPARE,
    ),
    number(
        "p_value",
        "How often two equal models would differ as much on such a text.",
        formula="two-sided Student's t over documents (or blocks), clusters − 1 degrees of freedom",
        unit="probability",
        how_to_read="Small: chance alone rarely gives such a difference. It says nothing about how large the "
        "difference is.",
        source="Student 1908",
        command=COMPARE,
    ),
    number(
        "minimum_detectable_nats",
        "The least difference that such a text shows with 80 % power at the 5 % level.",
        formula="2.8 standard errors of mean_difference_nats",
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
        how_to_read="More than the text has: a text of this size misses such a change too often.",
        command=COMPARE,
    ),
    number(
        "tokens_to_decide",
        "How many tokens in all until the interval would exclude 0, if the mean stayed as it is.",
        formula="f · tokens, with the least f for which |mean difference| ≥ t(f G − 1) · SE / √f over G documents",
        unit="tokens",
        how_to_read="An even chance, since the mean moves as well. No value where the interval excludes 0 already.",
        command=COMPARE,
    ),
    number("tokens", "How many tokens were scored; in compare, by both models.", unit="tokens", command=COMPARE),
    number("left_out", "How many tokens only one of the models scored.", unit="tokens", command=COMPARE),
    number(
        "forgotten",
        "How many tokens went from a loss below 1 nat in the first model to above 3 nats in the second.",
        unit="tokens",
        command="lossprobe compare A B TEXT --by token",
    ),
    number(
        "learned",
        "How many tokens went from a loss above 3 nats in the first model to below 1 nat in the second.",
        unit="tokens",
        command="lossprobe compare A B TEXT --by token",
    ),
    number(
        "p_holm",
        "The p-value of a slice, adjusted over all slices that were tested, shown or not.",
        formula="the i-th smallest of m p-values times m − i + 1, at least the one before it, at most 1",
        unit="probability",
        how_to_read="Below 0.05: at most 5 % of texts without any difference show one such slice.",
        source="Holm 1979, Scandinavian Journal of Statistics 6, 65-70",
        command=BY,
    ),
    number(
        "contribution_nats",
        "What a slice adds to the mean difference.",
        formula="Σ (loss(B) − loss(A)) over the slice / number of all tokens",
        unit="nats per token",
        how_to_read="Over slices that cover every token once they add up to mean_difference_nats.",
        command=BY,
    ),
    number(
        "difference_bits_per_byte",
        "The difference of two models with different tokenizers, measured through the bytes of the text.",
        formula="the text is cut where both end a token; Σ loss(B) − Σ loss(A) between the cuts, in bits, over the "
        "bytes that both scored",
        unit="bits per byte",
        how_to_read="Positive when B is worse.",
        command=COMPARE,
        aliases=("first_bits_per_byte", "second_bits_per_byte"),
    ),
    number(
        "mean_kl_nats",
        "How far the predictions of B are from those of A: the mean KL divergence.",
        formula="Σ p_A log(p_A / p_B) over the vocabulary, mean over tokens; kl_nats_qN: its quantile N over tokens",
        unit="nats per token",
        how_to_read="0 for equal predictions. It sees changes that the loss of the text does not. llama.cpp prints it "
        "as Mean KLD, kl_nats_q0.99 as 99.0% KLD and kl_nats_q1 as Maximum KLD.",
        source="Kullback & Leibler 1951",
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
        how_to_read="1: greedy decoding would choose the same next token everywhere in this text. llama.cpp prints it "
        "as Same top p.",
        command=KL,
    ),
    number(
        "share_of_kl",
        "What share of the KL divergence of all tokens a slice holds.",
        formula="Σ KL over the slice / Σ KL over all tokens",
        how_to_read="Larger than the slice's share of the tokens: there the models differ more than on average.",
        command="lossprobe compare A B TEXT --kl --by class",
    ),
    number(
        "mean_target_prob_change",
        "How much the probabilities of the tokens themselves rose, on average.",
        formula="mean of p_B − p_A",
        unit="probability",
        how_to_read="Negative: the second model gives the text's own tokens less. llama.cpp prints it as Mean Δp.",
        command=KL,
    ),
    number(
        "rms_target_prob_change",
        "How much the probabilities of the tokens themselves changed.",
        formula="√ mean (p_B − p_A)²; target_prob_change_qN: quantile N of p_B − p_A over tokens",
        unit="probability",
        how_to_read="0 where both models give every token of the text the same probability.",
        command=KL,
        aliases=("target_prob_change_qN", "target_prob_change_percentiles"),
    ),
    number(
        "first_mean_loss",
        "The mean loss of the first model on the tokens of both; second_mean_loss is that of the second.",
        unit="nats per token",
        command=KL,
        aliases=("second_mean_loss",),
    ),
)
