"""Rows of several runs in lockstep: whatever their batches, the sums are those of the plain columns."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_runs import LN2, words
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.paired import paired_batches, paired_sums
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import at_most
from lossprobe.errors import NotComparableError, OutputError
from lossprobe.run.reader import Run, open_run

COLUMNS = {"nats": "loss_nats", "rank": "rank"}
DOCUMENTS = Clusters("document", 2, "document", None)


def difference(rows):
    return {
        "nats": rows.values["nats"][1] - rows.values["nats"][0],
        "nats2": np.diff(rows.values["nats"], axis=0)[0] ** 2,
    }


def one_cell(rows):
    return np.zeros(len(rows.token), int)


@pytest.fixture
def cut_batches(monkeypatch):
    """Cut the batches of every run at rows of our choice, runs in the order in which they are read."""
    whole = Run.batches

    def cut(*sizes):
        turn = iter(sizes)

        def batches(run, sql, parameters=()):
            return pieces(whole(run, sql, parameters), next(turn))

        monkeypatch.setattr(Run, "batches", batches)

    def pieces(stream, size):
        for batch in stream:
            for start in range(0, batch.num_rows, size):
                yield batch.slice(start, size)
                yield batch.slice(0, 0)

    return cut


def test_rows_stand_side_by_side(make_run):
    first = make_run([words("first_token", 1, 2), words("first_token", 3)])
    second = make_run([words("first_token", 2, 2), words("first_token", 5)])
    (rows,) = paired_batches([first, second], COLUMNS, DOCUMENTS)
    assert rows.document.tolist() == [0, 0, 1]
    assert rows.token.tolist() == [1, 2, 1]
    assert rows.token_id.tolist() == [2, 3, 2]
    assert rows.cluster.tolist() == [0, 0, 1]
    assert rows.values["rank"].tolist() == [[1, 2, 3], [2, 2, 5]]
    assert rows.values["nats"] == pytest.approx(LN2 * np.array([[1, 2, 3], [2, 2, 5]]), rel=1e-6)
    assert rows.values["nats"].dtype == np.float64
    assert rows.left_out == 0


def test_sums_of_each_cluster_and_cell(make_run):
    first = make_run([words("first_token", 1, 2), words("first_token"), words("first_token", 3)])
    second = make_run([words("first_token", 2, 2), words("first_token"), words("first_token", 5)])
    found = paired_sums([first, second], COLUMNS, DOCUMENTS, difference, (lambda rows: rows.token - 1, 3))
    assert found.sums["tokens"].tolist() == [[1, 1, 0], [1, 0, 0]], "a document without scored tokens is no cluster"
    assert found.sums["nats"] == pytest.approx(LN2 * np.array([[1, 0, 0], [2, 0, 0]]), abs=1e-6)
    assert found.sums["nats2"] == pytest.approx(LN2**2 * np.array([[1, 0, 0], [4, 0, 0]]), abs=1e-6)


def test_tokens_that_only_some_runs_scored_are_left_out_and_counted(make_run, cut_batches):
    cut_batches(1, 3)
    first = make_run([words("first_token", 1, "masked", 4)])
    second = make_run([words("first_token", "unknown", 2, 6)])
    found = paired_sums([first, second], COLUMNS, DOCUMENTS, difference, (one_cell, 1))
    assert found.sums["tokens"].tolist() == [[1]]
    assert found.sums["nats"] == pytest.approx(np.array([[2 * LN2]]), rel=1e-6)
    assert found.left_out == 2, "what neither scored is not one that was left out"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_where_batches_end_does_not_matter(three_runs, cut_batches, sizes):
    cut_batches(*sizes)
    rows = list(paired_batches(three_runs, COLUMNS, DOCUMENTS))
    assert sum(len(batch.token) for batch in rows) == 12
    ranks = np.concatenate([batch.values["rank"] for batch in rows], axis=1)
    expected = [1, 2, 3, 4, 1, 2, 1, 2, 3, 4, 5, 6]
    assert ranks.tolist() == [expected, [2 * rank for rank in expected], [3 * rank for rank in expected]]
    assert [token for batch in rows for token in batch.token] == expected


@pytest.fixture
def three_runs(make_run):
    """Three runs, stored in parts of different sizes; the rank is a multiple of the token's index."""
    return [
        make_run(
            [words("first_token", *(scale * np.arange(1, size + 1)).tolist()) for size in (4, 2, 6)], rows_per_part=n
        )
        for scale, n in ((1, 4), (2, 100), (3, 5))
    ]


def test_clusters_follow_the_rule_that_they_are_given(make_run):
    runs = [make_run([words("first_token", scale * index) for index in range(1, 7)]) for scale in (1, 2)]
    clusters = at_most(find_clusters(runs[0]), 4)
    found = paired_sums(runs, COLUMNS, clusters, difference, (one_cell, 1))
    # Documents 0 and 4, 1 and 5, 2, 3, with differences of 1 to 6 bits.
    assert found.sums["nats"] == pytest.approx(LN2 * np.array([[1 + 5], [2 + 6], [3], [4]]), rel=1e-6)
    assert found.sums["tokens"].tolist() == [[2], [2], [1], [1]]


def test_a_token_that_differs_is_named(make_run):
    first = make_run([words("first_token", 1, 2)], name="one")
    second = make_run([words("first_token", 1, 2, pieces=[b" a", b" c", b" b"])], name="two")
    with pytest.raises(NotComparableError) as caught:
        list(paired_batches([first, second], COLUMNS, DOCUMENTS))
    assert caught.value.id == "runs.different_tokens"
    assert caught.value.message == (
        "one and two did not score the same tokens: "
        "document 0, token 1, token_id 2 is document 0, token 1, token_id 3 in the second"
    )


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("size", [1, 100])
def test_a_run_that_ends_early_is_named(make_run, cut_batches, order, size):
    short = make_run([words("first_token", 1, 2)], name="short")
    long = make_run([words("first_token", 1, 2), words("first_token", 7)], name="long")
    cut_batches(size, size)
    pair = [short, long][::order]
    with pytest.raises(NotComparableError) as caught:
        list(paired_batches(pair, COLUMNS, DOCUMENTS))
    names = " and ".join(run.name for run in pair)
    expected = f"{names} did not score the same tokens: only long has document 1, token 0, token_id 1"
    assert caught.value.message == expected


@pytest.mark.parametrize("damaged", [0, 1])
def test_numbers_that_are_not_finite_are_refused(make_run, damaged):
    runs = [make_run([words("first_token", 1, 2)]) for _ in range(2)]
    file = runs[damaged].path / "tokens/part-00000.parquet"
    table = pq.read_table(file)
    losses = pa.array([None, 1.0, math.inf], pa.float32())
    pq.write_table(table.set_column(table.column_names.index("loss_nats"), "loss_nats", losses), file)
    runs[damaged] = open_run(runs[damaged].path)
    with pytest.raises(OutputError, match=rf"{runs[damaged].path.name}: document 0, token 2"):
        paired_sums(runs, COLUMNS, DOCUMENTS, difference, (one_cell, 1))


def test_memory_does_not_grow_with_the_rows(make_run, cut_batches):
    """One batch of each run is held at a time: the next is read when the shorter one is used up."""
    runs = [make_run([words("first_token", *[1] * 30)]) for _ in range(2)]
    cut_batches(10, 10)
    sizes = [len(rows.token) for rows in paired_batches(runs, COLUMNS, DOCUMENTS)]
    assert sizes == [9, 10, 10, 1]
