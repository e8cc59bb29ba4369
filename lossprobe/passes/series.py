"""Scores the checkpoints of a training run on one text, one after the other; what is stored is not scored again.

The text is planned once for all of them (see `SharedPlan`). Small checkpoints are all opened before the
first one is scored, so that one that cannot be read, or has another tokenizer, is told at once. Of large ones only one
is in memory, and the files of the next are read into the system's cache meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lossprobe.analysis.rows.same_tokens import Described
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.errors import LossprobeError
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.order import holds_weights
from lossprobe.passes.score import PassResult, Progress, planned_run, score
from lossprobe.plan.options import ScoreOptions
from lossprobe.run.files import sha256_of_json
from lossprobe.run.reader import Run
from lossprobe.run.shared_plan import SharedPlan
from lossprobe.units import plural

CHUNK = 8 << 20
MEMORY_SHARE = 4  # of the machine's memory, a fourth at most is used to read ahead


@dataclass(frozen=True)
class SeriesModels:
    """The checkpoints of a series.

    Attributes:
        places: their paths in the order of training; of a stored run its folder.
        stored: the runs among them.
        open: opens the checkpoint at a path.
        together: whether all of them fit into memory.
    """

    places: Sequence[Path]
    stored: dict[Path, Run]
    open: Callable[[Path], Checkpoint]
    together: bool


def score_series(
    models: SeriesModels,
    source: KnownText,
    options: ScoreOptions,
    refuse: Callable[[Sequence[Described]], None],
    progress: Progress | None = None,
) -> list[PassResult]:
    """Return the run of every checkpoint of a series, in order.

    Checkpoints with the same weights have one run.

    Args:
        models: the checkpoints.
        source: the text.
        options: windows, BOS, batch size, unknown characters.
        refuse: raises if the runs cannot stand side by side; called before a checkpoint is scored with all that are
            known by then.
        progress: called with the tokens scored so far and the tokens to score, of all checkpoints that are not stored.

    Raises:
        LossprobeError: as `score.score`, or from `refuse`. Runs that were finished are kept, and the error says so.
    """
    known: dict[Path, Described] = dict(models.stored)
    ahead: dict[Path, Checkpoint] = {}
    waiting = [place for place in models.places if place not in models.stored]
    steps = _Steps(len(waiting), progress)
    found: dict[Path, PassResult] = {place: PassResult(run, reused=True) for place, run in models.stored.items()}
    by_settings: dict[str, PassResult] = {}

    def opened(place: Path) -> Checkpoint:
        checkpoint = models.open(place)
        known[place] = planned_run(checkpoint, source, options)
        refuse([known[each] for each in models.places if each in known])
        return checkpoint

    def scored(place: Path) -> PassResult:  # a function, so that no variable keeps its model when the next is opened
        checkpoint = ahead.pop(place) if place in ahead else opened(place)
        same = sha256_of_json(known[place].manifest["settings"])
        if same not in by_settings or not checkpoint.facts.sha256:
            by_settings[same] = score(checkpoint, source, options, progress=steps.next(), shared=shared)
        known[place] = by_settings[same].run  # what is known of a planned run holds its tokenizer
        return by_settings[same]

    if models.together:
        ahead = {place: opened(place) for place in waiting}
    with SharedPlan() as shared:
        for index, place in enumerate(waiting):
            try:
                with read_ahead([] if models.together else waiting[index + 1 : index + 2]):
                    found[place] = scored(place)
            except LossprobeError as error:
                if index:
                    kept = f"{plural(index, 'checkpoint')} of {len(waiting)} {'is' if index == 1 else 'are'}"
                    error.details = (*error.details, f"{kept} scored and kept")
                raise
            steps.end(found[place])
    return [found[place] for place in models.places]


class _Steps:
    """Counts the tokens of all passes of a series together."""

    def __init__(self, passes: int, progress: Progress | None) -> None:
        self._left, self._progress = passes, progress
        self._before = 0

    def next(self) -> Progress | None:
        """Return the function that the next pass calls with its tokens."""
        return None if self._progress is None else self._advance

    def _advance(self, done: int, total: int) -> None:
        assert self._progress is not None
        self._done = done
        self._progress(self._before + done, self._before + total * self._left)

    def end(self, result: PassResult) -> None:
        """Note that a pass ended; one that was stored, or is that of another checkpoint, scored nothing."""
        self._left -= 1
        self._before += 0 if result.reused else int(result.run.counts["tokens"])


@contextmanager
def read_ahead(places: Sequence[Path]) -> Iterator[None]:
    """Read the weights of checkpoints in another thread inside the block, so that opening them later finds them cached.

    It is an aid only: what cannot be read is left to the opening of the checkpoint, which says so.
    """
    files = [file for place in places for file in _weights(place)]
    stop = threading.Event()
    reader = threading.Thread(target=_read, args=(files, stop), name="lossprobe-read-ahead", daemon=True)
    if files:
        reader.start()
    try:
        yield
    finally:
        stop.set()
        if files:
            reader.join()


def _weights(place: Path) -> list[Path]:
    """Return the files of weights of a checkpoint; none where together they are too large to be cached."""
    try:
        inside = sorted(place.iterdir()) if place.is_dir() else [place]
        files = [file for file in inside if holds_weights(file) and file.is_file()]
        size = sum(file.stat().st_size for file in files)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return []
    return files if size * MEMORY_SHARE <= memory else []


def _read(files: Sequence[Path], stop: threading.Event) -> None:
    """Read files to their end, until told to stop."""
    buffer = memoryview(bytearray(CHUNK))
    for file in files:
        try:
            with file.open("rb", buffering=0) as stream:
                while not stop.is_set() and stream.readinto(buffer):
                    pass
        except OSError:
            return
