"""What checks measure: against numpy on known logits, and against the views that give the same numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, log_probabilities, tempered_logits, write_drawn

from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.analysis.compare.tokens import compare_runs
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.token_classes import FORMS
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.audit.checks.decisions import conclude, decide
from lossprobe.audit.checks.metrics import metric_of
from lossprobe.audit.checks.pairing import AuditedRun
from lossprobe.audit.gate.whole import measure_check
from lossprobe.audit.settings import Check, Limit
from lossprobe.errors import NotComparableError
from lossprobe.run.baseline import MODEL_COLUMNS, open_baseline, write_baseline

ROWS, VOCAB, DOCUMENTS = 9_000, 40, 24
WORDS = [b"%d" % index if index < 5 else b" w%d" % index for index in range(VOCAB)]
CONFIDENCE = 0.9


class Pair:
    """A model and a baseline on the same tokens, with everything about them known in float64."""

    def __init__(self, folder):
        rng = np.random.default_rng(7)
        old = draw_logits(rng, ROWS, VOCAB)
        self.targets, self.documents = draw_targets(rng, old), document_numbers(rng, ROWS, DOCUMENTS)
        new = tempered_logits(old, 0.8) + 0.3 * rng.standard_normal(old.shape)
        fields = [{"part": "even" if number % 2 == 0 else "it's odd"} for number in range(DOCUMENTS)]
        kept = {"vocabulary": WORDS, "fields": fields, "context": 4096}
        drawn = [
            write_drawn(folder / name, logits, self.targets, self.documents, name=name, **kept)
            for name, logits in (("old", old), ("new", new))
        ]
        self.old, self.new = (each.run for each in drawn)
        write_baseline(self.old, folder / "base", MODEL_COLUMNS)
        self.scored = AuditedRun(self.new, find_clusters(self.new), open_baseline(folder / "base"))
        rows = np.arange(ROWS)
        self.loss, self.confidence, self.correct, self.brier = ([], [], [], [])
        for logits in (old, new):
            log_p = log_probabilities(logits)
            p = np.exp(log_p)
            self.loss.append(-log_p[rows, self.targets])
            self.confidence.append(p.max(axis=1))
            self.correct.append((logits.argmax(axis=1) == self.targets).astype(float))
            self.brier.append(((p - np.eye(VOCAB)[self.targets]) ** 2).sum(axis=1))
        self.context = np.concatenate([np.arange(1, n + 1) for n in np.bincount(self.documents)])
        self.bytes = np.array([len(word) for word in WORDS])[self.targets]

    def measured(self, metric, kind="max", limit=0.0, **choices):
        check = Check("id", "text", metric, Limit(kind, limit), **choices)
        longest = int(self.new.scalar("SELECT max(context) FROM tokens"))
        return measure_check(check, metric_of(check, longest), self.scored, CONFIDENCE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("pair"))


def by_document(pair, values, chosen=True):
    weights = np.where(chosen, values, 0.0) * np.ones(ROWS)
    return np.bincount(pair.documents, weights, DOCUMENTS)


def jackknife(statistic, *sums):
    """Return the estimate and half width, by leaving each document out in a loop."""
    present = sums[-1] > 0
    sums = [part[present] for part in sums]
    count = len(sums[0])
    replicates = [statistic(*(part.sum() - part[index] for part in sums)) for index in range(count)]
    error = math.sqrt((count - 1) / count * sum((value - np.mean(replicates)) ** 2 for value in replicates))
    return statistic(*(part.sum() for part in sums)), float(t_quantile(count, CONFIDENCE)) * error


PER_TOKEN = {
    "nll": lambda pair, side: pair.loss[side],
    "accuracy": lambda pair, side: pair.correct[side],
    "confidence_gap": lambda pair, side: pair.confidence[side] - pair.correct[side],
    "brier": lambda pair, side: pair.brier[side],
    "share_above": lambda pair, side: (pair.loss[side] > 6.0).astype(float),
}
SLICES = {
    "all": ({}, lambda pair: np.ones(ROWS, bool)),
    "where": ({"where": "context >= 50 and context < 200"}, lambda pair: (pair.context >= 50) & (pair.context < 200)),
    "class": ({"token_class": "digits"}, lambda pair: pair.targets < 5),
    "field": ({"field": "part", "equals": "it's odd"}, lambda pair: pair.documents % 2 == 1),
    "both": (
        {"token_class": "digits", "where": "context < 40"},
        lambda pair: (pair.targets < 5) & (pair.context < 40),
    ),
}


@pytest.mark.parametrize("slice_", SLICES)
@pytest.mark.parametrize("metric", PER_TOKEN)
def test_means_and_their_changes_are_those_of_float64_numpy(pair, metric, slice_):
    choices, chosen = SLICES[slice_][0], SLICES[slice_][1](pair)
    extra = {"nats": 6.0} if metric == "share_above" else {}
    old, new = (by_document(pair, PER_TOKEN[metric](pair, side), chosen) for side in (0, 1))
    tokens = by_document(pair, 1.0, chosen)
    value = pair.measured(metric, **choices, **extra)
    change = pair.measured(metric, "max_increase", **choices, **extra)
    for found, statistic, sums in (
        (value.held, lambda s, n: s / n, (new, tokens)),
        (change.value, lambda s, n: s / n, (new, tokens)),
        (change.baseline, lambda s, n: s / n, (old, tokens)),
        (change.held, lambda s, o, n: (s - o) / n, (new, old, tokens)),
    ):
        estimate, half = jackknife(statistic, *sums)
        if half == 0.0:  # no such token anywhere: the exact bound of as many independent ones
            assert metric == "share_above"
            half = 1.0 - ((1.0 - CONFIDENCE) / 2) ** (1.0 / chosen.sum())
        assert found.shown == pytest.approx(estimate, abs=1e-6)
        ends = np.array([estimate - half, estimate + half])
        if found is not change.held and metric != "confidence_gap":  # no other value can be negative
            ends = ends.clip(0.0, None)
        assert found.interval == pytest.approx(ends, abs=1e-6)
        assert (found.tokens, found.clusters) == (chosen.sum(), (tokens > 0).sum())


def test_perplexity_is_e_to_the_loss_and_its_change_in_percent_e_to_the_difference(pair):
    nll, perplexity = pair.measured("nll", "max_increase").held, pair.measured("perplexity", "max_increase_pct").held
    assert perplexity.shown == pytest.approx(100 * math.expm1(nll.value), rel=1e-12)
    assert perplexity.interval == pytest.approx([100 * math.expm1(end) for end in nll.interval], rel=1e-12)


def test_percent_of_the_baseline(pair):
    old, new = (by_document(pair, pair.brier[side]) for side in (0, 1))
    found = jackknife(lambda s, o: 100 * (s / o - 1), new, old)
    held = pair.measured("brier", "max_increase_pct").held
    assert (held.shown, held.half[1]) == pytest.approx(found, rel=1e-5)
    assert held.scale.unit == "%"


def test_bits_per_byte(pair):
    old, new = (by_document(pair, pair.loss[side]) for side in (0, 1))
    found = jackknife(lambda s, o, n: (s - o) / n / math.log(2), new, old, by_document(pair, pair.bytes))
    held = pair.measured("bits_per_byte", "max_increase").held
    assert (held.shown, held.half[1]) == pytest.approx(found, rel=1e-4)


def test_values_are_those_of_the_views(pair, monkeypatch):
    """Same estimates, and at 95 % the same intervals, as the view that shows the number."""
    monkeypatch.setitem(globals(), "CONFIDENCE", 0.95)
    perplexity, positions = measure_perplexity(pair.new), measure_positions(pair.new)
    calibration = measure_calibration([pair.new]).models[0].measures
    expected = {
        "nll": (perplexity.per_token.nll_nats_per_token, perplexity.per_token.nll_nats_per_token_interval),
        "perplexity": (perplexity.per_token.token_perplexity, perplexity.per_token.token_perplexity_interval),
        "bits_per_byte": (perplexity.per_byte.bits_per_byte, perplexity.per_byte.bits_per_byte_interval),
        "loss50_minus_loss500": (positions.loss50_minus_loss500, positions.loss50_minus_loss500_interval),
    }
    for name in ("accuracy", "confidence_gap", "brier", "ece"):
        expected[name] = (calibration[name].value, calibration[name].interval)
    for name, (value, interval) in expected.items():
        held = pair.measured(name).held
        assert held.shown == pytest.approx(value, rel=1e-12), name
        assert held.interval == pytest.approx(interval, rel=1e-9), name


def test_the_change_of_the_loss_is_that_of_compare(pair, monkeypatch):
    monkeypatch.setitem(globals(), "CONFIDENCE", 0.95)
    comparison, held = compare_runs(pair.old, pair.new), pair.measured("nll", "max_increase").held
    assert held.shown == pytest.approx(comparison.difference.mean_difference_nats, rel=1e-12)
    assert held.interval == pytest.approx(comparison.difference.mean_difference_nats_interval, rel=1e-9)
    ratio = pair.measured("perplexity", "max_increase_pct").held
    assert 1 + ratio.shown / 100 == pytest.approx(comparison.difference.perplexity_ratio, rel=1e-12)
    accuracy = pair.measured("accuracy", "max_decrease").held
    assert accuracy.interval == pytest.approx(comparison.difference.accuracy_difference_interval, rel=1e-9)


def test_the_unscored_share_counts_every_row(pair):
    held = pair.measured("unscored_share").held
    assert held.shown == pytest.approx(DOCUMENTS / (ROWS + DOCUMENTS), rel=1e-12)
    assert held.tokens == ROWS + DOCUMENTS
    assert pair.measured("unscored_share", "max_increase").held.interval == (0.0, 0.0)


def woodruff(pair, side, share):
    """Return the quantile, half widths, the error and the replicates of the share at or below it."""
    loss = pair.loss[side].astype(np.float32).astype(float)
    value = float(np.quantile(loss, share))
    below, counts = by_document(pair, (loss <= value).astype(float)), by_document(pair, 1.0)
    replicates = (below.sum() - below) / (counts.sum() - counts)
    half = float(t_quantile(DOCUMENTS, CONFIDENCE)) * math.sqrt((DOCUMENTS - 1) * replicates.var())
    ends = [float(np.quantile(loss, end)) if 0 <= end <= 1 else math.inf for end in (share - half, share + half)]
    return value, [value - ends[0], ends[1] - value], replicates


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantiles_have_woodruffs_interval(pair, share):
    old, new = (woodruff(pair, side, share) for side in (0, 1))
    value = pair.measured("quantile", quantile=share).held
    assert value.shown == pytest.approx(new[0], abs=1e-6)
    assert value.half == pytest.approx(new[1], abs=1e-6)
    change = pair.measured("quantile", "max_increase", quantile=share).held
    errors, rho = [sum(side[1]) / 2 for side in (old, new)], np.corrcoef(old[2], new[2])[0, 1]
    half = math.sqrt(errors[0] ** 2 + errors[1] ** 2 - 2 * rho * errors[0] * errors[1])
    assert change.shown == pytest.approx(new[0] - old[0], abs=1e-6)
    assert change.half == pytest.approx([half, half], abs=1e-5)


def test_a_quantile_beyond_what_the_text_shows_has_an_open_interval(pair):
    held = pair.measured("quantile", quantile=0.9999).held
    assert held.interval[1] == math.inf
    check = Check("id", "text", "quantile", Limit("max", 1000.0), quantile=0.9999)
    assert decide(check, held) == "inconclusive"


def test_the_change_of_an_ece_is_zero_only_for_the_same_model(pair, tmp_path):
    change = pair.measured("ece", "max_increase")
    assert change.held.shown == pytest.approx(change.value.shown - change.baseline.shown, rel=1e-12)
    assert change.held.interval[0] > 0.0, "tempered by 0.8, the new model is over-confident"


def test_a_model_against_itself_changes_by_exactly_nothing(pair, tmp_path):
    write_baseline(pair.new, tmp_path / "same", MODEL_COLUMNS)
    same = AuditedRun(pair.new, pair.scored.clusters, open_baseline(tmp_path / "same"))
    assert same.identical()
    assert not pair.scored.identical()
    for metric in ("nll", "perplexity", "bits_per_byte", "accuracy", "confidence_gap", "brier", "ece", "quantile"):
        kind = "max_increase_pct" if metric == "perplexity" else "max_increase"
        check = Check("id", "text", metric, Limit(kind, 0.0), quantile=0.9 if metric == "quantile" else None)
        measured = measure_check(check, metric_of(check, 0), same, CONFIDENCE)
        assert measured.held.shown == 0.0
        assert metric == "accuracy" or measured.held.interval == (0.0, 0.0), metric
        exact = measured.exactly()
        assert (exact.held.shown, exact.held.interval) == (0.0, (0.0, 0.0)), metric
        assert conclude(check, metric_of(check, 0), exact, CONFIDENCE).verdict == "pass"


def test_other_tokens_are_refused_whatever_the_settings_say(pair, tmp_path):
    rng = np.random.default_rng(3)
    targets = pair.targets.copy()
    targets[17] = (targets[17] + 1) % VOCAB
    other = write_drawn(tmp_path / "o", draw_logits(rng, ROWS, VOCAB), targets, pair.documents, vocabulary=WORDS).run
    write_baseline(other, tmp_path / "base")
    scored = replace(pair.scored, baseline=open_baseline(tmp_path / "base"))
    with pytest.raises(NotComparableError, match="1 rows are not the tokens"):
        scored.refuse_other_tokens()
    pair.scored.refuse_other_tokens()
    fewer = write_drawn(
        tmp_path / "f", draw_logits(rng, 10, VOCAB), targets[:10], pair.documents[:10], vocabulary=WORDS
    )
    write_baseline(fewer.run, tmp_path / "fewer")
    with pytest.raises(NotComparableError, match=f"{ROWS + DOCUMENTS - 11:,} rows"):
        replace(pair.scored, baseline=open_baseline(tmp_path / "fewer")).refuse_other_tokens()


@pytest.mark.parametrize("metric", ["nll", "ece", "quantile", "loss50_minus_loss500"])
@pytest.mark.parametrize("kind", ["max", "max_increase"])
def test_an_empty_slice_is_inconclusive_and_says_so(pair, metric, kind):
    choices = {"where": "document = 99", "quantile": 0.5 if metric == "quantile" else None}
    check = Check("id", "text", metric, Limit(kind, 1.0), **choices)
    found = metric_of(check, 0)
    result = conclude(check, found, measure_check(check, found, pair.scored, CONFIDENCE), CONFIDENCE)
    assert (result.verdict, result.measured, result.measured_interval) == ("inconclusive", None, (None, None))
    assert result.reason == "no token in document = 99 to measure"
    assert result.further_tokens is None


def test_every_class_can_be_a_slice(pair):
    counts = [pair.measured("nll", token_class=name).held.tokens for name in FORMS]
    assert sum(counts) == ROWS
