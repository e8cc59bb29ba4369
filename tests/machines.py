"""Machines for tests of the network: namespaces of Linux for processes, network, name and mounts, joined by a cable.

A machine is its first process. When that ends, the system kills all others of the machine, and takes its network away;
it ends when this process does, since it reads a pipe from it. Nothing leaves the cable: neither machine has a route.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

NET = "10.213.77"  # of addresses that are nobody's outside
CABLE = "cable"
LOG = "log.txt"
TOOLS = ("unshare", "nsenter", "ip", "mount", "hostname")
# What machines must not share by way of files: sockets and shared memory of Ray.
OWN = ("/dev/shm", "/tmp/ray")
BOOT = f"""
set -e
for place in {" ".join(OWN)}; do mkdir -p $place; mount -t tmpfs none $place; done
hostname "$1"
ip link set lo up
echo ready
exec cat
"""


class Machine:
    """A machine, which runs until `stop`.

    Args:
        number: of several machines; its address is `NET.number`.
    """

    def __init__(self, number: int) -> None:
        self.name, self.address = f"machine-{number}", f"{NET}.{number}"
        self._started: list[subprocess.Popen[bytes]] = []
        self._shell = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", BOOT, "sh", self.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._shell.stdout is not None
        assert self._shell.stderr is not None
        if self._shell.stdout.readline() != b"ready\n":
            told = self._shell.stderr.read().decode(errors="replace").strip()
            self.stop()
            raise OSError(told or "unshare failed")
        children = Path(f"/proc/{self._shell.pid}/task/{self._shell.pid}/children").read_text()
        self.pid = int(children.split()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the machine and all its processes, as when its power fails."""
        self._shell.kill()  # its child, the first process of the machine, is killed with it
        for process in (self._shell, *self._started):
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def words(self, command: Sequence[str]) -> list[str]:
        """Return the words that run a command in this machine."""
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--pid", "--", *command]

    def start(self, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
        """Start a command in a folder of this machine; what it prints goes to `folder / LOG`.

        What it leaves running, as `ray start` does, would hold a pipe open.
        """
        folder.mkdir(exist_ok=True)
        with (folder / LOG).open("wb") as log:
            # The working folder is set anew where mounts are entered.
            words = self.words(["env", "--chdir", str(folder), *command])
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        self._started.append(process)
        return process

    def ip(self, *words: str) -> None:
        """Run the command `ip` in the network of this machine; it sees the processes of both."""
        command = ["nsenter", "--target", str(self.pid), "--net", "--", "ip", *words]
        subprocess.run(command, check=True, capture_output=True)

    def unplug(self) -> None:
        """Take the network away: what is sent to the other machine fails, or waits, as the system decides."""
        self.ip("link", "set", CABLE, "down")

    def plug(self) -> None:
        """Bring the network back."""
        self.ip("link", "set", CABLE, "up")

    def swallow(self, address: str) -> None:
        """Let all that is sent to an address vanish without a word, as a firewall that drops packets does."""
        self.ip("neighbour", "replace", address, "lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", CABLE)


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Yield two machines with a cable between them.

    Raises:
        OSError: this system, or this user, cannot make them.
    """
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        raise OSError(f"there is no {missing[0]}")
    with ExitStack() as stack:
        one, two = (stack.enter_context(Machine(number)) for number in (1, 2))
        try:
            one.ip("link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", str(two.pid))
            for machine in (one, two):
                machine.ip("address", "add", f"{machine.address}/24", "dev", CABLE)
                machine.plug()
        except subprocess.CalledProcessError as error:
            raise OSError(error.stderr.decode(errors="replace").strip()) from None
        yield one, two
