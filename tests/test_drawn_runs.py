"""Drawn runs against the engine's own statistics and planning: two implementations of every column."""

from __future__ import annotations

import math

import drawn_runs
import fakes
import numpy as np
import pytest
import torch
from drawn_runs import (
    document_numbers,
    draw_logits,
    draw_targets,
    log_probabilities,
    measure_rows,
    probability_bins,
    smoothed_logits,
    temperature_sums,
    tempered_logits,
    write_drawn,
)
from planned import whole_document

import lossprobe
from lossprobe.checkpoint.interface import Tokens
from lossprobe.passes.identity import describe
from lossprobe.passes.policy import window_policy
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.part_scores import LADDER_TEMPERATURES
from lossprobe.plan.rows import WindowPolicy
from lossprobe.run.schema import MEASURED
from lossprobe.scoring.compiled import measure_rows as measure_by_engine
from lossprobe.scoring.histogram import HistogramBins
from lossprobe.scoring.statistics import Workspace
from lossprobe.text.counts import count_text

ROWS, VOCAB, DOCUMENTS = 3000, 64, 20


@pytest.fixture(scope="module")
def rows():
    """Logits that float32 holds exactly, one masked entry in every third row, with their targets and documents."""
    rng = np.random.default_rng(1)
    logits = draw_logits(rng, ROWS, VOCAB).astype(np.float32).astype(np.float64)
    logits[::3, 5] = -np.inf
    return logits, draw_targets(rng, logits), document_numbers(rng, ROWS, DOCUMENTS)


@pytest.fixture(scope="module")
def drawn(rows, tmp_path_factory):
    return write_drawn(tmp_path_factory.mktemp("drawn") / "run", *rows)


def test_rows_histogram_and_ladder_agree_with_the_engine(rows):
    logits, targets, documents = rows
    z, y = torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(targets)
    measured = measure_by_engine(z, y, torch.ones(len(z), dtype=torch.bool), HistogramBins(), Workspace())
    engine, spread = measured.statistics, measured.histogram
    limits = {"loss_nats": 1e-6, "rank": 0, "ties": 0, "top_id": 0, "varentropy": 2e-5, "uniform_loss_nats": 1e-5}
    for name, values in measure_rows(logits, targets).items():
        np.testing.assert_allclose(getattr(engine, name), values, rtol=0, atol=limits.get(name, 2e-6), err_msg=name)
    np.testing.assert_allclose(measured.ladder, temperature_sums(logits), rtol=0, atol=1e-5)
    bins = probability_bins(logits, targets, documents, DOCUMENTS)
    engine_bins = np.zeros((3, DOCUMENTS, HistogramBins().count))
    np.add.at(engine_bins, (slice(None), documents), spread.numpy())
    np.testing.assert_allclose(bins.sum(axis=2), engine_bins.sum(axis=2), rtol=1e-6)
    assert np.abs(bins - engine_bins)[0].sum() <= 1e-4 * ROWS * VOCAB  # float32 may fall on the other side of an edge
    assert drawn_runs.TEMPERATURES == LADDER_TEMPERATURES
    assert bins.shape[2] == HistogramBins().count


def test_row_computed_by_hand():
    row = measure_rows(np.log([[0.1, 0.6, 0.2, 0.1]]), np.array([1]))
    expected = {"loss_nats": 0.510826, "entropy_nats": 1.088900, "varentropy": 0.549300, "sum_p2": 0.42}
    expected |= {"uniform_loss_nats": 1.681358, "top_prob": 0.6, "margin_nats": math.log(3), "log_z": 0.0}
    expected |= {"rank": 0, "ties": 1, "top_id": 1}
    assert {name: float(values[0]) for name, values in row.items()} == pytest.approx(expected, abs=1e-6)


def test_run_stores_what_was_measured(drawn):
    measured = measure_rows(drawn.logits, drawn.targets)
    stored = drawn.run.query("SELECT * FROM tokens WHERE unscored IS NULL ORDER BY document, token")
    for column in MEASURED:
        np.testing.assert_array_equal(stored[column.name], measured[column.name].astype(stored[column.name].dtype))
    np.testing.assert_array_equal(stored["token_id"], drawn.targets)
    np.testing.assert_array_equal(stored["document"], drawn.documents)
    ladder = drawn.run.query("SELECT * EXCLUDE (document, token) FROM ladder ORDER BY document, token")
    np.testing.assert_allclose(ladder, temperature_sums(drawn.logits), rtol=0, atol=1e-12)
    sums = drawn.run.query("SELECT sum(pairs) AS pairs, sum(sum_p) AS mass, sum(hits) AS hits FROM histogram").loc[0]
    assert sums.to_list() == pytest.approx([ROWS * VOCAB, ROWS, ROWS], abs=1e-6)


def test_perplexity_of_a_drawn_run_is_the_float64_mean(drawn):
    result = lossprobe.measure_perplexity(lossprobe.open_run(drawn.run.path))
    loss = -log_probabilities(drawn.logits)[np.arange(ROWS), drawn.targets]
    assert result.per_token.nll_nats_per_token == pytest.approx(loss.mean(), abs=1e-7)
    assert (result.per_token.tokens_scored, result.documents, result.coverage["tokens_read"]) == (ROWS, 20, ROWS + 20)


def test_rows_are_planned_as_by_the_engine(rows, tmp_path):
    logits, targets, documents = (values[:200] for values in rows)
    vocabulary = [piece.encode() for piece in [" naïve", "é ", *map(chr, range(0x4E00, 0x4E00 + VOCAB - 2))]]
    run = write_drawn(tmp_path / "run", logits, targets, documents, context=7, stride=3, vocabulary=vocabulary).run
    frame = run.query("SELECT * FROM tokens ORDER BY document, token")
    window = 0
    for number, document in frame.groupby("document"):
        ids = np.concatenate([[0], targets[documents == number]])
        stops = np.cumsum([len(vocabulary[index]) for index in ids])
        tokens = Tokens(ids, stops, np.zeros(len(ids), bool))
        planned = whole_document(number, tokens, WindowPolicy(7, 3), window)
        for name in ("token", "token_id", "byte_start", "byte_stop", "window", "context"):
            np.testing.assert_array_equal(document[name], getattr(planned, name), err_msg=name)
        window = planned.window[-1] + 1
        record = run.query("SELECT * FROM documents WHERE document = ?", [number]).loc[0]
        scored = count_text(record["text"]) - count_text(" naïve")
        assert record["text"].encode() == b"".join(vocabulary[index] for index in ids)
        assert record[["scored_bytes", "scored_characters", "scored_words"]].to_list() == list(vars(scored).values())
    assert frame.loc[frame["token"] == 0, "unscored"].eq("first_token").all()


def test_manifest_is_complete(drawn):
    checkpoint, source = fakes.checkpoint(), lossprobe.StringSource(["text"])
    options = ScoreOptions(context=8)
    real = describe(checkpoint, source, window_policy(checkpoint, options, source), options)
    settings = drawn.run.manifest["settings"]
    assert {group: settings[group].keys() for group in settings} == {group: real[group].keys() for group in real}
    assert settings["versions"] == real["versions"]
    assert drawn.run.damaged_files() == []


def test_two_models_of_one_text(drawn, tmp_path):
    other = write_drawn(
        tmp_path / "b", drawn.logits / 2, drawn.targets, drawn.documents, settings_changes={"windows": {"stride": 9}}
    )
    one, two = drawn.run.manifest["settings"], other.run.manifest["settings"]
    assert one["text"] == two["text"]
    assert one["checkpoint"]["sha256"] != two["checkpoint"]["sha256"]
    assert two["windows"] == one["windows"] | {"stride": 9}


def test_parts_and_samples(drawn, tmp_path):
    choices = {"rows_per_part": 500, "sample_every": 7, "fields": [{"n": n} for n in range(DOCUMENTS)]}
    cut = write_drawn(tmp_path / "cut", drawn.logits, drawn.targets, drawn.documents, **choices).run
    everything = "SELECT * FROM tokens ORDER BY document, token"
    assert cut.query(everything).equals(drawn.run.query(everything))
    spread = "SELECT document, bin, sum(pairs), sum(hits) FROM histogram GROUP BY ALL ORDER BY ALL"
    assert cut.query(spread).equals(drawn.run.query(spread))
    row = "SELECT *, row_number() OVER (ORDER BY document, token) - 1 AS row FROM tokens"
    sampled = f"SELECT document, token FROM ({row}) WHERE row % 7 = 0 AND unscored IS NULL ORDER BY ALL"
    assert cut.query("SELECT document, token FROM ladder").equals(cut.query(sampled))
    assert cut.query("SELECT fields FROM documents")["fields"].to_list()[:2] == ['{"n": 0}', '{"n": 1}']


def test_targets_follow_their_distribution():
    rng = np.random.default_rng(2)
    p = np.array([0.1, 0.6, 0.0, 0.3])
    with np.errstate(divide="ignore"):
        counts = np.bincount(draw_targets(rng, np.tile(np.log(p), (40_000, 1))), minlength=4)
    np.testing.assert_allclose(counts / 40_000, p, atol=4 * math.sqrt(0.25 / 40_000))
    logits = draw_logits(rng, 20_000, VOCAB)
    row = measure_rows(logits, draw_targets(rng, logits))
    assert abs((row["loss_nats"] - row["entropy_nats"]).sum()) < 4 * math.sqrt(row["varentropy"].sum())
    assert row["top_prob"].min() < 1.1 / VOCAB
    assert row["top_prob"].max() > 0.999


def test_smoothed_and_tempered_models():
    rng = np.random.default_rng(3)
    logits = draw_logits(rng, 4000, VOCAB)
    p = np.exp(log_probabilities(logits))
    np.testing.assert_allclose(np.exp(smoothed_logits(logits, 0.1)), 0.9 * p + 0.1 / VOCAB, rtol=1e-12)
    targets, told = draw_targets(rng, logits), tempered_logits(logits, 0.5)
    loss = {t: measure_rows(told / t, targets)["loss_nats"].mean() for t in (1.0, 1.8, 2.0, 2.2)}
    assert min(loss, key=loss.get) == 2.0


def test_document_sizes():
    numbers = document_numbers(np.random.default_rng(4), 1000, 30)
    sizes = np.bincount(numbers)
    assert (len(numbers), len(sizes), sizes.min() >= 1, (np.diff(numbers) >= 0).all()) == (1000, 30, True, True)
    assert sizes.max() > 3 * sizes.min()
