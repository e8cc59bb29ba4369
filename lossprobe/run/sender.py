"""Puts the files of finished parts to object storage in a thread, while the next parts are scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

WAITING = 2  # parts that wait to be sent; the next one waits until one of them is


class Sender:
    """Sends parts one after the other, in the order in which they come.

    Args:
        send: sends some files of the run, several at once.
    """

    def __init__(self, send: Callable[[Sequence[str]], None]) -> None:
        self._send = send
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def add(self, files: Sequence[str], record: str) -> None:
        """Send a part's files, then its record; returns before, unless too many parts wait.

        Raises:
            OutputError: an earlier part could not be sent; so with `finish`. Nothing is sent after it.
        """
        self._take(lambda: bool(self._waiting) and self._waiting[0].done())
        self._waiting.append(self._pool.submit(self._part, files, record))
        self._take(lambda: len(self._waiting) > WAITING)

    def finish(self) -> None:
        """Wait until all parts are sent."""
        self._take(lambda: bool(self._waiting))

    def stop(self) -> None:
        """End the thread, which drops what it has not begun to send."""
        self._failed = True
        self._pool.shutdown(cancel_futures=True)

    def _take(self, more: Callable[[], bool]) -> None:
        while more():
            self._waiting.popleft().result()

    def _part(self, files: Sequence[str], record: str) -> None:
        try:
            for names in (files, [record]):
                if self._failed:
                    return
                self._send(names)
        except BaseException:
            self._failed = True
            raise
