"""Formats the cells of tables for people."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from lossprobe.units import format_count, format_perplexity, visible

if TYPE_CHECKING:
    import pandas as pd

SHARES = frozenset({
    "share_of_loss", "share_of_tokens", "share_of_bytes", "top_prob", "ranked_right", "right_low", "right_high",
    "ranked_right_per_token", "per_token_low", "per_token_high", "reward_accuracy", "reward_low", "reward_high",
    "learned_share", "unstable_share", "forgotten_share", "never_share",
})  # fmt: skip
TESTS = frozenset({"p_value", "p_holm"})
SMALLEST_P = 1e-6
SMALL = 1e-3
NO_FIELD = "(none)"  # the group of the documents without the field
# Columns with names of models, files and groups.
NAME_COLUMNS = frozenset({
    "model", "first", "second", "smaller", "text_name", "name", "folder", "source", "record_id", "record_source", "id",
    "group", "why", "setting", "log", "key",
})  # fmt: skip
COUNTED = frozenset({"tokens", "count", "bytes", "documents", "spans"})  # units whose numbers are whole


def by_unit(table: pd.DataFrame, *, small: bool = False) -> pd.DataFrame:
    """Return a table with its columns value, low and high as text; numbers whose unit is a count have no decimals.

    Args:
        table: measure, value, unit, and low and high if they are there.
        small: write numbers below 0.001 with a power of ten.

    >>> import pandas as pd
    >>> by_unit(pd.DataFrame({"measure": ["n"], "value": [1200.0], "unit": ["tokens"]})).value.tolist()
    ['1,200']
    """
    shown = table.copy()
    for name in [name for name in ("value", "low", "high") if name in table]:
        shown[name] = [
            _small(value)
            if small and 0 < abs(value) < SMALL
            else format_cell(
                measure if measure in TESTS else name,
                int(value) if unit in COUNTED and math.isfinite(value) else value,
            )
            for measure, value, unit in zip(table["measure"], table[name], table["unit"], strict=True)
        ]
    return shown


def small_numbers(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return a table with some columns as text, in which numbers below 0.001 are in scientific notation.

    >>> import pandas as pd
    >>> small_numbers(pd.DataFrame({"x": [0.0, -1.26e-7, 0.5, math.nan]}), ["x"]).x.tolist()
    ['0', '-1.3e-07', '0.500000', 'n/a']
    """
    return table.assign(**{name: [_small(value) for value in table[name]] for name in columns})


def _small(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < SMALL else format_cell("", float(value))


def is_absent(value: Any) -> bool:
    """Return whether a cell holds nothing: None, NaN, or what pandas writes for it.

    >>> is_absent(None), is_absent(math.nan), is_absent(""), is_absent(0)
    (True, True, False, False)
    """
    pandas = sys.modules.get("pandas")  # not loaded here: where it is not, no value is its own
    own = pandas is not None and value is pandas.NA
    return value is None or own or (isinstance(value, float) and math.isnan(value))


def format_cell(column: str, value: Any) -> str:
    """Return a cell as text: 6 decimals, commas in counts, percent for shares, "n/a" for a missing value.

    >>> format_cell("loss_nats", 1.5), format_cell("count", 12345), format_cell("low", float("nan"))
    ('1.500000', '12,345', 'n/a')
    >>> format_cell("p_value", 3e-9), format_cell("p_value", 3e-6)
    ('< 1e-6', '0.000003')
    >>> format_cell("group", "")
    '(none)'
    """
    if is_absent(value):
        return "n/a"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return format_count(int(value))
    if isinstance(value, (float, np.floating)):
        if column in TESTS and value < SMALLEST_P:
            return "< 1e-6"
        if column in SHARES:
            return f"{float(value):.2%}"
        if column == "perplexity" or abs(float(value)) >= 1000:
            return format_perplexity(float(value))
        return f"{float(value):.6f}"
    return NO_FIELD if column == "group" and value == "" else visible(str(value))
