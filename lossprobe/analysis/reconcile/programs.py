"""The programs whose losses are reconciled: how each makes its number, and what it does unless told otherwise.

The costs say how far a recipe is from what a program does by itself. They order the recipes that agree, and a chance
agreement is judged among recipes of the same cost or less; they are no probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lossprobe.analysis.logged.recipe import Denominator, Ranks
from lossprobe.analysis.reconcile.feed import Balancing, Bos, Feed, Kind, Packing
from lossprobe.analysis.reconcile.logged_value import LogEvidence

RARE_SMOOTHINGS = (0.05, 0.2)
TRL_CUT = 1024
GROUPED_COST = 1  # of rows grouped by length, an option of trainers
LARGEST_USUAL_BATCH = 64
USUAL_BATCH = 8  # per_device_eval_batch_size of Trainer and TRL


class Mean(StrEnum):
    """How a program makes one number of the batches.

    Attributes:
        ROWS: mean of the batches' means, weighted by their rows.
        BATCHES: mean of the batches' means, each weighing the same.
        TOKENS: mean over all tokens.
        ROW_PERPLEXITIES: mean of the rows' perplexities.
    """

    ROWS = "rows"
    BATCHES = "batches"
    TOKENS = "tokens"
    ROW_PERPLEXITIES = "row_perplexities"


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program.

    Attributes:
        words: what it is.
        mean: how it makes one number.
        denominator: by what it divides the sum of a batch.
        cost: how unusual it is.
        drops_nonfinite: whether a batch without a scored token is left out.
        ends_texts: whether it puts an EOS after plain texts and completions.
        cuts: whether it cuts rows at `TRL_CUT` tokens.
        sharing: how its processes share a mean unless told otherwise.
        smooths: whether it is only with, or only without label smoothing; None for both.
    """

    words: str
    mean: Mean = Mean.ROWS
    denominator: Denominator = Denominator.TOKENS
    cost: int = 0
    drops_nonfinite: bool = True
    ends_texts: bool = False
    cuts: bool = False
    sharing: Ranks = Ranks.AVERAGED
    smooths: bool | None = None


TRAINER = Program(words="transformers' Trainer, 5.10 on")
TRAINER_GPT2 = Program(
    words="transformers' Trainer (counts each row's first label with this class of model)",
    denominator=Denominator.LABELS,
)
OLD_TRAINER = Program(
    words="transformers' Trainer to 5.9 (counts each row's first label)", denominator=Denominator.LABELS, smooths=False
)
OLD_SMOOTHING = Program(  # its label smoother counts the scored tokens of a rank, whatever the class of model
    words="transformers' Trainer to 5.14", sharing=Ranks.MULTIPLIED, smooths=True
)
TRL = Program(
    words="TRL's SFTTrainer", denominator=Denominator.TOKENS_OR_ONE, drops_nonfinite=False, ends_texts=True, cuts=True
)
OLD_TRL = Program(
    words="TRL's SFTTrainer on transformers to 5.9 (counts each row's first label)",
    denominator=Denominator.LABELS, ends_texts=True, cuts=True, cost=1, smooths=False,
)  # fmt: skip
PLAIN = Program(words="mean over all tokens", mean=Mean.TOKENS, cost=1)
LOOP = Program(words="a loop that averages the batches' losses", mean=Mean.BATCHES, cost=1)
LOOP_LABELS = Program(
    words="a loop that averages the batches' losses and counts each row's first label",
    mean=Mean.BATCHES, denominator=Denominator.LABELS, cost=2,
)  # fmt: skip
ROW_PERPLEXITY = Program(words="mean of the rows' perplexities (LLaMA-Factory)", mean=Mean.ROW_PERPLEXITIES)


def programs_of(feed: Feed, *, before_shift: bool) -> list[Program]:
    """Return the programs that may have seen a text so, the best known first.

    Args:
        feed: the text.
        before_shift: whether the Trainer of today counts each row's first label with this class of model.
    """
    if feed.own_windows:
        return [PLAIN, LOOP]
    if feed.packing in (Packing.WRAPPED, Packing.BEST_FIT):
        return [TRL]
    trainers = [TRAINER_GPT2] if before_shift else [TRAINER, OLD_TRAINER]
    return [*trainers, OLD_SMOOTHING, TRL, OLD_TRL, PLAIN, LOOP, LOOP_LABELS, ROW_PERPLEXITY]


def feed_cost(program: Program, feed: Feed) -> int:
    """Return how far a way of feeding a text is from what a program does by itself."""
    cost = 0 if feed.bos is Bos.OWN else 1
    cost += 1 if feed.eos_masked else 0
    cost += 0 if feed.dtype == "float32" or program.cuts else 1
    cost += _scored_cost(program, feed)
    if feed.eos is not None and feed.packing is Packing.NONE:
        cost += feed.eos is not (program.ends_texts and feed.kind is not Kind.CHAT)
    if feed.packing is Packing.STREAM:
        return cost + (0 if feed.usual_block else 1) + (1 if feed.eos else 0)
    if feed.packing is not Packing.NONE:
        return cost + (1 if feed.packing is Packing.BEST_FIT else 2) + (0 if feed.usual_block else 1)
    usual = TRL_CUT if program.cuts and feed.longest > TRL_CUT else None
    return cost + (feed.cut != usual)


def _scored_cost(program: Program, feed: Feed) -> int:
    """Return the cost of what is scored; all of plain text, and of other data what programs do by themselves."""
    if feed.kind is Kind.PLAIN or feed.scored == ("completion" if feed.kind is Kind.COMPLETION else "all"):
        return 0
    if feed.scored == "assistant":
        return 1 if program.cuts else 0  # TRL has an option for it, other programs leave masks to the user
    return 1


def batch_cost(rows_per_batch: int, rows: int) -> int:
    """Return how unusual a size of batches is."""
    if rows_per_batch == USUAL_BATCH or (rows_per_batch == rows and rows <= USUAL_BATCH):
        return 0
    return 1 if _is_power(rows_per_batch) or (rows_per_batch == rows and rows <= LARGEST_USUAL_BATCH) else 2


def ranks_cost(program: Program, ranks: int, sharing: Ranks) -> int:
    """Return how unusual a number of processes is, and the way in which they share the mean."""
    if ranks == 1:
        return 0
    usual = Ranks.OWN if program.cuts else program.sharing
    return (1 if _is_power(ranks) else 2) + (0 if sharing is usual else 1)


def writer_cost(program: Program, evidence: LogEvidence) -> int:
    """Return the cost of a program that did not write the log."""
    trains = program.cuts or program in (TRAINER, TRAINER_GPT2, OLD_TRAINER, OLD_SMOOTHING)
    if (evidence.writer == "trl" and not program.cuts) or (evidence.writer and not trains):
        return 2
    return 1 if evidence.writer == "trainer" and program.cuts else 0  # only old releases of TRL log no accuracy


def batches_cost(batches: int, evidence: LogEvidence) -> int:
    """Return the cost of a number of batches that the log contradicts."""
    if evidence.batches is None:
        return 0
    low, high = evidence.batches
    return 0 if low <= batches <= high else 2


def balancing_cost(program: Program, balancing: Balancing | None, *, adds: bool) -> int:
    """Return how unusual it is that a program adds the load-balancing loss, or leaves it out.

    TRL adds it whatever the configuration says, unless its coefficient is 0; other programs ask the configuration.
    """
    if balancing is None:
        return 0
    return 0 if adds is (program.cuts or balancing.in_loss) else 1


def smoothing_cost(smoothing: float) -> int:
    """Return how unusual a label smoothing is."""
    return 0 if smoothing == 0 else 2 if smoothing in RARE_SMOOTHINGS else 1


def _is_power(number: int) -> bool:
    return number & (number - 1) == 0
