"""The numbers of `perplexity --protocol` and `selfcheck`."""

from __future__ import annotations

from lossprobe.terms.term import number

PROTOCOL = "lossprobe perplexity MODEL TEXT --protocol all"
SELFCHECK = "lossprobe selfcheck MODEL TEXT"

NUMBERS = (
    number(
        "val_loss",
        "The validation loss that a trainer would log (FundamentaLLM, nanoGPT).",
        formula="mean loss over full windows of one stream without BOS",
        unit="nats per token",
        command=PROTOCOL,
    ),
    number(
        "mean_perplexity",
        "The mean of the documents' perplexities, as evaluate prints it.",
        formula="mean over documents of exp(mean loss of the document)",
        how_to_read="Ruled by short hard documents; no corpus perplexity.",
        source="evaluate, metric perplexity",
        command=PROTOCOL,
    ),
    number(
        "perplexity_error",
        "The ± that llama-perplexity prints beside its perplexity.",
        formula="PPL · √(variance of the loss / (n − 1)) over n tokens",
        how_to_read="Far too small, since it takes tokens as independent. Use the interval of perplexity.",
        source="llama.cpp, llama-perplexity",
        command="lossprobe perplexity MODEL TEXT --protocol llama.cpp",
    ),
    number(
        "perplexity_corrected",
        "The perplexity of the loop in transformers' documentation, were every token to weigh the same.",
        formula="exp(mean loss)",
        command="lossprobe perplexity MODEL TEXT --protocol transformers",
    ),
    number(
        "character_perplexity",
        "The perplexity per Unicode code point.",
        formula="exp(Σ loss / code points)",
        command=PROTOCOL,
    ),
    number(
        "loglikelihood",
        "The log-probability of the whole text.",
        formula="−Σ loss",
        unit="nats",
        source="lm-eval, loglikelihood_rolling",
        command=PROTOCOL,
    ),
    number(
        "mean_context",
        "The mean number of tokens that the model saw before those that it predicted.",
        unit="tokens",
        how_to_read="More context makes the same model look better: a reason why two tools disagree.",
        command=PROTOCOL,
    ),
    number(
        "largest_nats",
        "The largest change of any token's loss when a setting is changed.",
        unit="nats",
        how_to_read="Of settings that must not matter it stays below largest_limit_nats (10⁻³ in float32, 0.5 in half "
        "precision), and the mean change below limit_nats (10⁻⁵, 5·10⁻³); else the invariant is broken: exit code 10.",
        command=SELFCHECK,
        aliases=("limit_nats", "largest_limit_nats"),
    ),
)
