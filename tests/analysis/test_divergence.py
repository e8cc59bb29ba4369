"""The divergence of a stored pair: clusters, slices, ranking, percentiles, and the sketch they come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fake_pairs import write_pair
from fake_runs import Doc, words, write_run
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.analysis.compare.compare import compare
from lossprobe.analysis.compare.measured_divergence import measure_pair
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.stats import quantile_sketch
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.quantile_sketch import QuantileSketch
from lossprobe.errors import OutputError
from lossprobe.run.pair import Pair

SHARES = (0.0, 0.001, 0.1, 0.5, 0.77, 0.999, 1.0)


def write_runs(tmp_path, docs, **choices):
    """Store two runs of the same documents, of the models "plain" and "other"."""
    other = choices.pop("other", {})
    return (
        write_run(tmp_path / "plain", docs, name="plain", **choices),
        write_run(tmp_path / "other", docs, name="other", **{**choices, **other}),
    )


def of_sizes(*sizes, fields=None):
    """Return documents of so many scored tokens each, after a first token that is not scored."""
    chosen = fields or [None] * len(sizes)
    return [words("first_token", *([1.0] * size), fields=each) for size, each in zip(sizes, chosen, strict=True)]


def test_a_hand_made_text(tmp_path):
    pair = write_pair(
        *write_runs(tmp_path, of_sizes(3, 1, 1)), [1.0, 2.0, 0.0, 3.0, 4.0], same_top=[True, False, True, True, True],
        target_prob_change=[0.3, -0.4, 0.0, 0.0, 0.5], first_loss_nats=[0, 0, 1, 2, 3],
    )  # fmt: skip
    result = measure_pair(pair)
    assert (result.first, result.second, result.tokens, result.notes) == ("plain", "other", 5, [])
    expected = jackknife_ratio([3.0, 3.0, 4.0], [3, 1, 1])
    assert result.mean_kl_nats == 2.0
    assert result.mean_kl_nats_interval == (0.0, expected.interval.high)  # a KL is never negative
    assert result.same_top_share == 0.8
    assert result.same_top_share_interval.high == 1.0
    assert result.rms_target_prob_change == pytest.approx(math.sqrt(0.5 / 5))
    assert result.mean_target_prob_change == pytest.approx(0.4 / 5)
    changes = jackknife_ratio([-0.1, 0.0, 0.5], [3, 1, 1])
    assert result.mean_target_prob_change_interval == pytest.approx(changes.interval)
    assert result.first_mean_loss == pytest.approx(6 / 5)
    assert result.kl_percentiles["0"] == 0.0
    assert result.kl_percentiles["0.5"] == 2.0
    assert result.kl_percentiles["0.9"] == pytest.approx(3.6)
    assert result.kl_percentiles["1"] == 4.0
    assert result.hardest["kl_nats"].tolist() == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert result.hardest["document"].tolist() == [2, 1, 0, 0, 0]
    assert result.finding == (
        "KL(plain‖other) 2.000000 nats a token ([0.000000, 7.414053]), the same first choice on 80.00% of 5 tokens, "
        "RMS Δp 31.62%"
    )


def test_the_table_holds_every_number_with_its_unit(tmp_path):
    result = measure_pair(write_pair(*write_runs(tmp_path, of_sizes(1, 1, 1)), [1.0, 2.0, 3.0]))
    table = result.table.set_index("measure")
    assert len(table) == 33
    assert table.loc["mean_kl_nats"].tolist() == [2.0, *result.mean_kl_nats_interval, "nats per token"]
    assert table.loc["kl_nats_q0.5", "value"] == 2.0
    assert math.isnan(table.loc["kl_nats_q0.5", "low"])
    assert table.loc["target_prob_change_q0.999", "unit"] == "probability"
    assert table["unit"].notna().all()


def test_small_divergences_keep_their_digits(tmp_path):
    """A good quantised export is 1e-5 nats from its base."""
    result = measure_pair(write_pair(*write_runs(tmp_path, of_sizes(2, 2, 2)), np.array([1, 2, 1, 2, 1, 3]) * 1e-5))
    assert "KL(plain‖other) 1.667e-05 nats a token ([9.496e-06, 2.384e-05])" in result.finding


def test_equal_models_are_said_to_be_equal(tmp_path):
    run, _ = write_runs(tmp_path, of_sizes(2, 3))
    run.manifest["settings"]["checkpoint"]["sha256"] = "same"
    result = measure_pair(write_pair(run, run, np.zeros(5)), "class")
    assert result.finding == "KL(plain #1‖plain #2) is exactly 0 on all of 5 tokens"
    assert result.notes == ["both checkpoints hold the same files: only rounding and how they are computed can differ"]
    assert result.slices["share_of_kl"].isna().all()


@pytest.mark.parametrize("tokens", [3, 8191, 8192, 12_289])
def test_blocks_of_a_single_document_are_those_of_a_run(tmp_path, tokens):
    kl = np.random.default_rng(tokens).exponential(size=tokens)
    runs = write_runs(tmp_path, of_sizes(tokens), rows_per_part=5000)
    result = measure_pair(write_pair(*runs, kl))
    clusters = find_clusters(runs[0])
    labels = runs[0].query(f"SELECT {clusters.sql} AS cluster FROM tokens WHERE unscored IS NULL ORDER BY token")
    expected = jackknife_ratio(np.bincount(labels["cluster"], kl), np.bincount(labels["cluster"]))
    assert result.mean_kl_nats == pytest.approx(expected.value)
    assert result.notes == [clusters.note]
    if clusters.count == 1:
        assert result.mean_kl_nats_interval.low is None
        assert result.rms_target_prob_change_interval.low is None
        assert "no interval" in result.finding
    else:
        assert result.mean_kl_nats_interval.low == pytest.approx(max(0.0, expected.interval.low))


def test_the_largest_come_first_and_equals_in_text_order(tmp_path):
    kl = np.zeros(60)
    kl[[5, 40, 41]] = 1.0
    kl[50] = math.inf
    runs = write_runs(tmp_path, of_sizes(*[10] * 6), rows_per_part=25, other={"top_id": 2})
    table = measure_pair(write_pair(*runs, kl), top=20).hardest
    assert len(table) == 20
    places = (table["document"] * 10 + table["token"] - 1).tolist()
    assert places == [50, 5, 40, 41, *(place for place in range(20) if place != 5)][:20]
    first = table.iloc[0]
    assert (first["text"], first["before"], first["characters"], first["after"]) == (
        " b", table["before"][0], " b", " c d e f g h i j k",
    )  # fmt: skip
    assert (first["first_top_text"], first["second_top_text"]) == ("<bos>", " b")
    assert first["context"] == 1


def slices_by_hand(kl, group, cluster):
    """Return group → tokens, mean, half of its interval, share of the sum, each by the formula of the jackknife."""
    found = {}
    for name in sorted(set(group)):
        own = np.array([each == name for each in group])
        sums = [kl[own & (cluster == one)].sum() for one in np.unique(cluster[own])]
        sizes = [int((own & (cluster == one)).sum()) for one in np.unique(cluster[own])]
        estimate = jackknife_ratio(sums, sizes)
        found[name] = (int(own.sum()), estimate.value, estimate.interval, kl[own].sum() / kl.sum())
    return found


@pytest.mark.parametrize("by", ["language", "document", "context", "type", "class", "frequency"])
def test_slices_are_those_counted_by_hand(tmp_path, by):
    sizes, languages = (9, 14, 6, 11, 8), ("en", "de", "en", "de", "de")
    docs = of_sizes(*sizes, fields=[{"language": one} for one in languages])
    runs = write_runs(tmp_path, docs, rows_per_part=13)
    document = np.repeat(np.arange(5), sizes)
    token = np.concatenate([np.arange(1, size + 1) for size in sizes])
    kl = np.random.default_rng(3).exponential(size=sum(sizes))
    same = kl < 1.5
    types = np.array([f" {chr(97 + one)}" for one in token])
    often = {one: int((types == one).sum()) for one in types}
    group = {
        "language": [languages[one] for one in document],
        "document": [str(one) for one in document],
        "context": [{0: "1", 1: "2-3", 2: "4-7", 3: "8-15"}[int(math.log2(one))] for one in token],
        "type": types.tolist(),
        "class": ["word start"] * len(token),
        "frequency": ["1-9" if often[one] < 10 else "10-99" for one in types],
    }[by]
    result = measure_pair(write_pair(*runs, kl, same_top=same), by, top=100)
    table = result.slices
    if by == "class":
        assert table["tokens"].sum() == 2 * len(kl)
        table = table[table["kind"] == "form"]
    expected = slices_by_hand(kl, group, document)
    assert set(table["group"]) == set(expected)
    for row in table.itertuples():
        tokens, mean, interval, share = expected[row.group]
        assert (row.tokens, row.mean_kl_nats, row.share_of_kl) == (tokens, pytest.approx(mean), pytest.approx(share))
        assert row.same_top_share == pytest.approx(same[np.array(group) == row.group].mean())
        if interval.low is None:
            assert math.isnan(row.low)
        else:
            assert (row.low, row.high) == (pytest.approx(max(0.0, interval.low)), pytest.approx(interval.high))
    if by not in ("context", "class", "frequency"):
        assert table["share_of_kl"].is_monotonic_decreasing
        assert len(measure_pair(write_pair(*runs, kl), by, top=2).slices) == 2


def test_an_infinite_divergence_leaves_its_slice_without_an_interval(tmp_path):
    kl = np.array([1.0, 2.0, 1.0, math.inf, 1.0, 2.0])
    docs = of_sizes(2, 2, 2, fields=[{"lang": "a"}, {"lang": "b"}, {"lang": "a"}])
    table = measure_pair(write_pair(*write_runs(tmp_path, docs), kl), "lang").slices.set_index("group")
    assert table.index.tolist() == ["b", "a"]
    assert (table["mean_kl_nats"]["b"], table["mean_kl_nats"]["a"]) == (math.inf, 1.5)
    assert math.isnan(table["low"]["b"])
    assert table["share_of_kl"].isna().all()


def test_roles_of_conversations(tmp_path):
    labels = [(0, "user", "content"), (0, "user", "content"), (1, "assistant", "content"), (1, "assistant", "content")]
    docs = [Doc([b"q%d" % n, b" a", b" b", b" c"], ["first_token", 1.0, 1.0, 1.0], labels=labels) for n in range(4)]
    kl = np.tile([0.5, 1.0, 2.0], 4)
    table = measure_pair(write_pair(*write_runs(tmp_path, docs), kl), "role").slices.set_index("group")
    assert table["mean_kl_nats"].to_dict() == {"assistant": 1.5, "user": 0.5}
    assert table["tokens"].to_dict() == {"assistant": 8, "user": 4}


def test_the_windows_of_the_smaller_context_are_those_that_count(tmp_path):
    docs = of_sizes(20, 20)
    first = write_run(tmp_path / "plain", docs, name="plain", context=64, top_id=1)
    second = write_run(tmp_path / "other", docs, name="other", context=8, top_id=2)
    pair = write_pair(first, second, np.arange(40.0))
    assert pair.planned is second
    result = measure_pair(pair)
    assert result.by_position["group"].tolist() == ["1", "2-3", "4-7", "8"]
    assert result.hardest["first_top_text"][0] == " a"
    assert result.hardest["second_top_text"][0] == " b"
    assert result.notes == ["the models' contexts are 64 and 8 tokens: the smaller one for both"]


def test_rows_of_other_tokens_are_refused(tmp_path):
    runs = write_runs(tmp_path, of_sizes(3, 3))
    pair = write_pair(*runs, np.ones(6))
    other = write_run(tmp_path / "longer", of_sizes(2, 4), name="plain")
    with pytest.raises(OutputError, match="document 1, token 1 has no divergence in its pair") as caught:
        measure_pair(Pair(pair.path, pair.manifest, other, other))
    assert caught.value.id == "run.damaged"


def test_a_comparison_says_all_notes_once(tmp_path):
    runs = write_runs(tmp_path, of_sizes(3))
    result = compare(*runs)
    further = measure_pair(write_pair(*runs, np.ones(3)))
    notes = result.with_divergence(further).notes
    assert set(further.notes) <= set(notes)
    assert len(notes) == len(set(notes))


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


def test_the_sketch_is_exact_up_to_its_limit_and_the_result_says_when_it_no_longer_is(monkeypatch, tmp_path):
    from lossprobe.analysis.compare import measured_divergence

    for module in (quantile_sketch, measured_divergence):
        monkeypatch.setattr(module, "EXACT", 6)
    values = np.array([1.0001, 2.0001, 3.0001, 4.0001, 5.0001, 6.0001, 7.0001])
    exact, rough = (
        measure_pair(write_pair(*write_runs(tmp_path / str(n), of_sizes(*[1] * n)), values[:n])) for n in (6, 7)
    )
    assert exact.kl_percentiles["0.5"] == pytest.approx(3.5001, rel=1e-12)
    assert exact.notes == []
    assert rough.kl_percentiles["0.5"] != 4.0001
    assert rough.kl_percentiles["0.5"] == pytest.approx(4.0001, rel=1 / 4096)
    assert rough.notes == ["more than 6 tokens: percentiles are right to 0.025 % of themselves"]


def test_nothing_has_no_quantiles():
    assert all(map(math.isnan, QuantileSketch().quantiles([0.5, 1.0])))
