"""The options that say how a text is scored: windows, BOS, batches, text outside the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.options.declare import option
from lossprobe.options.kinds import MAX_COUNT, Choice, Flag, Number

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
        keep_text: store the text in the run; without it views show tokens, but no text around them.
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
    keep_text: bool = option(
        True,
        Flag(),
        "Do not store the text in the run (for confidential texts).",
        switch="no-text",
        in_audit_file=False,
    )
