"""Finds the run that a command names: the latest run, a stored one, or a checkpoint and a text to score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.cli.inputs import named_files, protect_files, protect_folder, protect_texts, refuse_unwritable_folder
from lossprobe.cli.options import Scoring, given_scoring_options
from lossprobe.cli.order import check_order, refuse_log
from lossprobe.cli.wording import with_options
from lossprobe.cli.workers import working_opener
from lossprobe.errors import NothingToScoreError, OutputError, UsageError
from lossprobe.report.talk import say
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.checkpoint.interface import Checkpoint
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.passes.known_text import KeptTokens, KnownText
    from lossprobe.passes.score import PassResult
    from lossprobe.run.reader import Run
    from lossprobe.run.shared_plan import SharedPlan
    from lossprobe.text.documents import Source, TextSource


def find_run(sources: Sequence[Path], scoring: Scoring, field: str | None = None) -> Run:
    """Return the run of a view of one run: the latest run, RUN, or that of CHECKPOINT TEXT…, scored if need be.

    A text that must be scored is refused before its checkpoint is opened if none of its records has `field`.

    Raises:
        UsageError: the only argument is not a run, or scoring options are given for a stored run.
        LossprobeError: scoring or opening the run fails.
    """
    from lossprobe.run.reader import latest_run, open_run
    from lossprobe.run.run_folders import is_run

    if len(sources) > 1:
        if is_run(sources[0]):
            raise UsageError("sources.one_run", f"{_shown(sources[0])}: is a run; pass exactly one run, with no text")
        return score_text(sources[0], sources[1:], scoring, field).run
    refuse_scoring_options()
    if sources:
        refuse_log(sources[0])
    return noticed(open_run(sources[0]) if sources else latest_run(Path()))


def noticed(run: Run) -> Run:
    """Print the notices of a stored run, and return the run."""
    say_each(run.notices)
    return run


def say_each(notices: Iterable[str]) -> None:
    """Print notices to standard error, one a line."""
    for notice in notices:
        say(f"notice: {with_options(notice)}")


def _shown(path: Path) -> str:
    from lossprobe.run.shown import shown_run

    return shown_run(path)


def refuse_scoring_options() -> None:
    """Refuse scoring options on the command line of a view of stored runs.

    Raises:
        UsageError: scoring options are given.
    """
    given = given_scoring_options(click.get_current_context())
    if given and given != ["--quiet"]:
        raise UsageError(
            "options.scored_already", f"{', '.join(given)}: only for scoring, and this run is scored already",
            hint="name the checkpoint and the text as well",
        )  # fmt: skip


def score_text(checkpoint_path: Path, texts: Sequence[Path], scoring: Scoring, field: str | None = None) -> PassResult:
    """Return the run of a checkpoint on texts; it is scored unless an identical run is stored."""
    from lossprobe.checkpoint.spec import Opener

    check_order([checkpoint_path], texts, scoring)
    check_output(checkpoint_path, scoring.output)
    return score_source(checkpoint_path, read_text(texts, scoring, field), scoring, Opener())


def read_text(
    texts: Sequence[Path], scoring: Scoring, field: str | None = None, tokens: KeptTokens | None = None
) -> KnownText:
    """Return a text that was read to its end and found good, which is done before a model is loaded.

    Args:
        texts: its files and folders.
        scoring: says how they are read.
        field: a field that some record must have; None where no field is asked for.
        tokens: keeps its tokens for passes to come; see `KnownText`.

    Raises:
        UsageError: no record has the field, or the text cannot be found.
        LossprobeError: the text cannot be read, or holds nothing.
    """
    from lossprobe.cli.progress import lines_of
    from lossprobe.passes.known_text import KnownText
    from lossprobe.text.fields import refuse_missing_field

    source = KnownText(open_source(texts, scoring), tokens)
    source.fingerprint(lines_of(source.name, quiet=scoring.quiet))
    if not any(document.text or document.example for document in source.documents()):
        raise NothingToScoreError("text.nothing_to_score", f"{source.name}: no tokens")
    if field is not None:
        refuse_missing_field(source.documents(), field)
    return source


def open_source(texts: Sequence[Path], scoring: Scoring) -> TextSource:
    """Return the source of the texts' documents, read as the scoring options say."""
    from lossprobe.text.documents import open_text

    source = open_text(list(texts), scoring.text)
    protect_texts(named_files(click.get_current_context()), [file.path for file in source.files])
    return source


def score_source(
    checkpoint_path: Path, source: KnownText, scoring: Scoring, opener: Opener, shared: SharedPlan | None = None
) -> PassResult:
    """Return what `score_opened` does for the checkpoint at a path."""
    check_output(checkpoint_path, scoring.output)
    return score_opened(load_checkpoint(checkpoint_path, scoring, opener), source, scoring, shared)


def score_opened(
    checkpoint: Checkpoint, source: KnownText, scoring: Scoring, shared: SharedPlan | None = None
) -> PassResult:
    """Return the run of a checkpoint on documents; it is scored with a progress bar unless an identical run is stored.

    Notices are printed, and the run becomes the latest run of the working folder. `shared` keeps the plan for other
    checkpoints of one tokenizer.
    """
    from lossprobe.cli.progress import show_progress
    from lossprobe.passes.score import score

    place, overwrite = scoring.output, scoring.overwrite
    with show_progress(f"scoring {source.name}", quiet=scoring.quiet) as progress:
        scored = score(
            checkpoint, source, scoring.score, output=place, overwrite=overwrite, progress=progress, shared=shared
        )
    say_scored(scored, checkpoint, source, scoring)
    return scored


def say_scored(scored: PassResult, checkpoint: Checkpoint, source: Source, scoring: Scoring) -> None:
    """Print the notices of a checkpoint and a text, and the folder of the run that was scored or found."""
    say_notices(checkpoint, source, scoring)
    if not scoring.quiet:
        from lossprobe.objects.folder import shown_place

        place = visible(shown_place(scored.run.path), 200)
        say(f"{'already scored, reusing' if scored.reused else 'stored'} {place}")


def say_notices(checkpoint: Checkpoint, source: Source, scoring: Scoring) -> None:
    """Print the notices of a checkpoint and a text, and the device if it was chosen automatically."""
    if scoring.quiet:
        return
    if scoring.load.device == "auto":
        say(f"device: {checkpoint.facts.device}")
    say_each((*checkpoint.facts.notices, *source.notices))


def load_checkpoint(path: Path, scoring: Scoring, opener: Opener) -> Checkpoint:
    """Return the checkpoint, with label smoothing removed for --desmooth; its model is loaded when it is needed.

    Raises:
        UsageError: a result would overwrite one of its files.
    """
    from lossprobe.checkpoint.spec import CheckpointSpec
    from lossprobe.passes.known_checkpoint import open_when_needed
    from lossprobe.passes.order import looks_like_adapter

    opener = working_opener(scoring.work, opener)
    whole = opener.share_base and not looks_like_adapter(path)  # beside the adapters that `base` and `merge` are for
    load = replace(scoring.load, base=None, merge=False) if whole else scoring.load
    checkpoint = open_when_needed(CheckpointSpec(path, load, scoring.desmooth), opener)
    protect_inputs(checkpoint.facts.files, scoring)
    return checkpoint


def protect_inputs(files: Sequence[str], scoring: Scoring) -> None:
    """Refuse results that would overwrite a file of the checkpoint or lie in it, or cannot be written.

    Raises:
        UsageError: a result would.
        OutputError: it cannot be written.
    """
    from lossprobe.report.formats.output import refuse_unwritable

    named = named_files(click.get_current_context())
    protect_files(named, files)
    for file in named:
        refuse_unwritable(str(file))
    protect_folder(scoring.output, files)


def check_output(checkpoint: Path, output: Path | None) -> None:
    """Refuse, before a model is loaded, a place for the run that cannot be written or lies inside the checkpoint.

    Raises:
        UsageError: the place lies inside the checkpoint.
        OutputError: the place is a symbolic link, or cannot be written.
    """
    from lossprobe.run.reader import RUNS_FOLDER

    target = output or Path(RUNS_FOLDER)
    shown = _shown(target)
    if target.is_symlink():
        raise OutputError("output.link", f"{shown}: is a symbolic link, which is never followed")
    try:
        taken = (target.resolve(), *target.resolve().parents)
        if output is not None and checkpoint.is_dir() and checkpoint.resolve() in taken:
            raise UsageError("output.inside_checkpoint", f"{shown}: lies inside the checkpoint, which is never changed")
    except OSError as error:
        raise OutputError("output.write", f"{shown}: cannot be written: {error.strerror}") from None
    refuse_unwritable_folder(target)
