"""Run an untrusted tokenizer in a child process with limits, so that its crash or endless loop spares the parent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from lossprobe.checkpoint.tokenizers.frames import (
    ALLOWANCE,
    DEFAULT_LIMITS,
    OK,
    OUT_OF_MEMORY,
    THREADS,
    Limits,
    receive_frame,
    send_frame,
)
from lossprobe.errors import CheckpointError, ResourceError
from lossprobe.units import visible

# -I (isolated) keeps out code of the working folder and PYTHON* variables; then the parent's import path is set.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lossprobe.checkpoint.{worker} import main; main()"
)
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "true",
    "OPENBLAS_NUM_THREADS": "1",
    "RUST_BACKTRACE": "0",
}
MAX_THREADS = 16  # each reserves 64 MB or more of address space, which is limited
MOST_COPIES = 8  # of one tokenizer, each with its own memory
LAST_WORDS = 4096  # bytes read from the end of a dead child's standard error
FULL = (b"memory allocation", b"bad_alloc")  # how Rust and C++ report that memory ran out


class Sandbox:
    """Runs one tokenizer in a child process.

    The child is started at the first request, and again after it died. It ends with this object or with this process.

    Args:
        opening: the parts of the first request, which builds the tokenizer; see `sandbox_worker`.
        shown: name of the tokenizer for messages.
        limits: memory and time that one request may take.
        worker: the module of `lossprobe.checkpoint` whose `main` the child runs.
        what: what runs in it, for messages.
    """

    def __init__(
        self,
        opening: Sequence[bytes],
        shown: str,
        limits: Limits = DEFAULT_LIMITS,
        worker: str = "tokenizers.sandbox_worker",
        what: str = "tokenizer",
    ) -> None:
        self._what = what
        self._worker = worker
        self._opening = opening
        self._shown = shown
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = False
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Sandbox], tuple[Any, ...]]:
        """Return how another process makes the same sandbox, which starts a child of its own."""
        return type(self), (self._opening, self._shown, self._limits, self._worker, self._what)

    def begin(self) -> None:
        """Start the child and send the first request; the child works on it while this process goes on.

        Raises:
            ResourceError: no process can be started.
        """
        with self._lock:
            process = self._start()
            self._begun = True
            with contextlib.suppress(OSError):  # the child is dead already; `open` raises the reason
                send_frame(process.stdin, [self._allowance(self._opening), *self._opening])

    def open(self) -> list[bytearray]:
        """Start the child if `begin` did not, and return the parts of its answer to the first request.

        Raises:
            CheckpointError: `tokenizer.broken` when the tokenizer cannot be built; otherwise as `ask`.
            ResourceError: no process can be started.
        """
        with self._lock:
            return self._open()[1]

    def ask(self, *parts: bytes) -> list[bytearray]:
        """Send a request and return the parts of the answer.

        Raises:
            CheckpointError: `tokenizer.failed`, `tokenizer.memory` or `tokenizer.time`.
            ResourceError: no process can be started.
        """
        with self._lock:
            return self._exchange(self._process or self._open()[0], parts, "tokenizer.failed")

    def others(self) -> list[Sandbox]:
        """Return as many more of the same as there are threads to use, up to `MOST_COPIES`; none has started."""
        count = min(_threads(), MOST_COPIES) - 1
        return [Sandbox(self._opening, self._shown, self._limits, self._worker, self._what) for _ in range(count)]

    def close(self) -> None:
        """End the child process, if there is one."""
        if self._process is not None:
            self._process = None
            self._end()

    def _open(self) -> tuple[subprocess.Popen[bytes], list[bytearray]]:
        begun, self._begun = self._begun, False
        process = self._process if begun and self._process is not None else self._start()
        try:
            return process, self._exchange(process, self._opening, "tokenizer.broken", sent=begun)
        except CheckpointError:
            self.close()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        self.close()
        path = [entry for entry in sys.path if entry] + [str(Path(__file__).parents[2])]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", START.format(worker=self._worker), json.dumps(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | ENVIRONMENT | {THREADS: str(_threads())},
            )
        except OSError as error:
            self._errors.close()
            raise ResourceError("tokenizer.process", f"no process for the {self._what}: {error.strerror}") from None
        self._end = weakref.finalize(self, _end, self._process, self._errors, os.getpid())
        return self._process

    def _allowance(self, parts: Sequence[bytes]) -> bytes:
        return ALLOWANCE.pack(*self._limits.of(sum(map(len, parts))))

    def _exchange(
        self, process: subprocess.Popen[bytes], parts: Sequence[bytes], id: str, *, sent: bool = False
    ) -> list[bytearray]:
        memory, seconds = self._limits.of(sum(map(len, parts)))
        try:
            if not sent:
                send_frame(process.stdin, [self._allowance(parts), *parts])
            status, *rest = receive_frame(process.stdout)
        except (OSError, EOFError):
            code, words = process.wait(), self._last_words()
            self.close()
            if any(sign in words for sign in FULL):
                raise self._exceeded(memory) from None
            if code == -getattr(signal, "SIGPROF", 0):
                reason = f"{self._what} ran longer than {seconds:.3g} s"
                raise CheckpointError("tokenizer.time", reason, subject=self._shown) from None
            status, rest = bytearray(), [bytearray(b"".join(words.splitlines()[-1:]) or b"ended with code %d" % code)]
        except BaseException:  # Ctrl-C inside a frame: the rest of it would be read as the next answer
            self.close()
            raise
        if status == OUT_OF_MEMORY:
            self.close()
            raise self._exceeded(memory)
        if status != OK:
            reason = visible(rest[0].decode("utf-8", "replace"), 160)
            raise CheckpointError(id, reason, subject=f"{self._shown}: {self._what} failed")
        return rest

    def _exceeded(self, memory: int) -> CheckpointError:
        reason = f"{self._what} exceeded {memory / 2**30:.3g} GiB"
        return CheckpointError("tokenizer.memory", reason, subject=self._shown)

    def _last_words(self) -> bytes:
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - LAST_WORDS))
        return self._errors.read().strip()


def _threads() -> int:
    """Return the child's number of threads: as RAYON_NUM_THREADS asks, or else the cores that this process may use."""
    asked = os.environ.get(THREADS, "")
    return min(int(asked) if asked.isdecimal() and int(asked) else usable_cores(), MAX_THREADS)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end(process: subprocess.Popen[bytes], errors: IO[bytes], owner: int) -> None:
    """Kill the child and close its streams; it is not asked to end, since it may be busy for minutes."""
    if os.getpid() == owner:  # a fork of the owner must leave the child alone
        process.kill()
        process.wait()
    for stream in filter(None, (process.stdin, process.stdout, errors)):
        with contextlib.suppress(BrokenPipeError):  # closing sends what is still buffered
            stream.close()
