"""Notes about checkpoints that were opened before, with which their stored runs are found without loading a model.

A note (see `run.notes`) belongs to a path, load options and library versions. It has the facts of the checkpoint and of
its tokenizer, the sha256 of the files that were read, and the names of the files beside them. With a text and windows,
it gives the name and the settings of a run; see `passes.identity`.

A note is used only if every file still has the same bytes and no file was added. Otherwise the checkpoint is opened and
a new note is written. If a model is loaded although there was a note, its facts are compared with the note.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.deferred import DeferredCheckpoint, TokenizerFacts
from lossprobe.checkpoint.facts import AdapterFacts, RouterFacts
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts
from lossprobe.checkpoint.spec import CheckpointSpec, Opener, changed_since, files_read, still_as_read
from lossprobe.checkpoint.templates.template import ChatTemplate
from lossprobe.passes.identity import versions
from lossprobe.run.files import sha256_of_json
from lossprobe.run.latest import RUNS_FOLDER
from lossprobe.run.notes import read_note, write_note

Note = dict[str, Any]


class KnownCheckpoint(DeferredCheckpoint):
    """A checkpoint with the note about it, which is written once a run of the checkpoint is stored.

    Args:
        facts: its facts, as opening it would give them.
        tokenizer: the facts of its tokenizer, as opening it would give them.
        load: opens it and returns the content of its note; None if its files cannot identify it.
        asked: the question that the note answers: path, load options and versions.
        note: the note; None without a valid one.
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
        """Text that identifies the checkpoint by its files and load options; "" if nothing does."""
        return "" if self._note is None else sha256_of_json({**self._asked, "read": self._note["read"]})

    def keep(self) -> None:
        """Write the note once. Without runs in the working folder it is not needed."""
        if self._note is not None and not self._written and Path(RUNS_FOLDER).is_dir():
            write_note(self._asked, self._note)
            self._written = True


def open_when_needed(spec: CheckpointSpec, opener: Opener) -> Checkpoint:
    """Return a checkpoint that is loaded only when a model is needed; without a valid note it is loaded now.

    Raises:
        LossprobeError: as in `open_checkpoint`, when it is loaded.
    """
    spec = opener.placed(spec)
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
    """Load a checkpoint; return it with the content of its note, or None if its files cannot identify it."""
    started = time.time_ns()
    checkpoint = opener.open(spec)
    facts = checkpoint.facts
    if not facts.sha256 or changed_since(started, facts.files):
        return checkpoint, None
    tokenizer = asdict(TokenizerFacts.of(checkpoint.tokenizer))
    return checkpoint, {"facts": {**asdict(facts), "hashes": []}, "tokenizer": tokenizer, "read": files_read(facts)}


def keep_known(checkpoint: Checkpoint) -> None:
    """Write the note about a checkpoint, after a run of it was stored."""
    if isinstance(checkpoint, KnownCheckpoint):
        checkpoint.keep()


def _still_known(note: Note) -> tuple[CheckpointFacts, TokenizerFacts] | None:
    """Return the facts of a checkpoint and its tokenizer from a note; None if the note is no longer valid."""
    try:
        if not still_as_read(note["read"]):
            return None
        facts = {**note["facts"], **{key: tuple(note["facts"][key]) for key in ("notices", "files")}, "hashes": ()}
        for name, kind in (("router", RouterFacts), ("adapter", AdapterFacts)):
            facts[name] = None if facts[name] is None else _exactly(kind, facts[name])
        return _exactly(CheckpointFacts, facts), _tokenizer_facts(note["tokenizer"])
    except (ValueError, KeyError, TypeError, AttributeError):  # the note has another structure
        return None


def _tokenizer_facts(values: dict[str, Any]) -> TokenizerFacts:
    template = values["chat_template"]
    made = None if template is None else _exactly(ChatTemplate, template)
    facts: TokenizerFacts = _exactly(TokenizerFacts, {**values, "chat_template": made})
    return facts


def _exactly(kind: type[Any], values: dict[str, Any]) -> Any:
    """Return an object of a dataclass from a value for each of its fields."""
    if values.keys() != {field.name for field in fields(kind)}:
        raise ValueError("other fields than are written here")
    return kind(**values)
