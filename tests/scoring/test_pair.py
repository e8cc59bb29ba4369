"""A part through two models: every scored row once, in text order, whatever order the batches had."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fakes import VOCAB, ByteTokenizer, SmallModel, checkpoint, uniform_logits

from lossprobe.checkpoint.families.callable import CallableCheckpoint
from lossprobe.errors import CheckpointError, ResourceError
from lossprobe.plan.rows import SCORED, WindowPolicy, cut_parts, plan_documents
from lossprobe.scoring.measure import PassOptions
from lossprobe.scoring.pair import compare_part
from lossprobe.scoring.scorer import score_part

TEXTS = ["short", "it was a dark and stormy night", "x", "a much longer text than the others, of several windows"]


def parts(rows_at_most):
    tokens = [ByteTokenizer(unknown_byte=ord("k")).encode(text) for text in TEXTS]
    return list(cut_parts(plan_documents(tokens, WindowPolicy(16, 5, 256)), rows_at_most))


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("rows_at_most", [20, 1000])
def test_every_scored_row_once_and_in_text_order(batch_size, rows_at_most):
    pair = (checkpoint(SmallModel(0)), checkpoint(SmallModel(1)))
    found = []
    for rows in parts(rows_at_most):
        progress = []
        result = compare_part(pair, rows, PassOptions(batch_size, advance=progress.append))
        scored = rows.own & (rows.unscored == SCORED)
        assert sum(progress) == scored.sum() == len(result.kl_nats)
        for name in ("document", "token", "token_id"):
            np.testing.assert_array_equal(getattr(result, name), getattr(rows, name)[scored])
        for model, losses in zip(pair, (result.first_loss_nats, result.second_loss_nats), strict=True):
            alone = score_part(model, rows, 0, PassOptions()).columns["loss_nats"]
            np.testing.assert_allclose(losses, alone[scored[rows.own.argmax() :]], atol=2e-5)
        assert result.same_top.dtype == bool
        found.append(len(result.token))
    assert sum(found) == sum(map(len, TEXTS)) - "".join(TEXTS).count("k")


def test_a_part_without_scored_rows_gives_none():
    (rows,) = plan_documents([ByteTokenizer().encode("")], WindowPolicy(16, 16, 256))
    result = compare_part((checkpoint(SmallModel(0)), checkpoint(SmallModel(1))), rows, PassOptions())
    assert {len(values) for values in vars(result).values()} == {0}


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_model_and_token(which, wrong):
    def broken(ids):
        logits = uniform_logits(ids)
        logits[..., 7] = torch.where(ids == ord("c"), wrong, 0.0)
        return logits

    pair = [checkpoint(uniform_logits, name="good"), checkpoint(uniform_logits, name="good")]
    pair[which] = checkpoint(broken, name="bad")
    (rows,) = cut_parts(plan_documents(map(ByteTokenizer().encode, ["xyz", "abcd"]), WindowPolicy(16, 16, 256)))
    with pytest.raises(CheckpointError, match=r"^bad: document 1, token 4 \(id 100\): the loss is nan") as caught:
        compare_part((pair[0], pair[1]), rows, PassOptions())
    assert caught.value.id == "scoring.non_finite_loss"


def test_no_logits_are_asked_for_beyond_a_chunk(monkeypatch):
    monkeypatch.setattr("lossprobe.scoring.pair.chunk_rows", lambda vocab_size: 10)
    sizes = []

    class Split(CallableCheckpoint):
        def logits(self, hidden):
            sizes.append(len(hidden))
            return super().logits(hidden)

    pair = [Split(SmallModel(seed), ByteTokenizer(), vocab_size=VOCAB, context_length=32) for seed in (0, 1)]
    (rows,) = parts(1000)
    result = compare_part((pair[0], pair[1]), rows, PassOptions())
    assert max(sizes) == 10
    assert sum(sizes) == 2 * len(result.token)
    whole = compare_part((checkpoint(SmallModel(0)), checkpoint(SmallModel(1))), rows, PassOptions())
    np.testing.assert_allclose(result.kl_nats, whole.kl_nats, rtol=1e-5, atol=1e-9)


def test_out_of_memory_is_an_error_and_others_are_not_hidden():
    def failing(message):
        def function(ids):
            raise RuntimeError(message)

        return checkpoint(function)

    (rows,) = parts(1000)
    options, model = PassOptions(2), checkpoint(SmallModel(0))
    with pytest.raises(ResourceError, match="out of memory with two models and 2 windows of up to 16 tokens"):
        compare_part((model, failing("DefaultCPUAllocator: can't allocate memory")), rows, options)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        compare_part((model, failing("shape mismatch")), rows, options)
