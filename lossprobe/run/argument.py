"""Checks that what an analysis was given for a run is one."""

from __future__ import annotations

from lossprobe.arguments import wrong_type
from lossprobe.run.reader import Run


def check_runs(**runs: object) -> None:
    """Refuse anything but runs.

    Args:
        runs: the arguments by name; a list or tuple stands for several runs.

    Raises:
        WrongTypeError: one is something else.
    """
    for name, given in runs.items():
        several = isinstance(given, (list, tuple))
        for run in given if isinstance(given, (list, tuple)) else (given,):
            if not isinstance(run, Run):
                inside = isinstance(getattr(run, "run", None), Run)
                hint = "the run of a result of `score` is its `.run`" if inside else None
                raise wrong_type(name, "runs" if several else "a run", given, hint)
