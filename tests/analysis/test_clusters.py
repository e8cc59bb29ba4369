"""The jackknife against brute force, numpy and scipy; what is a cluster; and how often an interval covers the truth."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, write_drawn
from fake_runs import LN2, Doc, words
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lossprobe.analysis.compare.byte_pairs import compare_bytes
from lossprobe.analysis.compare.changed_slices import changed_slices
from lossprobe.analysis.compare.tokens import compare_runs
from lossprobe.analysis.gap.gap import measure_gap
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.rows.clusters import BLOCK_TOKENS, find_clusters, grouped_losses, present_clusters
from lossprobe.analysis.stats.jackknife import around, jackknife_ratio, t_quantile

LOSSES = st.floats(0, 50, width=32)
# With two degrees of freedom Student's quantile has a closed form at p = .975.
T_TWO = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))


def brute_force(sums, counts):
    """Delete one cluster at a time, in plain Python."""
    total, n = math.fsum(sums), math.fsum(counts)
    without = [(total - s) / (n - c) for s, c in zip(sums, counts, strict=True)]
    count = len(without)
    middle = math.fsum(without) / count
    error = math.sqrt((count - 1) / count * math.fsum((value - middle) ** 2 for value in without))
    half = stats.t.ppf(0.975, count - 1) * error
    return total / n, total / n - half, total / n + half


@given(st.lists(st.tuples(LOSSES, st.integers(1, 9)), min_size=2, max_size=12))
def test_the_interval_is_that_of_a_delete_one_loop(clusters):
    sums, counts = zip(*clusters, strict=True)
    found = jackknife_ratio(sums, counts)
    # Absolute: the two orders of summation differ by rounding of numbers up to 50 · 12, times t(1) = 12.7.
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx(brute_force(sums, counts), abs=1e-9)


def test_equal_clusters_give_the_t_interval_of_their_means():
    means = np.array([1.0, 2.0, 4.0, 9.0])
    found = jackknife_ratio(means * 10, np.full(4, 10))
    # For equal sizes the jackknife error of a mean is s / √G exactly.
    low, high = stats.t.interval(0.95, 3, loc=means.mean(), scale=stats.sem(means))
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), rel=1e-12)


def test_a_worked_interval():
    # Σs = 9, Σn = 4; without one: 8/3, 7/3, 3/2, mean 13/6, squared deviations 1/4 + 1/36 + 4/9 = 13/18.
    found = jackknife_ratio([1, 2, 6], [1, 1, 2])
    half = T_TWO * math.sqrt(2 / 3 * 13 / 18)
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx(
        (2.25, 2.25 - half, 2.25 + half), rel=1e-12
    )


def test_no_interval_without_two_clusters_that_count():
    assert (jackknife_ratio([3], [2]).interval.low, jackknife_ratio([3], [2]).interval.high) == (None, None)
    assert jackknife_ratio([3, 0], [2, 0]).interval.low is None  # without the first nothing is left
    assert jackknife_ratio([3, 1], [2, 2]).interval.low is not None


def test_equal_ratios_have_an_interval_of_no_width():
    found = jackknife_ratio([2, 4, 8], [1, 2, 4])
    assert (found.interval.low, found.value, found.interval.high) == (2.0, 2.0, 2.0)


def test_student_quantiles():
    assert t_quantile(2) == pytest.approx(12.706204736174698, rel=1e-12)
    assert t_quantile([3, 31]) == pytest.approx(stats.t.ppf(0.975, [2, 30]), rel=1e-12)
    assert np.isnan(t_quantile([1, 0])).all()


def test_around_uses_all_replicates():
    found = around(1.0, np.array([0.0, 1.0, 2.0]))
    half = T_TWO * math.sqrt(2 * 2 / 3)  # G - 1 times the population variance
    assert (found.interval.low, found.interval.high) == pytest.approx((1.0 - half, 1.0 + half), rel=1e-12)


def test_documents_with_scored_tokens_are_the_clusters(make_run):
    clusters = find_clusters(make_run([words("first_token", 1), words("first_token"), words("first_token", 2, 2)]))
    assert (clusters.unit, clusters.count, clusters.sql, clusters.note) == ("document", 2, "document", None)


def long_document(tokens: int) -> Doc:
    return Doc([b"a"] * tokens, ["first_token", *[1.0 + (index // BLOCK_TOKENS) for index in range(1, tokens)]])


@pytest.mark.parametrize(
    ("tokens", "sizes"),
    [
        (8192, [4095, 4096]),  # the first token is unscored
        (8191, [8190]),  # less than two whole blocks: nothing to resample
        (3 * 4096 - 1, [4095, 8191 - 4096 + 4096]),  # what is left over joins the last block
    ],
)
def test_a_single_document_is_cut_into_blocks(make_run, tokens, sizes):
    run = make_run([words("first_token"), long_document(tokens)])  # a document that scores nothing does not count
    clusters = find_clusters(run)
    assert (clusters.unit, clusters.count) == ("block", len(sizes))
    counts = run.query(f"SELECT count(*) AS n FROM tokens WHERE unscored IS NULL GROUP BY {clusters.sql} ORDER BY 1")
    assert sorted(counts["n"]) == sorted(sizes)
    expected = "are a lower bound" if len(sizes) > 1 else "fewer than 8,192 tokens: no interval"
    assert expected in clusters.note


def test_grouped_losses_are_jackknife_ratios_of_each_group(make_run):
    docs = [
        words("first_token", 1, 2, 3),
        words("first_token", 2, 4),
        words("first_token", 8, "masked", 1, 5),
        words("first_token"),
    ]
    run = make_run(docs, rows_per_part=4)
    frame = grouped_losses(run, find_clusters(run), "token")
    # By token, over the documents that have one: 1 → (1, 2, 8), 2 → (2, 4), 3 → (3, 1), 4 → (5).
    expected = {1: [1, 2, 8], 2: [2, 4], 3: [3, 1], 4: [5]}
    assert frame["key"].tolist() == list(expected)
    for row, bits in zip(frame.to_dict("records"), expected.values(), strict=True):
        want = jackknife_ratio(np.array(bits) * LN2, np.ones(len(bits)))
        assert (row["count"], row["clusters"]) == (len(bits), len(bits))
        # float32 storage of a loss: relative 6e-8
        assert row["total_nats"] == pytest.approx(sum(bits) * LN2, rel=1e-7)
        assert row["mean_loss_nats"] == pytest.approx(want.value, rel=1e-7)
        assert (row["low"], row["high"]) == pytest.approx(
            (math.nan, math.nan) if want.interval.low is None else (want.interval.low, want.interval.high),
            rel=1e-6,
            nan_ok=True,
        )


@pytest.mark.parametrize("keep_text", [True, False])
def test_the_rows_of_a_run_are_read_once_for_sums_and_totals(make_run, monkeypatch, keep_text):
    run = make_run([words("first_token", 1.0, 2.0, 3.0), words("first_token", 0.5, 0.25)], keep_text=keep_text)
    asked = []
    query = type(run).query
    monkeypatch.setattr(type(run), "query", lambda self, sql, *given: asked.append(sql) or query(self, sql, *given))
    grouped_losses(run, find_clusters(run), "context")
    plan = run._connection.execute(f"EXPLAIN {asked[-1]}").fetchall()[0][1]
    assert plan.upper().count("READ_PARQUET") == 1, plan


def test_sums_of_plain_rows_are_those_of_windows_to_the_last_digit(tmp_path):
    rng = np.random.default_rng(7)
    logits = draw_logits(rng, 3000, 5) * 3.0
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), document_numbers(rng, 3000, 40)).run
    found = grouped_losses(run, find_clusters(run), "context % 7")
    sums = """SELECT context % 7 AS key, document, sum(loss_nats::DOUBLE) AS s, count(*) AS n
              FROM tokens WHERE unscored IS NULL GROUP BY ALL"""
    totals = f"""SELECT *, sum(s) OVER (PARTITION BY key) AS s_all, sum(n) OVER (PARTITION BY key) AS n_all
                 FROM ({sums})"""
    expected = run.query(f"""
        SELECT key, any_value(s_all) AS total, count(*) AS clusters,
               var_pop(CASE WHEN n_all > n THEN (s_all - s) / (n_all - n) END) AS variance
        FROM ({totals}) GROUP BY key ORDER BY key""")
    np.testing.assert_array_equal(found["total_nats"], expected["total"])
    half = t_quantile(expected["clusters"]) * np.sqrt((expected["clusters"] - 1) * expected["variance"])
    np.testing.assert_array_equal(found["high"], found["mean_loss_nats"] + half)


def test_present_clusters_are_those_of_the_scored_tokens(make_run):
    documents = [words("first_token", 1.0, 2.0), words("first_token"), words("first_token", 0.5)]
    for clusters in (find_clusters(make_run(documents)), find_clusters(make_run([long_document(3 * BLOCK_TOKENS)]))):
        run = make_run(documents) if clusters.unit == "document" else make_run([long_document(3 * BLOCK_TOKENS)])
        sql = f"SELECT DISTINCT {clusters.sql} AS cluster FROM tokens WHERE unscored IS NULL ORDER BY 1"
        assert present_clusters(run, clusters).tolist() == run.query(sql)["cluster"].tolist()


def test_a_group_within_one_document_has_no_interval(make_run):
    run = make_run([words("first_token", 1, 2), words("first_token", 3)])
    frame = grouped_losses(run, find_clusters(run), "document")
    assert frame["clusters"].tolist() == [1, 1]
    assert frame[["low", "high"]].isna().all().all()


def test_intervals_cover_the_truth_as_often_as_they_say():
    # Corpora of 20 documents: log-normal lengths, a document effect of .35 nats and a token noise of 3 nats.
    # An interval that took tokens as independent would cover the truth in about one corpus of four.
    generator = np.random.default_rng(2024)
    truth, corpora, documents = 3.0, 600, 20
    covered = 0
    for _ in range(corpora):
        lengths = np.maximum(20, generator.lognormal(7.2, 0.8, documents)).round()
        means = truth + generator.normal(0, 0.35, documents) + generator.normal(0, 3.0, documents) / np.sqrt(lengths)
        found = jackknife_ratio(means * lengths, lengths)
        covered += found.interval.low <= truth <= found.interval.high
    # 600 corpora: a share of .95 is seen within ±.018 (two standard errors); a ratio of 20 sums is a bit below.
    assert 0.90 <= covered / corpora <= 0.98


TEXTS = [("first_token", 1, 2), ("first_token", 3), ("first_token", 5, 1, 4)]


def copies(*times: int) -> list[Doc]:
    """Return documents with the losses of `TEXTS`, each text as often as asked, in turn."""
    docs = [replace(words(*bits), line=line) for line, bits in enumerate(TEXTS)]
    return [doc for turn in range(max(times)) for doc, count in zip(docs, times, strict=True) if turn < count]


@pytest.mark.parametrize("keep_text", [True, False])
def test_copies_of_all_documents_give_the_interval_of_one_each(make_run, keep_text):
    one, three = (make_run(copies(*[k] * 3), copies=True, keep_text=keep_text) for k in (1, 3))
    assert measure_perplexity(one).per_token.nll_nats_per_token_interval == pytest.approx(
        measure_perplexity(three).per_token.nll_nats_per_token_interval, rel=1e-12
    )
    by_class = [grouped_losses(run, find_clusters(run), "token_id") for run in (one, three)]
    pd.testing.assert_frame_equal(*(frame[["key", "mean_loss_nats", "low", "high"]] for frame in by_class))
    assert find_clusters(one).note is None
    assert find_clusters(three).note == ("6 documents are identical to others; intervals resample the 3 distinct ones")


def test_copies_of_one_text_are_one_document(make_run):
    run = make_run(copies(3, 0, 0), copies=True)
    found = measure_perplexity(run)
    assert found.per_token.nll_nats_per_token_interval == (None, None)
    assert found.notes == ["3 copies of one document of fewer than 8,192 tokens: no interval can be given"]


def test_a_copy_is_told_and_counts_once(make_run):
    run = make_run(copies(2, 1, 1), copies=True)
    assert find_clusters(run).note == "1 document is identical to others; intervals resample the 3 distinct ones"
    # Sums of the texts, the first one twice: nats 6, 3, 10 bits over 4, 1, 3 tokens.
    expected = jackknife_ratio(np.array([6, 3, 10]) * LN2, [4, 1, 3])
    found = measure_perplexity(run).per_token
    assert found.nll_nats_per_token == pytest.approx(expected.value)
    assert found.nll_nats_per_token_interval == pytest.approx(expected.interval)


def test_one_long_text_given_three_times_has_the_blocks_of_one(make_run):
    rng = np.random.default_rng(0)
    long = words("first_token", *rng.exponential(3, 3 * BLOCK_TOKENS).tolist())
    one, three = (measure_perplexity(make_run([long] * k, copies=True)) for k in (1, 3))
    assert one.per_token.nll_nats_per_token_interval == pytest.approx(three.per_token.nll_nats_per_token_interval)
    assert three.interval_unit == "block"
    assert three.notes[0].startswith("3 copies of one document: intervals resample 3 blocks of 4,096 tokens")


def test_copies_change_no_comparison_either(make_run):
    """Paired, through bytes, by slice and unpaired: two copies of every document say what one says."""
    found = []
    for k in (1, 2):
        pair = [make_run([replace(doc, bits=[doc.bits[0], *(b * f for b in doc.bits[1:])], fields={"odd": doc.line % 2})
                          for doc in copies(*[k] * 3)], copies=True) for f in (1, 1.25)]  # fmt: skip
        tokens, through_bytes = compare_runs(*pair), compare_bytes(*pair)
        slices = [changed_slices(*pair, by).table[["group", "mean_difference_nats", "low", "high"]]
                  for by in ("odd", "type", "context", "class")]  # fmt: skip
        found.append(
            [
                tokens.difference.mean_difference_nats_interval,
                through_bytes.difference.difference_bits_per_byte_interval,
                measure_gap(*pair).gap_nats_interval,
                *(frame[["low", "high"]].fillna(-1).to_numpy().ravel() for frame in slices[:2]),
            ]
        )
    for one, two in zip(*found, strict=True):
        assert one == pytest.approx(two, rel=1e-9)
