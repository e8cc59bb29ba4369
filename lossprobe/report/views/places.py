"""Which columns of a table of groups or documents make way where it is too wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossprobe.plain_table import Table

if TYPE_CHECKING:
    import pandas as pd


def split_places(table: Table | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return those of `source`, `line`, `record_id` and `record_source` that go first, and those that go last.

    With documents of several files the file stays: a line says nothing without it.
    """
    if table is not None and "source" in table and len(set(table["source"].tolist())) > 1:
        return ("record_source",), ("record_id", "line")
    return ("source", "record_source", "line"), ("record_id",)


def without_empty_ends(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without `low` and `high` where no row has an interval, as where each row is one document."""
    return table.drop(columns=["low", "high"]) if table["low"].isna().all() else table
