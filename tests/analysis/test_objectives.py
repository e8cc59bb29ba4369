"""The other losses: science oracles 1 to 8 on drawn logits, torch as the judge, and which rows are taken."""

import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from drawn_runs import document_numbers, draw_logits, draw_targets, write_drawn
from fake_runs import LN2, Doc, words
from fakes import ByteTokenizer, SmallModel, checkpoint
from torch.nn.functional import cross_entropy

from lossprobe.analysis.objectives.formulas import ObjectiveOptions, objectives_of, smoothed_floors
from lossprobe.analysis.objectives.objectives import measure_objectives, objective_batches
from lossprobe.analysis.rows.clusters import BLOCK_TOKENS
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.errors import NothingToScoreError, OutputError, UsageError
from lossprobe.passes.score import score
from lossprobe.plan.options import ScoreOptions
from lossprobe.run import reader
from lossprobe.run.reader import open_run
from lossprobe.text.documents import StringSource

STORED = 1e-6  # relative and absolute: the columns are float32, the sums of a formula have few terms


def per_token(run, **choices) -> pd.DataFrame:
    """Return one row per token, the parameters taken off the names of the columns."""
    options = ObjectiveOptions(**choices)
    frame = pd.concat([batch.to_pandas() for batch in objective_batches(run, options)], ignore_index=True)
    return frame.rename(columns={o.column: o.name for o in objectives_of(options, run.vocab_size)})


@pytest.fixture
def draw(tmp_path):
    """Write a run of one document, or of those given, from logits."""
    numbers = iter(range(1000))

    def write(logits, targets=None, documents=None, **choices):
        logits = np.asarray(logits, float)
        targets = np.zeros(len(logits), int) if targets is None else targets
        documents = np.zeros(len(logits), int) if documents is None else documents
        return write_drawn(tmp_path / f"run-{next(numbers)}", logits, targets, documents, **choices)

    return write


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """700 rows as a language model has them, in documents of unequal size; only read."""
    rng = np.random.default_rng(11)
    logits = draw_logits(rng, 700, 90)
    folder = tmp_path_factory.mktemp("language") / "run"
    return write_drawn(folder, logits, draw_targets(rng, logits), document_numbers(rng, 700, 12), context=32)


def torch_losses(drawn, **options) -> np.ndarray:
    return cross_entropy(
        torch.from_numpy(drawn.logits), torch.from_numpy(drawn.targets), reduction="none", **options
    ).numpy()


# The smoothed losses


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.1, 0.5, 1.0])
def test_the_torch_convention_is_torch(language, epsilon):  # science oracle 6
    frame = per_token(language.run, smoothing=epsilon)
    expected = torch_losses(language, label_smoothing=epsilon)
    np.testing.assert_allclose(frame["smoothed_torch_nats"], expected, rtol=STORED, atol=STORED)
    parts = frame["smoothed_hard_part_nats"] + frame["smoothed_torch_uniform_part_nats"]
    np.testing.assert_allclose(frame["smoothed_torch_nats"], parts, rtol=1e-14)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 1.0])
def test_the_fairseq_convention_is_its_target_distribution(language, epsilon):
    vocab = language.run.vocab_size
    target = np.full(language.logits.shape, epsilon / (vocab - 1))
    target[np.arange(len(target)), language.targets] = 1 - epsilon
    log_p = torch.log_softmax(torch.from_numpy(language.logits), dim=-1).numpy()
    frame = per_token(language.run, smoothing=epsilon)
    expected = -(target * log_p).sum(axis=1)
    np.testing.assert_allclose(frame["smoothed_fairseq_nats"], expected, rtol=STORED, atol=STORED)
    parts = frame["smoothed_hard_part_nats"] + frame["smoothed_fairseq_uniform_part_nats"]
    np.testing.assert_allclose(frame["smoothed_fairseq_nats"], parts, rtol=1e-14)


def test_fairseq_is_torch_with_a_larger_epsilon(language):  # science oracle 6
    vocab = language.run.vocab_size
    fairseq = per_token(language.run, smoothing=0.1)["smoothed_fairseq_nats"]
    torch_ = per_token(language.run, smoothing=0.1 * vocab / (vocab - 1))["smoothed_torch_nats"]
    np.testing.assert_allclose(fairseq, torch_, rtol=1e-13)
    assert np.abs(fairseq - per_token(language.run, smoothing=0.1)["smoothed_torch_nats"]).max() > 1e-3


def test_full_smoothing_leaves_the_uniform_part_and_none_the_loss(language):  # science oracle 6
    frame = per_token(language.run, smoothing=1)
    uniform = language.run.query("SELECT uniform_loss_nats FROM tokens WHERE unscored IS NULL ORDER BY document, token")
    np.testing.assert_array_equal(frame["smoothed_torch_nats"], uniform["uniform_loss_nats"].astype(float))
    assert (frame["smoothed_hard_part_nats"] == 0).all()
    plain = per_token(language.run, smoothing=0)
    np.testing.assert_array_equal(plain["smoothed_torch_nats"], plain["nll_nats"])
    np.testing.assert_array_equal(plain["smoothed_fairseq_nats"], plain["nll_nats"])
    np.testing.assert_allclose(plain["gradient_l2_smoothed_torch"], plain["gradient_l2"], rtol=1e-6)


@pytest.mark.parametrize(("epsilon", "vocab"), [(0.1, 4), (0.1, 2048), (0.3, 50)])
def test_at_its_target_a_smoothed_loss_is_the_floor(draw, epsilon, vocab):  # science oracle 7
    for convention, on_token, elsewhere in (
        ("torch", 1 - epsilon + epsilon / vocab, epsilon / vocab),
        ("fairseq", 1 - epsilon, epsilon / (vocab - 1)),
    ):
        target = np.full((1, vocab), elsewhere)
        target[0, 0] = on_token
        run = draw(np.log(target)).run
        result = measure_objectives(run, ObjectiveOptions(smoothing=epsilon))
        floor = getattr(result, f"smoothed_{convention}_floor_nats")
        assert floor == pytest.approx(-(target * np.log(target)).sum(), rel=1e-12)
        mean = result.table.set_index("objective")["mean"]
        assert mean[f"smoothed_{convention}_nats"] == pytest.approx(floor, abs=STORED)
        if convention == "torch":  # its gradient is 0 there; a confident row's float32 sum of p^2 leaves 1e-4
            assert mean["gradient_l2_smoothed_torch"] < 2e-4 < 0.01 < mean["gradient_l2"]


def test_floors_of_a_deterministic_and_of_a_uniform_target():
    assert smoothed_floors(0.0, 100) == (0.0, 0.0)
    assert smoothed_floors(1.0, 100) == pytest.approx((math.log(100), math.log(99)), rel=1e-12)
    assert smoothed_floors(0.1, 50_257)[0] == pytest.approx(1.408, abs=5e-4)  # science section 1
    assert smoothed_floors(0.1, 151_936)[0] == pytest.approx(1.518, abs=5e-4)
    assert smoothed_floors(0.0, 1) == (0.0, 0.0)


def test_no_loss_is_below_its_floor(language):
    frame = per_token(language.run)
    torch_floor, fairseq_floor = smoothed_floors(0.1, language.run.vocab_size)
    assert (frame["smoothed_torch_nats"] >= torch_floor - STORED).all()
    assert (frame["smoothed_fairseq_nats"] >= fairseq_floor - STORED).all()


# Closed forms


@pytest.mark.parametrize("shift", [0.0, 40.0])
@pytest.mark.parametrize("vocab", [2, 7, 1000])
def test_uniform_logits(draw, vocab, shift):  # science oracles 1 and 2
    run = draw(np.full((3, vocab), shift), np.array([0, 1, 1])).run
    for epsilon in (0.0, 0.1, 1.0):
        row = per_token(run, smoothing=epsilon, focal=3, margin=0.7, z_weight=0.01).iloc[0]
        assert row["smoothed_torch_nats"] == pytest.approx(math.log(vocab), rel=1e-6)
        assert row["smoothed_fairseq_nats"] == pytest.approx(math.log(vocab), rel=1e-6)
    miss = 1 - 1 / vocab
    assert row["focal_nats"] == pytest.approx(miss**3 * math.log(vocab), rel=1e-6)
    assert row["margin_ranking_nats"] == pytest.approx(0.7)
    assert row["z_loss"] == pytest.approx(0.01 * (shift + math.log(vocab)) ** 2, rel=1e-6)
    assert row["gradient_l2"] == pytest.approx(math.sqrt(miss), rel=1e-6)
    assert row[["gradient_l1", "gradient_linf"]].tolist() == pytest.approx([2 * miss, miss], rel=1e-6)


def test_the_row_of_four(draw):  # science oracle 5
    row = per_token(draw(np.log([[0.1, 0.6, 0.2, 0.1]]), np.array([1])).run).iloc[0]
    expected = {
        "nll_nats": 0.510826, "smoothed_torch_nats": 0.627879, "smoothed_fairseq_nats": 0.666897,
        "smoothed_hard_part_nats": 0.9 * 0.510826, "smoothed_torch_uniform_part_nats": 0.1 * 1.681358,
        "focal_nats": 0.081732, "gradient_l1": 0.8, "gradient_l2": 0.469042, "gradient_linf": 0.4,
        "margin_ranking_nats": 0.0,  # log(.6 / .2) = 1.0986 is more than 1
    }  # fmt: skip
    assert row[list(expected)].to_dict() == pytest.approx(expected, abs=1e-6)


def test_without_gamma_focal_is_the_loss(language):
    frame = per_token(language.run, focal=0)
    np.testing.assert_array_equal(frame["focal_nats"], frame["nll_nats"])


def test_focal_and_ranking_against_their_definitions(language):
    frame = per_token(language.run, focal=1.5, margin=2.5, z_weight=3e-3)
    log_p = torch.log_softmax(torch.from_numpy(language.logits), dim=-1).numpy()
    rows = np.arange(len(log_p))
    nll = -log_p[rows, language.targets]
    np.testing.assert_allclose(frame["focal_nats"], (1 - np.exp(-nll)) ** 1.5 * nll, rtol=2e-6, atol=1e-9)
    others = language.logits.copy()
    others[rows, language.targets] = -np.inf
    hinge = np.maximum(0, 2.5 - language.logits[rows, language.targets] + others.max(axis=1))
    np.testing.assert_allclose(frame["margin_ranking_nats"], hinge, rtol=STORED, atol=1e-5)
    z = torch.logsumexp(torch.from_numpy(language.logits), dim=-1).numpy()
    np.testing.assert_allclose(frame["z_loss"], 3e-3 * z**2, rtol=STORED, atol=1e-9)
    result = measure_objectives(language.run)
    assert result.mean_log_z2 == pytest.approx((z**2).mean(), rel=STORED)
    assert result.max_abs_log_z == pytest.approx(np.abs(z).max(), rel=STORED)


# Gradients


def autograd(logits, targets, **options) -> np.ndarray:
    z = torch.from_numpy(logits).clone().requires_grad_(True)
    cross_entropy(z, torch.from_numpy(targets), reduction="sum", **options).backward()
    return z.grad.numpy()


def test_gradient_norms_are_those_of_autograd(language):  # science oracle 8
    frame = per_token(language.run)
    hard = autograd(language.logits, language.targets)
    np.testing.assert_allclose(frame["gradient_l1"], np.abs(hard).sum(axis=1), rtol=STORED, atol=1e-12)
    np.testing.assert_allclose(frame["gradient_linf"], np.abs(hard).max(axis=1), rtol=STORED, atol=1e-12)
    smoothed = autograd(language.logits, language.targets, label_smoothing=0.1)
    for name, gradient in (("gradient_l2", hard), ("gradient_l2_smoothed_torch", smoothed)):
        # Squares: the float32 sum of p^2 is off by 6e-8 at the most.
        np.testing.assert_allclose(frame[name] ** 2, (gradient**2).sum(axis=1), rtol=STORED, atol=3e-7)
        assert frame[name].mean() == pytest.approx(np.sqrt((gradient**2).sum(axis=1)).mean(), rel=STORED)


@pytest.mark.parametrize("lead", [3.0, 8.0, 20.0, 40.0])
def test_the_gradient_of_a_confident_token_does_not_cancel(draw, lead):  # science oracles 3 and 4
    spread = np.linspace(0, -6, 9)
    logits = np.stack([[lead, *np.zeros(9)], [lead, 0.0, *np.full(8, -60.0)], [lead, *spread]])
    others = np.exp(logits[:, 1:])
    miss = others.sum(axis=1) / (np.exp(lead) + others.sum(axis=1))
    p = others / (np.exp(lead) + others.sum(axis=1))[:, None]
    expected = np.sqrt(miss**2 + (p**2).sum(axis=1))
    frame = per_token(draw(logits).run)
    np.testing.assert_allclose(frame["gradient_linf"], miss, rtol=1e-6)
    # One other entry: exact. Several: between two bounds, √((1 + b) / (1 + b²)) ≤ 1.0987 apart.
    assert frame["gradient_l2"][1] == pytest.approx(expected[1], rel=2e-6)
    np.testing.assert_allclose(frame["gradient_l2"], expected, rtol=0.0988 if lead > 5 else 1e-5)
    np.testing.assert_allclose(frame["nll_nats"], np.log1p(others.sum(axis=1) * np.exp(-lead)), rtol=1e-6)


def test_a_loss_of_zero_has_zero_objectives(draw):
    row = per_token(draw([[0.0, -300.0, -300.0]]).run, smoothing=0).iloc[0]
    zero = ["nll_nats", "focal_nats", "margin_ranking_nats", "gradient_l1", "gradient_l2", "gradient_linf"]
    assert row[zero].tolist() == [0.0] * len(zero)


def test_masked_entries_are_no_part_of_the_vocabulary(draw):
    masked = -math.inf
    frame = per_token(draw([[0.0, masked, masked], [1.0, 1.0, masked]]).run)
    assert frame["nll_nats"].tolist() == pytest.approx([0.0, LN2])
    assert frame["smoothed_torch_nats"].tolist() == pytest.approx([0.0, LN2])  # torch itself says infinity
    assert frame["margin_ranking_nats"].tolist() == pytest.approx([0.0, 1.0])  # no other entry, no margin to miss
    assert frame["gradient_l2"].tolist() == pytest.approx([0.0, math.sqrt(0.5)])


# The table


def test_means_sums_and_intervals_are_those_of_the_rows(language):
    frame = per_token(language.run)
    result = measure_objectives(language.run)
    assert result.tokens_scored == len(frame) == 700
    assert result.interval_unit == "document"
    for row in result.table.to_dict("records"):
        values = frame.groupby("document")[row["objective"]].agg(["sum", "count"])
        found = jackknife_ratio(values["sum"], values["count"])
        assert row["mean"] == pytest.approx(frame[row["objective"]].mean(), rel=1e-12)
        assert row["sum"] == pytest.approx(frame[row["objective"]].sum(), rel=1e-12)
        assert (row["low"], row["high"]) == pytest.approx((found.interval.low, found.interval.high), rel=1e-9)
    assert list(result.table.columns) == [
        "objective", "convention", "mean", "low", "high", "sum", "mean_of_means_1", "mean_of_means_8", "unit",
    ]  # fmt: skip


def test_the_table_has_the_means_of_micro_batch_means(language):
    options = ObjectiveOptions(micro_batch=(3,))
    result = measure_objectives(language.run, options)
    frame = per_token(language.run)
    means = frame.groupby(frame["window"] // 3)["focal_nats"].mean()
    assert result.table.set_index("objective").loc["focal_nats", "mean_of_means_3"] == pytest.approx(means.mean())
    assert result.micro_batches["objective"].tolist() == result.table["objective"].tolist()


def test_every_column_names_its_convention_and_parameter(language):
    options = ObjectiveOptions(smoothing=0.05, focal=3, margin=0.5, z_weight=1e-5)
    assert next(iter(objective_batches(language.run, options))).schema.names == [
        "document", "token", "token_id", "window", "context", "nll_nats", "smoothed_torch_nats_eps_0.05",
        "smoothed_fairseq_nats_eps_0.05", "smoothed_hard_part_nats_eps_0.05",
        "smoothed_torch_uniform_part_nats_eps_0.05", "smoothed_fairseq_uniform_part_nats_eps_0.05",
        "focal_nats_gamma_3", "margin_ranking_nats_delta_0.5", "z_loss_alpha_1e-05", "gradient_l1", "gradient_l2",
        "gradient_linf", "gradient_l2_smoothed_torch_eps_0.05",
    ]  # fmt: skip
    table = measure_objectives(language.run, options).table.set_index("objective")
    assert table.loc["smoothed_torch_nats", "convention"] == "torch: eps/V on every entry, eps 0.05"
    assert table.loc["smoothed_fairseq_nats", "convention"] == "fairseq: eps/(V-1) on the others, eps 0.05"
    assert table["unit"].unique().tolist() == ["nats per token", "nats² per token", "per token"]


def test_the_finding_says_that_exp_is_no_perplexity(language):
    result = measure_objectives(language.run)
    mean = result.table.set_index("objective")["mean"]
    assert f"{mean['smoothed_torch_nats']:.6f} nats = hard part {mean['smoothed_hard_part_nats']:.6f}" in result.finding
    assert f"that is {math.exp(mean['nll_nats']):.4f}" in result.finding
    assert f"floor {result.smoothed_torch_floor_nats:.6f}" in result.finding
    plain = measure_objectives(language.run, ObjectiveOptions(smoothing=0)).finding
    assert plain == f"no smoothing (eps 0): the loss is the hard loss, {mean['nll_nats']:.6f} nats"


def test_blocks_of_one_document_have_an_interval_and_a_warning(make_run):
    size = 2 * BLOCK_TOKENS
    bits = ["first_token", *[1.0 + index // BLOCK_TOKENS for index in range(1, size)]]
    run = make_run([Doc([b"a"] * size, bits)])
    result = measure_objectives(run)
    assert result.interval_unit == "block"
    assert any("2 blocks of 4,096 tokens and are a lower bound" in note for note in result.notes)
    assert result.table.loc[0, "low"] < 1.5 * LN2 < result.table.loc[0, "high"]
    narrow = measure_objectives(run, ObjectiveOptions(where=("token < 100",)))
    assert narrow.table["low"].isna().all()
    assert narrow.notes[0] == "the selection lies in one block: no interval can be given"


# Weights


def test_weights_share_out_every_objective_by_loss(language):
    frame = per_token(language.run)
    weights = measure_objectives(language.run).weights
    for name in ("nll_nats", "focal_nats", "z_loss", "gradient_l2"):
        rows = weights[weights["objective"] == name]
        edges = [*rows["loss_low_nats"], rows["loss_high_nats"].iloc[-1]]
        counts, _ = np.histogram(frame["nll_nats"], edges)
        sums, _ = np.histogram(frame["nll_nats"], edges, weights=frame[name])
        assert rows["count"].tolist() == counts.tolist()
        np.testing.assert_allclose(rows["share_of_objective"], sums / frame[name].sum(), rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(rows["share_of_tokens"], counts / 700, rtol=1e-12)
        np.testing.assert_allclose(rows["mean"], np.where(counts, sums / np.maximum(counts, 1), np.nan), rtol=1e-9)
    nll = weights[weights["objective"] == "nll_nats"]
    assert (nll["loss_high_nats"] - nll["loss_low_nats"] == 0.5).all()


def test_very_hard_tokens_share_the_last_bin_and_empty_bins_have_no_mean(make_run):
    run = make_run([words("first_token", 1, 19.9 / LN2, 20.1 / LN2, 500 / LN2)])
    weights = measure_objectives(run).weights
    nll = weights[weights["objective"] == "nll_nats"].set_index("loss_low_nats")
    assert nll["count"][nll["count"] > 0].to_dict() == {0.5: 1, 19.5: 1, 20.0: 2}
    assert nll.loc[20.0, "loss_high_nats"] == math.inf
    assert nll.loc[5.0, ["share_of_tokens", "share_of_objective"]].tolist() == [0.0, 0.0]
    assert math.isnan(nll.loc[5.0, "mean"])
    assert nll["share_of_objective"].sum() == pytest.approx(1)


def test_nothing_has_no_shares(language):
    weights = measure_objectives(language.run, ObjectiveOptions(z_weight=0)).weights
    assert weights[weights["objective"] == "z_loss"]["share_of_objective"].isna().all()


# Which rows


@pytest.mark.parametrize(("context", "stride"), [(8, None), (8, 3), (8, 8), (5, 1), (1, None)])
def test_full_windows_are_those_whose_last_row_has_the_whole_context(draw, context, stride):
    rng = np.random.default_rng(5)
    logits = draw_logits(rng, 150, 12)
    sizes = [1, 7, 8, 9, 16, 17, 40, 52]  # scored tokens: below, at and above whole windows
    documents = np.repeat(np.arange(len(sizes)), sizes)
    run = draw(logits, draw_targets(rng, logits), documents, context=context, stride=stride, rows_per_part=31).run
    rows = run.query("SELECT * FROM tokens ORDER BY document, token")
    longest = rows.groupby("window")["context"].transform("max")
    expected = rows[(longest == context) & rows["unscored"].isna()]
    frame = per_token(run, full_windows=True)
    assert 0 < len(expected) < 150 or context == 1
    assert frame[["document", "token"]].to_numpy().tolist() == expected[["document", "token"]].to_numpy().tolist()
    result = measure_objectives(run, ObjectiveOptions(full_windows=True))
    assert result.table.loc[0, "mean"] == pytest.approx(expected["loss_nats"].astype(float).mean(), rel=1e-9)
    assert result.tokens_scored == len(expected)


@pytest.mark.parametrize("scored", [20, 99, 100, 101, 120])
def test_a_trainers_smoothed_validation_loss_is_reproduced(draw, scored):
    # One text of n tokens, windows of S inputs one after another, targets shifted by one, the tail dropped.
    size, rng = 20, np.random.default_rng(scored)
    logits = draw_logits(rng, scored, 30)
    drawn = draw(logits, draw_targets(rng, logits), context=size)
    tokens = scored + 1
    windows = (tokens - size - 1) // size + 1
    batch_means = [
        torch_losses_of(drawn, slice(k * size, (k + 1) * size)) for k in range(windows)
    ]  # equal sizes: the mean of means is the token mean
    full = measure_objectives(drawn.run, ObjectiveOptions(smoothing=0.1, full_windows=True))
    cut = measure_objectives(drawn.run, ObjectiveOptions(smoothing=0.1, where=(f"token <= {windows * size}",)))
    for result in (full, cut):
        row = result.table.set_index("objective").loc["smoothed_torch_nats"]
        assert row["mean"] == pytest.approx(np.mean(batch_means), rel=STORED)
        assert row["mean_of_means_1"] == pytest.approx(row["mean"], rel=1e-12)
    assert full.table.equals(cut.table)


def torch_losses_of(drawn, rows) -> float:
    z, y = torch.from_numpy(drawn.logits[rows]), torch.from_numpy(drawn.targets[rows])
    return float(cross_entropy(z, y, label_smoothing=0.1))


def test_a_models_validation_loop_is_reproduced_from_its_run(tmp_path):
    text, size = "The quick brown fox jumps over the lazy dog; " * 9 + "and stops.", 16
    model = SmallModel()
    given = checkpoint(model, tokenizer=ByteTokenizer(adds_bos=False))
    run = score(given, StringSource([text]), ScoreOptions(context=size), output=tmp_path / "run").run
    ids = torch.from_numpy(given.tokenizer.encode(text).ids).long()
    starts = range(0, len(ids) - size, size)  # windows whose inputs and shifted targets both fit
    total, count = 0.0, 0
    for first in range(0, len(starts), 4):
        inputs = torch.stack([ids[s : s + size] for s in starts[first : first + 4]])
        targets = torch.stack([ids[s + 1 : s + size + 1] for s in starts[first : first + 4]])
        loss = cross_entropy(model(inputs).flatten(0, 1).double(), targets.flatten(), label_smoothing=0.1)
        total, count = total + float(loss) * targets.numel(), count + targets.numel()
    result = measure_objectives(run, ObjectiveOptions(full_windows=True))
    assert result.tokens_scored == count < len(ids) - 1
    assert result.table.set_index("objective").loc["smoothed_torch_nats", "mean"] == pytest.approx(
        total / count, abs=2e-6
    )


def test_conditions_and_full_windows_hold_together(language):
    both = per_token(language.run, where=("loss > 2 and context<=20", "document < 9"), full_windows=True)
    full = per_token(language.run, full_windows=True)
    expected = full[(full["nll_nats"] > 2) & (full["context"] <= 20) & (full["document"] < 9)]
    assert len(both) > 0
    pd.testing.assert_frame_equal(both, expected.reset_index(drop=True))
    clusters = measure_objectives(language.run, ObjectiveOptions(where=("document < 9",)))
    assert "intervals: over the 9 documents with selected tokens" in clusters.notes


def test_rows_come_in_batches_in_the_order_of_the_run(make_run, monkeypatch):
    run = make_run([words("first_token", *[1 + n % 7 for n in range(3000)]) for _ in range(2)], context=100)
    monkeypatch.setattr(reader, "BATCH_ROWS", 2048)
    for full in (False, True):
        batches = list(objective_batches(run, ObjectiveOptions(full_windows=full)))
        assert max(batch.num_rows for batch in batches) <= 2048 < sum(batch.num_rows for batch in batches)
        frame = pd.concat([batch.to_pandas() for batch in batches], ignore_index=True)
        pd.testing.assert_frame_equal(frame, frame.sort_values(["document", "token"], ignore_index=True))


def test_unscored_tokens_are_no_rows(make_run):
    run = make_run([words("first_token", 1, "masked", 3, "special")])
    assert per_token(run)["nll_nats"].tolist() == pytest.approx([LN2, 3 * LN2])
    assert measure_objectives(run).tokens_scored == 2


def test_one_token_has_numbers_but_no_interval(draw):
    result = measure_objectives(draw([[0.0, 1.0, 2.0]]).run)
    assert result.tokens_scored == 1
    assert result.table["mean"].notna().all()
    assert result.table[["low", "high"]].isna().all().all()
    assert result.micro_batches["covariance_term"].tolist() == [0.0] * len(result.micro_batches)
    assert "no interval can be given" in result.notes[0]


@pytest.mark.parametrize(
    ("choices", "words_"),
    [
        ({"where": ("loss > 1000",)}, 'no scored token meets "loss_nats" > 1000.0'),
        ({"full_windows": True}, "no scored token meets TRUE in a full window of 64 input tokens"),
    ],
)
def test_an_empty_selection_is_refused(draw, choices, words_):
    run = draw(np.zeros((5, 3)), context=64).run
    with pytest.raises(NothingToScoreError) as caught:
        measure_objectives(run, ObjectiveOptions(**choices))
    assert caught.value.message == words_
    assert list(objective_batches(run, ObjectiveOptions(**choices))) == []


@pytest.mark.parametrize("column", ["loss_nats", "uniform_loss_nats", "log_z", "margin_nats", "sum_p2", "top_prob"])
def test_a_stored_nan_is_refused_with_its_place(draw, column):
    run = draw(np.eye(50), documents=np.arange(50) // 20).run
    path = run.path / "tokens/part-00000.parquet"
    table = pq.read_table(path)
    values = table[column].to_numpy(zero_copy_only=False).copy()
    values[37] = math.nan
    place = table["document"][37].as_py(), table["token"][37].as_py()
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, [values.astype("float32")]), path)
    with pytest.raises(OutputError) as caught:
        measure_objectives(open_run(run.path))
    assert caught.value.id == "run.not_finite"
    assert f"document {place[0]}, token {place[1]}: a stored number is not finite" in caught.value.message


@pytest.mark.parametrize(
    "choices",
    [
        {"smoothing": -0.1}, {"smoothing": 1.1}, {"smoothing": math.nan}, {"focal": -1}, {"focal": math.inf},
        {"margin": -1}, {"z_weight": -1e-9}, {"z_weight": math.inf}, {"micro_batch": (8, 0)}, {"batch_tokens": 0},
        {"where": ("loss",)},
    ],
)  # fmt: skip
def test_impossible_options_are_refused_before_anything_is_scored(choices):
    with pytest.raises(UsageError):
        ObjectiveOptions(**choices)
