"""Damages the content of Parquet files, and replaces, links and renames files and folders."""

from __future__ import annotations

import contextlib
import math
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TYPES = (pa.string(), pa.float64(), pa.int64(), pa.list_(pa.int32()), pa.binary(), pa.bool_())
COLUMNS = ("drop", "rename", "retype", "null", "value", "value", "value")
ROWS = ("shuffle", "fewer", "more", "empty", "add")
FOLDERS = ("other part", "linked folder", "linked part", "linked lock", "extra part", "pipe", "mixed")
MOVED = "moved"  # the folder into which a run is moved to get another name
MIXED = ("documents.parquet", "vocabulary.parquet", "histogram/part-00000.parquet", "ladder/part-00000.parquet")


def parquet_content(draw: random.Random, path: Path) -> str:
    """Replace a Parquet file by a valid one with other rows, columns, types or values."""
    table = pq.ParquetFile(path).read()
    way = draw.choice(COLUMNS + ROWS)
    if way in ROWS:
        table, said = _other_rows(draw, table, way), way
    else:
        table, said = _other_column(draw, table, way)
    pq.write_table(table, path)
    return f"{said} of {path.parent.name}/{path.name}"


def _other_rows(draw: random.Random, table: pa.Table, way: str) -> pa.Table:
    rows = table.num_rows
    match way:
        case "shuffle":
            return table.take(draw.sample(range(rows), rows))
        case "fewer":
            return table.slice(0, draw.randrange(rows))
        case "more":
            return pa.concat_tables([table, table.slice(draw.randrange(rows))])
        case "add":
            return table.append_column(draw.choice(("extra", "LOSS_NATS", "document ")), pa.nulls(rows, pa.int32()))
    return table.slice(0, 0)


def _other_column(draw: random.Random, table: pa.Table, way: str) -> tuple[pa.Table, str]:
    rows, name = table.num_rows, draw.choice(table.column_names)
    at, column, new = table.column_names.index(name), table[name], pa.nulls(rows, table[name].type)
    match way:
        case "drop":
            return table.remove_column(at), f"drop {name}"
        case "rename":
            return table.rename_columns(
                [f"{each}_" if each == name else each for each in table.column_names]
            ), f"rename {name}"
        case "retype":
            new = pa.nulls(rows, draw.choice(TYPES))
        case "value":
            values, row = column.to_pylist(), draw.randrange(rows)
            values[row] = draw.choice((values[draw.randrange(rows)], None, 0, -1, 10**6, math.nan, math.inf, "x", b"x"))
            way = f"{values[row]!r} in row {row} of"
            with contextlib.suppress(pa.ArrowException, OverflowError, TypeError, ValueError):
                new = pa.array(values, column.type)
    return table.set_column(at, name, new), f"{way} {name}"


def placed(draw: random.Random, path: Path) -> str:
    """Replace a file by nothing, a link, a pipe, a folder or another file."""
    others = sorted(each for each in path.parent.iterdir() if each.is_file() and each != path)
    way = draw.choice(("gone", "link", "link", "ring", "fifo", "fifo", "folder", "empty", "swap"))
    content = path.read_bytes()
    path.unlink()
    match way:
        case "link":
            target = draw.choice(("elsewhere/kept.txt", "/dev/zero", "/dev/null", "/proc/self/mem", *map(str, others)))
            path.symlink_to(Path(target).absolute())
            way += f" to {target}"
        case "ring":
            path.symlink_to(path.name)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "swap" if others:
            other = draw.choice(others)
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
            way += f" with {other.name}"
    return f"{way} in place of {path.parent.name}/{path.name}"


def folder_of_run(draw: random.Random, run: Path) -> str:
    """Change the folder of a run: foreign, linked or extra parts, a pipe, or a file of another run."""
    tokens = run / "tokens"
    match way := draw.choice(FOLDERS):
        case "other part":
            shutil.copy("other-run/tokens/part-00000.parquet", tokens)
        case "linked folder":
            shutil.rmtree(tokens)
            tokens.symlink_to(Path(draw.choice(("other-run/tokens", "elsewhere"))).absolute())
        case "linked part":
            part = tokens / "part-00000.parquet"
            part.unlink()
            part.symlink_to(Path("other-run/tokens/part-00000.parquet").absolute())
        case "linked lock":
            for name in (".lock", ".lock-holder"):
                (run / name).unlink(missing_ok=True)
                (run / name).symlink_to(Path("elsewhere/kept.txt").absolute())
        case "extra part":
            name = draw.choice(("part-00009.parquet", "part-.parquet", "x.txt"))
            shutil.copy(tokens / "part-00000.parquet", tokens / name)
        case "pipe":
            os.mkfifo(tokens / "part-00009.parquet")
        case "mixed":
            name = draw.choice(MIXED)
            shutil.copy(f"other-run/{name}", run / name)
            way += f" {name}"
    return f"{way} in {run.name}"


def renamed(draw: random.Random, run: Path) -> str:
    """Rename a run's folder to a name that Parquet readers, SQL or globs could interpret."""
    name = draw.choice(("context=3", "loss_nats=0", "document=1", "token=5", "a'b", "a b*", "[x]", "%s", "é", "a;b"))
    Path(MOVED).mkdir()
    run.rename(Path(MOVED, name))
    return f"{run} is now {name}"
