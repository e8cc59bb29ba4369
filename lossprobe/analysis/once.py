"""Keeps the results of analyses while a page is made, so that two parts of it that show one result make it once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar, cast

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Once:
    """Calls analyses, and returns the same result where one is called again with the same runs and choices.

    Results are frozen, so that they can be shared; they are kept as long as this is.

    Example:
        >>> once, made = Once(), []
        >>> def measure(run: str, by: str = "class") -> int:
        ...     made.append(run)
        ...     return len(made)
        >>> once(measure, "a"), once(measure, "a", by="class"), once(measure, "b")
        (1, 1, 2)
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[object, object]] = {}

    def __call__(self, analysis: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """Return what an analysis returns for these arguments; what it raises is raised anew each time."""
        bound = inspect.signature(analysis).bind(*args, **kwargs)
        bound.apply_defaults()
        key = (analysis, *((name, _key(value)) for name, value in bound.arguments.items() if value is not self))
        if key not in self._made:
            # The arguments are kept beside the result: a run is known by its id, which nothing else may get meanwhile.
            self._made[key] = (bound, analysis(*args, **kwargs))
        return cast(Result, self._made[key][1])


def _key(value: Any) -> Hashable:
    """Return what tells an argument apart: its value, of a run and of what has no hash the very object."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_key, value))
    try:
        hash(value)
    except TypeError:
        return ("itself", id(value))
    return (type(value), value)
