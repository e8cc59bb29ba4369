"""Whether what stands in a run's folder is the run that is wanted, complete or begun."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lossprobe.errors import OutputError
from lossprobe.run.manifest import damaged
from lossprobe.run.reader import Run, open_run
from lossprobe.run.schema import MANIFEST
from lossprobe.run.store import RunStore
from lossprobe.units import visible

REPLACE = "remove its folder, or score again with `overwrite`"


def stored_run(path: Path, settings: dict[str, Any], *, overwrite: bool) -> Run | None:
    """Return the complete run with these settings in a directory; None where there is none, or it is to be replaced.

    Raises:
        OutputError: it is damaged or has other settings, and is not to be replaced.
    """
    if not os.path.lexists(path / MANIFEST):
        return None
    try:
        run = open_run(path)
        refuse_other_settings(path, run.manifest["settings"], settings)
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
    store: RunStore, settings: dict[str, Any], notices: list[str], *, overwrite: bool
) -> dict[str, Any] | None:
    """Return the plan of an unfinished run with these settings; None where there is none, or it is to be replaced.

    Raises:
        OutputError: it is damaged or has other settings, and is not to be replaced.
    """
    try:
        plan = store.plan()
        if plan is not None:
            refuse_other_settings(store.path, plan["settings"], settings)
    except OutputError:
        if not overwrite:
            raise
        return None
    if plan is not None and "files" not in plan:
        notices.append(
            f"{visible(str(store.path), 200)}: begun by an earlier lossprobe, which kept no hashes of finished parts: "
            "scored from the start"
        )
        return None
    return plan


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the dotted names of the settings in which two runs differ."""
    names = []
    for group in sorted(stored.keys() | wanted.keys()):
        left, right = stored.get(group, {}), wanted.get(group, {})
        names += [f"{group}.{key}" for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]
    return names


def refuse_other_settings(path: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
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
