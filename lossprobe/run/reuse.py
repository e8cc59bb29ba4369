"""Finds out whether a folder already has the wanted run, complete or unfinished."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lossprobe.errors import OutputError, UsageError
from lossprobe.run.identity import Settings, differences, identity_of, measured_of
from lossprobe.run.manifest import damaged
from lossprobe.run.reader import Run, open_run
from lossprobe.run.schema import MANIFEST, PLAN
from lossprobe.run.shown import shown_run
from lossprobe.run.store import RunStore
from lossprobe.units import visible

REPLACE = "remove its folder, on object storage its objects, or score again with `overwrite`"


def complete_run(path: Path, settings: Settings) -> Run | None:
    """Return the complete, undamaged run with these settings in a directory, without a lock; None if it has none."""
    try:
        if path.is_symlink() or os.path.lexists(path / PLAN):
            return None
        run = open_run(path)
        if run.notices or identity_of(run.manifest) != settings:
            return None
        run.check()
    except (OSError, OutputError, UsageError):  # `stored_run` raises it again if the user must know
        return None
    return run


def stored_run(path: Path, settings: Settings, *, overwrite: bool) -> Run | None:
    """Return the complete run with these settings in a directory; None if it has none, or one that must be replaced.

    Args:
        path: the directory.
        settings: the identity of the wanted run.
        overwrite: replace a run that is damaged or has other settings, instead of refusing it.

    Raises:
        OutputError: the run is damaged or has other settings, and `overwrite` is False.
    """
    if not os.path.lexists(path / MANIFEST):
        return None
    try:
        run = open_run(path)
        refuse_other_settings(path, identity_of(run.manifest), settings)
        run.check()
        broken = run.damaged_files() if run.notices else []  # `check` cannot check bytes without a hash of run.json
        if broken:
            raise damaged(path, f"{visible(broken[0], 80)} is missing or damaged")
    except OutputError as error:
        if not overwrite:
            if error.id == "run.damaged":
                error.hint = REPLACE
            raise
        return None
    return run


def stored_plan(
    store: RunStore, settings: Settings, measured: dict[str, Any], notices: list[str], *, overwrite: bool
) -> dict[str, Any] | None:
    """Return the plan of an unfinished run with these settings; None if scoring must start from the beginning.

    A plan that shards have begun, and not completed, is made again by one process.

    Args:
        store: the folder of the run.
        settings: the identity of the wanted run.
        measured: facts measured when the checkpoint was opened; a plan made with other values cannot be resumed.
        notices: gets a notice if finished parts cannot be used.
        overwrite: replace a plan that is damaged or has other settings, instead of refusing it.

    Raises:
        OutputError: the plan is damaged or has other settings, and `overwrite` is False.
    """
    try:
        plan = store.plan()
        begun = plan or store.begun_plan()
        if begun is not None:
            refuse_other_settings(store.path, identity_of(begun), settings)
    except OutputError:
        if not overwrite:
            raise
        return None
    if plan is None:
        return None
    reason = _why_start_over(plan, measured)
    if reason is not None:
        notices.append(f"{store.shown}: begun {reason}: scored from the start")
    return plan if reason is None else None


def _why_start_over(plan: dict[str, Any], measured: dict[str, Any]) -> str | None:
    """Return the reason why the finished parts of an unfinished run cannot be used; None if they can."""
    if "files" not in plan:
        return "by an earlier lossprobe, which kept no hashes of finished parts"
    before = measured_of(plan)
    names = [name for name in sorted(before.keys() | measured.keys()) if before.get(name) != measured.get(name)]
    then, now = (", ".join(f"{name} {visible(str(of.get(name)), 40)}" for name in names) for of in (before, measured))
    return f"with {then}, now {now}" if names else None


def refuse_other_settings(path: Path, stored: Settings, wanted: Settings) -> None:
    """Refuse a run directory whose run has other settings.

    Raises:
        OutputError: the settings differ; the message names those that do.
    """
    names = differences(stored, wanted)
    if names:
        raise OutputError(
            "output.other_settings",
            f"{shown_run(path)}: holds a run that differs in {', '.join(names)}",
            hint="use another `output`, or `overwrite`",
        )
