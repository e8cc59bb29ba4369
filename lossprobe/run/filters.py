"""Turns `where` conditions, which compare stored columns with numbers, into SQL; no other SQL can be passed in."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence

from lossprobe.errors import UsageError
from lossprobe.run.schema import TOKEN_COLUMNS
from lossprobe.units import visible

SHORT = {"loss": "loss_nats", "entropy": "entropy_nats", "margin": "margin_nats", "uniform_loss": "uniform_loss_nats"}
FIELDS = {column.name: column.name for column in TOKEN_COLUMNS if column.name != "unscored"} | SHORT
COMPARISON = re.compile(
    r"\s*(?P<field>[a-z_0-9]+)\s*(?P<sign><=|>=|==|!=|=|<|>)\s*(?P<number>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*"
)


def where_sql(conditions: Sequence[str]) -> str:
    """Return one SQL condition that is true where all of several `where` conditions are.

    Raises:
        UsageError: a condition is not COLUMN SIGN NUMBER, or several of these joined by `and`.

    >>> where_sql(["loss > 5 and context<=10", "document=3"])
    '"loss_nats" > 5.0 AND "context" <= 10.0 AND "document" = 3.0'
    >>> where_sql([])
    'TRUE'
    """
    parts = [
        _comparison(part) for condition in conditions for part in re.split(r"\band\b", condition, flags=re.IGNORECASE)
    ]
    return " AND ".join(parts) or "TRUE"


def _comparison(text: str) -> str:
    match = COMPARISON.fullmatch(text)
    name = FIELDS.get(match["field"]) if match else None
    number = _number(match["number"]) if match else None
    if match is not None and name is None:
        near = difflib.get_close_matches(match["field"], FIELDS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            "where.syntax",
            f"`where` '{visible(text.strip(), 60)}': no column {visible(match['field'], 40)}",
            hint=f"{hint}columns: {', '.join(sorted(FIELDS))}",
        )
    if match is None or name is None or number is None:
        raise UsageError(
            "where.syntax",
            f"`where` '{visible(text.strip(), 60)}': expected COLUMN < <= = != >= > NUMBER, joined by and",
            hint=f"columns: {', '.join(sorted(FIELDS))}",
        )
    return f'"{name}" {match["sign"].replace("==", "=")} {number!r}'


def _number(literal: str) -> float | None:
    try:
        number = float(literal)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # SQL would read `inf` as the name of a column
