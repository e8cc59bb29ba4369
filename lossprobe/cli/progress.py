"""What is shown of a pass: a bar with tokens, tokens per second and time left, on a terminal only; what delays it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from lossprobe.passes.score import Progress
from lossprobe.report.talk import say
from lossprobe.scoring.compiled import tell_of_compiling

COMPILING = "compiling the loops for this CPU, about 10 s the first time"


@contextmanager
def show_progress(title: str, *, quiet: bool, unit: str = "tokens") -> Iterator[Progress | None]:
    """Yield a function to call with (done, in all), counted in `unit`, or None where nobody looks.

    Unless `quiet`, a line says when loops have to be compiled before anything is scored.
    """
    if quiet:
        yield None
        return
    bar = _bar(title, unit) if sys.stderr.isatty() else nullcontext()
    with tell_of_compiling(lambda: say(COMPILING)), bar as advance:
        yield advance


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
