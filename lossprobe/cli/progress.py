"""Shows the progress of a pass: on a terminal a bar with tokens a second and time left, in a log a few lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lossprobe.passes.score import Progress
from lossprobe.report.talk import say
from lossprobe.text.stage import Stage, no_stage

EVERY = 30.0  # seconds between two lines of a log
SHORT = 10.0  # seconds of a pass that a log says nothing about


@contextmanager
def show_progress(title: str, *, quiet: bool, unit: str = "tokens") -> Iterator[Progress | None]:
    """Show progress inside the block: on a terminal a bar, in a log a line every 30 seconds, and one at the end.

    Args:
        title: label of the bar.
        quiet: show nothing.
        unit: unit of the numbers.

    Yields:
        A function to call with the number done and the number of all, or None.
    """
    if quiet:
        yield None
        return
    with _bar(title, unit) if sys.stderr.isatty() else _lines(title, unit) as advance:
        yield advance


def lines_of(title: str, *, quiet: bool) -> Stage:
    """Return a function that prints what it is told of a stage, with a title, every 30 seconds; none if quiet."""
    return no_stage if quiet else _Log(title, "").stage


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Progress]:
    """Yield a function that moves a bar on the terminal; the bar is removed at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, done="", rate="", visible=False)  # until the number of tokens is known

        yield _Bar(bar, task, title, unit)


class _Bar:
    """A progress callback that moves a bar."""

    def __init__(self, bar: Any, task: Any, title: str, unit: str) -> None:
        self._bar, self._task, self._title, self._unit = bar, task, title, unit

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        reached = f"{done / max(1, total):4.0%} {done:,}/{total:,} {self._unit}"
        self._bar.update(self._task, completed=done, total=total, done=reached, visible=True)
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, rate="" if speed is None else f"{speed:,.1f} {self._unit}/s")

    def stage(self, text: str) -> None:
        """Show a stage behind the title, or none if it is empty; before the first call it is all there is to see."""
        if text:
            self._bar.update(self._task, description=f"{self._title}, {text}", visible=True)
        else:
            self._bar.update(self._task, description=self._title)


@contextmanager
def _lines(title: str, unit: str) -> Iterator[Progress]:
    """Yield a function that prints a line now and then, for a log."""
    log = _Log(title, unit)
    yield log
    log.end()


class _Log:
    """A progress callback that prints a line every 30 seconds."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._begun = self._told = time.monotonic()
        self._before: int | None = None  # how many were done when it began, as in a pass that is resumed
        self._done = self._total = 0
        self._stage = ""
        self._steady: tuple[int, float] | None = None  # what was done after the first batch, and when

    def __call__(self, done: int, total: int) -> None:
        """Note that `done` of `total` are done, and print it if the last line is 30 seconds old."""
        now = time.monotonic()
        if self._before is None:
            self._before, self._begun, self._told = done, now, now
        self._done, self._total = done, total
        if self._steady is None and done > self._before:
            self._steady = done, now  # the first batch may have compiled the model: its speed says nothing of the rest
        if now - self._told < EVERY or self._steady is None or not self._steady[0] < done < total:
            return
        self._told = now
        rate = (done - self._steady[0]) / (now - self._steady[1])
        left = format_duration((total - done) / rate)
        reached = f"{self._stage}{done / total:.0%} of {total:,} {self._unit}"
        say(f"{self._title}: {reached}, {rate:,.1f} {self._unit}/s, {left} left")

    def stage(self, text: str) -> None:
        """Name a stage in the lines that follow, or none; before the first call it is a line of its own each 30 s."""
        if not text:
            self._stage = ""
        elif self._before is not None:
            self._stage = f"{text}, "
        elif time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            say(f"{self._title}, {text}")

    def end(self) -> None:
        """Print the whole, unless it was short or not all was done."""
        took = time.monotonic() - self._begun
        if self._before is None or took < SHORT or self._done < self._total or self._done == self._before:
            return
        rate = (self._done - self._before) / took
        whole = f"{self._total:,} {self._unit} in {format_duration(took)}"
        say(f"{self._title}: {whole}, {rate:,.1f} {self._unit}/s")


def format_duration(seconds: float) -> str:
    """Return a time in two units at most.

    >>> format_duration(8.4), format_duration(125), format_duration(7300)
    ('8 s', '2 min 05 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
