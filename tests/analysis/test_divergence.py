"""The tally of two models: clusters, ranking, percentiles, and the sketch they come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fake_runs import words, write_run
from hypothesis import given
from hypothesis import strategies as st
from lossprobe.analysis.compare.divergence_tally import DivergenceTally, TokenDivergences

from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.stats import quantile_sketch
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.quantile_sketch import QuantileSketch

SHARES = (0.0, 0.001, 0.1, 0.5, 0.77, 0.999, 1.0)


def compared(document, token, kl, **columns):
    count = len(kl)
    given = {"same_top": np.ones(count, bool)} | columns
    zero = np.zeros(count)
    values = {name: np.asarray(given.get(name, zero)) for name in ("same_top", "target_prob_change")}
    losses = {name: np.asarray(given.get(name, zero)) for name in ("first_loss_nats", "second_loss_nats")}
    keys = {"document": np.asarray(document), "token": np.asarray(token), "token_id": np.asarray(token) % 7}
    return TokenDivergences(**keys, kl_nats=np.asarray(kl, float), **values, **losses)


def tallied(*parts):
    tally = DivergenceTally("plain", "other")
    for part in parts:
        tally.add(part)
    return tally.result([])


def test_a_hand_made_text():
    result = tallied(
        compared([0, 0], [1, 2], [1.0, 2.0], same_top=[True, False], target_prob_change=[0.3, -0.4]),
        compared([], [], []),
        compared([0, 2, 3], [3, 1, 5], [0.0, 3.0, 4.0], target_prob_change=[0.0, 0.0, 0.5], first_loss_nats=[1, 2, 3]),
    )
    assert (result.first, result.second, result.tokens, result.notes) == ("plain", "other", 5, [])
    expected = jackknife_ratio([3.0, 3.0, 4.0], [3, 1, 1])
    assert result.mean_kl_nats == 2.0
    assert result.mean_kl_nats_interval == (0.0, expected.interval.high)  # a KL is never negative
    assert result.same_top_share == 0.8
    assert result.same_top_share_interval.high == 1.0
    assert result.rms_target_prob_change == pytest.approx(math.sqrt(0.5 / 5))
    assert result.first_mean_loss == pytest.approx(6 / 5)
    assert result.kl_percentiles["0"] == 0.0
    assert result.kl_percentiles["0.5"] == 2.0
    assert result.kl_percentiles["0.9"] == pytest.approx(3.6)
    assert result.kl_percentiles["1"] == 4.0
    assert result.hardest["kl_nats"].tolist() == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert result.hardest["document"].tolist() == [3, 2, 0, 0, 0]
    assert result.finding == (
        "KL(plain‖other) 2.000000 nats a token ([0.000000, 7.414053]), the same first choice on 80.00% of 5 tokens, "
        "RMS Δp 31.62%"
    )


def test_the_table_holds_every_number_with_its_unit():
    result = tallied(compared([0, 1, 2], [1, 1, 1], [1.0, 2.0, 3.0]))
    table = result.table.set_index("measure")
    assert len(table) == 32
    assert table.loc["mean_kl_nats"].tolist() == [
        2.0,
        *result.mean_kl_nats_interval,
        "nats per token",
    ]
    assert table.loc["kl_nats_q0.5", "value"] == 2.0
    assert math.isnan(table.loc["kl_nats_q0.5", "low"])
    assert table.loc["target_prob_change_q0.999", "unit"] == "probability"
    assert table["unit"].notna().all()


@pytest.mark.parametrize("tokens", [3, 4096, 8191, 8192, 9000, 12_289])
@pytest.mark.parametrize("cut", [1000, 5000])
def test_blocks_of_a_single_document_are_those_of_a_run(tmp_path, tokens, cut):
    rng = np.random.default_rng(tokens)
    kl, token = rng.exponential(size=tokens), np.arange(1, tokens + 1)
    edges = range(0, tokens, cut)
    result = tallied(
        *(compared(np.zeros(len(token[e : e + cut]), int), token[e : e + cut], kl[e : e + cut]) for e in edges)
    )
    run = write_run(tmp_path / "run", [words("first_token", *kl)])
    clusters = find_clusters(run)
    labels = run.query(f"SELECT {clusters.sql} AS cluster FROM tokens WHERE unscored IS NULL ORDER BY token")["cluster"]
    expected = jackknife_ratio(np.bincount(labels, kl), np.bincount(labels))
    assert result.mean_kl_nats == pytest.approx(expected.value)
    if clusters.count == 1:
        assert result.mean_kl_nats_interval.low is None
        assert result.rms_target_prob_change_interval.low is None
        assert result.notes == [clusters.note]
        assert "no interval" in result.finding
    else:
        assert result.mean_kl_nats_interval.low == pytest.approx(max(0.0, expected.interval.low))
        assert result.notes == [clusters.note.partition(";")[0]]


def test_the_largest_come_first_and_equals_in_text_order():
    kl = np.zeros(60)
    kl[[5, 40, 41]] = 1.0
    kl[50] = math.inf
    parts = [compared(np.arange(a, a + 20) // 10, np.arange(a, a + 20) % 10, kl[a : a + 20]) for a in (0, 20, 40)]
    table = tallied(*parts).hardest
    assert len(table) == 20
    places = (table["document"] * 10 + table["token"]).tolist()
    assert places == [50, 5, 40, 41, *(place for place in range(20) if place != 5)][:20]
    assert table["token_id"].tolist() == (table["token"] % 7).tolist()


def test_more_clusters_than_one_part_keep_their_sums():
    rng = np.random.default_rng(0)
    document, kl = np.sort(rng.integers(0, 90, 1000)), rng.exponential(size=1000)
    parts = [
        compared(document[a : a + 37], np.arange(a, a + len(kl[a : a + 37])), kl[a : a + 37])
        for a in range(0, 1000, 37)
    ]
    _, index = np.unique(document, return_inverse=True)
    expected = jackknife_ratio(np.bincount(index, kl), np.bincount(index))
    assert tallied(*parts).mean_kl_nats_interval.high == pytest.approx(expected.interval.high, rel=1e-9)


def sketch_of(values, batches=3):
    sketch = QuantileSketch()
    for batch in np.array_split(np.asarray(values, float), batches):
        sketch.add(batch)
    return sketch


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_few_numbers_have_exact_quantiles(values):
    expected = np.quantile(values, SHARES)
    np.testing.assert_allclose(sketch_of(values).quantiles(SHARES), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_many_numbers_have_quantiles_to_one_part_in_4096(monkeypatch, scale):
    monkeypatch.setattr(quantile_sketch, "EXACT", 100)
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.standard_normal(30_000) ** 3, np.zeros(5_000)]) * scale
    rng.shuffle(values)
    found = sketch_of(values, 7).quantiles(SHARES)
    np.testing.assert_allclose(found, np.quantile(values, SHARES), rtol=1 / 4095)
    assert (found[0], found[-1]) == (values.min(), values.max())


def test_zeros_and_infinities_stay_what_they_are(monkeypatch):
    monkeypatch.setattr(quantile_sketch, "EXACT", 10)
    for values in (np.zeros(20), np.full(20, math.inf), np.full(20, -0.0)):
        assert set(sketch_of(values).quantiles(SHARES)) == {values[0]}
    mixed = np.concatenate([np.full(40, -math.inf), np.zeros(20), np.full(40, math.inf)])
    assert sketch_of(mixed).quantiles([0.1, 0.5, 0.9]) == [-math.inf, 0.0, math.inf]
    few = sketch_of([0.0, math.inf])
    assert few.quantiles([0.0, 0.25, 1.0]) == [0.0, math.inf, math.inf]


def test_the_sketch_is_exact_up_to_its_limit_and_the_result_says_when_it_no_longer_is(monkeypatch):
    from lossprobe.analysis.compare import divergence_tally

    for module in (quantile_sketch, divergence_tally):
        monkeypatch.setattr(module, "EXACT", 6)
    values = np.array([1.0001, 2.0001, 3.0001, 4.0001, 5.0001, 6.0001, 7.0001])
    exact, rough = (tallied(compared(np.arange(n), np.arange(n), values[:n])) for n in (6, 7))
    assert exact.kl_percentiles["0.5"] == pytest.approx(3.5001, rel=1e-12)
    assert exact.notes == []
    assert rough.kl_percentiles["0.5"] != 4.0001
    assert rough.kl_percentiles["0.5"] == pytest.approx(4.0001, rel=1 / 4096)
    assert rough.notes == ["more than 6 tokens: percentiles are right to 0.025 % of themselves"]


def test_nothing_has_no_quantiles():
    assert all(map(math.isnan, QuantileSketch().quantiles([0.5, 1.0])))
