"""Every metric that a check of an audit can limit, as a term; `audit.checks.metrics` computes them."""

from __future__ import annotations

from lossprobe.terms.term import Term

COMMAND = "lossprobe audit"
SHARE = "share of tokens"


def metric(name: str, what: str, unit: str, *, formula: str = "", how_to_read: str = "", source: str = "") -> Term:
    """Return the term of a metric."""
    return Term(
        name, what, "audit metric", unit=unit, formula=formula, how_to_read=how_to_read, source=source, command=COMMAND
    )


TERMS = (
    metric("nll", "Limits the mean loss.", "nats per token"),
    metric(
        "perplexity",
        "Limits the token perplexity.",
        "per token",
        how_to_read="Its changes can be limited in percent only; they are those of exp(mean difference).",
    ),
    metric("bits_per_byte", "Limits the bits per UTF-8 byte.", "bits per byte"),
    metric("accuracy", "Limits the share of tokens that were the model's first choice.", SHARE),
    metric("ece", "Limits the expected calibration error, in 15 bins of equal width.", "probability"),
    metric("confidence_gap", "Limits the mean confidence minus the accuracy.", "probability"),
    metric("brier", "Limits the Brier score of the whole predicted distribution.", "squared error"),
    metric(
        "quantile",
        "Limits a quantile of the losses, such as quantile = 0.99.",
        "nats",
        formula="the loss that this share of the tokens stays below; between ranks as numpy interpolates",
        source="interval: Woodruff 1952, JASA 47, 635-646",
    ),
    metric(
        "share_above",
        "Limits the share of tokens with a loss above nats, such as nats = 10.0.",
        SHARE,
        formula="tokens with a larger loss / scored tokens",
        how_to_read="Where no document shows such a token, the interval is that of as many independent tokens.",
        source="interval without any such token: Clopper & Pearson 1934",
    ),
    metric(
        "loss50_minus_loss500",
        "Limits what more context gains, over the documents with tokens at both.",
        "nats per token",
    ),
    metric(
        "unscored_share",
        "Limits the share of tokens without a loss (first, special, unknown, masked).",
        SHARE,
        formula="tokens without a loss / all tokens",
    ),
    metric(
        "mean_kl_nats",
        "Limits the mean KL divergence from the model of [reference], which this one was made from.",
        "nats per token",
        formula="mean of KL(reference‖model) = Σ p_reference log(p_reference / p_model)",
        how_to_read="Infinite, and beyond any max, where the model excludes an entry that the reference allows.",
    ),
    metric(
        "same_top_share",
        "Limits the share of tokens on which the model and that of [reference] have the same first choice.",
        SHARE,
        formula="tokens with the same most likely entry / scored tokens",
    ),
)
