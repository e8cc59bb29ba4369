"""Turns a table with one row per model and measure into one column per model."""

from __future__ import annotations

import pandas as pd

from lossprobe.report.names import short_names

NAME_WIDTHS = (24, 16)  # of two models, and of more: so wide that as many as three fit into 80 columns


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with one row per measure and one column per model: value, interval and noise floor as text.

    Args:
        table: columns model, measure, value, low, high and noise_floor, as in `Calibration.table`.
    """
    measures = list(dict.fromkeys(table["measure"]))
    models = list(dict.fromkeys(table["model"]))
    columns: dict[str, list[str]] = {"measure": measures}
    width = NAME_WIDTHS[len(models) > 2]
    for model, shown in zip(models, short_names(models, width), strict=True):
        found = table[table["model"] == model].set_index("measure")
        columns[shown] = [_cell(found.loc[measure]) for measure in measures]
    return pd.DataFrame(columns)


def _cell(row: pd.Series) -> str:
    if pd.isna(row["value"]):
        return "n/a"
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:.4f}, {row['high']:.4f}]"
    floor = "" if pd.isna(row["noise_floor"]) else f" floor {row['noise_floor']:.4f}"
    return f"{row['value']:.4f}{interval}{floor}"
