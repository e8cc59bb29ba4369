"""Shows results in notebooks."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from lossprobe.display import to_html
from lossprobe.plain_table import PlainTable, Table

if TYPE_CHECKING:
    import pandas as pd

GATE_FAILED = 10  # exit code


class Shown:
    """A result, of which a notebook shows the table, the finding and the notes in place of its fields."""

    def _repr_html_(self) -> str:
        result: Any = self  # every result has these three
        return to_html("", [("", result.table)], [result.finding, *(f"note: {note}" for note in result.notes)])


class Tabled(Shown):
    """A result whose table may be plain columns, so that showing it needs no pandas.

    Attributes:
        rows: the table; its dataclass says of what.
    """

    rows: Table

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows as a frame of pandas."""
        return self.rows.frame() if isinstance(self.rows, PlainTable) else self.rows


class Gated(Shown):
    """A result that fails a gate where it holds what `fail_on` names; its dataclass says what that can be.

    Attributes:
        failed: what of `fail_on` was found.
    """

    failed: list[str]

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 10 where something of `fail_on` was found."""
        return GATE_FAILED if self.failed else 0
