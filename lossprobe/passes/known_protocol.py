"""Notes about texts scored by the rules of other tools: the run, or the reason why the tool refuses the text.

The windows and tokens of a tool are known only after the text was tokenized, which needs the checkpoint. A note (see
`run.notes`) keeps the settings of the resulting run, so that the run is found later without opening the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.passes.identity import run_name, versions
from lossprobe.passes.known_checkpoint import KnownCheckpoint, keep_known
from lossprobe.passes.known_text import text_sha256
from lossprobe.passes.policy import tell_beyond_trained
from lossprobe.passes.unknown import check_unknown
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.windows import Layout
from lossprobe.run.identity import identity_of
from lossprobe.run.latest import RUNS_FOLDER, runs_folder
from lossprobe.run.notes import read_note, write_note
from lossprobe.run.reader import Run
from lossprobe.run.reuse import complete_run
from lossprobe.text.documents import Source


class ProtocolNote:
    """The note about one text, one checkpoint and one tool; never written for a checkpoint without files.

    Args:
        protocol: a name of `PROTOCOLS`.
        checkpoint: the model, as it was opened.
        source: the text.
        options: the user's options for windows and text.

    Attributes:
        protocol: as given.
    """

    def __init__(self, protocol: str, checkpoint: Checkpoint, source: Source, options: ScoreOptions) -> None:
        self.protocol = protocol
        self._checkpoint, self._source, self._options = checkpoint, source, options
        state = checkpoint.state if isinstance(checkpoint, KnownCheckpoint) else ""
        self._asked = {
            "protocol": protocol,
            "checkpoint": state,
            "text": [source.name, text_sha256(source)],
            "options": [options.context, options.stride, options.bos, options.score_unknown, options.max_unknown,
                        options.keep_text, options.score],
            "versions": versions(),
        }  # fmt: skip
        self._note = read_note(self._asked) if state else None

    def why_refused(self) -> str | None:
        """Return the reason why the tool refused the text; None if it did not, or if there is no note."""
        refused = (self._note or {}).get("refused")
        return refused if isinstance(refused, str) and self._say_again() else None

    def find(self, output: Path | None) -> Run | None:
        """Return the stored run, or None; the text gets the notices that scoring would add.

        Raises:
            TextError: too much of the text is not in the vocabulary.
        """
        settings = (self._note or {}).get("settings")
        if not isinstance(settings, dict):
            return None
        labels = {"checkpoint": self._checkpoint.facts.name, "text": self._source.name}
        run = complete_run(output or runs_folder() / run_name(settings, labels), settings)
        if run is None or not self._say_again():
            return None
        if run.settings.windows.layout != Layout.WHOLE:
            tell_beyond_trained(self._checkpoint, run.context, self._source)
        check_unknown(run.counts, self._source, self._options.max_unknown)
        return run

    def keep_run(self, run: Run, notices: list[str]) -> None:
        """Write a note of the run, with the notices about the text."""
        self._keep({"settings": identity_of(run.manifest), "notices": notices})

    def keep_refusal(self, refused: str, notices: list[str]) -> None:
        """Write a note of the refusal, with the notices about the text."""
        self._keep({"refused": refused, "notices": notices})

    def _keep(self, note: dict[str, Any]) -> None:
        keep_known(self._checkpoint)
        if self._asked["checkpoint"] and Path(RUNS_FOLDER).is_dir():
            write_note(self._asked, note)

    def _say_again(self) -> bool:
        notices = (self._note or {}).get("notices")
        if not isinstance(notices, list) or not all(isinstance(notice, str) for notice in notices):
            return False
        self._source.notices.extend(notice for notice in notices if notice not in self._source.notices)
        return True


@contextmanager
def own_notices(source: Source) -> Iterator[None]:
    """Let a block add all its notices to a text, also those that the text already has: the same notices every time."""
    before = list(source.notices)
    source.notices.clear()
    try:
        yield
    finally:
        source.notices[:] = [*before, *(notice for notice in source.notices if notice not in before)]
