"""Calibration of one and of several runs: every measure against its definition, and the runs that are odd."""

import math

import numpy as np
import pandas as pd
import pytest
from drawn_runs import (
    document_numbers,
    draw_logits,
    draw_targets,
    log_probabilities,
    smoothed_logits,
    tempered_logits,
    write_drawn,
)

from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.analysis.calibration.measures import MEASURES
from lossprobe.analysis.calibration.temperature import Temperature
from lossprobe.analysis.calibration.verdict import calibration_finding
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.resampling import CalibrationMeasure
from lossprobe.errors import NotComparableError, UsageError
from lossprobe.run.names import distinct_names
from lossprobe.run.reader import Run

ROWS, VOCAB, DOCUMENTS = 3000, 61, 25


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(11)
    logits = draw_logits(rng, ROWS, VOCAB)
    return logits, draw_targets(rng, logits), document_numbers(rng, ROWS, DOCUMENTS)


@pytest.fixture(scope="module")
def runs(truth, tmp_path_factory):
    logits, targets, documents = truth
    folder = tmp_path_factory.mktemp("runs")
    fields = [{"language": "ab"[number % 2]} for number in range(DOCUMENTS)]
    models = {"sharp": tempered_logits(logits, 0.7), "true": logits, "smooth": smoothed_logits(logits, 0.2)}
    return {
        name: write_drawn(folder / name, z, targets, documents, name=name, fields=fields).run
        for name, z in models.items()
    }


@pytest.fixture(scope="module")
def sharp(runs):
    return measure_calibration([runs["sharp"]])


def test_every_measure_is_that_of_its_definition(truth, sharp):
    logits, targets, _ = truth
    log_p = log_probabilities(tempered_logits(logits, 0.7))
    p, at = np.exp(log_p), log_p[np.arange(ROWS), targets]
    x, o = p.max(axis=-1), (p.argmax(axis=-1) == targets).astype(float)
    one_hot = np.eye(VOCAB)[targets]
    cells = np.minimum((x * 15).astype(int), 14)
    residual = np.bincount(cells, weights=x - o, minlength=15)
    expected = {
        "nll_nats": -at.mean(),
        "nll_minus_entropy_nats": (-at + (p * log_p).sum(axis=-1)).mean(),
        "accuracy": o.mean(),
        "top5_accuracy": ((log_p >= at[:, None]).sum(axis=-1) <= 5).mean(),
        "mean_confidence": x.mean(),
        "confidence_gap": (x - o).mean(),
        "ece": np.abs(residual).sum() / ROWS,
        "brier": ((p - one_hot) ** 2).sum(axis=-1).mean(),
        "top1_brier": ((x - o) ** 2).mean(),
        "uncertainty": o.mean() * (1 - o.mean()),
    }
    measures = sharp.models[0].measures
    assert list(measures) == list(MEASURES)
    for name, value in expected.items():
        assert measures[name].value == pytest.approx(value, abs=2e-7), name
    parts = [measures[name].value for name in ("reliability", "resolution", "uncertainty", "within_bin")]
    assert measures["top1_brier"].value == pytest.approx(parts[0] - parts[1] + parts[2] + parts[3], abs=1e-12)
    z = (x - o).sum() / math.sqrt((x * (1 - x)).sum())
    assert measures["confidence_gap"].z == pytest.approx(z, rel=1e-5)
    n, entropy = -at, -(p * log_p).sum(axis=-1)
    varentropy = (p * log_p**2).sum(axis=-1) - entropy**2
    z = (n - entropy).sum() / math.sqrt(varentropy.sum())
    assert measures["nll_minus_entropy_nats"].z == pytest.approx(z, rel=1e-5)


def test_the_design_effect_is_the_ratio_of_the_two_variances(truth, sharp):
    logits, targets, documents = truth
    losses = -log_probabilities(tempered_logits(logits, 0.7))[np.arange(ROWS), targets]
    sums, counts = np.bincount(documents, weights=losses), np.bincount(documents)
    clustered = DOCUMENTS / (DOCUMENTS - 1) * ((sums - counts * losses.mean()) ** 2).sum() / ROWS**2
    measure = sharp.models[0].measures["nll_nats"]
    assert measure.design_effect == pytest.approx(clustered / (losses.var() / ROWS), rel=1e-5)


def test_no_error_without_its_floor_and_no_gap_larger_than_the_error(sharp):
    measures = sharp.models[0].measures
    for name in ("ece", "ece_equal_mass", "mce", "smooth_ece", "vocabulary_error"):
        assert 0 < measures[name].noise_floor < measures[name].value, name
    for name in ("ece", "ece_equal_mass"):
        assert measures[name].value >= abs(measures["confidence_gap"].value) - 1e-12
    floor = measures["ece"].noise_floor
    assert f"noise floor {floor:.3f}" in sharp.finding
    assert "over-confident" in sharp.finding


def test_the_table_holds_every_measure_of_every_model_in_order(runs):
    result = measure_calibration([runs["sharp"], runs["smooth"]])
    assert result.table["model"].tolist() == ["sharp"] * len(MEASURES) + ["smooth"] * len(MEASURES)
    assert result.table["measure"].tolist() == [*MEASURES, *MEASURES]
    assert result.smoothing is not None
    assert (result.seed, result.resamples) == (0, 1000)
    assert set(result.bins["binning"]) == {"equal width", "equal mass", "log10 p"}
    width = result.bins[(result.bins["binning"] == "equal width") & (result.bins["model"] == "sharp")]
    assert width["count"].sum() == ROWS
    full = width[width["count"] > 0]
    assert full["gap"].to_numpy() == pytest.approx((full["mean_probability"] - full["hit_rate"]).to_numpy())
    pairs = result.bins[(result.bins["binning"] == "log10 p") & (result.bins["model"] == "sharp")]
    assert pairs["count"].sum() == ROWS * VOCAB
    assert (pairs["count"] * pairs["mean_probability"]).sum() == pytest.approx(ROWS)


def test_over_and_under_confidence_have_their_signs(runs):
    result = measure_calibration([runs["true"], runs["sharp"], runs["smooth"]])
    gaps = [model.measures["confidence_gap"].value for model in result.models]
    assert gaps[1] > 0.05
    assert gaps[2] < -0.02
    assert abs(gaps[0]) < 0.03
    temperatures = [model.temperature.temperature for model in result.models]
    assert temperatures[1] == pytest.approx(temperatures[0] / 0.7, rel=1e-3)
    assert temperatures[2] < 1


@pytest.mark.parametrize("by", ["class", "language", *(pytest.param(by, marks=pytest.mark.thorough)
                                                        for by in ("context", "frequency", "document"))])  # fmt: skip
def test_slices_name_their_model_and_hold_every_token_once(runs, by):
    result = measure_calibration([runs["sharp"], runs["true"]], by)
    assert result.by == by
    slices = result.slices
    assert slices.columns[0] == "model"
    parts = slices[(slices["model"] == "sharp") & (slices["conditioned_on"] != "target")]
    assert parts["count"].sum() == ROWS


def test_a_field_that_no_document_has_is_refused(runs):
    with pytest.raises(UsageError, match="nothing"):
        measure_calibration([runs["true"]], "nothing")


def changed(run: Run, group: str, key: str, value: object) -> Run:
    settings = run.manifest["settings"]
    return Run(run.path, run.manifest | {"settings": settings | {group: settings[group] | {key: value}}})


def test_different_runs_are_refused_or_shown_without_pairing(runs):
    other = changed(runs["true"], "windows", "bos_id", 5)
    with pytest.raises(NotComparableError, match="BOS"):
        measure_calibration([runs["sharp"], other])
    result = measure_calibration([runs["sharp"], other], allow_different=True)
    assert result.smoothing is None
    assert any("sharp and true differ in BOS" in note for note in result.notes)
    assert any("no paired comparison" in note for note in result.notes)


def test_other_windows_still_pair_the_same_tokens(runs):
    result = measure_calibration([runs["sharp"], changed(runs["true"], "windows", "context", 5)], allow_different=True)
    assert result.smoothing is not None


def test_a_stated_smoothing_bounds_the_perplexity(runs):
    panel = measure_calibration([runs["true"], runs["smooth"]], smoothing=0.2).smoothing.table.set_index("measure")
    assert panel.loc["perplexity_inflation_bound", "value"] == pytest.approx(1.25)
    assert 1 < panel.loc["perplexity_ratio", "value"] < 1.25


def test_a_comparison_reads_no_ladder_and_no_histogram_again(runs, monkeypatch):
    pair, read, query = list(runs.values())[:2], [], Run.query
    monkeypatch.setattr(Run, "query", lambda run, sql, *rest: (read.append(sql), query(run, sql, *rest))[1])

    def count(some: list[Run]) -> list[int]:
        read.clear()
        measure_calibration(some)
        return [sum(words in sql for sql in read) for words in ("JOIN ladder", "FROM histogram")]

    alone, together = np.array([count([run]) for run in pair]), count(pair)
    assert alone[:, 0].tolist() == [1, 1]
    assert together == alone.sum(axis=0).tolist()


def test_runs_of_one_name_are_told_apart(runs):
    assert distinct_names([runs["true"], runs["sharp"], runs["true"]]) == ["true #1", "sharp", "true #2"]
    result = measure_calibration([runs["true"], runs["true"]])
    panel = result.smoothing.table.set_index("measure")
    for end in ("value", "low", "high"):
        assert panel.loc["nll_difference_nats", end] == 0.0


def sure_logits(rows: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of confidence exactly 1 in float32, of which the first `right` are right."""
    logits = np.full((rows, 5), -60.0)
    logits[:, 0] = 0.0
    return logits, np.array([0] * right + [1] * (rows - right))


@pytest.mark.parametrize(("right", "error"), [(40, 0.0), (30, 0.25), (0, 1.0)])
def test_confidence_of_exactly_one(tmp_path, right, error):
    logits, targets = sure_logits(40, right)
    run = write_drawn(tmp_path / "run", logits, targets, np.repeat(np.arange(4), 10)).run
    result = measure_calibration([run])
    measures = result.models[0].measures
    for name in ("confidence_gap", "ece", "ece_equal_mass", "smooth_ece"):
        assert measures[name].value == pytest.approx(error, abs=2e-3), name
    assert measures["accuracy"].value == right / 40
    width = result.bins[result.bins["binning"] == "equal width"]
    assert width["count"].tolist() == [0] * 14 + [40]
    assert measures["confidence_gap"].z is None or math.isfinite(measures["confidence_gap"].z)


@pytest.mark.parametrize("tokens", [1, 2, 60])
def test_one_document_gives_numbers_without_intervals(tmp_path, tokens):
    rng = np.random.default_rng(5)
    logits = draw_logits(rng, tokens, 9)
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), np.zeros(tokens, int)).run
    result = measure_calibration([run])
    measures = result.models[0].measures
    assert measures["ece"].value is not None
    assert measures["ece"].interval.low is None
    assert measures["nll_nats"].interval.low is None
    assert any("no interval" in note for note in result.notes)
    assert "no interval" in result.finding
    if tokens == 1:
        assert measures["mce"].value is None, "a bin of one token says nothing about the largest gap"


def test_uniform_predictions(tmp_path):
    targets = np.random.default_rng(0).integers(0, 8, size=200)
    run = write_drawn(tmp_path / "run", np.zeros((200, 8)), targets, np.repeat(np.arange(5), 40)).run
    result = measure_calibration([run])
    measures = result.models[0].measures
    assert measures["nll_minus_entropy_nats"].value == pytest.approx(0.0, abs=1e-6)
    assert measures["mean_confidence"].value == pytest.approx(1 / 8)
    assert measures["nll_minus_entropy_nats"].z is None, "no variance: the loss is log V whatever comes"
    assert isinstance(result.table, pd.DataFrame)


@pytest.mark.parametrize(
    ("temperature", "says"),
    [
        (0.7, "over-confident over the whole distribution, NLL − entropy +"),
        (1.0, "whole distribution: no miscalibration shown, NLL − entropy "),
        (1.4, "under-confident over the whole distribution, NLL − entropy -"),
    ],
)
def test_the_finding_says_the_verdict_over_the_whole_distribution(tmp_path, temperature, says):
    """Tokens are drawn at T = 1; logits divided by less than that are too sure, by more too little."""
    rng = np.random.default_rng(0)
    logits = draw_logits(rng, 6000, 9)
    drawn = write_drawn(
        tmp_path / "run", tempered_logits(logits, temperature), draw_targets(rng, logits), np.repeat(np.arange(60), 100)
    )
    model = measure_calibration([drawn.run]).models[0]
    assert model.finding.startswith(f"model: {says}")
    z = model.measures["nll_minus_entropy_nats"].z
    assert f" nats, z {z:+.1f}; first choices" in model.finding


def measured(ece_low: float) -> Temperature:
    """Return a temperature whose ECE rises from 0.012 to 0.024, with an interval of the change from `ece_low` on."""
    table = pd.DataFrame({"measure": ["ece"], "before": [0.012], "after": [0.024], "low": [ece_low], "high": [0.03]})
    return Temperature(0.947, NO_INTERVAL, [None, None], True, 9, table, table, [])


def test_a_temperature_that_makes_ece_worse_is_told_where_that_is_shown():
    sure, small = CalibrationMeasure(-0.25, Interval(-0.3, -0.2), z=-17.6), CalibrationMeasure(0.0, Interval(-0.1, 0.1))
    measures = {
        "nll_minus_entropy_nats": sure,
        "confidence_gap": small,
        "ece": CalibrationMeasure(0.01, noise_floor=0.0),
    }
    assert calibration_finding(measures, measured(0.005)) == (
        "under-confident over the whole distribution, NLL − entropy -0.250 [-0.300, -0.200] nats, z -17.6; "
        "first choices: no gap shown, confidence − accuracy +0.000 [-0.100, +0.100], ECE 0.010 (noise floor 0.000); "
        "best temperature 0.947, which makes ECE worse: 0.012 → 0.024"
    )
    assert calibration_finding(measures, measured(-0.001)).endswith("; best temperature 0.947")
