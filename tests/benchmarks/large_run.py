"""Measures seconds and peak memory of each view on a run of millions of rows, made by repeating a small run.

    python tests/benchmarks/large_run.py RUN [ROWS] [COMMAND...]

With COMMANDs, only these views are measured, for one model.

The copies are separate documents with other first tokens, so that they are no copies to lossprobe, and clusters, bins
and joins are as large as in a real run. Row groups have the size of the parts of a run. The texts are left out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from memory import peak_of

from lossprobe.passes.planning import LADDER_ROWS
from lossprobe.plan.rows import PART_ROWS
from lossprobe.run.files import sealed, sha256_of, write_json
from lossprobe.run.reader import Run, open_run

VIEWS = (
    ("perplexity",),
    ("positions",),
    ("hardest",),
    ("tokens", "--table"),
    ("calibration",),
    ("calibration", "--by", "class"),
    ("objectives",),
)
TWO_MODELS = (("calibration",), ("compare",), ("compare", "--by", "type"), ("compare", "--by", "class"), ("gap",))
COPIES_PER_PART = 20
# A program that runs one check of an audit against a baseline, on a text that is scored already.
AUDIT = """
import sys
from pathlib import Path
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.audit.checks.decisions import conclude
from lossprobe.audit.checks.metrics import metric_of
from lossprobe.audit.checks.pairing import AuditedRun
from lossprobe.audit.settings import Check, Limit
from lossprobe.audit.gate.whole import measure_check
from lossprobe.run.baseline import MODEL_COLUMNS, open_baseline, write_baseline
from lossprobe.run.reader import open_run
run, metric, choices = open_run(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
folder = run.path.parent / "baseline"
if metric == "baseline update":
    write_baseline(run, folder, MODEL_COLUMNS)
else:
    scored = AuditedRun(run, find_clusters(run), open_baseline(folder))
    scored.refuse_other_tokens()
    check = Check("id", "text", metric, Limit("max_increase", 0.01), **choices)
    found = metric_of(check, 1024)
    assert conclude(check, found, measure_check(check, found, scored, 0.95), 0.95).verdict == "pass"
"""
CHECKS = (
    ("baseline update", {}),
    ("nll", {}),
    ("nll", {"token_class": "digits"}),
    ("ece", {}),
    ("quantile", {"quantile": 0.99}),
)


def repeat(run: Run, folder: Path, rows: int) -> Run:
    """Write a run that repeats the rows of another run until it has at least `rows`, and return it."""
    tables = {name: _read(run, name) for name in ("tokens", "histogram", "ladder")}
    documents = pq.read_table(run.path / "documents.parquet")
    size, count = len(tables["tokens"]), len(documents)
    copies = -(-rows // size)
    sample_every = max(1, copies * size // LADDER_ROWS)
    windows = int(pa.compute.max(tables["tokens"]["window"]).as_py()) + 1
    place = np.flatnonzero(tables["tokens"]["unscored"].is_null().to_numpy())[: len(tables["ladder"])]
    for name in tables:
        (folder / name).mkdir(parents=True)
    for part, first in enumerate(range(0, copies, COPIES_PER_PART)):
        numbers = range(first, min(copies, first + COPIES_PER_PART))
        for name, table in tables.items():
            pieces = []
            for number in numbers:
                kept = table
                if name == "ladder":
                    kept = table.filter(pa.array((number * size + place) % sample_every == 0))
                moved = _shift(kept, "document", number * count)
                pieces.append(_other_copy(moved, number, windows, run.vocab_size) if name == "tokens" else moved)
            file = folder / name / f"part-{part:05d}.parquet"
            pq.write_table(pa.concat_tables(pieces), file, row_group_size=PART_ROWS, compression="zstd")
    untold = documents.set_column(
        documents.schema.get_field_index("text"), "text", pa.nulls(count, documents.schema.field("text").type)
    )
    repeated = pa.concat_tables([_shift(untold, "document", number * count) for number in range(copies)])
    pq.write_table(repeated, folder / "documents.parquet", compression="zstd")
    (folder / "vocabulary.parquet").write_bytes((run.path / "vocabulary.parquet").read_bytes())
    manifest = json.loads(json.dumps(run.manifest))
    manifest["counts"] = {key: value * copies if type(value) is int else value for key, value in run.counts.items()}
    manifest["sample_every"] = sample_every
    manifest["part_rows"] = [min(COPIES_PER_PART, copies - first) * size for first in range(0, copies, COPIES_PER_PART)]
    manifest["settings"]["text"]["kept"] = False
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.parquet"))
    manifest["files"] = {name: sha256_of(folder / name) for name in names}
    write_json(folder / "run.json", sealed(manifest))
    return open_run(folder)


def _read(run: Run, name: str) -> pa.Table:
    files = sorted(file for file in run.manifest["files"] if file.startswith(f"{name}/"))
    return pa.concat_tables([pq.read_table(run.path / file) for file in files])


def _other_copy(tokens: pa.Table, number: int, windows: int, entries: int) -> pa.Table:
    """Return the rows of a copy with windows of its own, and ids of two tokens of each document that depend on it."""
    ids, token = tokens["token_id"].to_numpy().copy(), tokens["token"].to_numpy()
    for place, digit in ((1, number % entries), (2, number // entries)):
        ids[token == place] = (ids[token == place] + digit) % entries
    index = tokens.schema.get_field_index("token_id")
    return _shift(tokens.set_column(index, tokens.schema.field(index), pa.array(ids)), "window", number * windows)


def _shift(table: pa.Table, column: str, by: int) -> pa.Table:
    index = table.schema.get_field_index(column)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.compute.add(table[column], pa.scalar(by, field.type)))


def main() -> None:
    """Build the run and print a line for each view."""
    source, rows, chosen = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000, sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        run = repeat(open_run(source), Path(folder) / "run", rows)
        print(f"{run.counts['tokens']:,} rows in {run.counts['documents']:,} documents")
        views = [(view, 1) for view in VIEWS if not chosen or view[0] in chosen]
        views += [(view, 2) for view in TWO_MODELS if not chosen]
        for view, models in views:
            sources = (str(run.path),) * models
            arguments = ("-m", "lossprobe", view[0], *sources, *view[1:], f"--csv={os.devnull}")
            show(f"{' '.join(view)}{', two models' if models == 2 else ''}", arguments, Path(folder))
        for metric, choices in () if chosen else CHECKS:
            name = f"audit: {metric} {' '.join(map(str, choices.values()))}"
            show(name, ("-c", AUDIT, str(run.path), metric, repr(choices)), Path(folder))


def show(name: str, arguments: tuple[str, ...], folder: Path) -> None:
    """Run a command and print its name, seconds and peak memory."""
    seconds, megabytes = peak_of([sys.executable, *arguments], folder)
    print(f"{name:32} {seconds:7.1f} s {megabytes:8.0f} MB", flush=True)


if __name__ == "__main__":
    main()
