"""A run that is stored already, found by what was asked for: without a model, and without torch.

`.lossprobe/known/SHA256.json` is named by a question (which checkpoint and options, text, windows and versions) and
says which run answered it, and from which files the checkpoint was read. It is no more than a shortcut: where it is
missing, or anything is no longer as it was, the checkpoint is opened, and the run is found by its settings.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lossprobe import __version__
from lossprobe.errors import OutputError, UsageError
from lossprobe.passes.known_text import text_sha256
from lossprobe.passes.planning import check_unknown
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.windows import Layout
from lossprobe.run.files import read_sealed, sealed, sha256_of_json, write_json
from lossprobe.run.folder import Folder
from lossprobe.run.latest import RUNS_FOLDER, write_latest
from lossprobe.run.reader import Run, open_run
from lossprobe.run.schema import PLAN
from lossprobe.text.documents import Source
from lossprobe.units import format_count

KNOWN = "known"
# Goes up when a fault is mended that moved what a pass stores, so that no run with the fault is found and used again.
PASS_VERSION = "2"
DEPENDENCIES = ("numba", "torch", "transformers", "tokenizers")


@dataclass(frozen=True)
class Scored:
    """A run, and whether it was stored already."""

    run: Run
    reused: bool


@dataclass(frozen=True)
class Answer:
    """The run that answers a question.

    Attributes:
        run: the run.
        files: absolute paths of the files that its checkpoint was read from.
        notices: what was said of the checkpoint when it was opened.
    """

    run: Run
    files: tuple[str, ...]
    notices: tuple[str, ...]


def question(checkpoint: dict[str, Any], source: Source, options: ScoreOptions, output: Path | None) -> dict[str, Any]:
    """Return all that decides which run is wanted, but for the content of the checkpoint's files.

    Args:
        checkpoint: where it is and how it is opened, as JSON.
        source: the text.
        options: windows and BOS; batches and the limit for unknown text decide nothing that is stored.
        output: the run's directory, where one was named.
    """
    return {
        "checkpoint": checkpoint,
        "text": {"name": source.name, "sha256": text_sha256(source), "kept": options.keep_text},
        "windows": [options.context, options.stride, options.bos, options.score_unknown],
        "output": None if output is None else str(output),
        "versions": versions(),
    }


def find_answer(
    asked: dict[str, Any], source: Source, max_unknown: float, unchanged: Callable[[dict[str, Any]], bool]
) -> Answer | None:
    """Return the stored run that answered a question before; None where none is known, or it is not whole.

    Args:
        asked: from `question`.
        source: the text; gets the notices that scoring it would give it.
        max_unknown: as in `ScoreOptions`.
        unchanged: says whether the files that a checkpoint was read from are as they were.

    Raises:
        TextError: too much of the text is not in the vocabulary.
    """
    try:
        with Folder.open(Path(RUNS_FOLDER), follow=False) as runs, runs.folder(KNOWN) as folder:
            note, sound = read_sealed(folder, f"{sha256_of_json(asked)}.json")
        if not sound or not unchanged(note["read"]):
            return None
        run = open_run(Path(note["run"]))
        if run.notices or os.path.lexists(run.path / PLAN) or _settings_of(run) != note["settings"]:
            return None
        run.check()
    except (OSError, ValueError, OutputError, UsageError, KeyError, TypeError, AttributeError):  # also: another shape
        return None
    settings = run.manifest["settings"]
    if settings["windows"]["layout"] != Layout.WHOLE:
        limit = settings["checkpoint"]["context_length"]
        note_beyond_trained(source, run.name, limit, run.context)
    check_unknown(run.counts, source, max_unknown)
    return Answer(run, tuple(note["read"]["hashes"]), tuple(note["notices"]))


def note_answer(asked: dict[str, Any], run: Run, read: dict[str, Any], notices: tuple[str, ...]) -> None:
    """Note which run answers a question; where that cannot be written, the run is found by its settings.

    Args:
        asked: from `question`.
        run: the run.
        read: the files that the checkpoint was read from, as JSON; see `find_answer`.
        notices: what is said of the checkpoint.
    """
    note = {"run": str(run.path), "settings": _settings_of(run), "read": read, "notices": list(notices)}
    folder = Path(RUNS_FOLDER, KNOWN)
    with contextlib.suppress(OSError, OutputError):
        if not Path(RUNS_FOLDER).is_symlink() and not folder.is_symlink():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / f"{sha256_of_json(asked)}.json", sealed(note))


def _settings_of(run: Run) -> str:
    return sha256_of_json(run.manifest["settings"])


def versions() -> dict[str, str]:
    """Return the versions of what decides a run's numbers."""
    ours = {"lossprobe": __version__, "pass": PASS_VERSION}
    return ours | {name: metadata.version(name) for name in DEPENDENCIES}


def note_beyond_trained(source: Source, name: str, limit: int | None, context: int) -> None:
    """Add a notice to a text where the context is above the length that a model's configuration states.

    Args:
        source: the text.
        name: the model's name.
        limit: that length; None where it states none.
        context: most input tokens of a window.
    """
    if limit is not None and context > limit:
        notice = (
            f"{name}: a context of {format_count(context)} is above the model's own, {format_count(limit)}: "
            "its positions go on, but may not have been trained so far"
        )
        if notice not in source.notices:
            source.notices.append(notice)


def remember(path: Path, source: Source) -> None:
    """Make a run the latest one of the working folder; where that cannot be written, the run stands all the same."""
    try:
        write_latest(Path(RUNS_FOLDER), path)
    except OutputError as error:
        source.notices.append(f"not remembered as the latest run: {error.message}")
