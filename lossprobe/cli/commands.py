"""The commands of `lossprobe`, each imported when it is asked for: a view needs not the options of all the others."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click

# Each command is the attribute of its own name in the module of its name.
GROUPS: dict[str, tuple[str, ...]] = {
    "Score and look": (
        "score", "gather", "report", "findings", "tokens", "positions", "hardest", "defects", "perplexity",
        "calibration", "objectives",
    ),
    "Compare, follow and gate": (
        "compare", "preferences", "gap", "reconcile", "curve", "series", "audit", "baseline",
    ),
    "Check and understand": ("runs", "selfcheck", "inspect", "verify", "doctor", "explain", "demo"),
}  # fmt: skip


class Commands(MutableMapping[str, click.Command]):
    """Name → command, in the order of `GROUPS`; click reads it as it would a dict."""

    def __init__(self) -> None:
        self._imported: dict[str, click.Command | None] = {name: None for names in GROUPS.values() for name in names}

    def __getitem__(self, name: str) -> click.Command:
        command = self._imported[name]
        if command is None:
            command = getattr(import_module(f"lossprobe.cli.{name}"), name)
            assert isinstance(command, click.Command)
            self._imported[name] = command
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._imported[name] = command

    def __delitem__(self, name: str) -> None:
        del self._imported[name]

    def __contains__(self, name: object) -> bool:
        return name in self._imported

    def __iter__(self) -> Iterator[str]:
        return iter(self._imported)

    def __len__(self) -> int:
        return len(self._imported)
