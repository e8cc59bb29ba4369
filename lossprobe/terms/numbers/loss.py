"""Loss, perplexity and bits, and which tokens and bytes they are over."""

from __future__ import annotations

from lossprobe.terms.term import number

PERPLEXITY = "lossprobe perplexity"

NUMBERS = (
    number(
        "nll",
        "The loss: the mean of −log p(token) over the scored tokens.",
        formula="Σ −log p(token) / scored tokens; −log p(token) = (max z − z_token) + log1p(Σ_others exp(z − max z)), "
        "from float32 logits z, summed in float64",
        unit="nats per token",
        how_to_read="Lower is better. It compares models only with the same tokenizer, text, windows and BOS; between "
        "tokenizers use bits_per_byte.",
        command=PERPLEXITY,
        aliases=("loss", "nll_nats", "nll_nats_per_token", "nats_per_token", "mean_loss_nats"),
    ),
    number(
        "token_perplexity",
        "How many equally likely tokens the model hesitates between, on average.",
        formula="exp(Σ loss / scored tokens)",
        unit="per token",
        how_to_read="Lower is better. The exponential of a label-smoothed loss is no perplexity.",
        command=PERPLEXITY,
        aliases=("perplexity", "ppl"),
    ),
    number(
        "word_perplexity",
        "The perplexity per word, a word being a run without white space.",
        formula="exp(Σ loss / words)",
        unit="per word",
        how_to_read="Comparable between tokenizers. Words say little for languages without white space.",
        command=PERPLEXITY,
    ),
    number(
        "byte_perplexity",
        "The perplexity per UTF-8 byte.",
        formula="exp(Σ loss / UTF-8 bytes)",
        unit="per byte",
        how_to_read="Comparable between tokenizers.",
        command=PERPLEXITY,
    ),
    number(
        "bits_per_byte",
        "The bits that the model needs for each UTF-8 byte of the text.",
        formula="Σ loss / ln 2 / UTF-8 bytes",
        unit="bits per byte",
        how_to_read="Lower is better, and comparable between tokenizers. Other ways of cutting the text into tokens "
        "are not counted, so it is an upper bound on the bits that the model needs.",
        command=PERPLEXITY,
        aliases=("bpb",),
    ),
    number(
        "bits_per_char",
        "The bits that the model needs for each Unicode code point of the text.",
        formula="Σ loss / ln 2 / code points",
        unit="bits per character",
        how_to_read="Comparable between tokenizers; lower is better.",
        command=PERPLEXITY,
        aliases=("bpc", "bits_per_character"),
    ),
    number(
        "uniform_nats",
        "The loss of a model that knows nothing and gives every vocabulary entry the same probability.",
        formula="log V, with V vocabulary entries",
        unit="nats per token",
        how_to_read="A loss near it means that the model learned nothing, or that model and text do not belong "
        "together.",
        command=PERPLEXITY,
    ),
    number(
        "unigram_nats",
        "The loss of the best model that ignores context: the entropy of the text's own token frequencies.",
        formula="−Σ f log f over the tokens, with f their frequencies in the text",
        unit="nats per token",
        how_to_read="It fits the text that it is counted in, and is too low for the language: by 0.1 to 0.4 nats where "
        "there are five tokens of each kind. A loss farther above it means that the model gains less from context than "
        "counting tokens would; with fewer tokens of each kind, or a loss within what it is too low by (Chao & Shen "
        "2003), the two are not compared.",
        command=PERPLEXITY,
    ),
    number(
        "coverage",
        "Tokens and bytes read, scored, and unscored by reason; every token is in exactly one of them.",
        unit="tokens, bytes",
        how_to_read="Beside them: bytes_normalized (bytes that the tokenizer rewrote or dropped), bytes_vanished "
        "(bytes without any token), special_strings (control ids that the text spelled out), documents_in_pieces, "
        "records_read (documents; a pair of which both sides are scored is one), and "
        "records_skipped and files_skipped (bad ones that --skip-bad left out; no other number counts them).",
        command=PERPLEXITY,
        aliases=(
            "tokens_read",
            "tokens_scored",
            "tokens_unscored",
            "bytes_read",
            "bytes_scored",
            "bytes_unscored",
            "bytes_normalized",
            "bytes_vanished",
            "special_strings",
            "documents_in_pieces",
            "records_read",
            "records_skipped",
            "files_skipped",
        ),
    ),
    number(
        "share_of_loss",
        "The share of the text's total loss that a token, entry, document or class carries.",
        formula="Σ loss of the group / Σ loss of all scored tokens",
        unit="share of the loss",
        how_to_read="Far above the group's share of tokens: the group is hard, or the text is damaged there.",
        command="lossprobe hardest --by type",
        aliases=("total_nats", "hard_tokens_share_of_loss"),
    ),
    number(
        "share_of_tokens",
        "The share of the scored tokens that a class or group has.",
        formula="tokens of the group / all scored tokens",
        unit="share of tokens",
        how_to_read="Hold it against share_of_loss: where that is larger, these tokens are harder than the others.",
        command="lossprobe hardest --by class",
    ),
)
