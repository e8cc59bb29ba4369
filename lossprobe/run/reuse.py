"""Whether what stands in a run's folder is the run that is wanted, complete or begun."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lossprobe.errors import OutputError, UsageError
from lossprobe.run.identity import Settings, differences, identity_of, measured_of
from lossprobe.run.manifest import damaged
from lossprobe.run.reader import Run, open_run
from lossprobe.run.schema import MANIFEST, PLAN
from lossprobe.run.store import RunStore
from lossprobe.units import visible

REPLACE = "remove its folder, or score again with `overwrite`"


def complete_run(path: Path, settings: Settings) -> Run | None:
    """Return the complete, sound run with these settings in a directory, which is not locked for that; else None."""
    try:
        if path.is_symlink() or os.path.lexists(path / PLAN):
            return None
        run = open_run(path)
        if run.notices or identity_of(run.manifest) != settings:
            return None
        run.check()
    except (OSError, OutputError, UsageError):  # said by `stored_run`, where it is anything to be said
        return None
    return run


def stored_run(path: Path, settings: Settings, *, overwrite: bool) -> Run | None:
    """Return the complete run with these settings in a directory; None where there is none, or it is to be replaced.

    Raises:
        OutputError: it is damaged or has other settings, and is not to be replaced.
    """
    if not os.path.lexists(path / MANIFEST):
        return None
    try:
        run = open_run(path)
        refuse_other_settings(path, identity_of(run.manifest), settings)
        run.check()
        broken = run.damaged_files() if run.notices else []  # one that is not checked before it is read
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
    """Return the plan of an unfinished run with these settings; None where there is none, or it is to be replaced.

    Args:
        store: its folder.
        settings: the identity of the run that is wanted.
        measured: what was measured when its checkpoint was opened; a plan made with other values is started over.
        notices: gets a notice where a run is scored from the start.
        overwrite: start over what is damaged, or has other settings.

    Raises:
        OutputError: it is damaged or has other settings, and is not to be replaced.
    """
    try:
        plan = store.plan()
        if plan is not None:
            refuse_other_settings(store.path, identity_of(plan), settings)
    except OutputError:
        if not overwrite:
            raise
        return None
    if plan is None:
        return None
    reason = _why_start_over(plan, measured)
    if reason is not None:
        notices.append(f"{visible(str(store.path), 200)}: begun {reason}: scored from the start")
    return plan if reason is None else None


def _why_start_over(plan: dict[str, Any], measured: dict[str, Any]) -> str | None:
    """Return why the finished parts of an unfinished run cannot be used; None where they can."""
    if "files" not in plan:
        return "by an earlier lossprobe, which kept no hashes of finished parts"
    before = measured_of(plan)
    names = [name for name in sorted(before.keys() | measured.keys()) if before.get(name) != measured.get(name)]
    then, now = (", ".join(f"{name} {visible(str(of.get(name)), 40)}" for name in names) for of in (before, measured))
    return f"with {then}, now {now}" if names else None


def refuse_other_settings(path: Path, stored: Settings, wanted: Settings) -> None:
    """Refuse to mix settings in one run directory.

    Raises:
        OutputError: the settings differ; the message says in what.
    """
    names = differences(stored, wanted)
    if names:
        raise OutputError(
            "output.other_settings",
            f"{visible(str(path), 200)}: holds a run that differs in {', '.join(names)}",
            hint="use another `output`, or `overwrite`",
        )
