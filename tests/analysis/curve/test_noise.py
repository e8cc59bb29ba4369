"""The noise of a loss about its curve, its levels, and the line that pictures draw."""

import numpy as np
import pytest

from lossprobe.analysis.curve.noise import MOST_SMOOTHED, level_at_rows, levels, line_at, scale, smoothed
from lossprobe.logs.log import LOSS, TRAIN, Series


def series(values):
    return Series(TRAIN, LOSS, "loss", np.arange(len(values)), np.asarray(values, float))


@pytest.mark.parametrize("apart", [1, 4])
def test_the_noise_is_that_which_was_put_in_whatever_the_slope(apart):
    noise = np.random.default_rng(0).normal(0.0, 0.3, 20_000)
    for curve in (0.0, np.linspace(0, 500, 20_000), 10 / np.sqrt(1 + np.arange(20_000) / 500)):
        assert scale(curve + noise, apart) == pytest.approx(0.3, rel=0.03)


def test_a_hundred_spikes_do_not_change_the_noise():
    values = np.random.default_rng(0).normal(0.0, 0.3, 20_000)
    values[::200] += 50.0
    assert scale(values) == pytest.approx(0.3, rel=0.05)


def test_a_log_of_few_digits_has_noise():
    values = np.round(np.random.default_rng(0).normal(2.0, 0.02, 5000), 1)
    assert 0.0 < scale(values) < 0.1


@pytest.mark.parametrize("rows", [1, 2, 7, 100, 101, 199, 1000])
def test_levels_are_medians_of_blocks_that_cover_all_rows(rows):
    values = np.random.default_rng(rows).normal(size=rows)
    middles, starts = levels(values, 100)
    ends = [*starts[1:], rows]
    assert len(middles) <= 100
    assert [np.median(values[a:b]) for a, b in zip(starts, ends, strict=True)] == pytest.approx(middles)
    assert len(level_at_rows(values, 100)) == rows


def test_a_line_is_that_of_numpy():
    rng = np.random.default_rng(0)
    x = np.linspace(1.0, 5.0, 40)
    y = 2.0 - 0.5 * x + rng.normal(0, 0.1, 40)
    (slope, intercept), covariance = np.polyfit(x, y, 1, cov=True)
    assert line_at(x, y) == pytest.approx((intercept, covariance[1, 1] ** 0.5))
    assert slope == pytest.approx(-0.5, abs=0.05)


def test_the_smoothed_line_has_no_lag_and_passes_over_nan():
    straight = np.arange(1000.0)
    assert smoothed(series(straight))[1][100:-100] == pytest.approx(straight[100:-100])
    straight[500] = np.nan
    _, line = smoothed(series(straight))
    assert line[450:500] == pytest.approx(np.arange(450.0, 500.0), abs=0.6)


def test_the_smoothed_line_of_a_long_log_is_the_same_at_fewer_steps():
    rows = 3 * MOST_SMOOTHED
    curve = 2.0 + np.cos(np.arange(rows) / rows * 6.0)
    values = curve + 0.1 * np.random.default_rng(0).standard_normal(rows)
    values[1000:2000] = np.nan
    steps, line = smoothed(series(values))
    assert len(steps) == len(line) == MOST_SMOOTHED
    known = np.isfinite(line)
    inside = known & (steps > 500) & (steps < rows - 500)  # beyond the ends the first and last value stand for all
    assert np.abs(line - curve[steps])[inside].max() < 0.05  # 208 rows each way: a standard error of about 0.01
    assert 0 < (~known).sum() <= 1000 / 3
