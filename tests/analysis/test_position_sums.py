"""Sums over ranges of a position, against SQL for each of them (to the last digit) and against pandas."""

import numpy as np
import pandas as pd
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, write_drawn

from lossprobe.analysis import positions
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.position_sums import position_sums
from lossprobe.analysis.rows.scored_rows import CellSums
from lossprobe.analysis.stats.power_law import FOLDS
from lossprobe.cli.main import run as main
from lossprobe.run import reader

RANGES = [(1, 31), (32, 80), (1, 3), (4, 31), (32, 80), (900, 1000)]  # one of them twice, one that no token is in


@pytest.fixture(params=[40, 1])
def run(request, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "BATCH_ROWS", 1000)
    rng = np.random.default_rng(request.param)
    count = 3000 if request.param > 1 else 9000  # one document has blocks
    logits = draw_logits(rng, count, 5) * 4.0
    documents = document_numbers(rng, count, request.param)
    return write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), documents).run


@pytest.mark.parametrize("column", ["context", "token"])
def test_ranges_and_folds_are_those_of_a_query_for_each(run, column):
    clusters = find_clusters(run)
    found = position_sums(run, clusters, column, RANGES)
    for first, last in RANGES:
        inside = f"FILTER ({column} BETWEEN {first} AND {last})"
        expected = run.query(f"""
            SELECT coalesce(sum(loss_nats::DOUBLE) {inside}, 0.0) AS s, count(*) {inside} AS n FROM tokens
            WHERE unscored IS NULL GROUP BY {clusters.sql} ORDER BY {clusters.sql}""")
        np.testing.assert_array_equal(found.over([(first, last)]), expected)
    folds = run.query(f"""
        SELECT CAST(floor(4 * log2({column} + 1) + 1e-9) AS INTEGER) AS bin, ({clusters.sql}) % {FOLDS} AS fold,
               count(*) AS tokens, sum(loss_nats::DOUBLE) AS nats, sum({column}) AS positions
        FROM tokens WHERE unscored IS NULL GROUP BY ALL""")
    for name in ("tokens", "nats", "positions"):
        grid = folds.pivot_table(index="bin", columns="fold", values=name, aggfunc="sum", fill_value=0)
        np.testing.assert_array_equal(getattr(found.folds, name), grid, err_msg=name)


def test_totals_are_those_of_pandas(run):
    clusters = find_clusters(run)
    rows = run.query(f"SELECT {clusters.sql} AS cluster, loss_nats, context FROM tokens WHERE unscored IS NULL")
    found = position_sums(run, clusters, "context", [(2, 9)])
    nats = rows.astype({"loss_nats": float}).groupby("cluster")["loss_nats"].sum()
    assert found.nats["nats"].to_numpy() == pytest.approx(nats.to_numpy(), rel=1e-13)
    assert found.nats["n0"].sum() == rows["context"].between(2, 9).sum()
    assert found.folds.tokens.sum() == len(rows)


def test_every_position_is_measured_when_it_is_looked_at(run, monkeypatch):
    asked = []
    query = type(run).query
    monkeypatch.setattr(type(run), "query", lambda self, sql, *given: asked.append(sql) or query(self, sql, *given))
    result = measure_positions(run)
    before = len(asked)
    assert not any("131072" in sql for sql in asked)
    pd.testing.assert_frame_equal(result.every, measure_positions(run, bins="every").table)
    assert result.every is result.every
    assert "131072" in asked[before]


def test_cells_grow_with_the_clusters_that_are_seen():
    rng = np.random.default_rng(0)
    sums = CellSums(["x"], width=3)
    cells, values = rng.permutation(np.repeat([0, 4, 5, 17], 50)), rng.normal(size=200)
    for some in np.array_split(np.arange(200), 7):
        sums.add(cells[some], {"x": values[some]})
    assert sums.present().tolist() == [0, 1, 5]
    tokens, totals = np.moveaxis(sums.stacked().reshape(-1, 2), -1, 0)
    assert tokens.tolist() == [50, 0, 0, 0, 50, 50, 0, 0, 50]
    expected = [sum(values[cells == cell].tolist()) for cell in (0, 4, 5, 17)]
    assert totals[[0, 4, 5, 8]].tolist() == expected  # in the order of the rows: to the last digit


def test_a_command_that_shows_no_single_position_does_not_measure_them(run, tmp_path, monkeypatch):
    asked, measured = [], positions._every_position
    monkeypatch.setattr(positions, "_every_position", lambda *given: asked.append(given) or measured(*given))
    shown = [[], ["--table"], [f"--csv={tmp_path / 'a.csv'}"], ["--markdown"], ["--json"]]
    counts = []
    for options in shown:
        assert main(["positions", str(run.path), "--quiet", *options]) == 0
        counts.append(len(asked))
    assert counts == [0, 0, 0, 0, 1]
