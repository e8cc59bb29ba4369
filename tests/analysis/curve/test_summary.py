"""A series in numbers, and the step from which two runs part."""

import numpy as np
import pytest
from loss_curves import falling, log_of, uneven

from lossprobe.analysis.curve.parting import part
from lossprobe.analysis.curve.summary import summarise


def test_a_series_in_numbers():
    losses = np.array([5.0, 4.0, np.nan, 3.0, 2.0, 2.5, 2.0])
    (summary,) = summarise(log_of(losses, every=10))
    assert (summary.points, summary.not_finite, summary.first_step, summary.last_step) == (7, 1, 10, 70)
    assert (summary.first, summary.last, summary.lowest, summary.lowest_step) == (5.0, 2.0, 2.0, 50)


def test_the_trend_is_the_change_of_the_last_half_per_1000_steps():
    (summary,) = summarise(log_of(np.append(np.full(100, 9.0), np.linspace(4.0, 3.0, 101)), every=10))
    assert summary.trend == pytest.approx(-1.0)
    low, high = summary.trend_interval
    assert low <= summary.trend <= high


def test_the_interval_of_a_trend_holds_the_true_one():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        (summary,) = summarise(log_of(np.linspace(4.0, 3.0, 201) + rng.normal(0, 0.1, 201), every=5))
        low, high = summary.trend_interval
        held += low <= -1.0 <= high
    assert 0.92 * 300 <= held <= 0.98 * 300


def test_a_series_without_a_finite_row_has_no_numbers():
    (summary,) = summarise(log_of([np.nan, np.inf]))
    assert (summary.points, summary.not_finite, summary.first, summary.lowest_step, summary.noise) == (
        2,
        2,
        None,
        None,
        None,
    )


def test_two_runs_part_where_one_of_them_steps():
    first = falling(400)
    second = falling(400, noise=0.0) + uneven(400, 0.03)[::-1]
    assert part(log_of(first), log_of(second)) is None
    second[250:] += 0.2
    found = part(log_of(first, every=10), log_of(second, every=10))
    assert found.step == pytest.approx(2510, abs=30)
    assert found.size == pytest.approx(0.2, abs=0.01)
    assert found.size_interval.low < 0.2 < found.size_interval.high
    assert found.equal_until is None


def test_runs_that_are_equal_at_first_say_until_when():
    first = falling(300)
    second = first.copy()
    assert part(log_of(first), log_of(second)) is None
    second[100:] += 0.3 + uneven(200, 0.01)
    found = part(log_of(first), log_of(second))
    assert (found.equal_until, found.step, found.steps) == (100, 101, 200)


def test_only_common_steps_are_compared_and_few_do_not_suffice():
    assert part(log_of(falling(9)), log_of(falling(9) + 1.0)) is None
    assert part(log_of(falling(100)), log_of((), [3.0, 2.0])) is None
    slow, fast = log_of(falling(100), every=10), log_of(np.repeat(falling(100), 10) + 1.0)
    found = part(slow, fast)
    assert (found.steps, found.step) == (100, 10)
    assert found.size == pytest.approx(1.0)
