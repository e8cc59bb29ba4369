"""What is shown of a pass: a bar with tokens, tokens per second and time left, on a terminal only; what delays it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from lossprobe.passes.score import Progress
from lossprobe.report.talk import say

COMPILING = "compiling the loops for this CPU, about 10 s the first time"


@contextmanager
def show_progress(title: str, *, quiet: bool, unit: str = "tokens", at_once: bool = False) -> Iterator[Progress | None]:
    """Yield a function to call with (done, in all), counted in `unit`, or None where nobody looks.

    Unless `quiet`, a line says when loops have to be compiled: from the first call on, which a pass makes before it
    scores anything and not where its run is stored, or `at_once`.
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
    """Calls one function before the first call of another one."""

    def __init__(self, before: Callable[[], None], progress: Progress | None) -> None:
        self._before: Callable[[], None] | None = before
        self._progress = progress

    def __call__(self, done: int, total: int) -> None:
        """Show how much is done."""
        before, self._before = self._before, None
        if before is not None:
            before()
        if self._progress is not None:
            self._progress(done, total)


def _tell_of_compiling(stack: ExitStack) -> None:
    from lossprobe.scoring.compiled import tell_of_compiling  # with torch, which nobody needs who scores nothing

    stack.enter_context(tell_of_compiling(lambda: say(COMPILING)))


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Progress]:
    """Yield a function that moves a bar on the terminal; the bar is gone at the end."""
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
