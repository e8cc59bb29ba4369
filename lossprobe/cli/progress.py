"""Shows the progress of a pass: on a terminal a bar with tokens, tokens per second and time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from lossprobe.passes.score import Progress
from lossprobe.report.talk import say

COMPILING = "compiling loops for this CPU, about 10 s the first time"


@contextmanager
def show_progress(title: str, *, quiet: bool, unit: str = "tokens", at_once: bool = False) -> Iterator[Progress | None]:
    """Show progress inside the block on a terminal, and print a line if loops have to be compiled.

    Args:
        title: label of the bar.
        quiet: show nothing.
        unit: unit of the numbers.
        at_once: watch for compiling from the start. Otherwise only from the first call of the function on, which a pass
            makes before it scores; if its run is stored, it makes none, and torch is not imported.

    Yields:
        A function to call with the number done and the number of all, or None.
    """
    if quiet:
        yield None
        return
    bar = _bar(title, unit) if sys.stderr.isatty() else nullcontext()
    with ExitStack() as stack, bar as advance:
        if at_once:
            _tell_of_compiling(stack)
        yield advance if at_once else _FirstCall(lambda: _tell_of_compiling(stack), advance)


class _FirstCall:
    """A progress callback that calls the function `before` once, at its first call."""

    def __init__(self, before: Callable[[], None], progress: Progress | None) -> None:
        self._before: Callable[[], None] | None = before
        self._progress = progress

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        before, self._before = self._before, None
        if before is not None:
            before()
        if self._progress is not None:
            self._progress(done, total)


def _tell_of_compiling(stack: ExitStack) -> None:
    from lossprobe.scoring.compiled import tell_of_compiling  # imports torch, which is not needed without scoring

    stack.enter_context(tell_of_compiling(lambda: say(COMPILING)))


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Progress]:
    """Yield a function that moves a bar on the terminal; the bar is removed at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn(f"{{task.completed:,.0f}}/{{task.total:,.0f}} {unit}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1, rate="", visible=False)  # until the number of tokens is known

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)
            speed = bar.tasks[0].speed
            bar.update(task, rate="" if speed is None else f"{speed:,.1f} {unit}/s")

        yield advance
