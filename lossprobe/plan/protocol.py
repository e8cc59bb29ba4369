"""What a protocol is: how another tool turns a text into one number."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lossprobe.plan.layout import Layout


class Prefix(StrEnum):
    """Which token a tool puts before each document.

    Attributes:
        NONE: none.
        ADDED: the token that the tokenizer adds by itself, if any.
        BOS: the BOS, which the tokenizer must have.
        EOS: the EOS, which the tokenizer must have.
        BOS_OR_EOS: the BOS, or the EOS of a tokenizer without one.
        BOS_IF_NOT_ADDED: the BOS, but only where the tokenizer adds none by itself.
    """

    NONE = "none"
    ADDED = "added"
    BOS = "bos"
    EOS = "eos"
    BOS_OR_EOS = "bos_or_eos"
    BOS_IF_NOT_ADDED = "bos_if_not_added"


class Measure(StrEnum):
    """How a tool computes its numbers from the losses; `analysis.protocols.measures` has the formula of each.

    Attributes:
        PER_WORD: loss summed over all documents, per word between white space and per byte.
        PER_CHARACTER: loss summed over all documents, per token, per character and per byte.
        WINDOW_MEANS: weighted mean of the windows' mean losses, with the weights of transformers' documentation.
        TOKEN_MEAN: mean loss of the tokens.
        TOKEN_MEAN_WITH_ERROR: mean loss of the tokens, with the standard error for independent tokens.
        DOCUMENT_MEAN: mean of the documents' perplexities.
        PER_BYTE: bits per byte of the text.
        VALIDATION_LOSS: mean loss of the tokens, named as the validation loss of a trainer.
        TRAINER_LOSS: the eval_loss of transformers' Trainer: a mean of batches of rows, weighted by rows.
        TRL_LOSS: the eval_loss of TRL's SFTTrainer, and the other numbers that it logs.
    """

    PER_WORD = "per_word"
    PER_CHARACTER = "per_character"
    WINDOW_MEANS = "window_means"
    TOKEN_MEAN = "token_mean"
    TOKEN_MEAN_WITH_ERROR = "token_mean_with_error"
    DOCUMENT_MEAN = "document_mean"
    PER_BYTE = "per_byte"
    VALIDATION_LOSS = "validation_loss"
    TRAINER_LOSS = "trainer_loss"
    TRL_LOSS = "trl_loss"


# The numbers of each measure, in the order in which a table shows them.
NUMBERS_OF: dict[Measure, tuple[str, ...]] = {
    Measure.PER_WORD: ("word_perplexity", "byte_perplexity", "bits_per_byte", "loglikelihood"),
    Measure.PER_CHARACTER: ("token_perplexity", "character_perplexity", "byte_perplexity", "bits_per_byte"),
    Measure.WINDOW_MEANS: ("perplexity", "perplexity_corrected"),
    Measure.TOKEN_MEAN: ("perplexity", "nll"),
    Measure.TOKEN_MEAN_WITH_ERROR: ("perplexity", "perplexity_error", "nll"),
    Measure.DOCUMENT_MEAN: ("mean_perplexity", "token_perplexity"),
    Measure.PER_BYTE: ("bits_per_byte",),
    Measure.VALIDATION_LOSS: ("val_loss", "perplexity"),
    Measure.TRAINER_LOSS: ("eval_loss", "perplexity", "nll"),
    Measure.TRL_LOSS: ("eval_loss", "perplexity", "eval_entropy", "eval_mean_token_accuracy", "nll"),
}


class LeftOut(StrEnum):
    """Which scored tokens a tool leaves out of its number.

    Attributes:
        NOTHING: none.
        TAIL: the tokens of a last window that is not full.
        BLOCK_TAIL: the same, where windows share no token.
        NO_BYTES: tokens that stand for no byte of the text.
    """

    NOTHING = ""
    TAIL = "tail"
    BLOCK_TAIL = "block_tail"
    NO_BYTES = "no_bytes"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How one tool scores a text.

    Attributes:
        tool: the program, and the release that the protocol was compared with.
        headline: the number that the tool prints first, one of `numbers`.
        measure: how the tool computes its numbers from the losses.
        left_out: scored tokens that do not count in the tool's numbers.
        windows: which tokens the tool sees and scores, in words for users.
        mean: how the tool makes one number of the losses, in words for users.
        joined: whether the documents are joined into one stream, with a blank line between them.
        strip_newline: whether one line end at the end of the stream is removed.
        layout: how windows are laid. If `context` is given, `WHOLE` becomes `FIRST`; with a stride equal to the length,
            `ROLLING` becomes `DISJOINT`.
        longest: most tokens of a window unless `context` is given; None for the model's limit.
        last_is_target: whether the length of a window counts its last token, which is predicted but not an input.
        shortest: fewest tokens of a window that `context` may ask for.
        stride: default of `stride`; None for a tool without a stride.
        full_windows: fewest full windows that a text must have.
        prefix: the token before each document.
        second_bos: whether a BOS that the tokenizer adds comes after the prefix and is scored.
        bos_never: whether the tool has an option like `bos` "never". It drops the second BOS, or else the prefix.
        masks: whether the tool leaves the prompts of conversations and completions unscored.
        appends_eos: whether the tool ends each plain text or completion with the name of the EOS, and scores it.
        scores_end: whether the tool also scores a token that the tokenizer puts after a text. Here it is not scored.
        reader: how the tool reads a tokenizer: "transformers" (AutoTokenizer), "tokenizers" (tokenizer.json alone) or
            "gguf" (llama.cpp's converter); "" for a tool with tokenizers of its own.
        special_strings: how the tool encodes the name of a special token in a text: as that token ("control"), or as
            ordinary text ("text"); None where its tokenizer decides.
    """

    tool: str
    headline: str
    measure: Measure
    windows: str
    mean: str
    joined: bool = False
    strip_newline: bool = False
    layout: Layout = Layout.ROLLING
    longest: int | None = None
    last_is_target: bool = False
    shortest: int = 1
    stride: int | None = None
    full_windows: int = 0
    prefix: Prefix = Prefix.NONE
    second_bos: bool = False
    bos_never: bool = False
    masks: bool = False
    appends_eos: bool = False
    scores_end: bool = False
    left_out: LeftOut = LeftOut.NOTHING
    reader: str = "transformers"
    special_strings: str | None = "control"

    def __post_init__(self) -> None:
        """Refuse a headline that is not a number of the measure.

        Raises:
            ValueError: the message names the numbers of the measure.
        """
        if self.headline not in self.numbers:
            numbers = ", ".join(self.numbers)
            raise ValueError(f"{self.tool}: headline {self.headline} is none of the numbers of its measure: {numbers}")

    @property
    def numbers(self) -> tuple[str, ...]:
        """Return the names of the protocol's numbers, in the order of its table."""
        return NUMBERS_OF[self.measure]

    @property
    def why(self) -> str:
        """Return in words how the protocol differs from the default."""
        return f"{'one stream; ' if self.joined else ''}{self.windows}; {self.mean}"
