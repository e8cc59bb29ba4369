"""The progress bar: tokens, tokens per second and time left, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lossprobe.pipeline import Progress


@contextmanager
def show_progress(title: str, *, quiet: bool) -> Iterator[Progress | None]:
    """Yield a function to call with (tokens done, tokens in all), or None where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} tokens"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1, rate="", visible=False)  # until the number of tokens is known

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)
            speed = bar.tasks[0].speed
            bar.update(task, rate="" if speed is None else f"{speed:,.0f} tokens/s")

        yield advance
