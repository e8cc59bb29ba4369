"""One of the processes that hold a model together: its rank is its number among them."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lossprobe.environment import settle_environment


def main(descriptor: int, rank: int, size: int, meeting_file: str) -> None:
    """Answer the questions of the process that plans until it ends; see `worker.Worker`.

    Args:
        descriptor: number of the open file through which both talk.
        rank: which process this is.
        size: number of processes.
        meeting_file: as in `join_group`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that plans ends this one
    settle_environment()
    link = Connection(descriptor)
    questions: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(link, questions, Path(meeting_file).parent), daemon=True).start()
    from lossprobe.checkpoint.divided import DividedOpener
    from lossprobe.checkpoint.model.division import Division
    from lossprobe.passes.worker import Worker

    worker = Worker(DividedOpener(Division(rank, size), meeting_file), (rank, size))
    while True:
        link.send(worker.answer(*questions.get()))


def _read(link: Connection, questions: queue.SimpleQueue[tuple[Any, ...]], folder: Path) -> None:
    """Read questions at once, so that neither side waits for the other to read; end with the other side.

    This process may wait for other ranks then, in code that nothing interrupts. The folder where they met goes, too.
    """
    try:
        while True:
            questions.put(link.recv())
    except (EOFError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)
