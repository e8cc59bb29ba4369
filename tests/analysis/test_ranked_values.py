"""Values by rank, sorted or counted by their bits, against a sort of all."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.analysis.rows import ranked_values
from lossprobe.analysis.rows.ranked_values import ranked_batches
from lossprobe.run.reader import BATCH_ROWS

FLOATS = st.one_of(
    st.none(), st.floats(width=32), st.sampled_from([0.0, -0.0, 1.5, -1.5, float("inf"), float("nan"), 2**-149])
)


class Column:
    """A run with one column, in batches of a few rows; it counts how often it is read."""

    def __init__(self, values, rows: int = 50_000) -> None:
        self.values = values if isinstance(values, pa.Array) else pa.array(np.asarray(values, np.float32))
        self.rows = rows
        self.scans = 0

    def batches(self, sql: str):
        assert sql == "SELECT x FROM t"
        self.scans += 1
        for start in range(0, len(self.values), self.rows):
            yield pa.RecordBatch.from_arrays([self.values.slice(start, self.rows)], ["x"])


def read(column: Column, *wanted: range) -> list[tuple[int, np.ndarray]]:
    return list(ranked_batches(column, "x", "FROM t", wanted))


def in_one_piece(batches) -> tuple[list[int], np.ndarray]:
    ranks = [rank for first, values in batches for rank in range(first, first + len(values))]
    return ranks, np.concatenate([np.empty(0), *(values for _, values in batches)])


@pytest.mark.parametrize("kept", [0, 3, ranked_values.SORTED], ids=["counted", "both", "sorted"])
@given(values=st.lists(FLOATS, min_size=1, max_size=40), data=st.data())
def test_every_value_has_the_rank_that_a_sort_gives_it(kept, values, data):
    places = st.integers(0, len(values))
    spans = [range(*sorted(pair)) for pair in data.draw(st.lists(st.tuples(places, places), max_size=4))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked_values, "SORTED", kept)
        ranks, found = in_one_piece(read(Column(pa.array(values, pa.float32()), rows=3), *spans))
    assert ranks == sorted({rank for span in spans for rank in span})
    expected = np.sort(np.array([np.nan if value is None else value for value in values], np.float32)).astype(float)
    np.testing.assert_array_equal(found, expected[ranks])  # NaN equals NaN here, and the zeros each other


def test_nan_comes_last_whatever_its_sign():
    values = [np.nan, 2.0, -np.inf, np.copysign(np.nan, -1.0), np.inf]
    assert in_one_piece(read(Column(values), range(3)))[1].tolist() == [-np.inf, 2.0, np.inf]


@pytest.mark.parametrize("kept", [0, ranked_values.SORTED], ids=["counted", "sorted"])
@pytest.mark.parametrize(
    "draw",
    [lambda rng, n: rng.exponential(3, n), lambda rng, n: np.round(rng.exponential(3, n)), lambda rng, n: np.ones(n)],
    ids=["all different", "few different", "one value"],
)
def test_batches_end_where_those_of_a_sorted_column_would(draw, kept, monkeypatch):
    monkeypatch.setattr(ranked_values, "SORTED", kept)
    count = 2 * BATCH_ROWS + 5000
    values = draw(np.random.default_rng(7), count).astype(np.float32)
    first = BATCH_ROWS // 3
    batches = read(Column(values), range(3, 4), range(first, count))
    cuts = [3, first, BATCH_ROWS, 2 * BATCH_ROWS]
    assert [start for start, _ in batches] == cuts
    assert [len(found) for _, found in batches] == [1, *np.diff([*cuts[1:], count])]
    _, found = in_one_piece(batches)
    np.testing.assert_array_equal(found[1:], np.sort(values)[first:])


def test_what_is_held_does_not_grow_with_what_is_wanted(monkeypatch):
    """Of ten upper halves three have more values than are sorted."""
    monkeypatch.setattr(ranked_values, "HELD", 2)
    monkeypatch.setattr(ranked_values, "SORTED", 4)
    scans = []
    for name in ("_sorted", "_counted"):
        monkeypatch.setattr(ranked_values, name, watched(getattr(ranked_values, name), name, scans))
    counts = np.array([1, 3, 2, 9, 8, 7, 1, 1, 1, 1])
    values = np.repeat(np.ldexp(1.0, np.arange(10)), counts)
    column = Column(values)
    _, found = in_one_piece(read(column, range(len(values))))
    assert found.tolist() == values.tolist()
    assert scans == [("_sorted", 2), ("_sorted", 1), ("_counted", 2), ("_counted", 1), ("_sorted", 4)]
    assert column.scans == 1 + len(scans)
    scans.clear()
    assert in_one_piece(read(column, range(30, 31)))[1].tolist() == [64.0]
    assert scans == [("_sorted", 1)], "only what is wanted is read further"


def watched(function, name: str, scans: list[tuple[str, int]]):
    """Return a function that also notes its name and how many upper halves it is asked for."""

    def noting(run, sql, chosen, *more):
        scans.append((name, len(chosen)))
        return function(run, sql, chosen, *more)

    return noting
