"""How the process of a command starts and ends: without the work that Python does for programs that go on."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from typing import NoReturn

# Collections of each generation that Python makes: new objects, then collections of the generation before. Importing
# torch, transformers and pandas makes 1.5 million objects that all stay, and to search these again and again for
# garbage takes a quarter of the time of a short command.
COLLECTED = (200_000, 10, 10)


def collect_less_often() -> None:
    """Search new objects for garbage after 200,000 of them, not after 700."""
    gc.set_threshold(*COLLECTED)


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
