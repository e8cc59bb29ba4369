"""Turns `where` conditions into SQL: comparisons of stored columns with numbers, and of role and part with words.

No other SQL can be passed in.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence

from lossprobe.errors import UsageError
from lossprobe.run.schema import token_columns
from lossprobe.units import visible

SHORT = {"loss": "loss_nats", "entropy": "entropy_nats", "margin": "margin_nats", "uniform_loss": "uniform_loss_nats"}
WORDS = ("unscored", "role", "part")
FIELDS = {column.name: column.name for column in token_columns(labelled=True) if column.name not in WORDS} | SHORT
COMPARISON = re.compile(
    r"\s*(?P<field>[a-z_0-9]+)\s*(?P<sign><=|>=|==|!=|=|<|>)\s*(?P<number>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*"
)


WORD = re.compile(r"""\s*(?P<field>role|part)\s*(?P<sign>==|!=|=)\s*(?P<word>'[^'"]*'|"[^'"]*"|[\w.-]+)\s*""")
LABELS = ("turn", "role", "part")
NO_LABEL = "(none)"  # the name of what belongs to no turn
JOIN = re.compile(r"""\band\b(?=(?:[^'"]|'[^'"]*'|"[^'"]*")*$)""", re.IGNORECASE)  # not inside quotes


def where_sql(conditions: Sequence[str]) -> str:
    r"""Return one SQL condition that is true where all of several `where` conditions are.

    Raises:
        UsageError: a condition is not COLUMN SIGN NUMBER or role or part = WORD, or several of these joined by `and`.

    >>> where_sql(["loss > 5 and context<=10", "document=3"])
    '"loss_nats" > 5.0 AND "context" <= 10.0 AND "document" = 3.0'
    >>> where_sql(["role = 'assistant' and turn >= 2"])
    '"role" = \'assistant\' AND "turn" >= 2.0'
    >>> where_sql([])
    'TRUE'
    """
    parts = [_of_word(part) or _comparison(part) for condition in conditions for part in JOIN.split(condition)]
    return " AND ".join(parts) or "TRUE"


def refuse_labels(conditions: Sequence[str], *, labelled: bool) -> None:
    """Refuse conditions on turns, roles and parts for a run without them.

    Raises:
        UsageError: the run is one of plain text.
    """
    named = re.findall('"([a-z_0-9]+)"', where_sql(conditions))
    wanted = next((name for name in LABELS if name in named), None)
    if wanted is not None and not labelled:
        what = f"`where`: {wanted} is known of conversations only, and this is plain text"
        raise UsageError("where.plain_text", what)


def _of_word(text: str) -> str | None:
    match = WORD.fullmatch(text)
    if match is None:
        return None
    field, word = match["field"], match["word"].strip("'\"")
    equal = match["sign"] != "!="
    if word == NO_LABEL:
        return f'"{field}" IS {"" if equal else "NOT "}NULL'
    return f"\"{field}\" {'=' if equal else 'IS DISTINCT FROM'} '{word}'"  # what has no role differs from every role


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
            f"`where` '{visible(text.strip(), 60)}': expected COLUMN < <= = != >= > NUMBER, or role or part = WORD, "
            "joined by and",
            hint=f"columns: {', '.join(sorted(FIELDS))}",
        )
    return f'"{name}" {match["sign"].replace("==", "=")} {number!r}'


def _number(literal: str) -> float | None:
    try:
        number = float(literal)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # SQL would read `inf` as the name of a column
