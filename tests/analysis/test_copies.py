"""Copies of documents say no more than one of them: every interval, test and noise floor is that of one each."""

import numpy as np
import pandas as pd
import pytest
from drawn_runs import draw_logits, draw_targets, tempered_logits, write_drawn
from fake_pairs import write_pair

from lossprobe.analysis.calibration.bins import bin_sums, equal_width_edges, expected_calibration_error, expected_noise
from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.analysis.calibration.measures import mean_measures
from lossprobe.analysis.calibration.slices import calibrate_slices
from lossprobe.analysis.compare.measured_divergence import measure_pair
from lossprobe.analysis.compare.tokens import compare_runs
from lossprobe.analysis.gap.gap import measure_gap
from lossprobe.analysis.options import SeriesOptions
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.rows.clusters import copies_per_token, find_clusters
from lossprobe.analysis.rows.outcomes import outcome_sums
from lossprobe.analysis.rows.paired import paired_batches
from lossprobe.analysis.series.series import measure_series
from lossprobe.analysis.stats.resampling import at_most
from lossprobe.analysis.unigram import measure_unigram
from lossprobe.audit.checks.metrics import metric_of
from lossprobe.audit.checks.pairing import AuditedRun
from lossprobe.audit.gate.whole import measure_check
from lossprobe.audit.settings import Check, Limit
from lossprobe.run.baseline import MODEL_COLUMNS, open_baseline, write_baseline

DOCUMENTS, TOKENS, VOCAB = 12, 150, 64


def write_copies(folder, times: list[int], tokens: int = TOKENS, names=("plain", "tempered"), seed: int = 0):
    """Write the runs of two models on documents of which each is there so many times, round after round."""
    rng = np.random.default_rng(seed)
    logits = draw_logits(rng, len(times) * tokens, VOCAB)
    targets = draw_targets(rng, logits)
    chosen = [number for turn in range(max(times)) for number, count in enumerate(times) if turn < count]
    rows = np.concatenate([np.arange(tokens) + number * tokens for number in chosen])
    documents = np.repeat(np.arange(len(chosen)), tokens)
    fields = [{"part": "ab"[number % 2]} for number in chosen]
    models = (logits, tempered_logits(logits, 1.3))
    return [
        write_drawn(folder / name, model[rows], targets[rows], documents, fields=fields, name=name).run
        for name, model in zip(names, models, strict=False)
    ]


@pytest.fixture(scope="module")
def once_and_thrice(tmp_path_factory):
    """The runs of twelve documents, and of three copies of each."""
    folder = tmp_path_factory.mktemp("copies")
    return [write_copies(folder / str(times), [times] * DOCUMENTS) for times in (1, 3)]


def assert_same(one: pd.DataFrame, other: pd.DataFrame, columns: list[str]) -> None:
    """Fail where the columns differ; numbers by more than the order of a sum makes."""
    assert one[columns].notna().any(axis=None)
    pd.testing.assert_frame_equal(one[columns], other[columns], rtol=1e-9, atol=1e-12)


def test_a_series_is_that_of_one_each(once_and_thrice):
    """But for what n-gram models of the text lose, which count each copy; no copy is in the counts that predict it."""
    columns = ["mean_loss_nats", "low", "high", "difference_nats", "difference_low", "difference_high", "p_holm",
               "nll_minus_entropy_nats", "excess_low", "excess_high", "learned_share", "never_share"]  # fmt: skip
    one, three = (measure_series(runs) for runs in once_and_thrice)
    assert_same(one.table, three.table, columns)
    assert three.tokens == 3 * one.tokens
    assert "intervals resample the 12 distinct ones" in three.notes[0]
    assert all(with_copies.mean_loss_nats > alone.mean_loss_nats - 0.01
               for alone, with_copies in zip(one.references, three.references, strict=True))  # fmt: skip


@pytest.mark.parametrize("by", ["context", "class", "type", "part"])
def test_slices_of_a_series_are_those_of_one_each(once_and_thrice, by):
    one, three = (measure_series(runs, options=SeriesOptions(by=by, top=500)) for runs in once_and_thrice)
    keys = ["kind", "group", "step"] if by == "class" else ["group", "step"]
    columns = [*keys, "mean_loss_nats", "low", "high", "clusters"]
    ones, threes = (each.curves.sort_values(keys, ignore_index=True) for each in (one, three))
    assert_same(ones, threes, columns)


@pytest.mark.thorough
def test_a_calibration_is_that_of_one_each(once_and_thrice):
    """Also z, noise floors, the debiased error and which bins are large enough, which no interval is needed for."""
    one, three = (measure_calibration(runs) for runs in once_and_thrice)
    assert_same(one.table, three.table, ["model", "measure", "value", "low", "high", "noise_floor", "z"])
    assert_same(one.bins, three.bins, ["low", "high", "gap", "gap_low", "gap_high"])
    assert_same(one.smoothing.table, three.smoothing.table, ["measure", "value", "low", "high"])
    for first, second in zip(one.models, three.models, strict=True):
        fits = first.temperature, second.temperature
        assert_same(*(fit.table for fit in fits), ["measure", "before", "after", "change", "low", "high"])
        assert fits[0].temperature_interval == pytest.approx(fits[1].temperature_interval, rel=1e-9)
        smoothed = first.effective_smoothing, second.effective_smoothing
        assert smoothed[0].slope_epsilon_interval == pytest.approx(smoothed[1].slope_epsilon_interval, rel=1e-9)
        assert first.finding == second.finding
    for by in ("part", "context", "class"):
        slices = [calibrate_slices(run, by).table for run, _ in once_and_thrice]
        assert_same(*slices, [name for name in slices[0] if name != "count"])


def test_other_views_are_those_of_one_each(once_and_thrice):
    (one, _), (three, _) = once_and_thrice
    groups = [measure_perplexity(run, "part").groups for run in (one, three)]
    assert_same(*groups, ["group", "mean_loss_nats", "low", "high"])
    positions = [measure_positions(run) for run in (one, three)]
    assert_same(*(found.table for found in positions), ["context", "mean_loss_nats", "low", "high", "clusters"])
    assert positions[0].finding == positions[1].finding
    gaps = [measure_gap(*runs) for runs in ((one, one), (three, three))]
    assert gaps[0].gap_nats_interval == pytest.approx(gaps[1].gap_nats_interval, abs=1e-9)
    evidence = [compare_runs(*runs).evidence for runs in once_and_thrice]
    assert evidence[0].p_value == pytest.approx(evidence[1].p_value, rel=1e-9)
    assert evidence[0].tokens_for_one_percent == pytest.approx(evidence[1].tokens_for_one_percent, abs=1)


@pytest.mark.parametrize("tokens", [TOKENS, 8_400])
def test_copies_of_a_single_document_are_its_blocks(tmp_path, tokens):
    one, three = (write_copies(tmp_path / str(times), [times], tokens, ("plain",))[0] for times in (1, 3))
    numbers = ["measure", "value", "low", "high"]
    assert_same(*(measure_perplexity(run).table for run in (one, three)), numbers)
    assert [measure_unigram(run).comparable(9.0) for run in (one, three)] == [tokens > TOKENS] * 2
    slices = [calibrate_slices(run, "context").table for run in (one, three)]
    assert_same(*slices, ["group", "gap_z", "excess_z", "ece_noise_floor"])


def test_a_slice_of_an_audit_is_that_of_one_each(once_and_thrice, tmp_path):
    measured = []
    for number, (model, other) in enumerate(once_and_thrice):
        write_baseline(other, tmp_path / str(number), MODEL_COLUMNS)
        scored = AuditedRun(model, find_clusters(model), open_baseline(tmp_path / str(number)))
        checks = [
            Check("id", "text", metric, Limit(kind, 0.0), **choices)
            for metric in ("nll", "accuracy", "ece")
            for kind in ("max", "max_increase")
            for choices in ({}, {"where": "context > 64"}, {"field": "part", "equals": "a"})
        ]
        never = Check("id", "text", "share_above", Limit("max", 0.0), nats=99.0, field="part", equals="b")
        measured.append([measure_check(check, metric_of(check, TOKENS), scored, 0.95) for check in (*checks, never)])
    for first, second in zip(*measured, strict=True):
        assert first.held.clusters == second.held.clusters
        assert (first.held.value, *first.held.half) == pytest.approx((second.held.value, *second.held.half), abs=1e-9)
    tokens = DOCUMENTS // 2 * TOKENS
    assert measured[1][-1].held.tokens == 3 * tokens
    assert measured[1][-1].held.half[1] == pytest.approx(1 - 0.025 ** (1 / tokens))


def test_a_divergence_is_that_of_one_each(tmp_path):
    rng = np.random.default_rng(0)
    kl, change = rng.exponential(1.0, (5, 40)), rng.normal(0, 0.1, (5, 40))
    results = []
    for times in (1, 3):
        runs = write_copies(tmp_path / str(times), [times] * 5, 40, ("A", "B"))
        order = runs[0].query("SELECT text FROM documents ORDER BY document")["text"]
        text = order.map({one: index for index, one in enumerate(order.unique())}).to_numpy()
        scored = runs[0].query("SELECT document, token FROM tokens WHERE unscored IS NULL ORDER BY document, token")
        place = text[scored["document"]], scored["token"].to_numpy() % 40
        pair = write_pair(*runs, kl[place], same_top=kl[place] < 1, target_prob_change=change[place])
        results.append(measure_pair(pair))
    one, three = results
    for name in ("mean_kl_nats", "same_top_share", "rms_target_prob_change"):
        assert getattr(one, name) == pytest.approx(getattr(three, name))
        assert getattr(one, f"{name}_interval") == pytest.approx(getattr(three, f"{name}_interval"))
    assert three.notes == ["10 documents are identical to others; intervals resample the 5 distinct ones"]


@pytest.mark.parametrize("most", [10, 3])
def test_rows_in_lockstep_have_the_cluster_of_their_text(tmp_path, most):
    """SQL that looks up each row's text gave the rows of a million tokens in another order."""
    runs = write_copies(tmp_path, [1, 2, 3, 1, 1], 30)
    clusters = at_most(find_clusters(runs[0]), most)
    (rows,) = paired_batches(runs, {"nats": "loss_nats"}, clusters)
    order = runs[0].query("SELECT text FROM documents ORDER BY document")["text"]
    text = order.map({one: index for index, one in enumerate(order.unique())}).to_numpy()
    assert rows.cluster.tolist() == (text[rows.document] % most).tolist()
    places = list(zip(rows.document, rows.token, strict=True))
    assert places == sorted(places)


def test_copies_per_token(tmp_path):
    run = write_copies(tmp_path, [1, 1, 4], 10, ("plain",))[0]
    assert copies_per_token(run) == (1 + 1 + 16) / 6
    assert copies_per_token(run, where="document = 5") == 1.0  # a single one of the four
    assert copies_per_token(run, where="FALSE") == 1.0


@pytest.mark.thorough
def test_a_calibrated_model_looks_calibrated_however_often_a_text_is_there(tmp_path):
    """Texts that are there 1 to 6 times: z is standard normal, and the ECE is its noise floor."""
    z, errors = [], []
    for seed in range(60):
        run = write_copies(tmp_path / str(seed), [6, 1, 1, 2, 1, 3, 1, 1, 6, 1], 100, ("plain",), seed)[0]
        clusters = find_clusters(run)
        sums, bins = outcome_sums(run, clusters), bin_sums(run, clusters, equal_width_edges()).sum(axis=0)
        means = mean_measures(sums)
        z.append([means[name].z for name in ("confidence_gap", "nll_minus_entropy_nats")])
        floor = expected_noise(bins / copies_per_token(run))
        errors.append([expected_calibration_error(bins), floor])
    for spread in np.std(z, axis=0):  # of 60, it is right to .09; without a rule for copies it would be 2.1
        assert 0.75 < spread < 1.25
    error, floor = np.mean(errors, axis=0)
    assert error == pytest.approx(floor, rel=0.1)
