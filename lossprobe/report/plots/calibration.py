"""Draws the picture of `lossprobe calibration`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, PercentFormatter

from lossprobe.analysis.calibration.calibration import Calibration, ModelCalibration
from lossprobe.report.plots.ranges import AROUND, ROW
from lossprobe.report.plots.slices import BANDS, draw_against_first, draw_slices, groups_of
from lossprobe.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    interval_line,
    label,
    legend,
    legend_name,
    model_names,
    new_figure,
    text_heading,
)
from lossprobe.run.reader import Run

MOST_MODELS = 4
NAME_WIDTH = 30
DIAGRAM, PAIR = 4.3, 3.6  # inches, of a row of reliability diagrams, and of two panels beside each other
COLOURS = (BLUE, VERMILION, GREEN, ORANGE)
MARKERS = ("o", "s", "^", "D")
LINES = ("-", "--", "-.", ":")
EXPECTED_HITS = 5.0  # bins with fewer expected hits are not drawn: their hit rates are mostly noise
TOO_FEW = f"all vocabulary entries: no bin with {EXPECTED_HITS:g} expected hits"
RATIOS = (1 / 8, 8.0)  # limits of the axis of hits per expected hit; bins beyond are triangles at its end
TEMPERATURES = (0.5, 2.0)  # limits of the temperature axis, unless a best temperature lies outside
TEMPERATURE_TICKS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
BESIDE = 1.1  # the temperature axis extends beyond a best temperature outside its limits by this factor


def plot_calibration(run: Run, result: Calibration) -> Figure:
    """Return reliability diagrams side by side, the all-vocabulary curve, and the loss against temperature.

    By groups, the gap of each; with several models of the same tokens, where their losses differ.
    """
    models = result.models[:MOST_MODELS]
    names = model_names([model.name for model in models], NAME_WIDTH)
    called = [(model.name, name) for model, name in zip(models, names, strict=True)]
    looks = list(zip(COLOURS, MARKERS, strict=True))[: len(models)]
    heights = [DIAGRAM * math.ceil(len(models) / 2), PAIR]
    groups = 0 if result.slices is None else len(groups_of(result.slices))
    if groups:
        heights.insert(0, AROUND + groups * (ROW + 0.07 * (len(models) - 1)))
    if result.smoothing is not None:
        heights.append(AROUND + 0.3 * len(models) + BANDS * (ROW + 0.05 * len(models)))
    left_out = f" of {len(models)} of {len(result.models)} models" if len(models) < len(result.models) else ""
    figure = new_figure(sum(heights) + 0.6, f"calibration{left_out} on {text_heading(run)}",
                        interval_line(models[0].interval_unit, known=_known(models[0])))  # fmt: skip
    parts = iter(np.asarray(figure.subfigures(len(heights), 1, height_ratios=heights)))
    if groups:
        assert result.slices is not None
        draw_slices(next(parts).subplots(), result.slices, str(result.by), called, looks)
    _draw_reliability(next(parts), models, names)
    left, right = next(parts).subplots(1, 2)
    _draw_vocabulary(left, models, names)
    _draw_temperatures(right, models, names)
    if result.smoothing is not None:
        draw_against_first(next(parts).subplots(), result.smoothing, called, looks)
    return figure


def _draw_reliability(figure: SubFigure, models: list[ModelCalibration], names: list[str]) -> None:
    """Draw a reliability diagram of each model (accuracy by confidence) above the histogram of its confidence."""
    across = min(2, len(models))
    down = math.ceil(len(models) / across)
    grid = figure.subplots(2 * down, across, squeeze=False, sharex=True, height_ratios=[3, 1] * down)
    for axes in grid[2 * (len(models) // across) :, len(models) % across :].flat:
        axes.remove()
    most = 1.05 * max(_largest_share(model) for model in models)  # all histograms on one scale
    for column, model in enumerate(models):
        place, side = divmod(column, across)
        upper, lower = grid[2 * place, side], grid[2 * place + 1, side]
        colour = COLOURS[column]
        bins = _bins_of_confidence(model)
        confidence, accuracy = bins["mean_probability"], bins["hit_rate"]
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
        upper.vlines(confidence, accuracy, confidence, color=colour, alpha=0.3, linewidth=5)
        low, high = ((bins["mean_probability"] - bins[end]).clip(0, 1) for end in ("gap_high", "gap_low"))
        error = [accuracy - low, high - accuracy]
        style: dict[str, Any] = {"fmt": MARKERS[column], "color": colour, "capsize": 2, "markersize": 5}
        drawn = upper.errorbar(confidence, accuracy, yerr=np.maximum(error, 0.0),
                               label="accuracy" + (", 95 % interval" if _known(model) else ""), **style)  # fmt: skip
        drawn.lines[0].set(clip_on=False, zorder=3)  # markers at 0 and 1 lie on the frame and would be cut
        gap, ece = model.measures["confidence_gap"], model.measures["ece"]
        label(upper, "", "accuracy", f"{names[column]}\nconfidence − accuracy {gap.value:+.3f}\n"
              f"ECE {ece.value:.3f} (noise floor {ece.noise_floor:.3f})")  # fmt: skip
        upper.set_xlim(0, 1)
        upper.set_ylim(0, 1)
        lower.bar(bins["low"], bins["count"] / bins["count"].sum(), width=bins["high"] - bins["low"], align="edge",
                  color=colour, edgecolor="white", linewidth=0.5)  # fmt: skip
        lower.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        lower.set_ylim(0, most)
        lower.tick_params(labelbottom=True)
        label(lower, "confidence (probability of the first choice)", "share of tokens")
        legend(lower, of=upper)


def _bins_of_confidence(model: ModelCalibration) -> pd.DataFrame:
    """Return the bins of equal width that have tokens."""
    return model.bins[(model.bins["binning"] == "equal width") & (model.bins["count"] > 0)]


def _largest_share(model: ModelCalibration) -> float:
    """Return the largest share of the tokens in a bin of confidence."""
    counts = _bins_of_confidence(model)["count"]
    return float(counts.max() / counts.sum())


def _known(model: ModelCalibration) -> bool:
    """Return whether there is an interval at all."""
    return model.measures["confidence_gap"].interval.low is not None


def _draw_vocabulary(axes: Axes, models: list[ModelCalibration], names: list[str]) -> None:
    """Draw hits per expected hit by the probability of the vocabulary entries, for each model."""
    points = beyond = 0
    for index, model in enumerate(models):
        bins = model.bins[model.bins["binning"] == "log10 p"]
        expected = bins["count"] * bins["mean_probability"]
        bins = bins[expected >= EXPECTED_HITS]
        points += len(bins)
        beyond += _mark_beyond(axes, bins, COLOURS[index])
        bins = bins[bins["hit_rate"] > 0]  # 0 has no logarithm
        p, hits = bins["mean_probability"], bins["hit_rate"]
        low, high = ((p - bins[end]) / p for end in ("gap_high", "gap_low"))
        axes.fill_between(p, low.clip(lower=1e-3), high, color=COLOURS[index], alpha=0.18, linewidth=0)
        axes.plot(p, hits / p, LINES[index], marker=MARKERS[index], markersize=3, linewidth=1.2,
                  color=COLOURS[index], label=legend_name(names[index]))  # fmt: skip
    axes.axhline(1.0, color=GREY, linestyle="--", linewidth=1)
    if points == 0:
        axes.set_xlim(1e-6, 1)  # a log axis without data has no limits
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    axes.set_ylim(*RATIOS)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    label(axes, "probability of an entry (log scale)", "hits per expected hit (log scale)",
          ("all vocabulary entries: above 1, too little probability" if points else TOO_FEW)
          + ("\ntriangles: beyond the axis, or no hit at all" if beyond else ""))  # fmt: skip
    legend(axes)


def _mark_beyond(axes: Axes, bins: pd.DataFrame, colour: str) -> int:
    """Draw a triangle at the end of the axis for every bin beyond it (such as a bin without hits); return how many."""
    ratio = bins["hit_rate"] / bins["mean_probability"]
    for marker, end, beyond in (("v", RATIOS[0], ratio < RATIOS[0]), ("^", RATIOS[1], ratio > RATIOS[1])):
        p = bins["mean_probability"][beyond]
        if len(p):
            axes.plot(p, np.full(len(p), end), marker, color=colour, markerfacecolor="white", markersize=6,
                      clip_on=False, zorder=3)  # fmt: skip
    return int((ratio < RATIOS[0]).sum() + (ratio > RATIOS[1]).sum())


def _draw_temperatures(axes: Axes, models: list[ModelCalibration], names: list[str]) -> None:
    """Draw the mean loss by temperature: an open marker at T = 1, a filled one at the best temperature."""
    best = [model.temperature.temperature for model in models if model.temperature.temperature is not None]
    left = min([TEMPERATURES[0], *(temperature / BESIDE for temperature in best)])
    right = max([TEMPERATURES[1], *(temperature * BESIDE for temperature in best)])
    shown = []
    for index, model in enumerate(models):
        fit = model.temperature
        if fit.temperature is None:
            continue
        x, y = fit.curve["temperature"].to_numpy(), fit.curve["nll_nats"].to_numpy()
        low, high = fit.temperature_interval
        interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        colour = COLOURS[index]
        axes.plot(x, y, LINES[index], color=colour, linewidth=1.4,
                  label=legend_name(f"{names[index]}: best T {fit.temperature:.3f}{interval}"))  # fmt: skip
        for temperature, fill in ((1.0, "white"), (fit.temperature, colour)):
            at = float(np.interp(temperature, x, y))
            axes.plot([temperature], [at], MARKERS[index], color=colour, markerfacecolor=fill, markersize=7)
            shown.append(at)
    axes.axvline(1.0, color=GREY, linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(TEMPERATURE_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(left, right)
    if shown:
        room = max(0.1, 2.5 * (max(shown) - min(shown)))
        axes.set_ylim(min(shown) - 0.1 * room, min(shown) + 1.2 * room)
    label(axes, "temperature (log scale)", "mean loss (nats per token)", "open: as trained; filled: best temperature")
    legend(axes)
