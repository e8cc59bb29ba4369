"""The options that say how a text is scored: windows, BOS, batches, text outside the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.options.declare import option
from lossprobe.options.kinds import MAX_COUNT, Choice, Flag, Number, Text

COUNT = Number(1, MAX_COUNT, whole=True)


@dataclass(frozen=True)
class ScoreOptions:
    """How a text is scored.

    Attributes:
        context: most input tokens of a window; None takes the model's limit. A larger context is allowed only for
            models that compute their position embeddings.
        stride: new tokens scored by each window after the first; None means windows without overlap.
        bos: "auto" (one BOS per document if the tokenizer adds one by itself), "always" or "never".
        batch_size: most windows per forward pass; None chooses by device and memory. Models whose results depend on the
            other windows of a batch use smaller batches; see `CheckpointFacts.batching`.
        score_unknown: score tokens outside the vocabulary instead of leaving them out.
        max_unknown: refuse a text in which a larger share of tokens is outside the vocabulary.
        score: which tokens of conversations, completions and pairs get a loss: "auto" (what the assistant says, with
            its end of turn; the completion; the chosen side), "all", "assistant", "last-turn" (of the assistant),
            "completion", or names of roles joined by commas. The others are masked. Plain text is scored whole.
        truncate: cut documents to one window of `context` tokens, as trainers do: "keep-start" or "keep-end"; "none"
            lays windows over the whole document.
        keep_text: store the text in the run; without it views show tokens by their vocabulary entries, and no text
            around them. Token ids and vocabulary stay in the run, and spell the text.
    """

    context: int | None = option(
        None, COUNT, "Most input tokens of a window.  [default: the model's limit]", aliases=("max-length",)
    )
    stride: int | None = option(None, COUNT, "New tokens scored by each window after the first.  [default: no overlap]")
    bos: str = option(
        "auto",
        Choice(("auto", "always", "never")),
        "Put a BOS before each document: if the tokenizer adds one by itself (auto), always, or never.",
    )
    batch_size: int | None = option(
        None, Number(1, MAX_COUNT, whole=True, word="auto"), "Most windows per forward pass."
    )
    score_unknown: bool = option(False, Flag(), "Score tokens outside the vocabulary too.")
    max_unknown: float = option(
        0.01, Number(0, 1), "Refuse a text with a larger share of tokens outside the vocabulary."
    )
    score: str = option(
        "auto",
        Text("[^,\\s]+(,[^,\\s]+)*", "auto, all, assistant, last-turn, completion, or roles joined by commas"),
        "Tokens of conversations, completions and pairs that get a loss; auto: what the assistant says, with its end "
        "of turn; the completion; the chosen side.",
        metavar="auto|all|assistant|last-turn|completion|ROLE,…",
    )
    truncate: str = option(
        "none",
        Choice(("none", "keep-start", "keep-end")),
        "Cut documents to one window of CONTEXT tokens, as trainers do, in place of windows over the whole.",
    )
    keep_text: bool = option(
        True,
        Flag(),
        "Do not store the text in the run; what its tokens spell stays, from their ids and the vocabulary.",
        switch="no-text",
        in_audit_file=False,
    )
