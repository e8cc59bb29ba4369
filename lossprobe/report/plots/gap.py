"""Draws the picture of `lossprobe gap`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lossprobe.analysis.gap.gap import Gap
from lossprobe.report.names import windows_in_words
from lossprobe.report.plots.ranges import AROUND, ROW, Side, draw_ranges, ends_of, name_rows
from lossprobe.report.style import BLUE, GREY, VERMILION, cut, drawable, interval_words, label, legend, new_figure
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

SIDES = (("train", BLUE, "o", -0.16), ("validation", VERMILION, "s", 0.16))
BETWEEN_KINDS = 0.8
TEXT_WIDTH = 30


def plot_gap(run: Run, result: Gap) -> Figure:
    """Return train and validation loss of all tokens, classes and frequencies, and their difference beside them."""
    table = result.table
    breaks = (table["kind"] != table["kind"].shift()).cumsum() - 1
    rows = np.arange(len(table)) + BETWEEN_KINDS * breaks.to_numpy(float)
    sides = {"train": result.train, "validation": result.validation}
    units = " and ".join(dict.fromkeys(interval_words(side.interval_unit) for side in sides.values()))
    figure = new_figure(AROUND + 0.8 + ROW * (float(rows[-1]) + 1),
                        f"{visible(result.checkpoint, 40)}, {windows_in_words(run)}: {result.verdict}",
                        f"95 % intervals over {units}")  # fmt: skip
    losses, gaps = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    both = [
        Side(ends_of(table, f"{side}_loss_nats", f"{side}_low", f"{side}_high"), colour, marker,
             f"{side}: {cut(sides[side].text, TEXT_WIDTH)}", shift)
        for side, colour, marker, shift in SIDES
    ]  # fmt: skip
    of_losses = draw_ranges(losses, rows, both, least=0.0)
    of_gaps = draw_ranges(gaps, rows, [Side(ends_of(table, "gap_nats"), "black", "D", "validation − train")], 0.0)
    gaps.axvline(0.0, color=GREY, linewidth=1.2, label="no gap")
    gaps.axvline(result.gap_nats, color="black", linestyle=":", linewidth=1.0, label="gap of all tokens")
    name_rows(losses, rows, [_row_name(row) for row in table.to_dict("records")])
    label(losses, "mean loss (nats per token); smaller is better", "", f"groups (train / validation tokens){of_losses}")
    label(gaps, "gap (nats per token)", "", f"validation − train, unpaired{of_gaps}")
    for axes in (losses, gaps):
        legend(axes)
    return figure


def _row_name(row: dict[Any, Any]) -> str:
    tokens = " / ".join(format_count(int(row[f"{side}_tokens"])) for side, *_ in SIDES)
    group = f"in training text {row['group']}×" if row["kind"] == "frequency" else row["group"]
    return drawable(f"{group}  ({tokens})")
