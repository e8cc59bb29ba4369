"""Tells that loops are being compiled. It takes some seconds, once on a machine, since their code is cached.

Who runs a command asks to be told with `tell_of_compiling`. It does not matter where in the command a loop is compiled,
and numba is not imported for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TELL: ContextVar[Callable[[], None] | None] = ContextVar("tell_of_compiling", default=None)


@contextmanager
def tell_of_compiling(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` once if loops have to be compiled inside the block; loading cached code does not call it."""
    left = [tell]

    def once() -> None:
        if left:
            left.pop()()

    token = _TELL.set(once)
    try:
        yield
    finally:
        _TELL.reset(token)


def compiling() -> None:
    """Tell who asked for it that a loop is being compiled."""
    tell = _TELL.get()
    if tell is not None:
        tell()
