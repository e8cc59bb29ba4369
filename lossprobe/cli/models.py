"""Finds the runs of several models: stored ones, or those of checkpoints on one text, scored if need be.

Models that cannot be compared are refused before the first of them is scored, by what opening them says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.cli.inputs import named_files, protect_files
from lossprobe.cli.options import Scoring
from lossprobe.cli.order import check_order
from lossprobe.cli.sources import (
    check_output,
    find_run,
    load_checkpoint,
    noticed,
    read_text,
    refuse_scoring_options,
    score_opened,
    score_source,
)
from lossprobe.errors import UsageError
from lossprobe.passes.order import has_adapter, holds_weights

if TYPE_CHECKING:
    from lossprobe.analysis.rows.same_tokens import Described
    from lossprobe.checkpoint.interface import Checkpoint
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.run.reader import Run

    Refuse = Callable[[Sequence[Described]], None]  # raises if the runs cannot stand side by side

TOGETHER_BYTES = 2 << 30  # weights on disk of models that may be in memory together


def find_runs(
    sources: Sequence[Path],
    scoring: Scoring,
    refuse: Refuse,
    field: str | None = None,
    opener: Opener | None = None,
) -> list[Run]:
    """Return the runs of a view of several models: RUN…, or CHECKPOINT… (or RUN…) with one TEXT last.

    With --desmooth each checkpoint is scored twice: as it is, and with label smoothing removed.

    Args:
        sources: what the command line names.
        scoring: says how checkpoints are opened and scored.
        refuse: as in `score_models`.
        field: as in `sources.find_run`.
        opener: opens the checkpoints; None for `opener_of`.

    Raises:
        UsageError: as in `sources.find_run`; or no checkpoint or no text is given, or `-o` for several runs.
        LossprobeError: scoring or opening a run fails.
    """
    from lossprobe.run.reader import open_run
    from lossprobe.run.run_folders import is_run

    if len(sources) < 2 or all(is_run(path) for path in sources):
        refuse_scoring_options()
        return [noticed(open_run(path)) for path in sources] or [find_run((), scoring)]
    return score_models(sources, scoring, opener or opener_of(sources[:-1]), refuse, field)


def opener_of(checkpoints: Sequence[Path]) -> Opener:
    """Return what opens the checkpoints, and keeps all of them in memory if they are small, else one at a time."""
    from lossprobe.checkpoint.spec import Opener

    files = [file for path in checkpoints for file in (path.iterdir() if path.is_dir() else (path,)) if file.is_file()]
    size = sum(file.stat().st_size for file in files if holds_weights(file))
    keep = len(checkpoints) if size <= TOGETHER_BYTES else 1
    return Opener(keep, share_base=has_adapter(checkpoints))


def score_models(
    sources: Sequence[Path], scoring: Scoring, opener: Opener, refuse: Refuse, field: str | None = None
) -> list[Run]:
    """Return the runs of CHECKPOINT… (or RUN…) on the TEXT that comes last.

    Args:
        sources: what the command line names.
        scoring: says how checkpoints are opened and scored.
        opener: opens them; if it keeps them all, all are opened before the first one is scored.
        refuse: called with what is known of the runs, before each pass with what was opened since.
        field: as in `sources.find_run`.

    Raises:
        UsageError: as in `find_runs`.
        LossprobeError: scoring or opening a run fails.
    """
    from lossprobe.passes.known_text import KeptTokens
    from lossprobe.passes.score import planned_run
    from lossprobe.run.reader import open_run
    from lossprobe.run.run_folders import is_run
    from lossprobe.run.shared_plan import SharedPlan

    models, plain = sources[:-1], replace(scoring, desmooth=None)
    checkpoints = [path for path in models if not is_run(path)]
    check_places(checkpoints, sources[-1:], scoring)
    source = read_text(sources[-1:], scoring, field, KeptTokens())  # standard input can be read only once
    stored = {path: noticed(open_run(path)) for path in models if path not in checkpoints}
    known: dict[Path, Described] = {**stored}

    def opened(path: Path) -> Checkpoint:
        checkpoint = load_checkpoint(path, plain, opener)
        known[path] = planned_run(checkpoint, source, scoring.score)
        refuse([known[each] for each in models if each in known])
        return checkpoint

    together = opener.keep >= len(checkpoints)
    ahead = {path: opened(path) for path in dict.fromkeys(checkpoints)} if together else {}
    runs = []
    with SharedPlan() as shared:
        for path in models:
            if path in stored:
                runs.append(stored[path])
                continue
            checkpoint = ahead.pop(path) if path in ahead else opened(path)
            runs.append(score_opened(checkpoint, source, plain, shared).run)
            known[path] = runs[-1]  # what is known of a planned run holds its tokenizer
            if scoring.desmooth is not None:
                runs.append(score_source(path, source, scoring, opener, shared).run)
    return runs


def check_places(checkpoints: Sequence[Path], texts: Sequence[Path], scoring: Scoring) -> None:
    """Refuse sources in the wrong order, and places of results that hold an input or cannot be written.

    Raises:
        UsageError: see `order.check_order`; a result would overwrite a file of a checkpoint; or `-o` for several runs.
        OutputError: the place of the run cannot be written.
    """
    check_order(checkpoints, texts, scoring)
    protect_files(named_files(click.get_current_context()), [str(path.absolute()) for path in checkpoints])
    passes = 1 if scoring.desmooth is None else 2
    if scoring.output is not None and len(checkpoints) * passes > 1:
        from lossprobe.run.shown import shown_run

        shown = shown_run(scoring.output)
        raise UsageError("output.several_runs", f"-o {shown}: one place for several runs")
    for path in checkpoints:
        check_output(path, scoring.output)
