"""From a command's arguments to a run: the latest one, a directory, or a text scored now (or found stored)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.cli.options import Scoring, given_options
from lossprobe.errors import OutputError, UsageError
from lossprobe.report.talk import say
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.checkpoint.interface import LoadOptions
    from lossprobe.pipeline import Scored
    from lossprobe.run.reader import Run


def find_run(sources: Sequence[Path], scoring: Scoring) -> Run:
    """Return the run that a view is about.

    Raises:
        UsageError: one argument that is no run, or scoring options for a run that is scored already.
        LossprobeError: whatever scoring or opening the run raises.
    """
    from lossprobe.run.reader import latest_run, open_run

    if len(sources) > 1:
        return score_text(sources[0], sources[1:], scoring).run
    given = given_options(click.get_current_context(), Scoring)
    if given and given != ["--quiet"]:
        raise UsageError(
            "options.scored_already", f"{', '.join(given)}: only for scoring, and this run is scored already",
            hint="name the checkpoint and the text as well",
        )  # fmt: skip
    if not sources:
        return latest_run(Path())
    return open_run(sources[0])


def score_text(checkpoint_path: Path, texts: Sequence[Path], scoring: Scoring) -> Scored:
    """Return the run of a checkpoint over texts, scored now unless an identical one is stored."""
    from lossprobe.text.documents import TextOptions, open_text

    check_output(checkpoint_path, scoring.output)
    options = TextOptions(scoring.split_documents, scoring.text_field, scoring.newlines, scoring.max_bytes)
    source = open_text(list(texts), options)

    from lossprobe.checkpoint.detect import open_checkpoint
    from lossprobe.cli.progress import show_progress
    from lossprobe.pipeline import ScoreOptions, score

    checkpoint = open_checkpoint(checkpoint_path, load_options(scoring))
    choices = ScoreOptions(
        context=scoring.context,
        stride=scoring.stride,
        bos=scoring.bos,
        batch_size=scoring.batch_size,
        score_unknown=scoring.score_unknown,
        max_unknown=scoring.max_unknown,
        keep_text=not scoring.no_text,
    )
    with show_progress(f"scoring {source.name}", quiet=scoring.quiet) as progress:
        scored = score(
            checkpoint, source, choices, output=scoring.output, overwrite=scoring.overwrite, progress=progress
        )
    if not scoring.quiet:
        if scoring.device == "auto":
            say(f"device: {checkpoint.facts.device}")
        for notice in (*checkpoint.facts.notices, *source.notices):
            say(f"notice: {notice}")
        state = "already scored, reusing" if scored.reused else "stored"
        say(f"{state} {visible(str(scored.run.path), 200)}")
    return scored


def load_options(scoring: Scoring) -> LoadOptions:
    """Return the checkpoint's part of the scoring options."""
    from lossprobe.checkpoint.interface import LoadOptions

    return LoadOptions(device=scoring.device, dtype=scoring.dtype, tokenizer=scoring.tokenizer, gelu=scoring.gelu)


def check_output(checkpoint: Path, output: Path | None) -> None:
    """Refuse, before a model is loaded, an output that cannot be written or lies inside the checkpoint.

    Raises:
        UsageError: inside the checkpoint.
        OutputError: a link, or a directory that cannot be written.
    """
    from lossprobe.run.reader import RUNS_FOLDER

    target = output or Path(RUNS_FOLDER)
    shown = visible(str(target), 200)
    if target.is_symlink():
        raise OutputError("output.link", f"{shown}: is a symbolic link, which is never followed")
    try:
        taken = (target.resolve(), *target.resolve().parents)
        if output is not None and checkpoint.is_dir() and checkpoint.resolve() in taken:
            raise UsageError("output.inside_checkpoint", f"{shown}: lies inside the checkpoint, which is never changed")
        existing = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
        if not existing.is_dir():
            raise NotADirectoryError(20, os.strerror(20))
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OutputError("output.write", f"{shown}: cannot be written: {error.strerror}") from None
