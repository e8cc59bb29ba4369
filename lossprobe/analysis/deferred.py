"""Fields of frozen results that cost as much as all others, and that few readers look at."""

from __future__ import annotations

import dataclasses
from typing import Any


class Deferred:
    """A field of a frozen dataclass that may be given as a function: the first look calls that and keeps the value.

    >>> from dataclasses import dataclass, field, replace
    >>> from typing import Any
    >>> @dataclass(frozen=True)
    ... class Result:
    ...     name: str
    ...     table: Any = field(default=Deferred(), repr=False, kw_only=True)
    >>> result = Result("a", table=lambda: print("measured") or [1])
    >>> result.table, result.table
    measured
    ([1], [1])
    >>> replace(result, table=[2]).table
    [2]
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, result: Any, owner: type | None = None) -> Any:
        if result is None:
            return self
        value = vars(result)[self._name]
        if callable(value):
            value = vars(result)[self._name] = value()
        return value

    def __set__(self, result: Any, value: Any) -> None:
        vars(result)[self._name] = value


def held_fields(result: Any) -> dict[str, Any]:
    """Return the values of the fields that make a dataclass; a deferred one that nobody has looked at stays so."""
    return {
        field.name: vars(result)[field.name] if isinstance(field.default, Deferred) else getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.init
    }
