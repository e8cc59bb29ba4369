"""The picture of a series: what is drawn of the differences between neighbours, and that its axes can be read."""

from __future__ import annotations

import numpy as np
import pytest
from fake_runs import words, write_run
from matplotlib.collections import LineCollection

from lossprobe.analysis.series.series import measure_series
from lossprobe.report.plots.series import plot_series

DOCUMENTS, TOKENS = 8, 30


def drawn_series(folder, falls):
    """Return a series whose loss in bits falls by so much from each checkpoint to the next, and its picture."""
    rng = np.random.default_rng(3)
    bits = [rng.normal(6.0, 1.0, (DOCUMENTS, TOKENS))]
    for fall in falls:
        bits.append(bits[-1] - fall + rng.normal(0.0, 0.002, (DOCUMENTS, 1)))
    runs = [
        write_run(folder / str(at), [words("first_token", *document) for document in own], name=f"step-{at}")
        for at, own in enumerate(bits)
    ]
    result = measure_series(runs)
    return result, plot_series(runs[0], result)


def test_each_difference_stands_at_its_step_with_its_paired_interval(tmp_path):
    result, figure = drawn_series(tmp_path, [0.5, 0.4, 0.0])
    panel = figure.axes[1]
    (intervals,) = [part for part in panel.collections if isinstance(part, LineCollection)]
    later = result.table.iloc[1:]
    wanted = [[[step, low], [step, high]] for step, low, high in
              zip(later["step"], later["difference_low"], later["difference_high"], strict=True)]  # fmt: skip
    assert np.array(intervals.get_segments()) == pytest.approx(np.array(wanted, float))
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    assert names == ["95 % interval of the difference", "beyond noise", "not beyond noise"]
    filled, empty = [line.get_xdata().tolist() for line in panel.lines[1:]]
    assert (filled, empty) == ([2.0, 3.0], [4.0])


def test_small_differences_beside_large_ones_can_be_read_and_steps_are_whole_numbers(tmp_path):
    _, figure = drawn_series(tmp_path, [3.0, 0.1, 0.02])
    loss, panel, states = figure.axes[:3]
    assert panel.get_yscale() == "symlog"
    low, high = panel.get_ylim()
    shown = [tick for tick in panel.get_yticks() if low <= tick <= high]
    assert 0.0 in shown
    assert -0.1 in shown
    heights = np.diff([panel.transData.transform((1.0, tick))[1] for tick in shown])
    assert heights.min() > 12.0  # points apart
    assert all(float(tick).is_integer() for axes in (loss, panel, states) for tick in axes.get_xticks())


def test_the_axis_of_states_ends_above_what_was_learned(tmp_path):
    result, figure = drawn_series(tmp_path, [0.5, 1.5])
    most = 100 * (1.0 - result.table["never_share"].min())
    top = figure.axes[2].get_ylim()[1]
    assert most < top < 100.0
