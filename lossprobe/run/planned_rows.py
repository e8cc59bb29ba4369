"""Reads the rows of a part of a stored run as they were planned, so that another pass can score the same ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe.plan.rows import Rows
from lossprobe.run.folder import Folder
from lossprobe.run.manifest import damaged, part_name, part_names
from lossprobe.run.opened import telling_removed
from lossprobe.run.part_values import read_reasons
from lossprobe.run.reader import Run
from lossprobe.run.schema import PLANNED
from lossprobe.units import visible

COLUMNS = [column.name for column in PLANNED]


def part_rows(run: Run) -> list[int]:
    """Return the number of rows of each part of a run; of an old run, whose run.json has none, from its files."""
    stated = run.manifest.get("part_rows")
    if stated is not None:
        return list(stated)
    names = part_names(run.manifest["files"], "tokens")
    return [_read(run, index, ["token"]).num_rows for index in range(len(names))]


def planned_rows(run: Run, index: int) -> Rows:
    """Return the rows of part `index` of a run, after the earlier rows that its first window needs as context.

    They are the rows that scored the part, without turns, roles and parts of conversations.

    Raises:
        OutputError: a file of the run cannot be read.
    """
    own = _read(run, index)
    missing = int(own["context"][0].as_py()) if own.num_rows else 0
    pieces, before = [own], index
    while missing and before:
        before -= 1
        earlier = _read(run, before)
        pieces.insert(0, earlier.slice(max(0, earlier.num_rows - missing)))
        missing -= pieces[0].num_rows
    if missing:
        raise damaged(run.path, f"{part_name('tokens', index)} starts inside a window whose start is missing")
    table = pa.concat_tables(pieces).unify_dictionaries()
    values = {name: table[name].to_numpy().astype(np.int64) for name in COLUMNS if name != "unscored"}
    marks = np.arange(table.num_rows) >= table.num_rows - own.num_rows
    return Rows(**values, unscored=read_reasons(table["unscored"]), own=marks)


def _read(run: Run, index: int, columns: list[str] = COLUMNS) -> pa.Table:
    name = part_name("tokens", index)
    with telling_removed(run.path, run.manifest):
        try:
            with Folder.open(run.path) as folder, folder.open_file(name) as stream:
                return pq.read_table(stream, columns=columns)
        except FileNotFoundError:
            raise damaged(run.path, f"{name} is missing") from None
        except OSError as error:  # of the system, or of pyarrow, whose errors have only a text
            reason = visible(error.strerror or str(error), 160)
            raise damaged(run.path, f"cannot be read: {name}: {reason}") from None
        except pa.ArrowException as error:
            raise damaged(run.path, f"cannot be read: {name}: {visible(str(error), 160)}") from None
