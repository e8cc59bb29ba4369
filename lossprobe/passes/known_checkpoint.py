"""What is known of a checkpoint from the last time it was opened, so that its runs are found without loading a model.

`.lossprobe/known/SHA256.json` is named by where a checkpoint is, how it is opened, and the versions that read it. It
holds what opening it said of it and of its tokenizer, and the files that were read: their sha256, and the names beside
them. With these, and a text and windows, the name and the settings of a run are known: see `passes.identity`.

A note is no more than a shortcut. It counts only where every file has the bytes that it had, and no other one came to
stand beside them; otherwise the checkpoint is opened, and noted anew. When a model is loaded for which there was a
note, what it says is held against the note.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.deferred import DeferredCheckpoint, TokenizerFacts
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts
from lossprobe.checkpoint.spec import CheckpointSpec, Opener, changed_since, files_read, still_as_read
from lossprobe.errors import OutputError
from lossprobe.passes.identity import versions
from lossprobe.run.files import read_sealed, sealed, sha256_of_json, write_json
from lossprobe.run.folder import Folder
from lossprobe.run.latest import RUNS_FOLDER

KNOWN = "known"


def open_when_needed(spec: CheckpointSpec, opener: Opener) -> Checkpoint:
    """Return a checkpoint that is loaded when a model is needed; now, where it is not known what it is.

    Raises:
        LossprobeError: as in `open_checkpoint`, when it is loaded.
    """
    spec = spec.on_this_machine()
    if opener.has_open(spec):
        return opener.open(spec)
    name = f"{sha256_of_json({'checkpoint': spec.as_json(), 'versions': versions()})}.json"

    def load() -> Checkpoint:
        started = time.time_ns()
        checkpoint = opener.open(spec)
        if checkpoint.facts.sha256 and not changed_since(started, checkpoint.facts.files):
            _write_note(name, checkpoint)
        return checkpoint

    note = _read_note(name)
    if note is None:
        return load()
    facts, tokenizer = note
    return DeferredCheckpoint(replace(facts, device=spec.options.device), tokenizer, load)


def _read_note(name: str) -> tuple[CheckpointFacts, TokenizerFacts] | None:
    """Return what a note says of a checkpoint and its tokenizer; None where there is none that still holds."""
    try:
        with Folder.open(Path(RUNS_FOLDER), follow=False) as runs, runs.folder(KNOWN) as folder:
            note, sound = read_sealed(folder, name)
        if not sound or not still_as_read(note["read"]):
            return None
        facts = {**note["facts"], **{key: tuple(note["facts"][key]) for key in ("notices", "files")}, "hashes": ()}
        return _exactly(CheckpointFacts, facts), _exactly(TokenizerFacts, note["tokenizer"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # also: another shape than is written here
        return None


def _exactly(kind: type[Any], values: dict[str, Any]) -> Any:
    """Return an object of a dataclass with a value for each of its fields."""
    if values.keys() != {field.name for field in fields(kind)}:
        raise ValueError("other fields than are written here")
    return kind(**values)


def _write_note(name: str, checkpoint: Checkpoint) -> None:
    """Note what is known of a checkpoint; where that fails, it is opened next time too."""
    facts = checkpoint.facts
    note = {
        "facts": {**asdict(facts), "hashes": []},
        "tokenizer": asdict(TokenizerFacts.of(checkpoint.tokenizer)),
        "read": files_read(facts),
    }
    folder = Path(RUNS_FOLDER, KNOWN)
    with contextlib.suppress(OSError, OutputError):
        if not Path(RUNS_FOLDER).is_symlink() and not folder.is_symlink():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / name, sealed(note))
