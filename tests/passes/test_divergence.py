"""Tests the pass of two models: against a direct computation, for any batch size, and with refused inputs."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import ByteTokenizer, SmallModel, checkpoint, uniform_logits
from planned import rolling_windows

from lossprobe.checkpoint.families.callable import CallableCheckpoint
from lossprobe.errors import (
    CheckpointError,
    NotComparableError,
    NothingToScoreError,
    TextError,
    UsageError,
)
from lossprobe.passes import planning
from lossprobe.passes.divergence import measure_divergence
from lossprobe.passes.score import score
from lossprobe.plan import rows as plan
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource

NIGHT = "".join(map(chr, np.random.default_rng(1).integers(97, 123, 300)))  # no period, so that no two tokens tie
TEXTS = ["abcdefg", NIGHT, "", "xyz", "café ☃ " + NIGHT[::-1][:150]]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    """Make several parts of a few hundred tokens, and keep what is stored apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 250))


def unnamed(function, **choices):
    """Return a checkpoint that cannot be identified, so that nothing of it is reused."""
    return checkpoint(function, sha256="", **choices)


def measured(first=None, second=None, texts=TEXTS, progress=None, **options):
    models = (first or SmallModel(0), second or SmallModel(1))
    pair = [one if isinstance(one, CallableCheckpoint) else unnamed(one) for one in models]
    return measure_divergence(*pair, StringSource(texts), ScoreOptions(**options), progress, top=20)


@functools.cache
def usual():
    """Return the divergence of the two small models under the options of a model, which several tests read."""
    return measured()


def direct(texts, context, stride, bos):
    """Return the numbers of every scored token, computed in float64 from one forward pass of both models per window."""
    found = []
    for number, text in enumerate(texts):
        ids = torch.tensor([*([256] if bos else []), *text.encode()])
        for window in rolling_windows(len(ids), context, stride):
            inputs = ids[None, window.start : window.stop - 1]
            if not inputs.numel():
                continue
            logs = [torch.log_softmax(SmallModel(seed)(inputs)[0].double(), -1) for seed in (0, 1)]
            for token in range(window.first_scored, window.stop):
                a, b = (log[token - 1 - window.start] for log in logs)
                y = ids[token]
                kl = math.fsum((a.exp() * (a - b)).tolist())
                found.append(
                    (number, token, int(y), kl, a.argmax() == b.argmax(), b[y].exp() - a[y].exp(), -a[y], -b[y])
                )
    return [np.array(column, float) for column in zip(*found, strict=True)]


@pytest.mark.parametrize(
    ("context", "stride", "bos"), [(32, None, True), (16, 5, True), (16, None, False), (7, 1, True)]
)
def test_against_both_models_logits_held_at_once(context, stride, bos):
    result = measured(context=context, stride=stride, bos="auto" if bos else "never")
    document, token, token_id, kl, same, change, *losses = direct(TEXTS, context, stride, bos)
    assert result.tokens == len(kl)
    assert result.mean_kl_nats == pytest.approx(kl.mean(), rel=2e-6)
    assert result.same_top_share == same.mean()
    assert 0 < same.mean() < 1
    assert result.rms_target_prob_change == pytest.approx(math.sqrt((change**2).mean()), rel=1e-5)
    assert result.first_mean_loss == pytest.approx(losses[0].mean(), rel=1e-6)
    assert result.second_mean_loss == pytest.approx(losses[1].mean(), rel=1e-6)
    for found, values in (
        (result.kl_percentiles, kl),
        (result.target_prob_change_percentiles, change),
    ):
        np.testing.assert_allclose(
            list(found.values()), np.quantile(values, [*map(float, found)]), rtol=2e-5, atol=1e-8
        )
    table = result.hardest
    np.testing.assert_allclose(table["kl_nats"], np.sort(kl)[::-1][:20], rtol=2e-5)
    # Two tokens whose divergences are equal but for rounding may stand in either order.
    places = {place: row for row, place in enumerate(zip(document, token, strict=True))}
    shown = [places[place] for place in zip(table["document"], table["token"], strict=True)]
    assert len(set(shown)) == 20
    np.testing.assert_allclose(table["kl_nats"], kl[shown], rtol=2e-5)
    assert table["token_id"].tolist() == token_id[shown].tolist()
    np.testing.assert_allclose(table["first_loss_nats"], losses[0][shown], rtol=1e-5)
    np.testing.assert_allclose(table["second_loss_nats"], losses[1][shown], rtol=1e-5)


def test_intervals_leave_out_one_document_after_the_other():
    result = usual()
    document, _, _, kl, same, change, *_ = direct(TEXTS, 32, None, bos=True)
    for interval, statistic, values in (
        (result.mean_kl_nats_interval, np.mean, kl),
        (result.same_top_share_interval, np.mean, same),
        (result.rms_target_prob_change_interval, lambda part: math.sqrt(np.mean(part**2)), change),
    ):
        rest = np.array([statistic(values[document != one]) for one in np.unique(document)])
        assert len(rest) == 4
        half = 3.182446 * math.sqrt(3 / 4 * ((rest - rest.mean()) ** 2).sum())  # t quantile of 3 degrees of freedom
        assert interval.low == pytest.approx(max(0.0, statistic(values) - half), rel=1e-5)
        assert interval.high == pytest.approx(statistic(values) + half, rel=1e-5)


def test_losses_are_those_of_the_stored_runs(tmp_path):
    result = measured(stride=5)
    for seed, mean in ((0, result.first_mean_loss), (1, result.second_mean_loss)):
        run = score(
            checkpoint(SmallModel(seed)), StringSource(TEXTS), ScoreOptions(stride=5), output=tmp_path / str(seed)
        ).run
        stored = run.query("SELECT avg(loss_nats::DOUBLE) AS mean, count(*) AS n FROM tokens WHERE unscored IS NULL")
        assert mean == pytest.approx(stored["mean"][0], abs=1e-7)
        assert result.tokens == stored["n"][0]


def test_a_model_against_itself_is_exactly_alike():
    result = measured(SmallModel(3), SmallModel(3), stride=5)
    assert (result.mean_kl_nats, *result.mean_kl_nats_interval) == (0.0, 0.0, 0.0)
    assert (result.same_top_share, *result.same_top_share_interval) == (1.0, 1.0, 1.0)
    assert (result.rms_target_prob_change, *result.rms_target_prob_change_interval) == (0.0, 0.0, 0.0)
    assert set(result.kl_percentiles.values()) == set(result.target_prob_change_percentiles.values()) == {0.0}
    assert result.first_mean_loss == result.second_mean_loss


@pytest.mark.thorough
@pytest.mark.parametrize("batch_size", [1, 2, 1000])
def test_the_result_does_not_depend_on_the_batch_size(batch_size):
    reference, other = (measured(stride=5, batch_size=size).table for size in (None, batch_size))
    # Only the rounding of one matrix product may differ.
    np.testing.assert_allclose(other["value"], reference["value"], rtol=2e-5, atol=1e-8)
    np.testing.assert_allclose(other["low"], reference["low"], rtol=2e-5)


def test_nor_on_how_the_text_is_cut_into_parts(monkeypatch):
    small = measured(stride=5)
    monkeypatch.setattr(planning, "cut_parts", plan.cut_parts)
    whole = measured(stride=5)
    np.testing.assert_allclose(small.table["value"], whole.table["value"], rtol=2e-5, atol=1e-8)
    assert small.hardest[["document", "token"]].equals(whole.hardest[["document", "token"]])


def test_progress_counts_each_pass_from_start_to_end():
    seen = []
    measured(progress=lambda done, total: seen.append((done, total)))
    (total,) = {total for _, total in seen}
    starts = [index for index, (done, _) in enumerate(seen) if done == 0 and (not index or seen[index - 1][0])]
    assert len(starts) == 3, "both models and the pair"
    for start, stop in zip(starts, [*starts[1:], len(seen)], strict=True):
        part = seen[start:stop]
        assert part == sorted(part)
        assert part[-1] == (total, total)
        assert len(part) > 3


def test_models_with_another_bos_are_refused():
    other = unnamed(SmallModel(), tokenizer=ByteTokenizer(adds_bos=False))
    with pytest.raises(NotComparableError, match=r"differ in BOS \(256 and None\): a divergence") as caught:
        measured(SmallModel(), other)
    assert caught.value.id == "runs.different"


@pytest.mark.parametrize("limits", [(32, 12), (12, 32)])
def test_the_smaller_context_is_used_and_noted(limits):
    pair = [unnamed(SmallModel(seed), context_length=limit) for seed, limit in enumerate(limits)]
    result = measured(*pair)
    assert result.notes == [f"the models' contexts are {limits[0]} and {limits[1]} tokens: the smaller one for both"]
    assert result.mean_kl_nats == measured(context=12).mean_kl_nats
    with pytest.raises(UsageError, match="`context` 20: the model's limit is 12"):
        measured(*pair, context=20)


def test_what_the_second_model_excludes_is_counted_and_the_mean_is_infinite():
    def half_certain(ids):
        logits = uniform_logits(ids)
        logits[..., :128] = torch.where(ids == ord("x"), -math.inf, 0.0)[..., None]
        return logits

    def excluding(ids):
        logits = uniform_logits(ids)
        logits[..., 7] = torch.where(ids == ord("c"), -math.inf, 0.0)
        return logits

    # After x the first model excludes 128 of 257 entries, after c the second one entry; c and x are followed by others.
    texts = ["xécyz", "xéabcd"]
    result = measured(half_certain, excluding, texts=texts)
    finite = math.log(257 / 129)
    assert result.tokens == 13
    assert result.infinite_kl_tokens == 2
    assert (result.mean_kl_nats, result.mean_kl_nats_interval) == (math.inf, (None, None))
    assert result.kl_percentiles["0.5"] == 0.0
    assert result.kl_percentiles["1"] == result.kl_percentiles["0.9"] == math.inf
    np.testing.assert_allclose(result.hardest["kl_nats"][:5], [math.inf, math.inf, finite, finite, 0.0], rtol=1e-6)
    assert result.hardest[["document", "token"]].to_numpy()[:5].tolist() == [[0, 5], [1, 7], [0, 2], [1, 2], [0, 1]]
    assert result.notes == [
        "KL is infinite on 2 tokens, where the second model excludes an entry that the first does not; "
        f"mean over the others: {2 * finite / 11:.6f} nats"
    ]
    assert "KL(callable #1‖callable #2) inf nats a token (no interval)" in result.finding


def test_models_computed_in_other_dtypes_are_noted():
    other = unnamed(SmallModel(1))
    other.facts = replace(other.facts, compute_dtype="bfloat16")
    assert measured(None, other).notes == ["computed in float32 and bfloat16"]


def test_texts_that_score_refuses_are_refused():
    with pytest.raises(NothingToScoreError):
        measured(texts=["", "a"], bos="never")
    odd = [unnamed(SmallModel(seed), tokenizer=ByteTokenizer(unknown_byte=ord("d"))) for seed in (0, 1)]
    with pytest.raises(TextError, match=r"not in the vocabulary: U\+0064 \(limit 1.00%\)"):
        measured(*odd)
    lenient = measured(*odd, max_unknown=0.5)
    assert lenient.tokens == usual().tokens - "".join(TEXTS).count("d")
    narrow = [CallableCheckpoint(lambda ids: torch.zeros((*ids.shape, 99)), ByteTokenizer(), vocab_size=99)] * 2
    with pytest.raises(CheckpointError, match="gave token id 103, the model has 99"):
        measured(*narrow)


def test_a_text_that_changes_is_refused(monkeypatch):
    monkeypatch.setattr("lossprobe.passes.known_text.KEPT_TEXT_BYTES", 0)  # a short text is read only once

    class Changing(StringSource):
        def documents(self):
            self.texts = [*self.texts, "more"]
            return super().documents()

    with pytest.raises(TextError, match="changed while it was read"):
        measure_divergence(unnamed(SmallModel()), unnamed(SmallModel()), Changing(["abc"]))
