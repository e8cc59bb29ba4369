"""Measures what planning takes, without any scoring: seconds of the processor, memory, and bytes on disk.

    python tests/benchmarks/planning.py [100000 1000000 10000000] [--files N] [--parquet] [--folder DIR]
    python tests/benchmarks/planning.py 20000000 --shards 1 2

The text is the bundled one, repeated, as records of a JSONL or of Parquet in one file or several. Every size is planned
in a process of its own; its memory is the peak above that with the tokenizer loaded. Seconds are of all processes, the
tokenizer's too: of hashing the text, which every process of a run does, and of the plan, which one does. With --shards
so many processes, each on a core of its own, plan the text together, and the wall time of both is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from memory import in_own_process, rise_of
from shapes import TINY, make_checkpoint, texts

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.passes.known_text import text_sha256
from lossprobe.passes.prepared import make_plan, prepare
from lossprobe.passes.shards import score_shard
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.shard import Shard, read_shard
from lossprobe.run.store import RunStore
from lossprobe.text.documents import open_text
from lossprobe.text.options import TextOptions

SIZES = (100_000, 1_000_000, 10_000_000)


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--parquet", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--shards", nargs="+", type=int, help="numbers of processes that plan together")
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shard", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.shard:
        print(json.dumps(plan_as_shard(given.plan, given.folder, read_shard(given.shard, {}))))
        return
    if given.plan:
        print(json.dumps(measure(given.plan, given.folder)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        if not (folder / "tiny" / "config.json").is_file():
            make_checkpoint(folder / "tiny", TINY)
        if given.shards:
            text = write_text(folder / "text", given.sizes[0], given.files, parquet=given.parquet)
            measure_together(folder, text, given.shards)
            return
        print("     tokens   parts  us/token: hash  plan   MB above   plan MB  plan.json KB")
        for size in given.sizes:
            text = write_text(folder / "text", size, given.files, parquet=given.parquet)
            found = json.loads(in_own_process(__file__, "--plan", str(text), "--folder", str(folder)))
            each = 1e6 / found["tokens"]
            print(
                f"{found['tokens']:11,} {found['parts']:7,} {found['hash'] * each:15.2f} {found['plan'] * each:5.2f} "
                f"{found['rise']:10.0f} {found['bytes'] / 1e6:9.1f} {found['json'] / 1e3:13.1f}",
                flush=True,
            )


def measure_together(folder: Path, text: Path, counts: list[int]) -> None:
    """Plan a text with several numbers of processes, and print a table."""
    print("processes  us/token of wall time: hash   plan   together")
    for count in counts:
        with tempfile.TemporaryDirectory(dir=folder) as runs:
            run = Path(runs) / "run"
            own = [sys.executable, __file__, "--plan", str(text), "--folder", str(run)]
            began = time.perf_counter()
            started = [
                subprocess.Popen([*own, "--shard", f"{index}/{count}"], stdout=subprocess.PIPE)
                for index in range(1, count + 1)
            ]
            found = [json.loads(process.communicate()[0]) for process in started]
            total = time.perf_counter() - began
        each = 1e6 / found[0]["tokens"]
        hashed, planned = (max(one[name] for one in found) * each for name in ("hash", "plan"))
        print(f"{count:9}  {hashed:27.2f} {planned:6.2f} {total * each:10.2f}", flush=True)


def plan_as_shard(text: Path, run: Path, shard: Shard) -> dict[str, float]:
    """Plan a text together with others, on one core; return the seconds that hashing and planning took."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[(shard.index - 1) % len(os.sched_getaffinity(0))]})
    checkpoint = open_checkpoint(run.parents[1] / "tiny")
    checkpoint.tokenizer.encode("warm")
    source, options = open_text(text, TextOptions(max_bytes=1 << 40)), ScoreOptions()
    began = time.perf_counter()
    text_sha256(source)
    hashed = time.perf_counter()
    with contextlib.suppress(_PlannedError):
        score_shard(shard, checkpoint, source, options, output=run, engine=_StoppingEngine())
    planned = time.perf_counter()
    tokens = json.loads((run / "plan.json").read_text())["counts"]["tokens"]
    return {"tokens": tokens, "hash": hashed - began, "plan": planned - hashed - (hashed - began)}


class _PlannedError(Exception):
    """Stops a shard that has planned."""


class _StoppingEngine:
    """An engine that scores nothing."""

    def score(self, *_: object) -> Iterator[Any]:
        """Stop."""
        raise _PlannedError


def write_text(folder: Path, tokens: int, files: int, *, parquet: bool) -> Path:
    """Write about as many tokens of the bundled text into a folder of files, and return the folder."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    pieces = texts()
    copies = max(1, round(tokens / 421_000 / files * len(pieces)))
    for number in range(files):
        kept = [pieces[index % len(pieces)] for index in range(number, number + copies)]
        if parquet:
            pq.write_table(pa.table({"text": kept}), folder / f"{number:05}.parquet", row_group_size=1000)
        else:
            lines = (json.dumps({"text": piece}) + "\n" for piece in kept)
            (folder / f"{number:05}.jsonl").write_text("".join(lines), "utf-8")
    return folder


def measure(text: Path, folder: Path) -> dict[str, float]:
    """Plan a text; return seconds of the processor, MB, and bytes written."""
    checkpoint = open_checkpoint(folder / "tiny")
    checkpoint.tokenizer.encode("warm")
    source, options, found = open_text(text, TextOptions(max_bytes=1 << 40)), ScoreOptions(), {}

    def work() -> None:
        prepared, found["hash"] = timed(lambda: prepare(checkpoint, source, options, Path(runs) / "run"))
        with RunStore(prepared.path) as store:
            plan, found["plan"] = timed(lambda: make_plan(store, prepared, checkpoint, options))
        found["tokens"], found["parts"] = plan["counts"]["tokens"], len(plan["part_rows"])

    with tempfile.TemporaryDirectory(dir=folder) as runs:
        found["rise"] = rise_of(work)
        files = [file for file in Path(runs).rglob("*") if file.is_file()]
        found["bytes"] = sum(file.stat().st_size for file in files if file.parent.name == "plan")
        found["json"] = (Path(runs) / "run" / "plan.json").stat().st_size
    return found


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a function and the seconds of the processor that it took, the tokenizer's process included.

    The system adds the time of a child only when it has ended, so that of a living one is read from /proc.
    """
    before = busy()
    result = work()
    return result, busy() - before


def busy() -> float:
    """Return the seconds of the processor that this process and its living children have used."""
    tick = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == os.getpid() or int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / tick
    return total


if __name__ == "__main__":
    main()
