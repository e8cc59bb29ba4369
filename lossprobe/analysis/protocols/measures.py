"""The numbers that tools make of the losses that they score: one function for each way of taking the mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lossprobe.analysis.logged.recipe import Floats, Ranks, Recipe, logged_loss, mean_of_batches
from lossprobe.analysis.logged.routing import batch_losses, coefficient_of, is_routed, routing_rows
from lossprobe.analysis.logged.rows import in_order, row_sums, trainer_recipe, trl_recipe
from lossprobe.analysis.options import LoggedOptions
from lossprobe.analysis.per_byte import rewriting_note, why_not_per_word
from lossprobe.plan.protocol import Measure
from lossprobe.plan.windows import Layout
from lossprobe.run.reader import Run
from lossprobe.units import bits, format_count, perplexity, plural

WHITE_SPACE = re.compile(r"\s+")
INFINITE_FROM = 20.0  # nats: FundamentaLLM prints no perplexity above


@dataclass(frozen=True)
class Sums:
    """Sums over the tokens in a headline, from which every number is made.

    Attributes:
        run: the run.
        tokens: tokens in the headline.
        nats, squares: sum of their losses, and of the squares of the losses.
        context_sum: sum of the tokens seen before each.
        left_out: scored tokens that are not in the headline, by reason.
        logged: batches, ranks and the like of a trainer.
    """

    run: Run
    tokens: int
    nats: float
    squares: float
    context_sum: int
    left_out: dict[str, int]
    logged: LoggedOptions = field(default_factory=LoggedOptions)

    @property
    def mean(self) -> float:
        """Their mean loss in nats."""
        return self.nats / self.tokens


Row = tuple[str, float | None, str, int]
Formula = Callable[[Sums, list[str]], list[Row]]


def _per_word(sums: Sums, notes: list[str]) -> list[Row]:
    """Sums over all documents, per word, per byte and in bits, as in the tasks that use `loglikelihood_rolling`."""
    run = sums.run
    words = _words(run)
    if words is None:
        notes.append("word_perplexity: not given, the run was stored with `keep_text=False`")
    size = int(run.counts["bytes"])
    documents = int(run.counts["documents"])
    whole = _whole_text(run, "word_perplexity, byte_perplexity and bits_per_byte", notes)
    return [
        ("word_perplexity", perplexity(sums.nats / words) if whole and words else None, "per word", words or 0),
        ("byte_perplexity", perplexity(sums.nats / size) if whole else None, "per byte", size),
        ("bits_per_byte", bits(sums.nats) / size if whole else None, "bits per byte", size),
        ("loglikelihood", -sums.nats, "nats, all documents", documents),
    ]


def _words(run: Run) -> int | None:
    """Return the pieces between white space, counted as the tool does: an edge of white space adds an empty one."""
    total = 0
    for batch in run.batches("SELECT text FROM documents ORDER BY document"):
        for text in batch.column(0).to_pylist():
            if text is None:
                return None
            total += 1 + sum(1 for _ in WHITE_SPACE.finditer(text))
    return total


def _whole_text(run: Run, what: str, notes: list[str]) -> bool:
    """Return whether a loss can be held against the whole text, and note why not, or what to know of it."""
    refused = why_not_per_word(run.counts)
    note = f"{what}: refused, {refused}" if refused else rewriting_note(run.counts)
    if note:
        notes.append(note)
    return refused is None


def _per_character(sums: Sums, notes: list[str]) -> list[Row]:
    """Sums over all documents, per token, character and byte."""
    counts = sums.run.counts
    size, characters = int(counts["bytes"]), int(counts["characters"])
    whole = _whole_text(sums.run, "character_perplexity, byte_perplexity and bits_per_byte", notes)
    return [
        ("token_perplexity", perplexity(sums.mean), "per token", sums.tokens),
        ("character_perplexity", perplexity(sums.nats / characters) if whole else None, "per character", characters),
        ("byte_perplexity", perplexity(sums.nats / size) if whole else None, "per byte", size),
        ("bits_per_byte", bits(sums.nats) / size if whole else None, "bits per byte", size),
    ]


def _window_means(sums: Sums, notes: list[str]) -> list[Row]:
    """The mean of each window weighs one token less than it scores: the loop takes off a token for the shift of labels.

    With 29 tokens scored by windows of 7, 4, 4, 4, 4, 4 and 2 tokens the weights are 7, 3, 3, 3, 3, 3 and 1. Without
    overlap no weight is too small, since the first label of each window is a token that the shift does take off.
    """
    run = sums.run
    overlapping = run.settings.windows.layout == Layout.ROLLING
    frame = run.query("""
        SELECT count(*) AS tokens, sum(loss_nats::DOUBLE) AS nats, min("window") AS number
        FROM tokens WHERE unscored IS NULL GROUP BY "window" ORDER BY "window" """)
    weights = frame["tokens"] - (overlapping & (frame["number"] > 0)).astype(int)
    value: float | None = perplexity(float((frame["nats"] / frame["tokens"] * weights).sum() / weights.sum()))
    size = run.context + 1
    if not overlapping and run.counts["tokens"] % size == 1:
        value = None
        notes.append("the loop itself gives nan: its last window holds one token, so the mean of no label enters")
    return [
        ("perplexity", value, "weights of the loop", int(weights.sum())),
        ("perplexity_corrected", perplexity(sums.mean), "per token", sums.tokens),
    ]


def _token_mean(sums: Sums, _: list[str]) -> list[Row]:
    return [
        ("perplexity", perplexity(sums.mean), "per token", sums.tokens),
        ("nll", sums.mean, "nats per token", sums.tokens),
    ]


def _document_mean(sums: Sums, notes: list[str]) -> list[Row]:
    """The arithmetic mean of exp(mean loss) of each document."""
    frame = sums.run.query(
        "SELECT avg(loss_nats::DOUBLE) AS nats FROM tokens WHERE unscored IS NULL GROUP BY document ORDER BY document"
    )
    empty = int(sums.run.counts["documents"]) - len(frame)
    if empty:
        notes.append(f"{plural(empty, 'document')} without a scored token left out, which the tool itself cannot score")
    limit = sums.run.settings.checkpoint.context_length
    long = int(sums.run.scalar("SELECT count(*) FROM documents WHERE tokens > ?", [limit])) if limit else 0
    if limit and long and sums.run.context >= limit:
        notes.append(f"{plural(long, 'document')} longer than the model's {format_count(limit)} tokens, run past them")
    values = [perplexity(nats) for nats in frame["nats"]]
    return [
        ("mean_perplexity", math.fsum(values) / len(values), "mean over documents", len(values)),
        ("token_perplexity", perplexity(sums.mean), "per token", sums.tokens),
    ]


def _token_mean_with_error(sums: Sums, _: list[str]) -> list[Row]:
    """The mean over tokens, and its error as if they were independent: PPL · √(variance / (n − 1))."""
    variance = max(0.0, sums.squares / sums.tokens - sums.mean**2)
    value = perplexity(sums.mean)
    error = value * math.sqrt(variance / (sums.tokens - 1)) if sums.tokens > 1 else None
    return [
        ("perplexity", value, "per token", sums.tokens),
        ("perplexity_error", error, "± of independent tokens", sums.tokens),
        ("nll", sums.mean, "nats per token", sums.tokens),
    ]


def _per_byte(sums: Sums, notes: list[str]) -> list[Row]:
    """Bits of the tokens that hold bytes, over all bytes of the text."""
    size = int(sums.run.counts["bytes"])
    if not _whole_text(sums.run, "bits_per_byte", notes):
        return [("bits_per_byte", None, "bits per byte", size)]
    if not sums.run.counts["spans_tile"]:
        notes.append("bits_per_byte: refused, which tokens hold bytes is a guess with this tokenizer")
        return [("bits_per_byte", None, "bits per byte", size)]
    return [("bits_per_byte", bits(sums.nats) / size, "bits per byte", size)]


def _validation_loss(sums: Sums, _: list[str]) -> list[Row]:
    return [
        ("val_loss", sums.mean, "nats per token", sums.tokens),
        ("perplexity", math.inf if sums.mean >= INFINITE_FROM else perplexity(sums.mean), "per token", sums.tokens),
    ]


def _trainer_loss(sums: Sums, notes: list[str]) -> list[Row]:
    rows = in_order(row_sums(sums.run), sums.logged.order)
    recipe = trainer_recipe(sums.run, sums.logged)
    router = sums.run.settings.checkpoint.router
    added = _load_balancing(sums, recipe, notes, asked=bool(router and router["in_loss"]))
    return list(_of_rows(logged_loss(rows, recipe, added), sums, len(rows)))


def _trl_loss(sums: Sums, notes: list[str]) -> list[Row]:
    rows = in_order(row_sums(sums.run), sums.logged.order)
    recipe = trl_recipe(sums.logged)
    added = _load_balancing(sums, recipe, notes, asked=True)
    loss, plain, nll = _of_rows(logged_loss(rows, recipe, added), sums, len(rows))
    size = sums.logged.rows_per_batch
    summed = {"eval_entropy": rows.entropy_nats, "eval_mean_token_accuracy": rows.correct}
    further = {name: mean_of_batches(values, rows.tokens, size) for name, values in summed.items()}
    if None in further.values():
        notes.append("eval_entropy and eval_mean_token_accuracy: not given, a batch has no scored token")
    batches = -(-len(rows) // size)
    return [loss, plain, *((name, value, "mean over batches", batches) for name, value in further.items()), nll]


def _load_balancing(sums: Sums, recipe: Recipe, notes: list[str], *, asked: bool) -> Floats | None:
    """Return what the load-balancing loss of a mixture of experts adds to each batch, [B]; None for nothing.

    Args:
        sums: the run and the order of its rows.
        recipe: the batches and ranks.
        notes: is told whether the loss is in the number.
        asked: whether the trainer asks the model for it. With label smoothing no trainer adds it: the smoothed loss is
            computed from the logits alone.
    """
    router, coefficient = sums.run.settings.checkpoint.router, coefficient_of(sums.run)
    if not router or not coefficient:
        return None
    if not asked or recipe.smoothing:
        why = "label smoothing leaves it out" if asked else "the configuration does not say output_router_logits"
        notes.append(f"without the load-balancing loss: {why}")
        return None
    if not is_routed(sums.run):
        notes.append("eval_loss: not given, it has the load-balancing loss in it, and the run has no router sums")
        return np.array(np.nan)
    losses = batch_losses(in_order(routing_rows(sums.run), sums.logged.order), recipe)
    shared = recipe.ranks > 1 and recipe.sharing is Ranks.AVERAGED
    times = f"{coefficient:g} (router_aux_loss_coef)" + (f" and times {plural(recipe.ranks, 'rank')}" if shared else "")
    mean = losses.mean() / (recipe.ranks if shared else 1)
    notes.append(
        f"eval_loss includes the load-balancing loss of each batch, {mean:.6f} on average over batches, times {times}: "
        f"{coefficient * losses.mean():.6f} nats"
    )
    return coefficient * losses


def _of_rows(loss: float, sums: Sums, rows: int) -> tuple[Row, Row, Row]:
    """Return the logged loss, its exponential, and beside them the plain mean over tokens."""
    value = loss if math.isfinite(loss) else None
    return (
        ("eval_loss", value, "mean of batches", rows),
        ("perplexity", None if value is None else perplexity(value), "exp of eval_loss", rows),
        ("nll", sums.mean, "nats per token", sums.tokens),
    )


TRAINERS = frozenset({Measure.TRAINER_LOSS, Measure.TRL_LOSS})
FORMULAS: dict[Measure, Formula] = {
    Measure.PER_WORD: _per_word,
    Measure.PER_CHARACTER: _per_character,
    Measure.WINDOW_MEANS: _window_means,
    Measure.TOKEN_MEAN: _token_mean,
    Measure.TOKEN_MEAN_WITH_ERROR: _token_mean_with_error,
    Measure.DOCUMENT_MEAN: _document_mean,
    Measure.PER_BYTE: _per_byte,
    Measure.VALIDATION_LOSS: _validation_loss,
    Measure.TRAINER_LOSS: _trainer_loss,
    Measure.TRL_LOSS: _trl_loss,
}
