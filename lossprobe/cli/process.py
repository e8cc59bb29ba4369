"""How the process of a command starts and ends: without the work that Python does for programs that go on."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

Arguments = TypeVar("Arguments")

# Collections of each generation that Python makes: new objects, then collections of the generation before. Importing
# torch and transformers makes 0.9 million objects that all stay, and to search these again and again for garbage takes
# a third of the time of a short command. What comes after them is searched in smaller portions.
WITH_IMPORTS, AFTER_THEM = (2_000_000, 10, 10), (200_000, 10, 10)

# Slots of the frame below which a command runs, 1 MiB that is never touched. For it Python reserves 2 MiB at once, and
# the frames of the calls below take the other half. By itself Python gets memory for frames from the system in pieces
# of 16 KiB, and gives a piece back when the call returns that needed it: 50,000 times while 4 kB of text are scored,
# which is a tenth of the time.
FRAME_SLOTS = 1 << 17


def collect_less_often() -> None:
    """Search new objects for garbage after two million of them, then after each 200,000, not after 700."""
    gc.set_threshold(*WITH_IMPORTS)

    def more_often(phase: str, _: dict[str, int]) -> None:
        if phase == "stop":
            gc.set_threshold(*AFTER_THEM)
            gc.callbacks.remove(more_often)

    gc.callbacks.append(more_often)


def call_with_room(function: Callable[[Arguments], int], arguments: Arguments) -> int:
    """Return what a function returns; the frames of all calls below lie in one piece of memory, see `FRAME_SLOTS`."""
    return function(arguments)


call_with_room.__code__ = call_with_room.__code__.replace(co_stacksize=FRAME_SLOTS)


def leave(code: int) -> NoReturn:
    """End the process with an exit code, without taking its modules apart, which takes 0.7 s for torch's.

    What is registered for the end of the process is called and what is still in the streams is written first, as
    Python does. Where another thread has to be waited for, the process ends in Python's own way.
    """
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread()):
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):  # closed, or nobody reads it; results were flushed before, see `run`
                continue
    os._exit(code)
