"""The text of a run and what was measured for each of its tokens, packed for a page: a few bytes a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.coloured_text.choices import first_choices
from lossprobe.analysis.coloured_text.chosen import REASONS, ChosenWindows, choose_windows
from lossprobe.analysis.coloured_text.codes import SCORED_CODES, difference_codes, loss_codes, rank_codes, scales
from lossprobe.analysis.coloured_text.hardest_rows import HardestToken, hardest_tokens
from lossprobe.analysis.coloured_text.options import PAGE_TOKENS
from lossprobe.analysis.coloured_text.places import document_arrays, label_arrays, segments
from lossprobe.analysis.coloured_text.rows import other_losses, read_rows
from lossprobe.analysis.coloured_text.text_bytes import ENTRIES_ALONE, REBUILT, origin_of, shown_lengths, token_bytes
from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.rows.same_tokens import refuse_different, same_tokens
from lossprobe.analysis.rows.token_classes import FORMS
from lossprobe.run.argument import check_runs
from lossprobe.run.reader import Run
from lossprobe.run.texts import Vocabulary, load_vocabulary
from lossprobe.units import format_count, plural

LONG_TOKEN = 255  # a length in bytes that stands in an array of its own
REPEATED_BIT, NO_BYTES_BIT = 16, 32  # bits of `kind` beside the number of the form
NO_STEP = 255  # code of a token without a loss at a step
EXACT_TOKENS = 1000  # hardest tokens whose losses are kept as they are

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ColouredText:
    """The shown tokens of a run, in text order; see `lossprobe.report.page.text_view`, which reads every array.

    Attributes:
        header: what the page must know beside the arrays; JSON can hold it.
        arrays: name → values, little-endian, one a token [N] unless said otherwise.
            text: the UTF-8 bytes that the tokens stand for, end to end; of a token without bytes, its name.
            length: bytes of each in `text`, 255 for the next of `long_length` (uint32).
            loss: a code of `codes.loss_codes`, or 240 + i for the i-th of the header's reasons why there is none.
            entropy, rank: codes of `loss_codes` and `rank_codes`; 0 without a loss.
            kind: number of the form in the header's forms, + 16 where the id was in the context before, + 32 where the
            token covers no byte and `text` has its name.
            choice_0, choice_1, …: bytes of the number of the first choice, lowest first; 0 is the token itself, i + 1
            the i-th entry of `entries` (bytes end to end; `entry_length`: uint32, bytes of each), most frequent first.
            choice_loss: code of −log of the probability of the first choice; 0 where that is the token itself.
            context_tokens, context_first: uint32, runs of tokens whose context grows by one: their number, and the
            context of the first.
            piece_tokens, piece_document, piece_first, piece_byte, piece_why: consecutive tokens of one document: how
            many, index in the documents' arrays, number and first byte of the first token, index in the header's whys.
            document_…: number, source (index into the header's sources), line, offset, tokens, scored, mean (nats).
            label_tokens, label, label_turn: of conversations, runs of tokens of one turn and part: how many, index into
            the header's labels, turn (−1 for none).
            hard_token, hard_loss, hard_rank: indices of the hardest tokens, hardest first, with exact losses and ranks.
            difference, hard_difference: with another run, its loss − this one's: codes of `codes.difference_codes`, and
            the exact ones of the hardest tokens, which are those that changed most.
        hardest: the hardest shown tokens, or with another run the most changed ones, worst first.
        notes: what a reader must know, one sentence each.
    """

    header: dict[str, Any]
    arrays: Arrays = field(repr=False)
    hardest: tuple[HardestToken, ...] = field(repr=False)
    notes: tuple[str, ...]


def coloured_text(
    run: Run, other: Run | None = None, most_tokens: int = PAGE_TOKENS, steps: Mapping[str, Run] | None = None
) -> ColouredText:
    """Return the tokens of a run, packed; those of at most `most_tokens` tokens of a longer one, as `notes` then say.

    Args:
        run: the run whose losses are shown.
        other: a run of the same tokens, such as of a later checkpoint: its loss − that of `run` is shown too.
        most_tokens: most tokens that are shown.
        steps: runs of the same tokens over a training, by the names of their steps, in order.

    Raises:
        NotComparableError: the runs differ in text, tokenizer, windows or BOS, or did not score the same tokens; the
            message names the runs and what differs.
        OutputError: a stored loss is missing or not finite.
    """
    check_runs(run=run, **({} if other is None else {"other": other}))
    if other is not None and not same_tokens((run, other)):
        refuse_different((run, other))
    shown = choose_windows(run, most_tokens)
    rows, roles = read_rows(run, shown)
    scored = rows["reason"].to_numpy() < 0
    losses = rows["loss_nats"].to_numpy(np.float64)
    if not np.isfinite(losses[scored]).all():
        refuse_not_finite(run)
    vocabulary = load_vocabulary(run)
    pieces = _pieces(rows)
    origin = origin_of(run, rows, vocabulary)
    arrays = _token_arrays(rows, vocabulary, kept=run.settings.text.kept)
    arrays["text"] = np.frombuffer(b"".join(token_bytes(run, rows, pieces, vocabulary)), np.uint8)
    arrays |= first_choices(rows, vocabulary)
    documents, sources = document_arrays(run, rows, pieces)
    labels, names = label_arrays(rows, roles)
    arrays |= documents | labels
    differences = None
    if other is not None:
        differences = other_losses(run, other, rows, shown) - losses
        arrays["difference"] = difference_codes(differences)
    for place, step in enumerate((steps or {}).values()):
        at_step = other_losses(run, step, rows, shown)
        known = np.where(np.isnan(at_step), 0.0, at_step)
        arrays[f"step_{place}"] = np.where(np.isnan(at_step), NO_STEP, loss_codes(known)).astype(np.uint8)
    order = _hardest_first(losses if differences is None else np.abs(differences))
    ranks = rows["rank"].to_numpy(np.float64, na_value=0.0)
    arrays |= {"hard_token": order.astype("<u4"), "hard_loss": losses[order].astype("<f4")}
    arrays["hard_rank"] = ranks[order].astype("<u4")
    if differences is not None:
        arrays["hard_difference"] = differences[order].astype("<f4")
    header = _header(run, rows) | {
        "other": None if other is None else other.name,
        "steps": list(steps or {}),
        "origin": origin,
        "labels": names,
        "sources": sources,
        "windows": shown.windows,
        "chosen_windows": shown.counts,
    }
    unpaired = 0 if differences is None else int((scored & np.isnan(differences)).sum())
    hardest = hardest_tokens(run, rows, order, differences, vocabulary)
    return ColouredText(header, arrays, hardest, _notes(run, len(rows), shown, origin, unpaired))


def _header(run: Run, rows: pd.DataFrame) -> dict[str, Any]:
    """Return what the page must know of a run and of its shown rows, but for what other modules name."""
    losses = rows["loss_nats"].to_numpy(np.float64)[rows["reason"].to_numpy() < 0]
    return {
        "version": 1,
        "tokens": len(rows),
        "run_tokens": int(run.counts["tokens"]),
        "scored": len(losses),
        "mean_loss_nats": float(losses.mean()) if len(losses) else None,
        "name": run.name,
        "text_name": run.text_name,
        "vocab_size": run.vocab_size,
        "tiles": bool(run.counts.get("spans_tile", True)),
        "scales": scales(),
        "forms": list(FORMS),
        "reasons": rows.attrs["reasons"],
        "whys": list(REASONS),
    }


def _pieces(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the first row of each piece of consecutive tokens shown for one reason, and the number of rows."""
    document, token, why = (rows[name].to_numpy() for name in ("document", "token", "why"))
    broken = (np.diff(document) != 0) | (np.diff(token) != 1) | (np.diff(why) != 0)
    return np.concatenate([[0], np.flatnonzero(broken) + 1, [len(rows)]]).astype(np.int64)


def _token_arrays(rows: pd.DataFrame, vocabulary: Vocabulary, *, kept: bool) -> Arrays:
    """Return the arrays that have one value a token, but for those of the first choice."""
    reason = rows["reason"].to_numpy()
    scored = reason < 0
    lengths = shown_lengths(rows, vocabulary, kept=kept)
    empty = (rows["byte_stop"] <= rows["byte_start"]).to_numpy() & (lengths > 0)
    long = lengths >= LONG_TOKEN
    zero = np.uint8(0)
    arrays: Arrays = {
        "loss": np.where(scored, loss_codes(rows["loss_nats"].fillna(0).to_numpy()), SCORED_CODES + reason),
        "entropy": np.where(scored, loss_codes(rows["entropy_nats"].fillna(0).to_numpy()), zero),
        "rank": np.where(scored, rank_codes(rows["rank"].fillna(0).to_numpy()), zero),
        "kind": rows["form"].to_numpy() + REPEATED_BIT * rows["repeated"].to_numpy() + NO_BYTES_BIT * empty,
        "length": np.where(long, LONG_TOKEN, lengths),
    }
    contexts, first = segments(rows["context"].to_numpy(np.int64) - np.arange(len(rows)))
    return {name: values.astype(np.uint8) for name, values in arrays.items()} | {
        "long_length": lengths[long].astype("<u4"),
        "context_tokens": contexts.astype("<u4"),
        "context_first": rows["context"].to_numpy()[first].astype("<u4"),
    }


def _hardest_first(measure: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the rows with the largest values, at most `EXACT_TOKENS`, largest first, earlier ones first among equals.

    NaN, of tokens without a loss, is left out.
    """
    known = np.flatnonzero(~np.isnan(measure))
    values = measure[known]
    if len(known) > EXACT_TOKENS:
        least = np.partition(values, len(values) - EXACT_TOKENS)[len(values) - EXACT_TOKENS]
        known = known[values >= least]
    return known[np.argsort(-measure[known], kind="stable")][:EXACT_TOKENS]


def _notes(run: Run, tokens: int, shown: ChosenWindows, origin: str, unpaired: int) -> tuple[str, ...]:
    """Return what a reader must know: what is left out, where the text comes from, what the other run did not score."""
    notes = []
    if shown.blocks is not None:
        counts = shown.counts
        notes.append(
            f"{format_count(tokens)} of {plural(int(run.counts['tokens']), 'token')} are shown: of "
            f"{plural(shown.windows, 'window')} the {format_count(counts['hardest'])} with the hardest tokens, the "
            f"{format_count(counts['most'])} with the most loss above the mean, and {format_count(counts['sample'])} "
            "drawn at random with a fixed seed"
        )
    if origin == REBUILT:
        notes.append("the run keeps no text: it was put together from its tokens, and this page holds it")
    if origin == ENTRIES_ALONE:
        notes.append(
            "the run keeps no text: shown are the entries of the vocabulary, from which the text can differ, such as "
            "in blanks and capitals"
        )
    if unpaired:
        notes.append(f"{plural(unpaired, 'scored token')} without a loss in the other run: no change is shown there")
    return tuple(notes)
