"""Finds the checkpoints of one training run that a command names, or their stored runs, in the order of their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lossprobe.cli.models import check_places, opener_of
from lossprobe.cli.options import Scoring
from lossprobe.cli.sources import load_checkpoint, noticed, read_text, refuse_scoring_options, say_each
from lossprobe.errors import UsageError
from lossprobe.logs.checkpoint_order import NAMED, StepOrder, order_by_step
from lossprobe.logs.folder import log_beside
from lossprobe.passes.order import holds_weights, looks_like_checkpoint, looks_like_text
from lossprobe.report.talk import say
from lossprobe.units import plural, visible

if TYPE_CHECKING:
    from lossprobe.run.reader import Run

CONFIG = "config.json"  # beside weights it makes one checkpoint of a folder, be the weights in one file or several


def find_series(sources: Sequence[Path], scoring: Scoring, field: str | None) -> tuple[list[Run], StepOrder]:
    """Return the runs of a series in the order of their steps, and that order; checkpoints are scored if need be.

    Args:
        sources: what the command line names: RUN…, a folder of runs, or CHECKPOINT… and TEXT… last, where a folder
            may stand for the checkpoints in it.
        scoring: says how checkpoints are opened and scored.
        field: as in `sources.find_run`.

    Raises:
        UsageError: they are fewer than two, or no text is named.
        NotComparableError: they have different tokenizers, or the runs different texts.
        LossprobeError: scoring or opening a run fails.
    """
    from lossprobe.analysis.series.series import refuse_single
    from lossprobe.run.reader import open_run
    from lossprobe.run.run_folders import is_run, run_folders

    only = run_folders(sources[0]) if len(sources) == 1 and not is_run(sources[0]) else []
    if only or all(map(is_run, sources)):
        refuse_scoring_options()
        refuse_single(len(only or sources))
        runs = [noticed(open_run(path)) for path in only or sources]
        order = order_by_step([_place(run.path, run) for run in runs])
        return [runs[at] for at in order.order], order
    if len(sources) == 1:
        raise UsageError(
            "series.sources", f"{visible(str(sources[0]), 200)}: no text to score its checkpoints on",
            hint="lossprobe series FOLDER TEXT",
        )  # fmt: skip
    first = _first_text(sources)
    return _score(_unrepeated(_expanded(sources[:first])), sources[first:], scoring, field)


def _first_text(sources: Sequence[Path]) -> int:
    """Return the place of the first text: the last source is one, and files right before it that are named as texts."""
    first = len(sources) - 1
    while first > 1 and looks_like_text(sources[first]) and looks_like_text(sources[first - 1]):
        first -= 1
    return first


def _score(
    models: list[Path], texts: Sequence[Path], scoring: Scoring, field: str | None
) -> tuple[list[Run], StepOrder]:
    """Return the runs of checkpoints (or runs) on texts in the order of their steps, and that order."""
    from lossprobe.analysis.rows.same_tokens import refuse_different
    from lossprobe.analysis.series.series import refuse_single
    from lossprobe.cli.progress import show_progress
    from lossprobe.passes.series import SeriesModels, score_series
    from lossprobe.run.reader import open_run
    from lossprobe.run.run_folders import is_run

    checkpoints = [path for path in models if not is_run(path)]
    check_places(checkpoints, texts, replace(scoring, desmooth=None))
    refuse_single(len(models))
    stored = {path: noticed(open_run(path)) for path in models if path not in checkpoints}
    order = order_by_step([_place(path, stored.get(path)) for path in models])
    source = read_text(texts, scoring, field)
    opener = opener_of(checkpoints)
    together = opener.keep >= len(checkpoints)
    chosen = SeriesModels(
        [models[at] for at in order.order], stored, lambda path: load_checkpoint(path, scoring, opener), together
    )
    title = f"scoring {plural(len(checkpoints), 'checkpoint')} on {source.name}"
    with show_progress(title, quiet=scoring.quiet) as progress:
        found = score_series(chosen, source, scoring.score, refuse_different, progress)
    if not scoring.quiet:
        say_each(source.notices)
        reused = sum(result.reused for result in found)
        say(f"{plural(len(found), 'checkpoint')}: {len(found) - reused} scored, {reused} stored already")
        log = log_beside(checkpoints[-1]) if checkpoints else None
        if log is not None:
            say(f"next: lossprobe curve {visible(str(log), 200)}  # the training log beside them")
    return [result.run for result in found], order


def _place(path: Path, run: Run | None) -> Path:
    """Return the path of a checkpoint; of a stored run that of what was scored."""
    from lossprobe.run.names import place_of

    return path if run is None else place_of(run) or Path(run.name)


def _expanded(sources: Sequence[Path]) -> list[Path]:
    """Return the checkpoints that sources stand for: a folder of checkpoints for those in it.

    A folder that is a checkpoint itself and holds others, as a trainer leaves it, stands for those in it where it is
    the only source, and for itself beside others.
    """
    found: list[Path] = []
    for source in sources:
        inside = checkpoints_in(source) if len(sources) == 1 or not looks_like_checkpoint(source) else []
        if inside and looks_like_checkpoint(source) and not inside[0].is_file():
            shown = visible(str(source), 100)
            held = f"holds {plural(len(inside), 'checkpoint')} and weights of its own, which are left out"
            say(f"notice: {shown}: {held}; name it beside them to add it")
        for path in _unfinished(source, inside):
            say(f"notice: {visible(str(path), 100)}: holds no weights, left out")
        found += inside or [source]
    return found


def _unfinished(folder: Path, inside: Sequence[Path]) -> list[Path]:
    """Return the folders beside those checkpoints that are named as one and hold no weights, or not yet."""
    if not inside or inside[0].is_file():
        return []
    named = [path for path in sorted(folder.iterdir()) if path.is_dir() and NAMED.search(path.name)]
    return [path for path in named if not looks_like_checkpoint(path)]


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, by step or else by name: folders with weights, or else files of weights."""
    from lossprobe.run.run_folders import is_run

    if not folder.is_dir() or is_run(folder):
        return []
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir() and not is_run(path) and looks_like_checkpoint(path)]
    if folders:
        return [folders[at] for at in order_by_step(folders).order]
    files = [path for path in entries if path.is_file() and holds_weights(path)]
    several = len(files) > 1 and not (folder / CONFIG).is_file()
    return [files[at] for at in order_by_step(files).order] if several else []


def _unrepeated(paths: list[Path]) -> list[Path]:
    """Return paths without those that lead to the same place as an earlier one, which is told."""
    kept: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in kept:
            say(f"notice: {visible(str(path), 100)}: named twice, used once")
        kept.setdefault(path.resolve(), path)
    return list(kept.values())
