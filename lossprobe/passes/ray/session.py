"""A session of Ray, seen from the process that plans and stores.

    this process          plans, hands out parts, stores scores; never imports Ray
    driver.py             a process of its own, which is Ray's driver: see there why
    ../worker.py          in one actor for each device, with the models in memory

The session begins when a model is needed for the first time, and ends with the command.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pickle
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from lossprobe.errors import ResourceError, UsageError
from lossprobe.passes.engine_options import EngineOptions
from lossprobe.passes.failures import error_of
from lossprobe.passes.identity import versions
from lossprobe.passes.ray.faults import HEAD
from lossprobe.processors import available_processors, processor_quota
from lossprobe.units import visible

# -I (isolated) keeps out code of the working folder and PYTHON* variables; then the import path of this process is set.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lossprobe.passes.ray.driver import main; "
    "main(int(sys.argv[2]))"
)
HOW_TO_INSTALL = 'pip install "lossprobe[ray]"'
ANSWERS_WITHIN = 3.0  # seconds in which a head must accept a connection
JOINED_WITHIN = 15.0  # seconds in which a cluster must be joined
STARTED_WITHIN = 120.0  # seconds in which a Ray of our own must be there: 5 on an idle machine
ENDED_WITHIN = 10.0  # seconds in which the workers are ended in good order
# Ray would report to its makers which of its parts are used, and tell each command how to turn that off.
# It would also try for 20 s to find a head, and for 60 s whether one that is gone comes back.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "5",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "30",
}
# A Ray of our own measures itself for nobody, and its workers are as urgent as a pass without Ray: by itself Ray gives
# them the least claim to a processor but four, so that each of its own processes that wakes stops them. What the user
# has set stands.
OWN_RAY = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_worker_niceness": "0",
}
ADDRESS = "RAY_ADDRESS"
SHORT_PLACE = "/tmp"  # names of sockets, which lie 80 characters deeper, may have 107


class RaySession:
    """The workers of a command, which are started when they are asked for the first time.

    Args:
        options: where they are.
        tell: called with a line that a user should read now.

    Attributes:
        gpus: GPUs of each worker; known once something was asked.
        passes: number of passes that were begun.
    """

    def __init__(self, options: EngineOptions, tell: Callable[[str], None]) -> None:
        self.gpus, self.passes = 0.0, 0
        self._options, self._tell = options, tell
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Connection | None = None
        self._folder = ""
        address = options.ray_address or os.environ.get(ADDRESS, "")
        self._address = "" if address == "local" else address  # Ray's word for one of its own

    def begin(self, device: str) -> None:
        """Start the workers' side, unless it was started.

        Args:
            device: where models run: "auto", "cpu", "cuda" or "mps".

        Raises:
            UsageError: Ray is not installed, the cluster cannot be joined, or has no room for a worker.
        """
        if self._process is None:
            try:
                self._start(device)
            except BaseException:
                self.close()
                raise

    def ask(self, question: str, *asked: object) -> Any:
        """Return what a worker answers; see `worker.Worker`.

        Raises:
            LossprobeError: what the worker raised, or it was lost.
        """
        self.send(("ask", question, *(pickle.dumps(each, pickle.HIGHEST_PROTOCOL) for each in asked)))
        name, *values = self.receive()
        while name != "answer":  # what was on its way for a pass that was given up
            name, *values = self.receive()
        return pickle.loads(values[0])

    def send(self, message: tuple[Any, ...]) -> None:
        """Send a message to the pool: the name of one of its events, and the arguments."""
        assert self._link is not None
        with contextlib.suppress(OSError):  # it has ended; `receive` says why
            self._link.send(message)

    def receive(self) -> tuple[Any, ...]:
        """Return the next message of the pool that is no failure.

        Raises:
            LossprobeError: a failure that it told of.
            ResourceError: the process has ended.
        """
        assert self._link is not None
        while True:
            try:
                message: tuple[Any, ...] = self._link.recv()
            except (EOFError, OSError):
                where = visible(self._address or "this machine", 100)
                hint = "repeat the command to resume"
                raise ResourceError("ray.lost", f"Ray on {where}: the connection to it ended", hint=hint) from None
            if message[0] == "failed":
                raise error_of(message[1], message[2] if self._address else "")
            if message[0] != "tell":
                return message
            self._tell(message[1])

    def close(self) -> None:
        """End the workers, and the Ray that was started for them."""
        process, self._process = self._process, None
        link, self._link = self._link, None
        if link is not None:
            link.close()
        if process is not None:
            try:
                process.wait(ENDED_WITHIN)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    def _start(self, device: str) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("ray.package", "`engine` ray needs the library ray", hint=HOW_TO_INSTALL)
        self._refuse_silent_address()
        self._link, theirs = Pipe()
        path = [entry for entry in sys.path if entry] + [str(Path(__file__).parents[3])]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", START, json.dumps(path), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # so that Ctrl-C reaches this process alone, which then ends the other in order
            )
        self._link.send(self._settings(device, path))
        limit = JOINED_WITHIN if self._address else STARTED_WITHIN
        if not self._link.poll(limit):
            self._process.kill()
            where = visible(self._address or "this machine", 100)
            raise UsageError("ray.unreachable", f"Ray at {where}: no answer within {limit:g} s", hint=HEAD)
        _, self.gpus = self.receive()

    def _settings(self, device: str, path: list[str]) -> dict[str, Any]:
        """Return what the other process must know."""
        options, quota = self._options, processor_quota()
        environment = dict(QUIET)
        if not self._address:
            place = SHORT_PLACE if os.access(SHORT_PLACE, os.W_OK) else None
            self._folder = tempfile.mkdtemp(prefix="lossprobe-ray-", dir=place)
            # Without a token Ray would write one into the user's home, or let any user of this machine run code.
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            environment |= {name: value for name, value in OWN_RAY.items() if name not in os.environ}
            environment["PYTHONPATH"] = os.pathsep.join(path)
        return {
            "address": self._address,
            "folder": self._folder,
            "environment": environment,
            "processors": max(1, int(min(quota or available_processors(), available_processors()))),
            "versions": versions(),
            "asked": {
                "workers": options.ray_workers,
                "threads": options.ray_threads,
                "gpus": options.ray_gpus,
                "device": device,
            },
        }

    def _refuse_silent_address(self) -> None:
        """Refuse an address at which nothing listens, where Ray itself would wait for minutes.

        Raises:
            UsageError: nothing does, or it is no HOST:PORT.
        """
        address = self._address
        if address in ("", "auto"):
            return
        host, _, port = address.rpartition(":")
        shown = visible(address, 100)
        if not host or "/" in address or not port.isdecimal():
            origin = "`ray_address`" if self._options.ray_address else ADDRESS
            raise UsageError("ray.unreachable", f"{origin} {shown}: is neither auto nor HOST:PORT")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWERS_WITHIN).close()
        except (OSError, OverflowError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError("ray.unreachable", f"Ray at {shown}: does not answer: {why}", hint=HEAD) from None


def scores_of(session: RaySession, work: tuple[Any, ...], parts: Iterator[tuple[int, bytes]]) -> Iterator[Any]:
    """Yield the number and the scores of every part of a pass, in any order.

    Args:
        session: the session.
        work: number of parts, and the other arguments of the pool's `on_begin` after it.
        parts: the number of each part, and the part, pickled; as many as the pool was told, read as they are needed.
    """
    session.passes += 1
    number, left = session.passes, work[0]
    session.send(("begin", number, *work))
    try:
        while left:
            name, of_pass, *values = session.receive()
            if of_pass != number:
                continue  # it was on its way for a pass that was given up
            if name == "want":
                for _, (index, content) in zip(range(values[0]), parts, strict=False):
                    session.send(("part", index, content))
            else:
                left -= 1
                yield values[0], pickle.loads(values[1])
    finally:
        session.send(("end",))
