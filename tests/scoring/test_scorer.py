"""The pass: closed-form models, one plain cross-entropy call, any batch size, errors that name the token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import SUCCESSOR_RIGHT, VOCAB, ByteTokenizer, SmallModel, checkpoint, successor_logits, uniform_logits
from torch.nn import functional

from lossprobe.errors import CheckpointError, ResourceError
from lossprobe.plan.rows import SCORED, WindowPolicy, cut_parts, plan_documents
from lossprobe.plan.windows import Window
from lossprobe.scoring.batches import make_batches
from lossprobe.scoring.measure import PassOptions, not_finite_hint
from lossprobe.scoring.scorer import score_part

TEXT = "abcabcabd, and zebras. " * 9


def part(texts, context=16, stride=None, bos=256):
    policy = WindowPolicy(context, stride or context, bos)
    documents = [ByteTokenizer().encode(text) for text in texts]
    return next(iter(cut_parts(plan_documents(documents, policy), 10**6)))


def losses(rows, model, batch_size=None):
    return score_part(checkpoint(model), rows, 0, PassOptions(batch_size)).columns["loss_nats"]


def test_a_uniform_model_loses_log_v_everywhere():
    rows = part([TEXT])
    result = score_part(checkpoint(uniform_logits), rows, 0, PassOptions())
    scored = rows.unscored == SCORED
    np.testing.assert_allclose(result.columns["loss_nats"][scored], np.log(VOCAB), atol=1e-12)
    assert (result.columns["ties"][scored] == VOCAB).all()


def test_a_model_with_a_known_answer():
    rows = part(["abcx"])
    got = losses(rows, successor_logits)[1:]
    # a: after BOS (id 256) the model expects id 0; b and c are right; x is not what follows c.
    np.testing.assert_allclose(
        got, [SUCCESSOR_RIGHT + 5, SUCCESSOR_RIGHT, SUCCESSOR_RIGHT, SUCCESSOR_RIGHT + 5], atol=1e-6
    )


@pytest.mark.parametrize("stride", [None, 1, 5])
def test_against_one_plain_cross_entropy_per_window(stride):
    model = SmallModel()
    rows = part([TEXT], stride=stride)
    ids = torch.from_numpy(rows.token_id)
    got = losses(rows, model)
    for token in range(1, len(rows), 7):
        start = token - int(rows.context[token])
        logits = model(ids[None, start:token])[0, -1].double()
        expected = functional.cross_entropy(logits[None], ids[token][None])
        assert got[token] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
def test_the_result_does_not_depend_on_the_batch_size(batch_size):
    rows = part([TEXT, "short", "x", TEXT[:50]], stride=5)
    reference = score_part(checkpoint(SmallModel()), rows, 0, PassOptions(None))
    other = score_part(checkpoint(SmallModel()), rows, 0, PassOptions(batch_size))
    for name, values in reference.columns.items():
        # Only the rounding of one matrix product may differ, and no count may.
        np.testing.assert_allclose(other.columns[name], values, atol=2e-5, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(other.histogram[1].sum(-1), reference.histogram[1].sum(-1), rtol=1e-6)  # float32 exp
    np.testing.assert_array_equal(other.ladder_rows, reference.ladder_rows)
    np.testing.assert_allclose(other.ladder, reference.ladder, atol=2e-5)


def test_padding_and_neighbours_change_nothing():
    alone = losses(part(["zebra"]), SmallModel())
    beside = losses(part(["zebra", TEXT]), SmallModel(), batch_size=100)
    np.testing.assert_allclose(beside[: len(alone)], alone, atol=1e-6)


def test_histogram_and_ladder_belong_to_the_right_documents():
    rows = part(["abc", "defgh"])
    result = score_part(checkpoint(SmallModel()), rows, 0, PassOptions())
    assert result.histogram_documents.tolist() == [0, 1]
    assert result.histogram[2].sum(-1).tolist() == [3, 5]
    np.testing.assert_allclose(result.histogram[1].sum(-1), [3, 5], rtol=1e-6)
    assert result.histogram[0].sum(-1).tolist() == [3 * VOCAB, 5 * VOCAB]
    assert result.ladder_rows.tolist() == [1, 2, 3, 5, 6, 7, 8, 9]


def test_the_ladder_sample_follows_the_row_of_the_run():
    rows = part(["abcdefgh"])
    result = score_part(checkpoint(SmallModel()), rows, first_row=1, options=PassOptions(sample_every=3))
    # Run rows 1..9 are part rows 0..8; multiples of 3 are rows 3, 6, 9, which are part rows 2, 5, 8.
    assert result.ladder_rows.tolist() == [2, 5, 8]


def test_longest_windows_go_first_and_batches_fill_the_budget():
    windows = [(0, Window(0, 5, 1)), (0, Window(0, 17, 1)), (0, Window(0, 9, 1))]
    batches = make_batches(windows, None, 1024)
    assert [window.stop for _, window in batches[0].windows] == [17, 9, 5]
    assert [len(batch.windows) for batch in make_batches(windows, 2, 1024)] == [2, 1]
    assert batches[0].width == 16


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_names_its_token(wrong):
    def broken(ids):
        logits = uniform_logits(ids)
        logits[..., 7] = torch.where(ids == ord("c"), wrong, 0.0)
        return logits

    with pytest.raises(CheckpointError, match=r"document 0, token 4 \(id 100\): the loss is (nan|inf)") as caught:
        losses(part(["abcd"]), broken)
    assert caught.value.id == "scoring.non_finite_loss"
    assert "dtype" not in (caught.value.hint or "")  # float32 is the widest


def test_half_precision_may_be_the_cause_of_a_loss_that_is_no_number():
    assert [name for name in ("bfloat16", "float16", "float32", "llama.cpp") if "dtype" in not_finite_hint(name)] == [
        "bfloat16", "float16",
    ]  # fmt: skip


def test_batches_are_halved_when_memory_runs_out():
    sizes = []

    def hungry(ids):
        sizes.append(len(ids))
        if len(ids) > 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return uniform_logits(ids)

    rows = part([TEXT])
    progress = []
    result = score_part(checkpoint(hungry), rows, 0, PassOptions(advance=progress.append))
    assert sizes[:3] == [13, 6, 3]
    assert sum(progress) == int((rows.unscored == SCORED).sum())
    np.testing.assert_allclose(result.columns["loss_nats"][1:], np.log(VOCAB), atol=1e-12)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_out_of_memory_is_an_error_when_it_cannot_be_helped(batch_size):
    def hungry(ids):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(ResourceError, match="out of memory") as caught:
        losses(part([TEXT]), hungry, batch_size)
    assert caught.value.exit_code == 7


def test_other_errors_of_the_model_are_not_hidden():
    def broken(ids):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        losses(part([TEXT]), broken)
