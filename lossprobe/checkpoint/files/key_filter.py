"""Keys of a configuration that the user wants left out, because no rule here knows them or what they say is stale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from lossprobe.units import visible

Key = TypeVar("Key")


class KeyFilter:
    """The keys of `ignore_config`, and which of them a configuration has.

    Args:
        keys: the keys.
        home: what holds the configuration, such as "config.json".
    """

    def __init__(self, keys: Iterable[str], home: str) -> None:
        self._keys = tuple(dict.fromkeys(keys))
        self._home = home
        self._found: list[str] = []

    def removed_from(self, stated: Mapping[Key, Any]) -> dict[Key, Any]:
        """Return a configuration without these keys; what was taken out is remembered."""
        self._found = [key for key in self._keys if key in stated]
        return {key: value for key, value in stated.items() if key not in self._found}

    @property
    def source(self) -> str:
        """What the configuration was read from, for the facts: it says what was left out, which can move the number."""
        shown = ", ".join(visible(key, 40) for key in self._found)
        return f"{self._home} without {shown}" if shown else self._home

    @property
    def notices(self) -> tuple[str, ...]:
        """A line for each key."""
        says = {True: "is ignored, as asked", False: "is not there to ignore"}
        return tuple(f"{self._home}: {visible(key, 40)} {says[key in self._found]}" for key in self._keys)
