"""Shows results in notebooks."""

from __future__ import annotations

from typing import Any

from lossprobe.display import to_html


class Shown:
    """A result, of which a notebook shows the table, the finding and the notes in place of its fields."""

    def _repr_html_(self) -> str:
        result: Any = self  # every result has these three
        return to_html("", [("", result.table)], [result.finding, *(f"note: {note}" for note in result.notes)])
