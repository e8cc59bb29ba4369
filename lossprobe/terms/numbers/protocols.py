"""What other tools print: the numbers of `perplexity --protocol`."""

from __future__ import annotations

from lossprobe.terms.term import number

PROTOCOL = "lossprobe perplexity MODEL TEXT --protocol all"

NUMBERS = (
    number(
        "val_loss",
        "The validation loss that a trainer would log (FundamentaLLM, nanoGPT).",
        formula="mean loss over full windows of one stream without BOS",
        unit="nats per token",
        how_to_read="Lower is better. Comparable with the log of a trainer that evaluates in the same way, not with "
        "nll.",
        source="FundamentaLLM, val_loss of train; nanoGPT, estimate_loss",
        command=PROTOCOL,
    ),
    number(
        "eval_loss",
        "The loss that a trainer would log for an evaluation: transformers' Trainer, or TRL's SFTTrainer.",
        formula="Σ R_b·L_b / Σ R_b over batches b of R_b rows, with L_b the loss of the batch per token",
        unit="nats",
        how_to_read="Every row weighs the same, whatever its length: so the size of the batches and the order of the "
        "rows change it. nll beside it is the mean over tokens.",
        source="transformers, Trainer.evaluation_loop; TRL, SFTTrainer",
        command="lossprobe perplexity MODEL TEXT --protocol trainer",
    ),
    number(
        "eval_entropy",
        "The mean entropy of the predictions that TRL's SFTTrainer logs.",
        formula="mean over batches of the mean over the batch's scored tokens",
        unit="nats per token",
        how_to_read="As high as the loss where the model is calibrated; batches of few tokens weigh as much as others.",
        source="TRL, SFTTrainer",
        command="lossprobe perplexity MODEL TEXT --protocol trl",
    ),
    number(
        "eval_mean_token_accuracy",
        "The accuracy that TRL's SFTTrainer logs.",
        formula="mean over batches of the share of the batch's scored tokens that were the first choice",
        unit="share",
        how_to_read="Higher is better; batches of few tokens weigh as much as others.",
        source="TRL, SFTTrainer",
        command="lossprobe perplexity MODEL TEXT --protocol trl",
    ),
    number(
        "mean_perplexity",
        "The mean of the documents' perplexities, as evaluate prints it.",
        formula="mean over documents of exp(mean loss of the document)",
        unit="mean over documents",
        how_to_read="A few short hard documents decide it; it is not the perplexity of the whole text.",
        source="evaluate, metric perplexity",
        command=PROTOCOL,
    ),
    number(
        "perplexity_error",
        "The ± that llama-perplexity prints beside its perplexity.",
        formula="PPL · √(variance of the loss / (n − 1)) over n tokens, PPL being the perplexity",
        unit="± of independent tokens",
        how_to_read="Far too small, since it takes tokens as independent. Use the interval of perplexity.",
        source="llama.cpp, llama-perplexity",
        command="lossprobe perplexity MODEL TEXT --protocol llama.cpp",
    ),
    number(
        "perplexity_corrected",
        "The perplexity of the loop in transformers' documentation, were every token to weigh the same.",
        formula="exp(mean loss)",
        unit="per token",
        how_to_read="Its difference from perplexity is what the weights of the loop change.",
        source="transformers, documentation on perplexity",
        command="lossprobe perplexity MODEL TEXT --protocol transformers",
    ),
    number(
        "character_perplexity",
        "The perplexity per Unicode code point.",
        formula="exp(Σ loss / code points)",
        unit="per character",
        how_to_read="Comparable between tokenizers.",
        command=PROTOCOL,
    ),
    number(
        "loglikelihood",
        "The log-probability of the whole text.",
        formula="−Σ loss",
        unit="nats",
        how_to_read="Higher is better. It grows with the text: compare it on one text only.",
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
)
