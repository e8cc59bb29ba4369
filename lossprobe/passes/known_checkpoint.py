"""What is known of a checkpoint from the last time it was opened, so that its runs are found without loading a model.

A note (see `run.notes`) is named by where a checkpoint is, how it is opened, and the versions that read it. It holds
what opening it said of it and of its tokenizer, and the files that were read: their sha256, and the names beside them.
With these, and a text and windows, the name and the settings of a run are known: see `passes.identity`.

It counts only where every file has the bytes that it had, and no other one came to stand beside them; otherwise the
checkpoint is opened, and noted anew. When a model is loaded for which there was a note, what it says is held against
the note.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.deferred import DeferredCheckpoint, TokenizerFacts
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts
from lossprobe.checkpoint.spec import CheckpointSpec, Opener, changed_since, files_read, still_as_read
from lossprobe.passes.identity import versions
from lossprobe.run.files import sha256_of_json
from lossprobe.run.latest import RUNS_FOLDER
from lossprobe.run.notes import read_note, write_note

Note = dict[str, Any]


class KnownCheckpoint(DeferredCheckpoint):
    """A checkpoint of which is noted what it is, or can be noted as soon as a run of it is stored.

    Args:
        facts: what opening it would say of it.
        tokenizer: what opening it would say of its tokenizer.
        load: opens it, and says what is to be noted of it then; nothing, where that would not identify it.
        asked: what the note answers.
        note: the note; None where there is none that holds.
    """

    def __init__(
        self,
        facts: CheckpointFacts,
        tokenizer: TokenizerFacts,
        load: Callable[[], tuple[Checkpoint, Note | None]],
        asked: Note,
        note: Note | None,
    ) -> None:
        super().__init__(facts, tokenizer, self._load_new)
        self._load_both = load
        self._asked, self._note, self._written = asked, note, note is not None

    def _load_new(self) -> Checkpoint:
        checkpoint, self._note = self._load_both()
        self._written = False
        self.keep()
        return checkpoint

    @property
    def state(self) -> str:
        """What tells it from any other one, by its files and how it is opened; "" where nothing does."""
        return "" if self._note is None else sha256_of_json({**self._asked, "read": self._note["read"]})

    def keep(self) -> None:
        """Write the note, once; where the working folder has no runs, there is none that could be found by it."""
        if self._note is not None and not self._written and Path(RUNS_FOLDER).is_dir():
            write_note(self._asked, self._note)
            self._written = True


def open_when_needed(spec: CheckpointSpec, opener: Opener) -> Checkpoint:
    """Return a checkpoint that is loaded when a model is needed; now, where it is not known what it is.

    Raises:
        LossprobeError: as in `open_checkpoint`, when it is loaded.
    """
    spec = spec.on_this_machine()
    if opener.has_open(spec):
        return opener.open(spec)
    asked = {"checkpoint": spec.as_json(), "versions": versions()}
    note = read_note(asked)
    known = None if note is None else _still_known(note)
    if known is not None:
        facts = replace(known[0], device=spec.options.device)
        return KnownCheckpoint(facts, known[1], lambda: _open(spec, opener), asked, note)
    checkpoint, note = _open(spec, opener)
    facts, tokenizer = checkpoint.facts, TokenizerFacts.of(checkpoint.tokenizer)
    made = KnownCheckpoint(facts, tokenizer, lambda: (checkpoint, note), asked, note=None)
    made.opened()
    return made


def _open(spec: CheckpointSpec, opener: Opener) -> tuple[Checkpoint, Note | None]:
    """Return a checkpoint, loaded, and what can be noted of it; nothing where it cannot be told from another one."""
    started = time.time_ns()
    checkpoint = opener.open(spec)
    facts = checkpoint.facts
    if not facts.sha256 or changed_since(started, facts.files):
        return checkpoint, None
    tokenizer = asdict(TokenizerFacts.of(checkpoint.tokenizer))
    return checkpoint, {"facts": {**asdict(facts), "hashes": []}, "tokenizer": tokenizer, "read": files_read(facts)}


def keep_known(checkpoint: Checkpoint) -> None:
    """Note what a checkpoint is, now that a run of it is stored."""
    if isinstance(checkpoint, KnownCheckpoint):
        checkpoint.keep()


def _still_known(note: Note) -> tuple[CheckpointFacts, TokenizerFacts] | None:
    """Return what a note says of a checkpoint and its tokenizer; None where it does not hold any more."""
    try:
        if not still_as_read(note["read"]):
            return None
        facts = {**note["facts"], **{key: tuple(note["facts"][key]) for key in ("notices", "files")}, "hashes": ()}
        return _exactly(CheckpointFacts, facts), _exactly(TokenizerFacts, note["tokenizer"])
    except (ValueError, KeyError, TypeError, AttributeError):  # another shape than is written here
        return None


def _exactly(kind: type[Any], values: dict[str, Any]) -> Any:
    """Return an object of a dataclass with a value for each of its fields."""
    if values.keys() != {field.name for field in fields(kind)}:
        raise ValueError("other fields than are written here")
    return kind(**values)
