"""Measures what putting parts to object storage adds to a pass, with moto's server and a delay for each object.

    python tests/benchmarks/object_parts.py [MILLISECONDS]

Prints the seconds of a pass from its first part to its end: into a folder, and to the server with each part put before
the next one is scored, and while it is.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from object_server import served

from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.objects.store import ObjectStore
from lossprobe.passes import planning
from lossprobe.passes.score import score_into
from lossprobe.plan import rows as plan
from lossprobe.run.twin import Twin, folder_of
from lossprobe.text.documents import StringSource, open_text

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PART_ROWS, DOCUMENTS = 4096, 400


def one_after_the_other(twin: Twin, names: list[str], record: str) -> None:
    """Put a part before the next one is scored, as was done before there was a thread for it."""
    twin.send(names)
    twin.send([record])


def main() -> None:
    delay = float(sys.argv[1] if len(sys.argv) > 1 else "50") / 1000
    cut, put, together = plan.cut_parts, ObjectStore.put, Twin.send_part
    planning.cut_parts = lambda documents: cut(documents, PART_ROWS)  # type: ignore[assignment]

    def slow(store: ObjectStore, file: Path, address: object) -> None:
        time.sleep(delay)
        put(store, file, address)  # type: ignore[arg-type]

    ObjectStore.put = slow  # type: ignore[method-assign]
    checkpoint = Opener().open(CheckpointSpec(EXAMPLES / "jargon-plain", LoadOptions()))
    documents = open_text([EXAMPLES / "jargon-train.jsonl"]).documents()
    text = StringSource([document.text for _, document in zip(range(DOCUMENTS), documents, strict=False)])
    ways = {"folder": together, "one after the other": one_after_the_other, "in a thread": together}
    with served() as objects, tempfile.TemporaryDirectory() as folder:
        os.environ.update(objects.environment())
        os.chdir(folder)
        score_into(Path("warm"), checkpoint, text)
        for turn in range(3):
            for number, (way, send) in enumerate(ways.items()):
                Twin.send_part = send  # type: ignore[method-assign, assignment]
                marks: list[float] = []
                place = Path(f"here-{turn}") if way == "folder" else folder_of(Path(f"s3://bucket/{turn}-{number}"))
                run = score_into(
                    place, checkpoint, text, progress=lambda done, total, marks=marks: marks.append(time.perf_counter())
                ).run
                parts = len(run.manifest["part_rows"])
                print(f"{way}: {time.perf_counter() - marks[0]:.2f} s for {parts} parts, {delay * 1000:g} ms a put")


if __name__ == "__main__":
    main()
