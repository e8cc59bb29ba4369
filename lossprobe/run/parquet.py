"""How DuckDB reads Parquet files: its settings, and SQL."""

from __future__ import annotations

from collections.abc import Sequence

# Nothing is downloaded, and nothing of the user's DuckDB is read.
ISOLATED = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
}


def read_parquet(paths: Sequence[str]) -> str:
    """Return SQL that reads files as one table: folder names such as a=1 add no columns."""
    plain = "hive_partitioning = false, union_by_name = false, filename = false"
    return f"read_parquet([{', '.join(map(_quoted, paths))}], {plain})"


def _quoted(path: str) -> str:
    """Return a path as a SQL string that DuckDB takes for one file: *, ? and [ in it are no wildcards."""
    plain = "".join(f"[{c}]" if c in "*?[" else c for c in path)
    return "'" + plain.replace("'", "''") + "'"
