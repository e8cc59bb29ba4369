"""Draws the picture of `lossprobe series`."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lossprobe.analysis.options import STATES
from lossprobe.analysis.series.result import CheckpointSeries, worded
from lossprobe.report.plots.ranges import MOST_ROWS, ROW, name_rows
from lossprobe.report.plots.strips import STRIP_COLUMNS, STRIP_LINES, draw_text, letter_size, placed_texts
from lossprobe.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SCALE,
    SMALL,
    TEXT,
    VERMILION,
    cut,
    in_order,
    in_text,
    interval_line,
    label,
    legend,
    new_figure,
    text_heading,
)
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural

NEVER = "#E4E4E4"
STATE_COLOURS = {"learned": BLUE, "unstable": GREEN, "forgotten": VERMILION, "never": NEVER}
STATE_NAMES = {state: worded(state) for state in STATES}
LOST = {"forgotten": VERMILION, "never": NEVER, "": "#FFFFFF"}  # of the strip: what was not learned by any step
NAME_WIDTH = 34
STEPS_SCALE = "viridis"  # no grey in it, which stands for never
SPREAD = 20.0  # largest step over the smallest from which on the axis is logarithmic
MOST_DECADES = 4  # of an axis of differences
NUMBERED = 12  # most checkpoints of which each cell has its number
LOSS_LABEL = "loss (nats per token)"


def plot_series(run: Run, result: CheckpointSeries) -> Figure:
    """Return the loss against step with the states of the tokens and a strip of text; by slices their loss by step."""
    checkpoints = f"{plural(len(result.steps), 'checkpoint')}, {result.unit} {result.steps[0]} to {result.steps[-1]}"
    heading = (f"{text_heading(run)}: {checkpoints}", interval_line(result.interval_unit, known=_known(result)))
    rows = _rows_of(result)
    if rows is None:
        figure = new_figure(11.4, *heading)
        loss, changes, states, strip = figure.subplots(4, 1, height_ratios=[1.0, 0.6, 0.7, 0.9])
        _draw_loss(loss, result)
        _draw_changes(changes, result)
        _draw_states(states, result)
        _draw_strip(figure, strip, result)
        return figure
    shown = min(len(rows), MOST_ROWS)
    figure = new_figure(4.6 + ROW * shown, *heading)
    upper, lower = figure.subplots(2, 1, height_ratios=[2.6, 1.2 + ROW * shown])
    _draw_loss(upper, result)
    _draw_rows(figure, lower, result, rows)
    return figure


def _known(result: CheckpointSeries) -> bool:
    return bool(result.table["low"].notna().any())


def _draw_loss(axes: Axes, result: CheckpointSeries) -> None:
    """Draw the loss at each step with its interval, the levels of the n-gram models, and what was found."""
    table, steps = result.table, np.asarray(result.steps, float)
    axes.plot(
        steps, table["mean_loss_nats"], "o-", color=BLUE, markersize=4, label="mean loss", clip_on=False, zorder=3
    )
    if _known(result):
        axes.fill_between(steps, table["low"].astype(float), table["high"].astype(float), color=BLUE, alpha=0.2,
                          linewidth=0, label="95 % interval")  # fmt: skip
    for reference, style in zip(result.references, (":", "--"), strict=False):
        axes.axhline(reference.mean_loss_nats, color=GREY, linestyle=style, linewidth=1.2,
                     label=f"{reference.name} of the text {reference.mean_loss_nats:.3f}")  # fmt: skip
    if result.settled_at_step not in (None, result.steps[-1]) and not result.worse_at_end:
        axes.axvline(result.settled_at_step, color=ORANGE, linewidth=1.4, linestyle="-.",
                     label=f"no improvement beyond noise after {result.settled_at_step}")  # fmt: skip
    if result.worse_at_end:
        axes.axvline(
            result.best_at_step, color=VERMILION, linewidth=1.4, label=f"best at {result.best_at_step}, worse since"
        )
    _step_axis(axes, result)
    label(axes, result.unit, LOSS_LABEL)
    legend(axes)


def _draw_changes(axes: Axes, result: CheckpointSeries) -> None:
    """Draw the difference of each checkpoint to the one before it, with its paired interval."""
    later = result.table.iloc[1:]
    steps = later["step"].to_numpy(float)
    change, low, high = (
        later[name].to_numpy(float) for name in ("difference_nats", "difference_low", "difference_high")
    )
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    if np.isfinite(low).any():
        axes.vlines(steps, low, high, color=BLUE, linewidth=1.6, label="95 % interval of the difference", clip_on=False)
    clear = later["significant"].fillna(False).to_numpy(bool)
    for which, fill, name in ((clear, BLUE, "beyond noise"), (~clear, "white", "not beyond noise")):
        if which.any():
            axes.plot(steps[which], change[which], "o", color=BLUE, markerfacecolor=fill, markersize=4.5, clip_on=False,
                      zorder=3, label=name if result.settled_at_step is not None else "not tested")  # fmt: skip
    _step_axis(axes, result)
    _change_axis(axes, np.nanmax(np.abs([change, low, high]), axis=0))
    label(
        axes, result.unit, "change (nats)", "difference to the checkpoint before, on the same tokens (below 0: better)"
    )
    legend(axes)


def _change_axis(axes: Axes, reach: np.ndarray) -> None:
    """Set the axis of differences, logarithmic where some are far smaller than others, so that all can be read.

    Args:
        axes: the panel.
        reach: how far from 0 each difference or its interval goes.
    """
    reach = reach[reach > 0]
    axes.margins(y=0.12)
    if len(reach) and reach.max() > SPREAD * reach.min():
        first = math.ceil(max(math.log10(reach.min()), math.log10(reach.max()) - MOST_DECADES))
        axes.set_yscale("symlog", linthresh=10.0**first)
        powers = 10.0 ** np.arange(first, math.ceil(math.log10(reach.max())) + 1)
        axes.set_yticks([*-powers[::-1], 0.0, *powers])
        axes.set_yticks([], minor=True)
        low, high = axes.dataLim.intervaly
        axes.set_ylim(min(1.6 * low, -(10.0**first)), max(1.6 * high, 10.0**first))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _step_axis(axes: Axes, result: CheckpointSeries) -> None:
    """Set the axis of steps: logarithmic where they grow by factors."""
    steps = result.steps
    positive = [step for step in steps if step > 0]
    if (
        len(positive) > 2
        and max(positive) > SPREAD * min(positive)
        and max(np.diff(steps)) > SPREAD * min(np.diff(steps))
    ):
        axes.set_xscale("symlog", linthresh=min(positive))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(steps[0], steps[-1])


def _draw_states(axes: Axes, result: CheckpointSeries) -> None:
    """Draw the share of the tokens in each state at each step, as if the series ended there."""
    shares = [100.0 * result.table[f"{state}_share"].to_numpy(float) for state in STATES]
    names = [f"{STATE_NAMES[state]} {share[-1]:.1f} %" for state, share in zip(STATES, shares, strict=True)]
    axes.stackplot(result.steps, shares, colors=[STATE_COLOURS[state] for state in STATES], labels=names)
    _step_axis(axes, result)
    most = max(1.0, float(np.max(np.sum(shares[:-1], axis=0))))  # what is never learned fills the rest
    axes.set_ylim(0, min(100.0, 1.3 * most))
    title = f"what became of the tokens up to each {result.unit} (known: below {result.threshold})"
    label(axes, result.unit, "tokens (%)", title)
    legend(axes)


def _draw_strip(figure: Figure, axes: Axes, result: CheckpointSeries) -> None:
    """Draw consecutive tokens as running text, coloured by the step from which on each is known."""
    strip = result.strip
    colours = colormaps[STEPS_SCALE].resampled(len(result.steps))
    placed = placed_texts(strip)
    lines = min(placed[-1][1] + 1, STRIP_LINES)
    axes.set_xlim(0, STRIP_COLUMNS)
    axes.set_ylim(max(STRIP_LINES // 2, lines), -0.2)
    axes.set_axis_off()
    axes.set_title(
        f"a part of the text, coloured by the {result.unit} from which on it is known; "
        "red, underlined: forgotten; grey: never",
        loc="left", fontsize=TEXT,
    )  # fmt: skip
    norm = BoundaryNorm(np.arange(len(result.steps) + 1) - 0.5, len(result.steps))
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, fraction=0.025, pad=0.01)
    at = np.unique(np.linspace(0, len(result.steps) - 1, min(len(result.steps), 8)).round().astype(int))
    bar.set_ticks(at.tolist(), labels=[format_count(result.steps[place]) for place in at])
    bar.set_label(f"known from {result.unit}", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    size = letter_size(figure, axes, STRIP_COLUMNS)
    place_of = {step: place for place, step in enumerate(result.steps)}
    for where, state, step in zip(placed, strip["state"], strip["learned_at_step"], strict=True):
        colour = LOST[str(state)] if pd.isna(step) else colours(place_of[int(step)])
        draw_text(axes, where, colour, size, underlined=state == "forgotten")


def _rows_of(result: CheckpointSeries) -> pd.DataFrame | None:
    """Return name and loss at each step of each row of the lower panel; None for a picture without rows."""
    if result.listed is not None:
        listed = result.listed
        names = [in_text(*words) for words in zip(listed["before"], listed["characters"], listed["after"], strict=True)]
        losses = np.array(listed["losses_nats"].tolist()).reshape(len(listed), len(result.steps))
        return pd.DataFrame(losses, index=names)
    if result.curves is None:
        return None
    keys = [name for name in ("kind", "group") if name in result.curves]
    curves = result.curves.assign(order=pd.factorize(pd.MultiIndex.from_frame(result.curves[keys]))[0])
    wide = curves.pivot_table(index="order", columns="step", values="mean_loss_nats")
    named = curves.drop_duplicates("order").set_index("order")
    begins = {}
    if result.groups is not None and "begins" in result.groups:
        begins = dict(zip(result.groups["group"], result.groups["begins"], strict=True))
    words = [f"{group}: {begins[group]}" if group in begins else str(group) for group in named["group"]]
    if "kind" in named:
        words = [f"{kind}: {word}" for kind, word in zip(named["kind"], words, strict=True)]
    names = [in_order(cut(word or f"(no {result.by})", NAME_WIDTH - 10)) for word in words]
    names = [f"\u27e6{name}\u27e7" for name in names] if result.by == "type" else names  # blanks at its ends are seen
    wide.index = pd.Index(
        [f"{name} ×{format_count(int(count))}" for name, count in zip(names, named["tokens"], strict=True)]
    )
    return wide


def _draw_rows(figure: Figure, axes: Axes, result: CheckpointSeries, rows: pd.DataFrame) -> None:
    """Draw the loss of each row at each step as colour, with the number where there is room."""
    shown = rows.head(MOST_ROWS)
    losses = shown.to_numpy(float)
    if not len(shown):
        axes.set_axis_off()
        axes.set_title(f"no token is {STATE_NAMES[result.state]}", loc="left", fontsize=TEXT)
        return
    norm = Normalize(0.0, max(1.0, float(np.nanquantile(losses, 0.98))))
    image = axes.imshow(losses, aspect="auto", cmap=SCALE, norm=norm, interpolation="nearest")
    axes.set_xticks(
        range(len(result.steps)), labels=[format_count(step) for step in result.steps], rotation=45, ha="right"
    )
    if len(result.steps) <= NUMBERED:
        for (row, column), loss in np.ndenumerate(losses):
            ink = "white" if norm(loss) < 0.5 else "black"
            axes.text(column, row, f"{loss:.2f}", ha="center", va="center", fontsize=SMALL, color=ink)
    name_rows(axes, np.arange(len(shown)), list(shown.index), text=True)
    of = f", {len(shown)} of {format_count(len(rows))}" if len(shown) < len(rows) else ""
    what = (
        f"tokens {STATE_NAMES[result.state]}, in their text"
        if result.listed is not None
        else f"by {result.by} (× tokens)"
    )
    label(axes, result.unit, "", f"loss at each {result.unit}: {what}{of}")
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, aspect=8, extend="max")
    bar.set_label("loss (nats)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
