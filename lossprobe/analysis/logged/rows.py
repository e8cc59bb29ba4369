"""The sums of each row of a run, and how a trainer's protocol makes a number of them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np

from lossprobe.analysis.logged.recipe import Denominator, Integers, Ranks, Recipe, RowSums
from lossprobe.analysis.logged.routing import RoutingRows
from lossprobe.analysis.options import LoggedOptions
from lossprobe.errors import UsageError
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

Rows = TypeVar("Rows", RowSums, RoutingRows)

AS_IS = Path("as-is")  # in place of a file: the order of the text
# Classes of transformers 5.23 whose name lacks "ForCausalLM": its Trainer counts their labels before the shift.
COUNTED_BEFORE_SHIFT = frozenset({"gpt2", "openai-gpt", "ctrl", "bert", "bert-generation"})


def row_sums(run: Run) -> RowSums:
    """Return the sums of each document of a run, in their order; an empty document is a row of zeros."""
    frame = run.query("""
        SELECT document, coalesce(sum(loss_nats::DOUBLE), 0) AS nats,
               coalesce(sum(uniform_loss_nats::DOUBLE), 0) AS uniform,
               coalesce(sum(entropy_nats::DOUBLE), 0) AS entropy,
               count(*) FILTER (WHERE unscored IS NULL AND token_id IS NOT NULL) AS tokens,
               count(*) FILTER (WHERE top_id = token_id) AS correct,
               count(*) FILTER (WHERE token = 0 AND unscored IN ('first_token', 'special')) AS first
        FROM documents LEFT JOIN tokens USING (document) GROUP BY document ORDER BY document""")
    counts = {name: frame[name].to_numpy(np.int64) for name in ("tokens", "correct", "first")}
    sums = {name: frame[name].to_numpy(np.float64) for name in ("nats", "uniform", "entropy")}
    return RowSums(
        loss_nats=sums["nats"],
        uniform_loss_nats=sums["uniform"],
        entropy_nats=sums["entropy"],
        tokens=counts["tokens"],
        labels=counts["tokens"] + counts["first"],
        correct=counts["correct"],
    )


def trainer_recipe(run: Run, options: LoggedOptions) -> Recipe:
    """Return how transformers' Trainer 5.23 makes its eval_loss, with the denominator that the options ask for.

    Where all labels count, as in releases to 5.9, label smoothing is that of those releases too (to 5.14 in fact): the
    mean over the scored tokens of each rank, times the number of ranks.
    """
    old = options.label_count == "all"
    old_smoothing = old and options.smoothing > 0
    auto_counts_all = options.label_count == "auto" and run.settings.checkpoint.family in COUNTED_BEFORE_SHIFT
    counts_all = auto_counts_all or (old and not old_smoothing)
    denominator = Denominator.LABELS if counts_all else Denominator.TOKENS
    shared = Ranks.MULTIPLIED if old_smoothing else Ranks.AVERAGED
    sharing = Ranks.OWN if options.own_means else shared
    return Recipe(options.rows_per_batch, denominator, options.ranks, sharing, options.smoothing)


def trl_recipe(options: LoggedOptions) -> Recipe:
    """Return how TRL's SFTTrainer 1.16 makes its eval_loss.

    Raises:
        UsageError: a label count that it does not have.
    """
    if options.label_count == "all":
        raise UsageError("protocol.option", "`label_count` all: trl divides by the scored tokens")
    return Recipe(
        options.rows_per_batch, Denominator.TOKENS_OR_ONE, options.ranks, Ranks.OWN, options.smoothing,
        drops_nonfinite=False,
    )  # fmt: skip


def in_order(rows: Rows, path: Path | None) -> Rows:
    """Return rows in the order of a file of row numbers; without a file, or for `AS_IS`, as they are.

    Raises:
        UsageError: the file cannot be read, or does not hold the number of every row once.
    """
    order = row_order(path, len(rows))
    return rows if order is None else rows.take(order)


def row_order(path: Path | None, size: int) -> Integers | None:
    """Return the numbers of rows in the order of a file, int64 [size]; None for the order of the text.

    Raises:
        UsageError: the file cannot be read, or does not hold the number of every row once.
    """
    if path is None or (path == AS_IS and not path.exists()):
        return None
    shown = visible(str(path), 200)
    try:
        order = np.array([int(line) for line in path.read_text().split()], np.int64)
    except OSError as error:
        raise UsageError("order.unreadable", f"{shown}: {error.strerror}") from None
    except (ValueError, OverflowError) as error:
        raise UsageError("order.numbers", f"{shown}: {visible(str(error), 80)}") from None
    if not _permutes(order, size):
        what = f"{format_count(len(order))} numbers, not each of 0 to {format_count(size - 1)} once"
        raise UsageError("order.numbers", f"{shown}: {what}", hint="one row number a line, as the trainer saw the rows")
    return order


def _permutes(order: Integers, size: int) -> bool:
    return len(order) == size and np.array_equal(np.sort(order), np.arange(size))
