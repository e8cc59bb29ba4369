"""Checks that the arguments of an analysis that must be runs are runs."""

from __future__ import annotations

from lossprobe.arguments import is_path, wrong_type
from lossprobe.run.reader import Run


def check_runs(**runs: object) -> None:
    """Refuse arguments that are not runs.

    Args:
        runs: the arguments by name; each is a run, or a list or tuple of runs.

    Raises:
        WrongTypeError: an argument, or an entry of a list, is not a `Run`.
    """
    for name, given in runs.items():
        several = isinstance(given, (list, tuple))
        for run in given if isinstance(given, (list, tuple)) else (given,):
            if not isinstance(run, Run):
                inside = isinstance(getattr(run, "run", None), Run)
                path = "lossprobe.open_run opens the folder of a run" if is_path(run) else None
                hint = "the run of a result of `score` is its `.run`" if inside else path
                raise wrong_type(name, "runs" if several else "a run", given, hint)
