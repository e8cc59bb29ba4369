"""The picture of `lossprobe curve`: what it shows of any log, and that nothing in it covers anything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from geometry import check_layout
from training_logs import falling, made_log, overfitted

from lossprobe.analysis.curve.curve import curve
from lossprobe.analysis.options import CurveOptions
from lossprobe.logs.log import LOSS, TEST, TRAIN, VALIDATION, Log, Restart, Series
from lossprobe.report.plots.curve import plot_curve
from lossprobe.report.plots.curve_lines import FEW
from lossprobe.report.plots.thinned import thinned

LONG = "a_run_whose_name_goes_on_and_on_漢字漢字漢字漢字_with_$x^2$_{}.json"


def drawn(*logs: Log, vocabulary: int | None = None):
    figure = plot_curve(logs, curve(logs, CurveOptions(vocabulary=vocabulary)))
    check_layout(figure)
    return figure


def named(figure) -> list[str]:
    """Return the names in the legend, each in one line."""
    (box,) = (axes.get_legend() for axes in figure.axes if axes.get_legend() is not None)
    return [text.get_text().replace("\n", " ") for text in box.get_texts()]


def test_raw_smoothed_validation_lowest_rates_tokens_and_findings():
    figure = drawn(overfitted(), vocabulary=60)
    losses, strip, rates = figure.axes
    assert named(figure) == [
        "loss, as logged", "loss, smoothed", "eval_loss", "lowest: 2.5000 at step 95",
        "ln V = 4.094: all 60 entries as likely",
    ]  # fmt: skip
    raw, smooth, held_out, star, uniform = losses.lines
    np.testing.assert_array_equal(raw.get_ydata(), overfitted().find(TRAIN, LOSS).values)
    assert smooth.get_linewidth() > 2 * raw.get_linewidth()
    assert held_out.get_marker() == "o"
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (95, 2.5)
    assert uniform.get_ydata()[0] == pytest.approx(np.log(60))
    assert [text.get_text() for text in strip.texts] == ["over-fitting"]
    (bar,) = strip.collections[0].get_paths()
    assert bar.vertices[:, 0].min() == pytest.approx(95)
    assert rates.get_ylabel().replace("\n", " ") == "learning rate"
    (above,) = losses.child_axes
    assert above.get_xlabel() == "training tokens"


def test_several_logs_have_a_colour_each_and_at_many_the_layout_holds():
    for count in (2, 7):
        logs = [made_log(LONG.format(number), seed=number) for number in range(count)]
        figure = drawn(*logs)
        colours = [line.get_color() for line in figure.axes[0].lines if line.get_linewidth() == 2.0]
        assert len(set(colours[:5])) == min(count, 5)
        assert not figure.axes[0].child_axes, "their steps may be of other sizes"


def test_a_restart_is_drawn_where_the_run_went_on():
    log = replace(made_log("run", seed=0), restarts=(Restart(60, 41, 20),))
    figure = drawn(log)
    assert "restart: the run went back from step 60 to 41" in named(figure)
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "--"] == [41]
    twice = replace(log, restarts=(Restart(60, 41, 20), Restart(80, 71, 10)))
    assert "restart: the run went back, and on from here" in named(drawn(twice))


def test_the_step_at_which_runs_part_is_drawn():
    losses = falling(200)
    figure = drawn(made_log("a.json"), made_log("b.json", train=np.r_[losses[:80], losses[80:] + 0.5]))
    assert "b.json: parts from the first at step 81" in named(figure)


@pytest.mark.parametrize("rows", [1, 2, FEW, FEW + 1])
def test_few_rows(rows):
    figure = drawn(made_log(train=falling(rows), validation=[3.0]))
    assert figure.axes[0].lines[0].get_marker() == ("." if rows <= FEW else "None")


def test_no_value_is_finite():
    figure = drawn(made_log(train=np.full(60, np.nan), validation=[np.inf, np.nan, np.inf]))
    assert figure.axes[0].get_ylabel() == "loss (no finite value)"
    assert named(figure) == ["loss: NaN or infinite (60 times)", "eval_loss: NaN or infinite (3 times)"]


def test_places_that_are_not_finite_stand_at_the_upper_border():
    train = falling(200)
    train[[50, 51, 120]] = np.nan
    figure = drawn(made_log(train=train))
    marks = next(line for line in figure.axes[0].lines if line.get_marker() == "x")
    assert list(marks.get_xdata()) == [51, 52, 121]
    assert min(marks.get_ydata()) > 0.9


def test_an_explosion_gets_a_logarithmic_axis_that_says_why():
    train = falling(400)
    train[300:310] = 1e4
    figure = drawn(made_log(train=train))
    assert figure.axes[0].get_yscale() == "log"
    assert "log scale: the largest is" in figure.axes[0].get_ylabel().replace("\n", " ")
    assert drawn(made_log(train=falling(400, first=11.0, last=1.0))).axes[0].get_yscale() == "linear"


def test_rates_that_span_decades_are_logarithmic_and_a_last_zero_is_not_enough():
    log = made_log(rows=100)
    for values, scale in ((np.geomspace(1e-3, 1e-7, 100), "log"), (np.linspace(1e-3, 0.0, 100), "linear")):
        rate = Series(TRAIN, "learning_rate", "lr", np.arange(100), values)
        figure = drawn(Log(log.path, log.kind, (*log.series[:2], rate)))
        assert figure.axes[-1].get_yscale() == scale


def test_losses_of_other_texts_and_a_log_without_any():
    log = made_log()
    steps = np.arange(10, 40, 10)
    other = [Series(split, LOSS, f"eval_{split}_loss", steps, falling(3)) for split in ("code", "maths", TEST)]
    names = named(drawn(Log(log.path, log.kind, (*log.series, *other))))
    assert {f"eval_{split}_loss" for split in ("code", "maths", TEST)} < set(names)
    assert drawn(Log(Path("x"), "csv", (Series(VALIDATION, "accuracy", "acc", steps, falling(3)),)))


def test_a_long_log_is_thinned_and_keeps_every_spike():
    rows = 300_000
    steps, values = np.arange(rows), falling(rows)
    spikes = np.random.default_rng(1).choice(rows, 200, replace=False)
    values[spikes] = 9.0 + np.arange(200) / 100
    values[1000:1010] = np.nan
    x, y = thinned(steps, values)
    assert len(x) == len(y) <= 2_400
    assert np.all(np.diff(x) >= 0)
    columns = (steps * 1200 / (rows - 1)).astype(int).clip(0, 1199)
    high = np.array([values[columns == column].max() for column in set(columns[spikes]) - set(columns[1000:1010])])
    assert set(high) <= set(y)
    np.testing.assert_array_equal(values[x.astype(int)], y)


def test_a_column_of_pixels_without_a_finite_value_is_a_gap():
    values = np.ones(10_000)
    values[5_000:5_020] = np.inf
    _, y = thinned(np.arange(10_000), values, columns=1_000)
    assert np.isnan(y).sum() == 4
    assert np.nanmax(y) == 1.0
