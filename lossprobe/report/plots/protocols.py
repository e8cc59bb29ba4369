"""Draws the picture of `lossprobe perplexity --protocol all`."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lossprobe.analysis.protocols.table import OWN, ProtocolTable
from lossprobe.report.plots.ranges import name_rows
from lossprobe.report.style import BLUE, SMALL, VERMILION, drawable, heading, label, new_figure
from lossprobe.run.reader import Run
from lossprobe.units import plural

ROW = 0.42  # inches, for two lines
REASON = 62  # characters of a line


def plot_protocols(run: Run, result: ProtocolTable) -> Figure:
    """Return the mean loss of the tokens that each tool scores, its own number, and why one is missing."""
    table = result.table
    rows = np.arange(len(table))
    figure = new_figure(1.5 + ROW * len(table), heading(run), "the same model and text under each tool's protocol")
    axes = figure.subplots()
    base = float(table["nats_per_token"].iloc[0])
    known = table["nats_per_token"].dropna().astype(float)
    margin = 0.06 * (known.max() - known.min()) or 0.05
    first, last = max(0.0, known.min() - margin), known.max() + margin
    axes.set_xlim(first, last)
    axes.axvline(base, color=VERMILION, linestyle="--", linewidth=1.2)
    for row, loss in zip(rows[table["nats_per_token"].notna()].tolist(), known, strict=True):
        own = table["protocol"].iloc[row] == OWN
        axes.plot([base, loss], [row, row], color=BLUE, linewidth=1.6)
        axes.plot([loss], [row], "s" if own else "o", color=VERMILION if own else BLUE)
    for row in rows[table["nats_per_token"].isna()]:
        lines = textwrap.wrap(drawable(str(table["why"][row])), REASON, max_lines=2, placeholder=" …")
        axes.text(first + 0.015 * (last - first), row, "\n".join(lines), parse_math=False, zorder=2.3, fontsize=SMALL,
                  va="center", style="italic", linespacing=1.0,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    name_rows(axes, rows, [_row_name(row) for row in table.to_dict("records")])
    label(axes, "mean loss of the tokens that the tool scores (nats per token); dashed: lossprobe's own", "")
    return figure


def _row_name(row: dict[Hashable, Any]) -> str:
    """Return a tool, the number that it prints, and how many tokens with how much context that is over."""
    if row["value"] != row["value"]:
        return f"{row['protocol']}"
    return (
        f"{row['protocol']}: {row['headline']} {row['value']:.6g}\n"
        f"{plural(int(row['tokens_scored']), 'token')}, context {row['mean_context']:,.0f}"
    )
