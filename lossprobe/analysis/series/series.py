"""Checkpoints of one training run on one text: loss against step, and what each token's loss did meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lossprobe.analysis.options import SeriesOptions
from lossprobe.analysis.rows.clusters import slice_notes
from lossprobe.analysis.rows.differences import TESTED_CLUSTERS
from lossprobe.analysis.rows.same_tokens import refuse_different, tokenizer_note
from lossprobe.analysis.series.groups import group_tables
from lossprobe.analysis.series.improvement import RULE, Improvements, find_improvements
from lossprobe.analysis.series.ngrams import measure_ngrams
from lossprobe.analysis.series.references import NOTE, Reference, against_ngrams
from lossprobe.analysis.series.result import CheckpointSeries, worded
from lossprobe.analysis.series.slices import SeriesSlices, find_slices
from lossprobe.analysis.series.states import STATES
from lossprobe.analysis.series.sums import SeriesSums, series_sums
from lossprobe.analysis.series.tokens import RANKED_BY, TokenLists, listed_tokens, strip_of
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.errors import NothingToScoreError, UsageError
from lossprobe.logs.checkpoint_order import StepOrder
from lossprobe.options.given import check_options
from lossprobe.run.argument import check_runs
from lossprobe.run.names import distinct_names
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural, visible

RANKED = ("type", "document")  # slices that are ranked by how many tokens of a state they hold
ORDERED = ("context", "class", "frequency", "turn")  # few slices, in an order of their own


def measure_series(
    runs: Sequence[Run], order: StepOrder | None = None, options: SeriesOptions | None = None
) -> CheckpointSeries:
    """Return what became of the loss of a text over the checkpoints of a training run.

    Args:
        runs: runs of one text, in the order of their steps.
        order: the step and the name of each; None to count them from 1 on.
        options: slices, lists and threshold.

    Raises:
        UsageError: fewer than two runs, or no document has the field of `by`.
        NotComparableError: the runs differ in text, tokenizer, windows or BOS.
        NothingToScoreError: no token was scored by all runs.
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    check_runs(runs=list(runs))
    options = options or SeriesOptions()
    check_options(SeriesOptions, **vars(options))
    refuse_single(len(runs))
    refuse_different(runs)
    order = order or _counted(runs)
    at, names = list(order.steps), list(order.names)
    state = options.state or "forgotten"
    by = "token" if options.by is None and options.state is not None else options.by
    slices = find_slices(runs[0], by)
    lists = TokenLists(state, options.top)
    sums = series_sums(runs, slices, options.learned_below, lists)
    if lists.clearest is None:
        raise NothingToScoreError("text.nothing_to_score", f"{runs[0].text_name}: no token that all checkpoints scored")
    improvements, references = find_improvements(sums.nats, sums.tokens), _references(runs[0], slices, sums, at)
    groups = curves = None
    if by not in (None, "token"):
        groups, curves = _shown(*group_tables(slices, sums, at), str(by), state, options.top)
    return CheckpointSeries(
        by=by, state=state, learned_below=options.learned_below, unit=order.unit, steps=at, models=names,
        tokens=int(sums.tokens.sum()),
        states=dict(zip(STATES, sums.states[-1].tolist(), strict=True)),
        known_from_start=int(sums.group_learned_at[:, 0].sum()),
        forgettings=int(sums.group_forgettings.sum()),
        settled_at_step=None if improvements.settled is None else at[improvements.settled],
        best_at_step=at[improvements.best],
        worse_at_end=improvements.worse_at_end,
        references=references,
        interval_unit=slices.clusters.unit,
        clusters=len(sums.tokens),
        table=_table(sums, improvements, references, at, names),
        groups=groups,
        curves=curves,
        listed=listed_tokens(runs[0], lists, at, options.learned_below) if by == "token" else None,
        strip=strip_of(runs, lists.clearest, at, options.learned_below),
        notes=[
            *order.notes, *_run_notes(runs, names, sums), *_notes(slices, sums, improvements, options),
            *_reference_notes(references), *(slice_notes(runs[0], by) if by else []),
            *([f"tokens {worded(state)}: {RANKED_BY[state]}"] if by == "token" else []),
        ],
    )  # fmt: skip


def _counted(runs: Sequence[Run]) -> StepOrder:
    """Return runs in their order, numbered from 1."""
    count = len(runs)
    return StepOrder(tuple(range(count)), tuple(range(1, count + 1)), "checkpoint", tuple(distinct_names(runs)))


def refuse_single(checkpoints: int) -> None:
    """Refuse a series of fewer than two checkpoints.

    Raises:
        UsageError: it is.
    """
    if checkpoints < 2:
        raise UsageError(
            "series.sources", f"series takes two checkpoints or more, not {checkpoints}",
            hint="lossprobe series CHECKPOINT… TEXT, a folder of checkpoints and TEXT, or RUN…",
        )  # fmt: skip


def _references(run: Run, slices: SeriesSlices, sums: SeriesSums, at: list[int]) -> list[Reference]:
    """Return the n-gram models of the text; none where it cannot be divided, or some tokens are not in all runs."""
    ngrams = None if sums.left_out else measure_ngrams(run)
    return [] if ngrams is None else against_ngrams(ngrams, sums.nats, sums.tokens, slices.cluster_names, at)


def _table(
    sums: SeriesSums, improvements: Improvements, references: list[Reference], at: list[int], names: list[str]
) -> pd.DataFrame:
    """Return the table of `CheckpointSeries`."""
    table = pd.DataFrame({"step": at, "model": names})
    for name, values in (("mean_loss_nats", sums.nats), ("nll_minus_entropy_nats", sums.nats - sums.entropy)):
        found = _ratios(values, sums.tokens)
        low, high = ("excess_low", "excess_high") if name == "nll_minus_entropy_nats" else ("low", "high")
        table[[name, low, high]] = found
    nothing = [math.nan]
    neighbours = improvements.neighbours
    for name, column in (("difference_nats", "mean_difference_nats"), ("difference_low", "low"),
                         ("difference_high", "high"), ("p_holm", "p_holm")):  # fmt: skip
        table[name] = nothing + neighbours[column].tolist()
    table["significant"] = pd.array([None, *neighbours["significant"].tolist()], "boolean")
    for state, counts in zip(STATES, sums.states.T, strict=True):
        table[f"{state}_share"] = counts / sums.tokens.sum()
    for name in ("unigram", "bigram"):
        own = [each.difference_nats for each in references if each.name == name]
        table[f"minus_{name}_nats"] = own[0] if own else math.nan
    middle = ["nll_minus_entropy_nats", "excess_low", "excess_high"]
    order = [name for name in table if name not in middle]
    place = order.index("significant") + 1
    return table[[*order[:place], *middle, *order[place:]]]


def _ratios(values: Floats, tokens: Floats) -> np.ndarray:
    """Return the mean of each of K numbers over the tokens with its interval, float64 [K, 3], NaN without one."""
    found = [jackknife_ratio(row[tokens > 0], tokens[tokens > 0]) for row in values]
    return np.array([[each.value, *each.interval] for each in found], float)


def _shown(
    groups: pd.DataFrame, curves: pd.DataFrame, by: str, state: str, top: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the slices to show and their curves: types and documents by their tokens of a state, others by size."""
    if by in ORDERED:
        return groups, curves
    count = groups[f"{state}_share"] * groups["tokens"] if by in RANKED else groups["tokens"]
    order = count.sort_values(ascending=False, kind="stable").index[:top]
    shown = groups.loc[order].reset_index(drop=True)
    return shown, shown[["group"]].merge(curves, on="group", how="left")


def _notes(slices: SeriesSlices, sums: SeriesSums, improvements: Improvements, options: SeriesOptions) -> list[str]:
    unit = slices.clusters.unit
    notes = [slices.clusters.note] if slices.clusters.note else []
    if improvements.tests:
        notes.append(f"{RULE.format(unit=unit)}: {plural(improvements.tests, 'pair')}")
    else:
        found = plural(len(sums.tokens), unit)
        notes.append(f"improvement: not tested, since it needs {TESTED_CLUSTERS} {unit}s, and the text has {found}")
    below = f"{options.learned_below:g} nat{'s' * (options.learned_below != 1)}"
    notes.append(
        f"learned: a loss below {below} at the last checkpoint, and never above once below; unstable: below at the "
        "last, but above in between; forgotten: below at some, not at the last; never: at none"
    )
    if slices.merged is not None and slices.merged < len(sums.tokens):
        notes.append(f"intervals of slices resample {format_count(slices.merged)} groups of the {unit}s")
    if sums.left_out:
        notes.append(f"{plural(sums.left_out, 'token')} that only some of them scored left out")
    return notes


def _run_notes(runs: Sequence[Run], names: Sequence[str], sums: SeriesSums) -> list[str]:
    """Return what to say of the runs: tokenizers whose files differ, and checkpoints with the same weights."""
    tokenizers = (tokenizer_note(runs[0], run) for run in runs[1:])
    return [*dict.fromkeys(note for note in tokenizers if note), *_weight_notes(runs, names, sums)]


def _weight_notes(runs: Sequence[Run], names: Sequence[str], sums: SeriesSums) -> list[str]:
    """Return a note for each group of checkpoints with the same weights, such as the last ones at every step.

    Weights are the same by the sha256 of the files, or, where their names differ and so the sha256 of the whole, by the
    losses: equal sums in all documents.
    """
    hashes = [
        str(run.manifest["settings"]["checkpoint"].get("sha256") or name) for run, name in zip(runs, names, strict=True)
    ]
    losses = [row.tobytes() for row in sums.nats]
    notes = []
    for key in dict.fromkeys(losses):
        own = [place for place, row in enumerate(losses) if row == key]
        if len(own) > 1:
            why = "equal sha256" if len({hashes[place] for place in own}) == 1 else "equal losses in every document"
            listed = ", ".join(visible(names[place], 60) for place in own)
            notes.append(f"{listed} hold the same weights ({why})")
    return notes


def _reference_notes(references: list[Reference]) -> list[str]:
    return [NOTE] if references else ["unigram, bigram: n/a, the text cannot be divided into parts"]
