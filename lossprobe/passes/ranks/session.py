"""The processes that hold a model together, seen from the process that plans and stores.

They are started when a model is needed for the first time, and end with the command. Each gets every question, and each
must answer before the next result is there: while they compute, they wait for each other. So the first failure of one
ends all.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.model.spread import HOW_TO_INSTALL, can_spread
from lossprobe.errors import ResourceError, UsageError
from lossprobe.passes.failures import error_of
from lossprobe.processors import THREADS, available_processors, processor_quota

# -I (isolated) keeps out code of the working folder and PYTHON* variables; then the import path of this process is set.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lossprobe.passes.ranks.process import main; "
    "main(*map(int, sys.argv[2:5]), sys.argv[5])"
)
LOOKED_AT = 2.0  # seconds in which a process that has ended is found, after another failed for want of it
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class RankSession:
    """The processes of a command, which are started when they are asked for the first time.

    Args:
        size: number of processes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._processes: list[subprocess.Popen[bytes]] = []
        self._links: list[Connection] = []
        self._folder = ""

    def begin(self, device: str) -> None:
        """Start the processes, unless they were started.

        Args:
            device: where models run: "cpu" or "cuda".

        Raises:
            UsageError: torchrun has started this process beside others on this machine, or accelerate is missing.
        """
        if self._processes:
            return
        if not can_spread():  # transformers divides no model without it
            what = "`tensor_parallel_size` needs the library accelerate"
            raise UsageError("tensor_parallel.package", what, hint=HOW_TO_INSTALL)
        if int(os.environ.get("LOCAL_WORLD_SIZE", "1") or 1) > 1:
            what = "`tensor_parallel_size` starts its own processes, and torchrun has started several"
            raise UsageError("tensor_parallel.torchrun", what, hint="run the command without torchrun")
        try:
            self._start(device)
        except BaseException:
            self.close()
            raise

    def send(self, question: str, *asked: bytes) -> None:
        """Send a question of `worker.Worker.answer` to all processes."""
        for link in self._links:
            with contextlib.suppress(OSError):  # it has ended; `answers` says so
                link.send((question, *asked))

    def answers(self) -> list[Any]:
        """Return what each process answers to the oldest question without an answer.

        Raises:
            LossprobeError: what a process raised; all are ended then.
            ResourceError: one has ended.
        """
        found: dict[int, Any] = {}
        waiting = {id(link): rank for rank, link in enumerate(self._links)}
        try:
            while len(found) < len(self._links):
                for link in wait([each for each in self._links if waiting[id(each)] not in found]):
                    assert isinstance(link, Connection)
                    rank = waiting[id(link)]
                    found[rank] = self._answer(link, rank)
        except BaseException:
            self.close()
            raise
        return [found[rank] for rank in range(len(self._links))]

    def ask(self, question: str, *asked: object) -> list[Any]:
        """Return what each process answers to a question, where no other waits for its answers; as `answers`."""
        self.send(question, *(pickle.dumps(each, pickle.HIGHEST_PROTOCOL) for each in asked))
        return self.answers()

    def close(self) -> None:
        """End the processes."""
        processes, self._processes = self._processes, []
        links, self._links = self._links, []
        for process in processes:  # a process may wait for another one in code that no request to end interrupts
            process.kill()
        for link in links:
            link.close()
        for process in processes:
            process.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    def _answer(self, link: Connection, rank: int) -> Any:
        """Return the answer of one process."""
        try:
            good, content = link.recv()
        except (EOFError, OSError):
            self._processes[rank].wait()
            raise self._lost(rank) from None
        if good:
            return pickle.loads(content)
        failure = json.loads(content)
        ended = self._ended() if failure["kind"] == "RuntimeError" else None
        raise error_of(failure) if ended is None else self._lost(ended)

    def _ended(self) -> int | None:
        """Return the rank of a process that has ended, for want of which another failed; None if there is none."""
        until = time.monotonic() + LOOKED_AT
        while time.monotonic() < until:
            for rank, process in enumerate(self._processes):
                if process.poll() is not None:
                    return rank
            time.sleep(0.05)
        return None

    def _lost(self, rank: int) -> ResourceError:
        code = self._processes[rank].returncode
        how = f"by {_signal_name(-code)}" if code is not None and code < 0 else f"with exit code {code}"
        what = f"process {rank + 1} of the {self.size} that hold the model ended {how}"
        hint = "a system whose memory is full ends processes by SIGKILL; repeat the command to resume"
        return ResourceError("tensor_parallel.lost", what, hint=hint)

    def _start(self, device: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="lossprobe-ranks-")
        path = [entry for entry in sys.path if entry] + [str(Path(__file__).parents[3])]
        meeting = str(Path(self._folder) / "meeting")
        for rank in range(self.size):
            ours, theirs = Pipe()
            self._links.append(ours)
            words = [json.dumps(path), str(theirs.fileno()), str(rank), str(self.size), meeting]
            with theirs:
                self._processes.append(self._started(words, rank, device, theirs.fileno()))

    def _started(self, words: Sequence[str], rank: int, device: str, descriptor: int) -> subprocess.Popen[bytes]:
        number = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.size, "LOCAL_WORLD_SIZE": self.size}
        environment = {**os.environ, **{name: str(value) for name, value in number.items()}}
        environment.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""  # transformers would divide the model among GPUs
            quota = processor_quota()
            most = available_processors() if quota is None else min(quota, available_processors())
            environment.setdefault(THREADS, str(max(1, int(most) // self.size)))
        return subprocess.Popen(
            [sys.executable, "-I", "-c", START, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            pass_fds=(descriptor,),
            start_new_session=True,  # so that Ctrl-C reaches the process that plans alone, which then ends this one
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
