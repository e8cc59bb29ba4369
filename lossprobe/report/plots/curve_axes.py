"""The axes of the picture of `lossprobe curve`: steps with tokens or epochs above, and where a scale is logarithmic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lossprobe.logs.log import LOSS, TRAIN, Log
from lossprobe.report.plots.thinned import Floats
from lossprobe.report.style import SMALL, TEXT
from lossprobe.units import format_count

EXPLODED = 20.0  # largest loss over the median, from which a linear axis would hide all but the largest
DECADES = 100.0  # span of learning rates, but for their highest and lowest twentieth
LOG_TICKS = (1.0, 2.0, 5.0)
MARGIN = 0.05
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def frame_steps(axes: Axes, logs: Sequence[Log]) -> None:
    """Let the axis hold all steps of the losses and learning rates, with whole numbers at its ticks."""
    ends = [float(end) for log in logs for each in log.series if len(each.steps) for end in each.steps[[0, -1]]]
    first, last = (min(ends), max(ends)) if ends else (0.0, 1.0)
    margin = 0.02 * (last - first) or 1.0
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value))))


def frame_losses(axes: Axes, held: Floats) -> str:
    """Let the axis hold these losses, logarithmically where one of them exploded; return its label."""
    finite = held[np.isfinite(held)]
    if not len(finite):
        axes.set_ylim(0.0, 1.0)
        axes.set_yticks([])
        return "loss (no finite value)"
    low, high = float(finite.min()), float(finite.max())
    times = high / (float(np.median(finite)) or 1.0)
    if low > 0 and times > EXPLODED:
        axes.set_yscale("log")
        axes.set_ylim(low * (low / high) ** MARGIN, high * (high / low) ** MARGIN)
        axes.yaxis.set_major_locator(LogLocator(subs=LOG_TICKS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return f"loss (nats), log scale: the largest is {times:,.0f} times the median"
    margin = MARGIN * (high - low) or 0.05 * abs(high) or 0.1
    axes.set_ylim(low - margin, high + margin)
    return "loss (nats)"


def frame_rates(axes: Axes, held: Floats) -> str:
    """Let the axis hold these learning rates, logarithmically where they span decades; return its label."""
    positive = held[held > 0]
    few, many = np.quantile(positive, (0.05, 0.95)) if len(positive) else (1.0, 1.0)
    if many > DECADES * few:
        axes.set_yscale("log")
        axes.set_ylim(few / 2, float(positive.max()) * 2)
        return "learning rate (log)"
    top = float(held.max(initial=0.0)) or 1.0
    axes.set_ylim(min(0.0, float(held.min(initial=0.0))) - MARGIN * top, top * (1 + 2 * MARGIN))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    return "learning rate"


def tell_progress(axes: Axes, logs: Sequence[Log]) -> None:
    """Put an axis of tokens, or else of epochs, above a panel, where a single log has them."""
    loss = logs[0].find(TRAIN, LOSS) if len(logs) == 1 else None
    if loss is None:
        return
    for values, name in ((loss.tokens, "training tokens"), (loss.epochs, "epochs")):
        if values is None:
            continue
        steps, rising = _rising(loss.steps.astype(np.float64), values)
        if len(steps) < 2:
            continue
        above = axes.secondary_xaxis("top", functions=(_straight(steps, rising), _straight(rising, steps)))
        above.set_xlabel(name, fontsize=TEXT)
        above.tick_params(labelsize=SMALL)
        above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_short(value)))
        return


def in_short(value: float) -> str:
    """Return a number in few characters.

    >>> in_short(1_500_000), in_short(0.5), in_short(20_000)
    ('1.5M', '0.5', '20k')
    """
    size, unit = next(((size, unit) for size, unit in UNITS if abs(value) >= size), (1.0, ""))
    return f"{value / size:.4g}{unit}"


def _rising(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the points at which values are larger than ever before."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    before = np.maximum.accumulate(np.append(-np.inf, values))[:-1]
    return steps[values > before], values[values > before]


def _straight(known: Floats, values: Floats) -> Callable[[Any], Any]:
    """Return the line through points, which goes on beyond them as between the first and the last."""
    slope = (values[-1] - values[0]) / (known[-1] - known[0])

    def line(given: Any) -> Any:
        beyond = np.minimum(given - known[0], 0) + np.maximum(given - known[-1], 0)
        return np.interp(given, known, values) + slope * beyond

    return line
