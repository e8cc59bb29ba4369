"""Kills workers and the head of a Ray cluster at random while a text is scored: the run has the bytes of one process.

    python tests/simulations/ray_kills.py [KILLS] [SEED]

The command is repeated whenever it was killed or ended with the code for lost workers; every other end is a failure.
Needs the extra `ray`; takes about ten seconds for each kill.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from lossprobe.cli.main import run
from lossprobe.passes import planning
from lossprobe.plan import rows as plan

ROOT = Path(__file__).resolve().parents[2]
MODEL, TEXT = ROOT / "examples" / "jargon-plain", ROOT / "examples" / "jargon-train.jsonl"
PART_ROWS = 1024  # small parts, so that each kill hits another one
LOST, UNREACHABLE = 7, 2  # exit codes
WORKERS = 2
TARGETS = {"worker": 0.7, "head": 0.15, "command": 0.15}


def score(place: str, *options: str) -> int:
    """Score the text in small parts; this is what the command of the simulation does."""
    cut = plan.cut_parts
    planning.cut_parts = lambda documents: cut(documents, PART_ROWS)  # type: ignore[assignment]
    return run(["score", str(MODEL), str(TEXT), "-o", place, "-q", *options])


class Cluster:
    """A cluster of one node, whose processes are known by its folder."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="ray-kills-")
        self.address = ""
        self.environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    def start(self) -> None:
        port = random.SystemRandom().randrange(20_000, 30_000)
        self.address = f"127.0.0.1:{port}"
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--port", str(port), "--num-cpus", "2",
            "--include-dashboard", "false", "--temp-dir", self.folder,
        ]  # fmt: skip
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def processes(self) -> dict[int, tuple[int, str]]:
        """Return parent and command line of every process whose ancestor was started in the folder."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, ValueError):
                    continue
                found[int(entry.name)] = parent, words
        own = {pid for pid, (_, words) in found.items() if self.folder in words}
        return {pid: each for pid, each in found.items() if pid in own or each[0] in own}

    def pids(self, word: str) -> list[int]:
        return [pid for pid, (_, words) in self.processes().items() if word in words]

    def stop(self) -> None:
        for pid in self.processes():
            kill(pid)
        shutil.rmtree(self.folder, ignore_errors=True)


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def hit(draw: random.Random, cluster: Cluster, command: subprocess.Popen[bytes]) -> str:
    """Kill something, and return what."""
    target = draw.choices(list(TARGETS), list(TARGETS.values()))[0]
    pids = {"worker": cluster.pids("ray::Door"), "head": cluster.pids("gcs_server"), "command": [command.pid]}[target]
    return target if pids and kill(draw.choice(pids)) else ""


def stored(place: Path) -> int:
    """Return how many parts are stored."""
    return len(list((place / "plan").glob("*.json"))) if (place / "plan").is_dir() else 0


def run_and_hit(draw: random.Random, cluster: Cluster, place: Path, kills: int, done: Counter[str]) -> int:
    """Run the command and kill something whenever a few more parts are stored; return its exit code."""
    options = ["--engine", "ray", "--ray-address", cluster.address, "--ray-workers", str(WORKERS)]
    words = [sys.executable, __file__, "--score", str(place), *options]
    command = subprocess.Popen(words, env=cluster.environment, stdout=subprocess.DEVNULL)
    done["command run"] += 1
    next_parts, latest = stored(place) + draw.randrange(20), time.monotonic() + draw.uniform(20, 40)
    while command.poll() is None:
        time.sleep(draw.uniform(0.01, 0.1))
        due = stored(place) >= next_parts or time.monotonic() > latest
        if due and sum(done[name] for name in TARGETS) < kills and (target := hit(draw, cluster, command)):
            done[target] += 1
            next_parts, latest = stored(place) + draw.randrange(20), time.monotonic() + draw.uniform(20, 40)
    return command.returncode


def simulate(kills: int, seed: int, place: Path) -> Counter[str]:
    """Score with kills until the run is complete, and return what was killed, and how often the command was run."""
    draw, cluster, done = random.Random(seed), Cluster(), Counter[str]()
    cluster.start()
    try:
        while True:
            code = run_and_hit(draw, cluster, place, kills, done)
            print(f"ended with {code}; {dict(done)}; {stored(place)} parts stored", flush=True)
            if code == 0:
                return done
            gone = not cluster.pids("gcs_server")
            assert code in (LOST, -signal.SIGKILL) or (gone and code == UNREACHABLE), code
            if gone:
                cluster.stop()
                cluster = Cluster()
                cluster.start()
    finally:
        cluster.stop()


def main() -> None:
    kills, seed = (
        (int(word) for word in [*sys.argv[1:], "30", "1"][:2]) if len(sys.argv) != 2 else (int(sys.argv[1]), 1)
    )
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = Path(folder, "alone"), Path(folder, "killed")
        subprocess.run([sys.executable, __file__, "--score", str(alone)], check=True, stdout=subprocess.DEVNULL)
        done = simulate(kills, seed, killed)
        assert tree(alone) == tree(killed), "other bytes"
        print(f"{len(tree(alone))} files are the same to the byte after {dict(done)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--score"]:
        sys.exit(score(*sys.argv[2:]))
    main()
