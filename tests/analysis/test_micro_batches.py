"""Means of micro-batch means: science oracle 19, and which windows make a micro-batch."""

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, write_drawn
from fake_runs import words, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from lossprobe.analysis.objectives.formulas import scored_source
from lossprobe.analysis.objectives.micro_batches import measure_micro_batches

COLUMNS = ["windows", "batches", "objective", "mean", "mean_of_means", "covariance_term"]


@pytest.fixture(scope="module")
def any_run(tmp_path_factory):
    """A run whose connection answers queries over hand-made rows."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", [words("first_token", 1)])


def rows_source(windows, values) -> str:
    rows = ", ".join(f"({window}, {float(value)!r}::DOUBLE)" for window, value in zip(windows, values, strict=True))
    return f'(SELECT * FROM (VALUES {rows}) AS t("window", x))'


def test_the_worked_example(any_run):
    # 3 tokens of mean 1 and 1 token of 5: token mean 2, mean of means 3, covariance -2 over a mean size of 2.
    table = measure_micro_batches(any_run, rows_source([0, 0, 0, 1], [0, 1, 2, 5]), {"x": "x"}, [1])
    assert list(table.columns) == COLUMNS
    assert table.to_dict("records") == [dict(zip(COLUMNS, (1, 2, "x", 2.0, 3.0, -1.0), strict=True))]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.floats(-50, 50)), min_size=1, max_size=60),
    st.lists(st.integers(1, 20), min_size=1, max_size=3, unique=True),
)
def test_the_mean_of_means_is_the_mean_without_the_covariance_term(any_run, rows, sizes):  # science oracle 19
    windows, values = (np.array(column) for column in zip(*rows, strict=True))
    table = measure_micro_batches(any_run, rows_source(windows, values), {"x": "x", "square": "x * x"}, sizes)
    assert table["windows"].tolist() == [size for size in sizes for _ in range(2)]  # in the order asked for
    for row in table.to_dict("records"):
        column = values if row["objective"] == "x" else values**2
        numbers, place = np.unique(windows // row["windows"], return_inverse=True)
        counts = np.bincount(place)
        means = np.bincount(place, column) / counts
        # The covariance is at most (largest size) x (largest value), and float64 keeps 16 digits of that.
        close = {"rel": 1e-12, "abs": 1e-12 * 60 * 2500}
        assert row["batches"] == len(numbers)
        assert row["mean"] == pytest.approx(column.mean(), **close)
        assert row["mean_of_means"] == pytest.approx(means.mean(), **close)
        covariance = np.mean((counts - counts.mean()) * (means - means.mean()))
        assert row["covariance_term"] == pytest.approx(covariance / counts.mean(), **close)
        assert row["mean_of_means"] == pytest.approx(row["mean"] - row["covariance_term"], **close)


def test_equal_sizes_have_no_covariance_and_one_batch_has_only_one_mean(any_run):
    source = rows_source([0, 0, 1, 1, 2, 2, 3, 3], [1, 2, 9, 9, 0, 1, 5, 5])
    table = measure_micro_batches(any_run, source, {"x": "x"}, [2, 10**9])
    assert table["covariance_term"].tolist() == [0.0, 0.0]
    assert table["batches"].tolist() == [2, 1]
    assert table["mean_of_means"].tolist() == table["mean"].tolist() == [4.0, 4.0]


def test_windows_are_counted_over_the_run_and_cut_by_documents(tmp_path):
    rng = np.random.default_rng(3)
    logits = draw_logits(rng, 400, 16)
    documents = document_numbers(rng, 400, 9)
    drawn = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), documents, context=16, rows_per_part=60)
    losses = drawn.run.query("SELECT loss_nats FROM tokens WHERE unscored IS NULL ORDER BY document, token")
    losses = losses["loss_nats"].to_numpy(float)
    # Every 16 scored tokens of a document are a window, its last one what is left; the next document starts another.
    sizes = [min(16, size - first) for size in np.bincount(documents) for first in range(0, size, 16)]
    edges = np.cumsum(sizes)[:-1]
    table = measure_micro_batches(drawn.run, scored_source("TRUE"), {"nll": "n"}, [1, 4])
    for row, size in zip(table.to_dict("records"), (1, 4), strict=True):
        means = [part.mean() for part in np.split(losses, edges[size - 1 :: size])]
        assert row["batches"] == -(-len(sizes) // size)
        assert row["mean_of_means"] == pytest.approx(np.mean(means), rel=1e-12)
        assert row["mean"] == pytest.approx(losses.mean(), rel=1e-12)
