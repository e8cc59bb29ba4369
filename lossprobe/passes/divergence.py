"""Measures how far the predictions of two checkpoints on a text are apart, in one pass of both that is stored.

Each model is scored first, as for any other view. The rows of these runs are the plan of the pass of both, so that its
results stand beside the stored tokens row by row; see `run.pair`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lossprobe.analysis.compare.divergence import Divergence
from lossprobe.analysis.compare.measured_divergence import measure_pair
from lossprobe.analysis.options import CompareOptions
from lossprobe.analysis.rows.same_tokens import refuse_other_vocabulary
from lossprobe.checkpoint.deferred import opened
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.errors import OutputError
from lossprobe.passes.identity import measured_facts, run_name
from lossprobe.passes.known_text import KnownSource, KnownText
from lossprobe.passes.parts import Counted, Progress, no_progress
from lossprobe.passes.score import planned_run, score_into
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import SCORED, Rows
from lossprobe.run.pair import Pair, open_pair, pair_labels, pair_settings
from lossprobe.run.pair import planned_run as run_with_windows
from lossprobe.run.pair_store import PairStore
from lossprobe.run.planned_rows import part_rows, planned_rows
from lossprobe.run.presence import gone
from lossprobe.run.reader import Run
from lossprobe.run.schema import DIVERGENCES, PAIR
from lossprobe.scoring.measure import PassOptions
from lossprobe.scoring.pair import PartDivergence, compare_part
from lossprobe.text.documents import Source
from lossprobe.units import plural, visible


def measure_divergence(  # noqa: PLR0913 - models, text and options, and what to show
    first: Checkpoint,
    second: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    progress: Progress | None = None,
    *,
    by: str = CompareOptions.by,
    top: int = CompareOptions.top,
) -> Divergence:
    """Return how far two models are apart on a text: KL(first‖second), top-1 agreement, change of probability.

    The runs of both models and that of the pair are stored under `.lossprobe/`, and what is stored is not computed
    again. What belongs to a checkpoint that cannot be identified (a `CallableCheckpoint` without `sha256`) is kept in a
    temporary folder, and removed.

    Args:
        first: model A, from `open_checkpoint`, or a `CallableCheckpoint`.
        second: model B, whose tokens of the text are the same, and whose ids mean the same.
        source: the text.
        options: windows, BOS, batch size, unknown characters. Without a context it is the smaller of the models' own.
        progress: called with the tokens done so far and the tokens to do, in each pass.
        by: slices of the tokens; see `CompareOptions`.
        top: how many of the tokens with the largest divergence, and of the slices.

    Raises:
        NotComparableError: the tokens of the text, or the meanings of ids, differ.
        CheckpointError: a loss that is NaN or infinite, or a token id that the models do not have.
        LossprobeError: the text or the options are refused; see `score.score`.
    """
    options = options or ScoreOptions()
    source = source if isinstance(source, KnownSource) else KnownText(source)
    refuse_other_vocabulary(*(planned_run(one, source, options) for one in (first, second)))
    with _places(first, second) as places:
        runs = [
            score_into(place, one, source, options, progress=progress).run
            for place, one in zip(places, (first, second), strict=True)
        ]
        pair = score_pair((runs[0], runs[1]), (first, second), source.notices, options.batch_size, progress)
        return measure_pair(pair, by, top)


@contextmanager
def _places(first: Checkpoint, second: Checkpoint) -> Iterator[tuple[Path | None, Path | None]]:
    """Yield where to store the runs of two checkpoints: None for the usual place."""
    if first.facts.sha256 and second.facts.sha256:
        yield None, None
        return
    with tempfile.TemporaryDirectory(prefix="lossprobe-pair-") as folder:
        yield Path(folder, "first"), Path(folder, "second")


def pair_path(first: Run, second: Run) -> Path:
    """Return where the pair of two runs lies: beside the first, named by its settings."""
    return first.path.parent / run_name(pair_settings(first, second), pair_labels(first, second))


def stored_pair(first: Run, second: Run, *, overwrite: bool = False) -> Pair | None:
    """Return the stored pair of two runs; None if it has not been measured, or not to its end.

    Args:
        first: the run of model A.
        second: the run of model B.
        overwrite: measure a damaged pair again, instead of refusing it.

    Raises:
        OutputError: it is damaged, and `overwrite` is False.
    """
    try:
        return open_pair(pair_path(first, second), first, second)
    except OutputError:
        if not overwrite:
            raise
        return None


def score_pair(
    runs: tuple[Run, Run],
    models: tuple[Checkpoint, Checkpoint],
    notices: list[str],
    batch_size: int | None = None,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
) -> Pair:
    """Return the pair of two runs, running both models only over the parts that are not stored yet.

    Beside the two models and one batch through a body, memory holds one part's rows, two chunks of logits and a few
    buffers of 2 MiB.

    Args:
        runs: the runs of both models on one text, which is not read again.
        models: their checkpoints; they are opened only if something is left to measure.
        notices: gets a line if finished parts were damaged since.
        batch_size: windows of a batch; None to choose.
        progress: called with the tokens measured so far and the tokens to measure.
        overwrite: measure a damaged pair again, instead of refusing it.

    Raises:
        NotComparableError: the tokens of the text, or the meanings of ids, differ.
        CheckpointError: a loss is NaN or infinite.
        OutputError: the pair or a run is damaged, another process is writing it, or it cannot be written.
    """
    refuse_other_vocabulary(*runs)
    reusable = all(model.facts.sha256 for model in models)
    found = stored_pair(*runs, overwrite=overwrite) if reusable else None
    if found is not None:
        return found
    planned, path = run_with_windows(*runs), pair_path(*runs)
    planned.check()
    with PairStore(path) as store:
        found = stored_pair(*runs, overwrite=overwrite) if reusable else None
        if found is not None:  # another process finished it meanwhile
            return found
        pair = (opened(models[0]), opened(models[1]))
        plan = _plan(runs, planned, pair)
        pending, broken = store.begin(plan, resume=reusable)
        if broken:
            parts = plural(len(broken), "finished part")
            notices.append(f"{visible(str(path), 200)}: {parts} damaged since, and measured again")
        options = PassOptions(batch_size)
        _measure_parts(store, pair, planned, pending, options, progress or no_progress)
        store.finish(plan)
    complete = open_pair(path, *runs)
    if complete is None:
        raise gone(visible(str(path), 200), f"{PAIR} is missing, or another one")
    return complete


def _plan(runs: tuple[Run, Run], planned: Run, pair: tuple[Checkpoint, Checkpoint]) -> dict[str, Any]:
    """Return what pair.json says beside the files: parts measured under another plan are not resumed."""
    return {
        "settings": pair_settings(*runs),
        "measured": {"first": measured_facts(pair[0]), "second": measured_facts(pair[1])},
        "labels": pair_labels(*runs),
        "counts": {name: planned.counts[name] for name in ("documents", "tokens", "scored_tokens")},
        "part_rows": part_rows(planned),
    }


def _measure_parts(
    store: PairStore,
    pair: tuple[Checkpoint, Checkpoint],
    planned: Run,
    pending: Sequence[int],
    options: PassOptions,
    progress: Progress,
) -> None:
    """Measure and store the parts of a run that are missing or damaged."""
    counted = Counted(part_rows(planned), pending, int(planned.counts["tokens"]), progress)
    options = replace(options, advance=counted.advance)
    for index in pending:
        part = planned_rows(planned, index)
        store.write_part(index, _columns(part, compare_part(pair, part, options)))
        counted.stored(index)


def _columns(part: Rows, measured: PartDivergence) -> dict[str, Any]:
    """Return the columns of a pair for a part's own rows: empty where a row has no loss."""
    own = part.take(part.own)
    scored = own.unscored == SCORED
    columns: dict[str, Any] = {"document": own.document, "token": own.token}
    for column in DIVERGENCES:
        found = getattr(measured, column.name)
        values = np.zeros(len(own), found.dtype)
        values[scored] = found
        columns[column.name] = np.ma.masked_array(values, ~scored)
    return columns
