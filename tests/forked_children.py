"""Forks child processes of each kind from one process that has their libraries, in place of starting each anew.

A start takes 0.15 s for a tokenizer, most of it to import numpy and `tokenizers`, and a second for transformers'
AutoTokenizer; the suite has over a thousand. What a child does is the same. How one is started is tested by
checkpoint/test_sandbox.py, and by every test that runs a command in a process of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from lossprobe.checkpoint.tokenizers import sandbox

# What each kind of child imports: its own module, and what that imports when it is asked.
IMPORTS = {
    "tokenizers.sandbox_worker": "import lossprobe.checkpoint.tokenizers.sandbox_worker",
    "tokenizers.auto_tokenizer_worker": """
import lossprobe.checkpoint.tokenizers.auto_tokenizer_worker
sys.modules["torch"] = None
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical"}
from transformers import AutoTokenizer, TokenizersBackend
""",
    "templates.worker": """
from lossprobe.checkpoint.templates import worker
sys.modules["torch"] = None
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical"}
worker.hollow("transformers", "transformers.utils")
worker.WorkerTemplate("", {})
""",
}
# Gets the environment, the worker and three open files of a child; answers with its pid, and if asked how it ended.
FORKS = """
import json, os, socket, sys
sys.path[:] = json.loads(sys.argv[1])
exec(sys.argv[3])

asked = socket.socket(fileno=int(sys.argv[2]))
while True:
    data, files, _, _ = socket.recv_fds(asked, 1 << 16, 3)
    if not data:
        os._exit(0)
    request = json.loads(data)
    if "pid" in request:
        answer = os.waitstatus_to_exitcode(os.waitpid(request["pid"], 0)[1])
    else:
        answer = os.fork()
        if not answer:
            asked.close()
            for target, file in enumerate(files):
                os.dup2(file, target)
                os.close(file)
            os.environ.clear()
            os.environ.update(request["environment"])
            exec(request["code"], {"__name__": "__main__"})
            os._exit(0)
        for file in files:
            os.close(file)
    asked.sendall(b"%d\\n" % answer)
"""


class Forks:
    """The process from which children of a kind are forked.

    Args:
        imports: what they import.
    """

    def __init__(self, imports: str) -> None:
        ours, theirs = socket.socketpair()
        path = json.dumps([entry for entry in sys.path if entry])
        command = [sys.executable, "-I", "-c", FORKS, path, str(theirs.fileno()), imports]
        environment = os.environ | sandbox.ENVIRONMENT
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self._socket, self._answers, self._lock = ours, ours.makefile("rb"), threading.Lock()

    def ask(self, request: dict, files: list[int]) -> int:
        with self._lock:
            if self._socket.fileno() < 0:  # after the tests, for a child that was just killed
                return -9
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            return int(self._answers.readline())

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait()


class Child:
    """A forked child, with what `Sandbox` uses of a `subprocess.Popen`."""

    def __init__(self, forks: Forks, command: list[str], stderr: object, env: dict[str, str]) -> None:
        self._forks, self._code = forks, None
        (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
        request = {"environment": env, "code": command[3].replace("sys.argv[1]", repr(command[4]))}
        self.pid = forks.ask(request, [their_in, their_out, stderr.fileno()])
        os.close(their_in)
        os.close(their_out)
        self.stdin, self.stdout = os.fdopen(our_in, "wb"), os.fdopen(our_out, "rb")

    def kill(self) -> None:
        if self._code is None:
            os.kill(self.pid, 9)

    def wait(self) -> int:
        if self._code is None:
            self._code = self._forks.ask({"pid": self.pid}, [])
        return self._code


@contextmanager
def forked_children() -> Iterator[None]:
    """Fork, inside the block, the children of this process."""
    started: dict[str, Forks] = {}
    owner = os.getpid()

    def fork(command, *, stdin, stdout, stderr, env):
        kind = next((worker for worker in IMPORTS if worker in command[3]), None)
        if kind is None or os.getpid() != owner:
            return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=env)
        if kind not in started:
            started[kind] = Forks(IMPORTS[kind])
        return Child(started[kind], command, stderr, env)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "subprocess", SimpleNamespace(Popen=fork, PIPE=subprocess.PIPE))
        yield
    for forks in started.values():
        forks.close()
