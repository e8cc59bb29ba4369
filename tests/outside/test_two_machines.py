"""Two machines joined by a cable score one text, as the how-to pages say; then the cable or a machine is taken away.

Skipped where this user cannot make namespaces. Takes about a minute on two idle processors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bundled import EXAMPLES
from machines import LOG, NET, two_machines
from object_server import environment
from stored_runs import tree

import lossprobe

pytestmark = pytest.mark.thorough
MODEL = EXAMPLES / "jargon-plain"
PAUSE = "0.1"  # seconds after each part, so that what is taken away is missed
SMALL_PARTS = """
import sys, time
from lossprobe.passes import planning
from lossprobe.plan import rows as plan
from lossprobe.run.part_store import PartStore
planning.cut_parts = lambda documents: plan.cut_parts(documents, 512)
write_part = PartStore.write_part
PartStore.write_part = lambda *given: (write_part(*given), time.sleep(float(sys.argv[1])))
from lossprobe.cli.main import main
main(sys.argv[2:])
"""
NOBODY = f"{NET}.99"
LONGEST = 60  # seconds of one command


@pytest.fixture
def machines():
    try:
        with two_machines() as both:
            yield both
    except OSError as error:
        pytest.skip(f"no machines can be made here: {error}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a working folder with a text; commands find this lossprobe, and no settings of the user."""
    places = (Path(lossprobe.__file__).parents[1], Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    lines = (EXAMPLES / "jargon-train.jsonl").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "text.jsonl").write_text("".join(lines[:50]), "utf-8")
    return tmp_path


def score(*more: str, pause: str = PAUSE) -> list[str]:
    return [sys.executable, "-c", SMALL_PARTS, pause, "score", str(MODEL), *more]


def scored(address: str, pause: str = PAUSE) -> list[str]:
    return score("../text.jsonl", "-o", "run", "--engine", "ray", "--ray-address", address, pause=pause)


def ended(process: subprocess.Popen[bytes], folder: Path) -> tuple[int, str]:
    """Return the exit code of a command, and what it printed."""
    code = process.wait(LONGEST)
    return code, (folder / LOG).read_text("utf-8")


def run(machine, command: list[str], folder: Path) -> str:
    """Run a command that succeeds, and return what it printed."""
    code, told = ended(machine.start(command, folder), folder)
    assert code == 0, told
    return told


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until something is so while a command runs."""
    latest = time.monotonic() + LONGEST
    while not condition():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < latest
        time.sleep(0.05)


def parts(folder: Path) -> int:
    """Return how many parts are stored in a run below a folder."""
    return len(list(folder.rglob("plan/part-*.json")))


def files(run: Path) -> dict[str, bytes]:
    """Return the files of a run without its locks and notes."""
    return {name: data for name, data in tree(run).items() if not Path(name).name.startswith(".")}


def refused(machine, command: list[str], folder: Path) -> tuple[int, str, float]:
    """Return code, one line of error and seconds of a command that is refused."""
    begun = time.monotonic()
    code, told = ended(machine.start(command, folder), folder)
    (line,) = [line for line in told.replace("\r", "\n").splitlines() if "error[" in line]
    return code, line, time.monotonic() - begun


def test_a_ray_cluster_of_two_machines(machines, folder):
    pytest.importorskip("ray")
    first, second = machines
    address = f"{first.address}:6379"
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--disable-usage-stats", "--num-cpus", "1"]
    run(first, [*ray, "--head", "--node-ip-address", first.address, "--port", "6379", "--include-dashboard", "false"],
        folder / "head")  # fmt: skip
    join = [*ray, "--address", address]
    run(second, join, folder / "node")
    run(first, score("../text.jsonl", "-o", "run", "-q", pause="0"), folder / "alone")
    alone = files(folder / "alone" / "run")
    assert len(alone) > 24
    command = scored(address)

    there = folder / "a-node-ends"
    process = first.start(command, there)
    wait_for(lambda: parts(there) >= 3, process)
    subprocess.run(second.words(["pkill", "--signal", "KILL", "--full", "ray"]), check=True)
    code, told = ended(process, there)
    assert code == 0, told
    assert files(there / "run") == alone

    run(second, join, folder / "node")
    there = folder / "the-network-ends"
    process = second.start(scored(address, pause="2"), there)  # its own worker goes on until the head is missed
    wait_for(lambda: parts(there) >= 3, process)
    second.unplug()
    begun = time.monotonic()
    code, told = ended(process, there)
    assert (code, time.monotonic() - begun < 30) == (7, True), told
    assert f"error[ray.lost]: Ray at {address}: its head does not answer any more" in told
    assert 0 < parts(there) < len([name for name in alone if name.startswith("tokens/")])
    second.plug()
    process = first.start(scored(address, pause="0"), there)

    code, line, seconds = refused(second, scored(f"{NOBODY}:6379"), folder / "wrong")
    assert (code, seconds < 20) == (2, True)
    assert f"error[ray.unreachable]: Ray at {NOBODY}:6379: does not answer" in line
    code, told = ended(process, there)
    assert code == 0, told
    assert files(there / "run") == alone

    second.swallow(first.address)
    code, line, seconds = refused(second, command, folder / "swallowed")
    assert (code, seconds < 20) == (2, True)
    assert f"error[ray.unreachable]: Ray at {address}: does not answer" in line


def test_three_shards_and_a_bucket(machines, folder, monkeypatch):
    pytest.importorskip("moto")
    first, second = machines
    said = folder / "server" / LOG
    server = first.start([sys.executable, "-m", "object_server", first.address, "../text.jsonl"], said.parent)
    wait_for(lambda: said.read_text("utf-8").endswith("\n"), server)
    for name, value in environment(said.read_text("utf-8").strip()).items():
        monkeypatch.setenv(name, value)
    run(first, score("s3://bucket/text.jsonl", "-o", "run", "-q", pause="0"), folder / "alone")
    address = "s3://bucket/runs/x"
    command, again = (score("s3://bucket/text.jsonl", "-o", address, pause=pause) for pause in (PAUSE, "0"))

    there = folder / "shard-2"
    process = second.start([*command, "--shard", "2/3"], there)
    wait_for(lambda: parts(there) >= 3, process)
    second.unplug()
    begun = time.monotonic()
    code, told = ended(process, there)
    second.plug()
    assert (code, time.monotonic() - begun < 30) == (6, True), told
    assert f"error[output.write]: {address}: cannot be written: no connection" in told
    assert "hint: repeat the command to resume" in told

    places = {"1/3": (first, folder / "shard-1"), "2/3": (second, there), "3/3": (second, folder / "shard-3")}
    shards = [(machine.start([*again, "--shard", shard], place), place) for shard, (machine, place) in places.items()]
    for process, place in shards:
        code, told = ended(process, place)
        assert code == 0, told
    run(second, [sys.executable, "-m", "lossprobe", "gather", address], folder / "gathered")
    gathered = folder / "gathered" / ".lossprobe" / "objects" / "s3" / "bucket" / "runs" / "x"
    assert files(gathered) == files(folder / "alone" / "run")
    assert json.loads((gathered / "run.json").read_text("utf-8"))["counts"]["scored_tokens"] > 4_000
