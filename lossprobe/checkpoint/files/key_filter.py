"""Leave out keys of a checkpoint's configuration that the user wants ignored: unknown here, or out of date."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from lossprobe.units import visible

Key = TypeVar("Key")


class KeyFilter:
    """Removes the keys of `LoadOptions.ignore_config` from a configuration and records which were found.

    Args:
        keys: the keys to leave out.
        home: name of the file or key that holds the configuration, such as "config.json".
    """

    def __init__(self, keys: Iterable[str], home: str) -> None:
        self._keys = tuple(dict.fromkeys(keys))
        self._home = home
        self._found: list[str] = []

    def removed_from(self, stated: Mapping[Key, Any]) -> dict[Key, Any]:
        """Return the configuration without these keys, and record which of them it had."""
        self._found = [key for key in self._keys if key in stated]
        return {key: value for key, value in stated.items() if key not in self._found}

    @property
    def source(self) -> str:
        """Name of the configuration for `CheckpointFacts.config_from`, with the keys that were left out."""
        shown = ", ".join(visible(key, 40) for key in self._found)
        return f"{self._home} without {shown}" if shown else self._home

    @property
    def notices(self) -> tuple[str, ...]:
        """One line per key: whether it was left out or was not in the configuration."""
        says = {True: "is ignored, as asked", False: "was to be ignored, but there is no such key"}
        return tuple(f"{self._home}: {visible(key, 40)} {says[key in self._found]}" for key in self._keys)
