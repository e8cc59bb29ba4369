"""What a user may choose in each view, declared once: the command line and the functions of the views read it here.

The choices of `objectives` are in `analysis.objectives.formulas`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.options.declare import option
from lossprobe.options.kinds import MAX_COUNT, Choice, File, Flag, Names, Number, Pairs, Text, Words

COUNT = Number(1, MAX_COUNT, whole=True)
HARDEST_BY = ("token", "type", "document", "class")
CHANGES_BY = ("token", "type", "document", "context", "class", "frequency")  # any other is a field of JSONL records
ANY = "any"  # of `fail_on`: every diagnosis that is a fault
SLICES_BY = ("document", "context", "class", "frequency")  # likewise
SERIES_BY = CHANGES_BY
STATES = ("learned", "unstable", "forgotten", "never")  # of a token over the checkpoints of a series


def where_option() -> Any:
    """Return the field of the conditions that tokens must meet, all of them; see `run.filters.where_sql`."""
    return option((), Words(), 'Only tokens that meet it, such as "loss > 5 and context < 32".', metavar="CONDITION")


@dataclass(frozen=True)
class TokenOptions:
    """The choices of `tokens`.

    Attributes:
        where: conditions that tokens must meet.
        rows: rows of the table.
    """

    where: tuple[str, ...] = where_option()
    rows: int = option(20, COUNT, "Rows of the terminal table.")


@dataclass(frozen=True)
class PositionOptions:
    """The choices of `positions`.

    Attributes:
        by: what a position is.
        bins: which positions share a row.
    """

    by: str = option(
        "context",
        Choice(("context", "document-position", "answer-position")),
        "Tokens seen before predicting, or the place in the document, or in the answer of a conversation.",
    )
    bins: str = option("geometric", Choice(("geometric", "every")), "1, 2-3, 4-7, ... or every position.")


@dataclass(frozen=True)
class HardestOptions:
    """The choices of `hardest`.

    Attributes:
        by: what is ranked.
        top: rows (by type: this many by total and this many by mean).
        min_count: fewest occurrences of a vocabulary entry in the ranking by mean.
    """

    by: str = option(
        "token",
        Text(),
        "Single tokens, vocabulary entries, documents, kinds of token, or a JSONL field.",
        metavar="|".join((*HARDEST_BY, "FIELD")),
    )
    top: int = option(20, COUNT, "How many.")
    min_count: int = option(5, COUNT, "Fewest occurrences of a vocabulary entry in the ranking by mean.")


@dataclass(frozen=True)
class PerplexityOptions:
    """The choices of `perplexity`.

    Attributes:
        by: groups of documents; None for none.
    """

    by: str | None = option(
        None, Text(), "The same for every document, or every value of a JSONL field.", metavar="document|FIELD"
    )


@dataclass(frozen=True)
class CalibrationOptions:
    """The choices of `calibration`.

    Attributes:
        by: slices of the tokens; None for none.
        smoothing: ε that the models after the first were trained with; None to go by what their predictions show.
        allow_different: put runs side by side that cannot be compared token by token.
    """

    by: str | None = option(
        None,
        Text(),
        "The same for slices: a JSONL field, documents, amount of context, or kind and frequency of the first choice.",
        metavar="|".join(("FIELD", *SLICES_BY)),
    )
    smoothing: float | None = option(
        None,
        Number(0, 1, below=True),
        "Label smoothing that the models after the first had in training, for the bound.",
        metavar="EPS",
    )
    allow_different: bool = option(
        False, Flag(), "Put runs side by side although text, tokenizer, windows or BOS differ."
    )


@dataclass(frozen=True)
class CompareOptions:
    """The choices of `compare`.

    Attributes:
        by: slices of the changes; unused for different tokens.
        top: rows of the changes.
        allow_different: compare runs whose numbers say less side by side.
    """

    by: str = option(
        "token",
        Text(),
        "Where they differ: tokens, vocabulary entries, documents, context, kind or frequency of token, or a JSONL "
        "field.",
        metavar="|".join((*CHANGES_BY, "FIELD")),
    )
    top: int = option(10, COUNT, "How many of the largest changes.")
    allow_different: bool = option(False, Flag(), "Compare although windows or BOS differ.")


@dataclass(frozen=True)
class SeriesOptions:
    """The choices of `series`.

    Attributes:
        by: slices of the tokens, or "token" for single ones; None for the whole text alone.
        state: which tokens are listed, and by which types and documents are ranked.
        top: rows of the tokens, types, documents or values of a field.
        learned_below: threshold in nats below which a token counts as known.
    """

    by: str | None = option(
        None,
        Text(),
        "The same for single tokens, vocabulary entries, documents, amount of context, kind or frequency of the token, "
        "or a JSONL field.",
        metavar="|".join((*SERIES_BY, "FIELD")),
    )
    state: str | None = option(
        None, Choice(STATES), "List the tokens of this state; by type or document, rank by them.  [default: forgotten]"
    )
    top: int = option(20, COUNT, "How many of them.")
    learned_below: float = option(
        1.0, Number(0, inside=True), "Loss in nats below which a token counts as known.", metavar="NATS"
    )


@dataclass(frozen=True)
class OrderOptions:
    """In which order a trainer saw the rows.

    Attributes:
        order: file of the numbers of the rows, from 0, one a line, in that order; None, "as-is": that of the text.
    """

    order: Path | None = option(
        None, File("as-is"), "File of the row numbers (from 0, one a line) in the trainer's order.  [default: as-is]",
        metavar="FILE|as-is",
    )  # fmt: skip


@dataclass(frozen=True)
class LoggedOptions(OrderOptions):
    """How a trainer makes one number of the losses of rows; only for the protocols of trainers.

    Attributes:
        rows_per_batch: rows of a batch on one rank (per_device_eval_batch_size).
        ranks: number of processes that evaluated.
        label_count: by what a batch's sum is divided: its "scored" tokens, or its labels before the shift, which count
            the first of each row ("all"; with smoothing that is transformers to 5.14: a rank's mean over scored tokens,
            times the ranks); "auto" for what release 5.23 does for this family of model.
        own_means: whether the mean of each rank is over its own tokens (average_tokens_across_devices=False).
        smoothing: label smoothing ε of the logged loss (label_smoothing_factor).
    """

    rows_per_batch: int = option(8, COUNT, "Rows of a batch on one rank, for protocols of trainers.")
    ranks: int = option(1, COUNT, "Processes that evaluated, for protocols of trainers.")
    label_count: str = option(
        "auto",
        Choice(("auto", "scored", "all")),
        "Divide a batch's loss by its scored tokens, or by all labels with the first of each row (transformers to 5.9, "
        "and GPT-2 since; smoothing as to 5.14); auto: as 5.23 does.",
    )
    own_means: bool = option(False, Flag(), "Each rank's mean is over its own tokens, for protocols of trainers.")
    smoothing: float = option(0.0, Number(0, 1, below=True), "Label smoothing of the logged loss.", metavar="EPS")


@dataclass(frozen=True)
class SearchOptions(OrderOptions):
    """Which number of a log is looked for, and how: what `reconcile` and `curve` share.

    Attributes:
        step: the step of the log; None for that of the checkpoint.
        metric: the log's name of the number.
        deep: also try half precision and more lengths of blocks, with a pass for each.
    """

    step: int | None = option(None, Number(0, MAX_COUNT, whole=True), "Step of the log.  [default: the checkpoint's]")
    metric: str = option("eval_loss", Text(), "The log's name of the number.", metavar="NAME")
    deep: bool = option(False, Flag(), "Also try half precision and more sizes of blocks: a pass for each.")


@dataclass(frozen=True)
class ReconcileOptions(SearchOptions):
    """The choices of `reconcile`.

    Attributes:
        logged: the number as the log prints it; its digits say how exactly it is known.
        log: a training log with the number, or its folder; None for that of the checkpoint, without `logged`.
    """

    logged: str | None = option(None, Text(), "The number, as the log prints it.", metavar="NUMBER")
    log: Path | None = option(
        None,
        File(),
        "A trainer_state.json or another training log with the number, or its folder.  [default: the checkpoint's]",
    )


@dataclass(frozen=True)
class PreferenceOptions:
    """The choices of `preferences`.

    Attributes:
        by: a field of the records whose values are groups; None for none.
        top: rows of the pairs that are ranked most wrongly.
        beta: β of DPO, IPO and the implicit reward.
        simpo_beta: β of SimPO.
        simpo_gamma: γ of SimPO, the margin that β times the difference per token must have.
        orpo_lambda: λ of ORPO, the weight of its odds ratio.
        margin: m of the margin ranking loss, in nats.
    """

    by: str | None = option(None, Text(), "The same for every value of a field of the records.", metavar="FIELD")
    top: int = option(5, COUNT, "How many of the pairs that are ranked most wrongly.")
    beta: float = option(0.1, Number(1e-6), "β of DPO and IPO, and of the implicit reward.", metavar="BETA")
    simpo_beta: float = option(2.0, Number(0), "β of SimPO.", metavar="BETA")
    simpo_gamma: float = option(0.5, Number(0), "γ of SimPO: the margin that is asked for.", metavar="GAMMA")
    orpo_lambda: float = option(0.1, Number(0), "λ of ORPO: the weight of the odds ratio.", metavar="LAMBDA")
    margin: float = option(1.0, Number(0), "m of the margin ranking loss.", metavar="NATS")


@dataclass(frozen=True)
class SelfCheckOptions:
    """The choices of `selfcheck`.

    Attributes:
        tokens: tokens of the sample that is scored again and again.
    """

    tokens: int = option(4096, Number(2, MAX_COUNT, whole=True), "Tokens of the text to check on.")


@dataclass(frozen=True)
class CurveOptions:
    """The choices of `curve`.

    Attributes:
        columns: what the log calls its quantities: "step", "loss" and others → its names; None to go by its form.
        vocabulary: entries of the model's vocabulary; None for what the log or the checkpoint says.
        fail_on: diagnoses that make the exit code 10; "any" for every fault.
        checkpoint: a checkpoint of the run, whose loss on `text` is compared with the log's.
        text: the text that the log's validation loss is of.
    """

    columns: dict[str, str] | None = option(
        None, Pairs(), "What the log calls its quantities, such as step=iter,loss=ce.", metavar="NAME=COLUMN,..."
    )
    vocabulary: int | None = option(
        None, COUNT, "Entries of the model's vocabulary, for ln V.  [default: what the log or the checkpoint says]"
    )
    fail_on: tuple[str, ...] = option(
        (), Names((*DIAGNOSES, ANY)),
        "Exit with 10 where one of these is found (lossprobe explain lists them; any: every fault).",
        metavar="DIAGNOSIS,...",
    )  # fmt: skip
    checkpoint: Path | None = option(
        None, File(), "A checkpoint of the run: is the log's loss its loss on the text?", metavar="CHECKPOINT"
    )
    text: Path | None = option(None, File(), "The text of the log's validation loss.", metavar="TEXT")
