"""Build the error messages that the readers of checkpoint files share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lossprobe.errors import CheckpointError
from lossprobe.units import visible

SHOWN_NAMES = 4


def refusal(id: str, path: Path, what: str, hint: str | None = None) -> CheckpointError:
    """Return a CheckpointError whose message is one line: the path, then `what` is wrong with it."""
    return CheckpointError(id, f"{visible(str(path), 200)}: {what}", hint=hint)


def listed(names: Sequence[str]) -> str:
    """Return the first four names, safe to print, and how many more there are."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(visible(name, 80) for name in names[:SHOWN_NAMES]) + more
