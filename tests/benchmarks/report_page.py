"""Measures the text view of the report on 10^6 tokens: bytes a token, seconds to the first picture, keys to picture.

    python tests/benchmarks/report_page.py RUN [RUN...]

The RUNs have one vocabulary, and texts of their own, or the same text under other models or windows; they are repeated
until there are 10^6 tokens. Copies differ from each other where models or windows do, so that little more is packed
together than in a text of this size: deflate looks back over 32 KiB only. Needs Chromium and the extra `browser`.

Limits: 9 bytes a token beyond the text, 2 s to the first picture, 60 ms from key to picture.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from page_frame import SHOWN, chromium, framed, wait_for_text

from lossprobe.analysis.coloured_text.coloured_text import coloured_text
from lossprobe.report.page.text_view import text_view
from lossprobe.run.files import sealed, sha256_of, write_json
from lossprobe.run.reader import Run, open_run

TOKENS = 10**6
KEYS = ("PageDown", "ArrowDown", "ArrowDown", "PageDown", "n", "PageUp", "n", "ArrowRight")
PRESSES = 48
# Milliseconds from a key to the frame in which the page has been painted again.
TIMED_KEY = """key => new Promise(done => {
    const target = document.activeElement;
    const start = performance.now();
    target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""


def joined(runs: list[Run], folder: Path, tokens: int) -> Run:
    """Write a run of the documents of several runs, again and again until there are so many tokens; return it."""
    tables: dict[str, list[pa.Table]] = {"tokens": [], "documents": []}
    documents = windows = total = 0
    while total < tokens:
        run = runs[len(tables["tokens"]) % len(runs)]
        rows, texts = (_read(run, name) for name in tables)
        rows = rows.slice(0, tokens - total) if total + len(rows) > tokens else rows
        texts = texts.slice(0, rows["document"][-1].as_py() + 1)
        total += len(rows)
        shifted = _shift(rows, "window", windows)
        tables["tokens"].append(_shift(shifted, "document", documents))
        tables["documents"].append(_shift(texts, "document", documents))
        windows += rows["window"][-1].as_py() + 1
        documents += len(texts)
    manifest: dict[str, Any] = json.loads(json.dumps(runs[0].manifest))
    names = ["documents.parquet", "vocabulary.parquet"]
    folder.mkdir()
    pq.write_table(pa.concat_tables(tables["documents"]), folder / names[0])
    (folder / names[1]).write_bytes((runs[0].path / names[1]).read_bytes())
    for table in ("tokens", "histogram", "ladder"):
        (folder / table).mkdir()
        names.append(f"{table}/part-00000.parquet")
        empty = table != "tokens"
        pq.write_table(
            _read(runs[0], table).slice(0, 0) if empty else pa.concat_tables(tables[table]), folder / names[-1]
        )
    manifest["counts"]["tokens"] = total
    manifest["counts"]["documents"] = documents
    manifest["part_rows"] = [total]
    manifest["files"] = {name: sha256_of(folder / name) for name in sorted(names)}
    write_json(folder / "run.json", sealed({key: value for key, value in manifest.items() if key != "sha256"}))
    return Run(folder, manifest)


def _read(run: Run, table: str) -> pa.Table:
    names = sorted(name for name in run.manifest["files"] if name.startswith((f"{table}/", f"{table}.")))
    return pa.concat_tables([pq.read_table(run.path / name) for name in names])


def _shift(table: pa.Table, column: str, by: int) -> pa.Table:
    index = table.schema.get_field_index(column)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.compute.add(table[column], pa.scalar(by, field.type)))


def main() -> None:
    """Make the page and print what it weighs and how long it takes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = joined([open_run(path) for path in sys.argv[1:]], folder / "run", TOKENS)
        start = time.perf_counter()
        text = coloured_text(run)
        view = text_view(text)
        print(f"{text.header['tokens']:,} tokens packed in {time.perf_counter() - start:.1f} s")
        count = text.header["tokens"]
        for name, packed in sorted(view.data.items(), key=lambda item: -len(item[1])):
            print(f"  {name:34} {4 * -(-len(packed) // 3) / count:7.3f} bytes a token in base64")
        file = folder / "page.html"
        file.write_text(framed(view), "utf-8")
        size, raw = file.stat().st_size, len(text.arrays["text"])
        packed_text = 4 * -(-len(view.data["lossprobe-text-text"]) // 3)
        print(f"page {size / 1e6:.2f} MB; text {raw / 1e6:.2f} MB, packed {packed_text / 1e6:.2f} MB")
        print(f"beside the packed text {(size - packed_text) / count:.2f} bytes a token")
        browse(file)


def browse(file: Path) -> None:
    """Open the page three times, press keys, and print how long each took.

    Beside the clock stand the seconds that the page's main thread ran: on a busy machine only they say what the page
    itself costs.
    """
    with chromium() as browser:
        for _ in range(3):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            ran = main_thread(page)
            page.goto(file.as_uri())
            wait_for_text(page)
            page.wait_for_timeout(300)
            first, loading = page.evaluate(f"{SHOWN}[0].startTime"), ran()
            lines = page.evaluate("Number(document.querySelector('.lp-scroll').getAttribute('aria-rowcount'))")
            page.keyboard.press("n")
            page.wait_for_timeout(300)
            before = ran()
            taken = sorted(page.evaluate(TIMED_KEY, KEYS[k % len(KEYS)]) for k in range(PRESSES))
            each = 1000 * (ran() - before) / PRESSES
            rows = page.evaluate("document.querySelectorAll('.lp-row').length")
            print(
                f"{lines:,} lines, {rows} rows live; first picture {first:.0f} ms, main thread {1000 * loading:.0f} ms"
            )
            print(
                f"  key to picture: median {statistics.median(taken):.0f} ms, 90 % {taken[int(0.9 * PRESSES)]:.0f} ms, "
                f"most {taken[-1]:.0f} ms; main thread {each:.0f} ms a key"
            )
            page.context.close()


def main_thread(page: Any) -> Callable[[], float]:
    """Return what tells how many seconds the main thread of a page has run."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
    session.send("Performance.enable")

    def ran() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(float(metric["value"]) for metric in metrics if metric["name"] == "ThreadTime")

    return ran


if __name__ == "__main__":
    main()
