"""The protocols: how other tools turn a text into one number. Each name of a protocol has one record.

Each record was read in the source of the tool that it names, and compared with what the tool prints.
docs/pages/reference/protocols.md is made from the records. `passes.protocols` plans the windows from a record,
`analysis.protocols` computes the number.
"""

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


LAST_FULL = "the last window is moved back to be full"
ONE_LESS = "the last of a window's tokens is only predicted, so contexts are one token shorter"
LOOP_TOOL = "transformers 5.23, the loop of its documentation on perplexity (stride 512 unless `stride` says otherwise)"

PROTOCOLS = {
    "lm-eval": Protocol(
        tool="lm-eval 0.4.13, hf backend, loglikelihood_rolling in float32 (`bos` never is its add_bos_token=False)",
        headline="word_perplexity",
        windows=f"BOS (else EOS) before each document, a BOS that the tokenizer adds scored after it; {LAST_FULL}",
        mean="per word between white space",
        measure=Measure.PER_WORD,
        layout=Layout.LAST_FULL,
        prefix=Prefix.BOS_OR_EOS,
        second_bos=True,
        bos_never=True,
        scores_end=True,
    ),
    "paloma": Protocol(
        tool="catwalk 2024-04 as used by OLMo-Eval 2025-07 (read, not run)",
        headline="token_perplexity",
        windows=f"EOS before each document; contexts of at most 2,048 tokens; {LAST_FULL}",
        mean="per token, documents weighted by their tokens",
        measure=Measure.PER_CHARACTER,
        layout=Layout.LAST_FULL,
        longest=2048,
        prefix=Prefix.EOS,
    ),
    "transformers": Protocol(
        tool=LOOP_TOOL,
        headline="perplexity",
        joined=True,
        windows=ONE_LESS,
        mean="each later overlapping window weighs one token too little",
        measure=Measure.WINDOW_MEANS,
        last_is_target=True,
        shortest=2,
        stride=512,
        prefix=Prefix.ADDED,
        scores_end=True,
    ),
    "transformers-corrected": Protocol(
        tool=f"{LOOP_TOOL}, with every token weighing the same",
        headline="perplexity",
        joined=True,
        windows=ONE_LESS,
        mean="per token",
        measure=Measure.TOKEN_MEAN,
        last_is_target=True,
        shortest=2,
        stride=512,
        prefix=Prefix.ADDED,
        scores_end=True,
    ),
    "evaluate": Protocol(
        tool="evaluate 0.4, metric perplexity (`context` is its max_length, `bos` never its add_start_token=False)",
        headline="mean_perplexity",
        windows="BOS before each document; a document is one window",
        mean="mean of the documents' perplexities, which short hard ones dominate",
        measure=Measure.DOCUMENT_MEAN,
        layout=Layout.WHOLE,
        last_is_target=True,
        shortest=2,
        prefix=Prefix.BOS,
        bos_never=True,
    ),
    "llama.cpp": Protocol(
        tool="llama-perplexity of llama.cpp 0c1e570, default mode, f32 (`context` is its -c, 512 by default)",
        headline="perplexity",
        joined=True,
        windows="disjoint windows of at most 512, BOS in place of the first token, only the second half scored",
        mean="per token",
        reader="gguf",
        special_strings="text",
        measure=Measure.TOKEN_MEAN_WITH_ERROR,
        strip_newline=True,
        layout=Layout.SECOND_HALF,
        longest=512,
        last_is_target=True,
        shortest=3,
        full_windows=2,
        prefix=Prefix.ADDED,
    ),
    "levanter": Protocol(
        tool="Levanter (marin 2026), perplexity of raw documents, without its caps of 256 documents and 32,768 bytes",
        headline="bits_per_byte",
        windows=f"BOS before each document only where the tokenizer adds none; {ONE_LESS}",
        mean="per byte of the text, unscored ones included",
        reader="tokenizers",
        measure=Measure.PER_BYTE,
        longest=4096,
        last_is_target=True,
        shortest=2,
        prefix=Prefix.BOS_IF_NOT_ADDED,
        left_out=LeftOut.NO_BYTES,
    ),
    "fundamentallm": Protocol(
        tool="FundamentaLLM, val_loss of train",
        headline="val_loss",
        joined=True,
        windows="no BOS; full windows only, the tail left out",
        mean="per token",
        reader="",
        special_strings=None,
        measure=Measure.VALIDATION_LOSS,
        full_windows=1,
        left_out=LeftOut.TAIL,
    ),
    "nanogpt": Protocol(
        tool="nanoGPT, estimate_loss: a pass over all blocks in place of its random ones",
        headline="val_loss",
        joined=True,
        windows="no BOS; full blocks only, the tail left out",
        mean="per token",
        reader="",
        special_strings="text",
        measure=Measure.VALIDATION_LOSS,
        full_windows=1,
        left_out=LeftOut.TAIL,
    ),
    "gptq": Protocol(
        tool="the perplexity of quantisation papers: GPTQ's script on one stream (AutoAWQ and llm-awq likewise; read)",
        headline="perplexity",
        joined=True,
        windows="disjoint full windows of 2,048, of which the first token is not scored; the tail left out",
        mean="mean of the windows' means, which weigh the same",
        measure=Measure.TOKEN_MEAN,
        layout=Layout.DISJOINT,
        longest=2048,
        last_is_target=True,
        shortest=2,
        full_windows=1,
        prefix=Prefix.ADDED,
        left_out=LeftOut.BLOCK_TAIL,
        scores_end=True,
    ),
    "llama-factory": Protocol(
        tool="LLaMA-Factory, scripts/stat_utils/cal_ppl.py (read; its own templates are not rebuilt)",
        headline="mean_perplexity",
        windows="a row is one window, cut at 2,048 tokens; of conversations the answers",
        mean="mean of the rows' perplexities, which short hard ones dominate",
        measure=Measure.DOCUMENT_MEAN,
        layout=Layout.FIRST,
        longest=2048,
        last_is_target=True,
        shortest=2,
        prefix=Prefix.ADDED,
        scores_end=True,
    ),
    "trainer": Protocol(
        tool="transformers 5.23, eval_loss of Trainer (`context` cuts rows; `label_count` all is transformers to 5.9)",
        headline="eval_loss",
        windows="a row is one window, with what the tokenizer adds",
        mean="mean of the means of batches, weighted by rows",
        measure=Measure.TRAINER_LOSS,
        layout=Layout.WHOLE,
        last_is_target=True,
        shortest=2,
        prefix=Prefix.ADDED,
        scores_end=True,
    ),
    "trl": Protocol(
        tool="TRL 1.16, eval_loss of SFTTrainer without packing, in float32 (its default is bfloat16 autocast)",
        headline="eval_loss",
        windows="a row is one window, an EOS after plain texts and completions, cut at 1,024 tokens",
        mean="mean of the means of batches, weighted by rows; a batch without a scored token counts as 0",
        measure=Measure.TRL_LOSS,
        layout=Layout.FIRST,
        longest=1024,
        last_is_target=True,
        shortest=2,
        prefix=Prefix.ADDED,
        appends_eos=True,
        scores_end=True,
    ),
}
