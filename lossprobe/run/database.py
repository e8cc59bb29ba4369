"""DuckDB for the queries of one run. Imported only when a run is queried: a pass that stores one does not need it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from lossprobe.errors import ResourceError
from lossprobe.isolation import temporary_folder
from lossprobe.run.manifest import damaged
from lossprobe.run.parquet import ISOLATED
from lossprobe.run.shown import shown_run
from lossprobe.units import visible

MEMORY_LIMIT = "2GB"
STOPPED = "Query interrupted"  # the words of a RuntimeError in place of what the handler of a signal has raised
BAD_SQL = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException)


def new_database() -> duckdb.DuckDBPyConnection:
    """Return an empty database in memory, with one thread, so that sums are the same to the last digit each time."""
    temporary = temporary_folder()
    # Made only when a query outgrows its memory.
    spill = "" if temporary is None else str(temporary / f"lossprobe-{os.getpid()}")
    return duckdb.connect(config={"threads": 1, "memory_limit": MEMORY_LIMIT, "temp_directory": spill, **ISOLATED})


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what DuckDB raises inside the block into errors of a run; those of bad SQL are kept.

    Args:
        path: the folder of the run, for messages.

    Raises:
        OutputError: a file is damaged.
        ResourceError: a query needs more memory than it may use.
        KeyboardInterrupt: a signal such as Ctrl-C stopped a query.
    """
    try:
        yield
    except BAD_SQL:
        raise
    except duckdb.OutOfMemoryException:
        raise ResourceError("run.memory", f"{shown_run(path)}: a query needs over {MEMORY_LIMIT}") from None
    except duckdb.Error as error:
        reason = visible(str(error).splitlines()[0], 160)
        raise damaged(path, f"cannot be read: {reason}") from None
    except RuntimeError as error:
        if str(error) != STOPPED:
            raise
        raise KeyboardInterrupt from None
