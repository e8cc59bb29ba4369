"""Which windows share a forward pass: every pass asks the models, in one place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import ByteTokenizer, SmallModel, checkpoint

from lossprobe.checkpoint.desmoothed import DesmoothedCheckpoint
from lossprobe.plan.rows import SCORED, WindowPolicy, cut_parts, plan_documents
from lossprobe.scoring.batches import batches_of
from lossprobe.scoring.measure import PassOptions
from lossprobe.scoring.pair import compare_part
from lossprobe.scoring.reference import reference_losses
from lossprobe.scoring.scorer import score_part

LENGTHS = [5, 30, 12, 12, 70, 5, 33, 12]


@pytest.fixture
def rows():
    text = "".join(map(chr, np.random.default_rng(2).integers(97, 123, 100)))
    tokens = [ByteTokenizer().encode(text[:length]) for length in LENGTHS]
    (part,) = cut_parts(plan_documents(tokens, WindowPolicy(32, 32, 256)))
    return part


class Watched:
    """A model that notes the shape of every batch, and whose logits depend on its width or on its other rows."""

    def __init__(self, by):
        self.by, self.shapes, self.inner = by, [], SmallModel()

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(ids.shape))
        logits = self.inner(ids)
        if self.by == "length":
            return logits * (1 + 1 / ids.shape[1])
        return logits + (logits.mean(dim=0, keepdim=True) if self.by == "rows" else 0.0)


def test_windows_of_unlike_length_share_a_batch_only_where_the_model_does_not_mind(rows):
    models = {batching: checkpoint(batching=batching) for batching in ("padded", "equal lengths", "one window")}
    sizes = {name: [len(b.windows) for b in batches_of(rows, None, model)] for name, model in models.items()}
    assert sizes["padded"] == [len(LENGTHS) + 3]  # 70 is three windows, 33 two: 32 tokens of input each
    assert sizes["equal lengths"] == [3, 1, 3, 1, 2, 1]
    assert sizes["one window"] == [1] * 11
    assert [len(b.windows) for b in batches_of(rows, 2, models["equal lengths"])] == [2, 1, 1, 2, 1, 1, 2, 1]
    for model in models.values():
        found = [id(window) for batch in batches_of(rows, 2, model) for _, window in batch.windows]
        assert len(found) == len(set(found)) == 11


@pytest.mark.parametrize(("by", "batching"), [("length", "equal lengths"), ("rows", "one window")])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_every_pass_keeps_apart_what_a_model_minds(rows, by, batching, batch_size):
    model = Watched(by)
    expected = score_part(checkpoint(Watched(by)), rows, 0, PassOptions(1)).columns["loss_nats"]
    minding = checkpoint(model, batching=batching)
    score = score_part(minding, rows, 0, PassOptions(batch_size)).columns["loss_nats"]
    np.testing.assert_allclose(score, expected, atol=1e-5)
    scored = expected[rows.unscored[rows.own] == SCORED]
    np.testing.assert_allclose(reference_losses(minding, rows, batch_size), scored, atol=1e-5)
    for pair in ((minding, checkpoint(SmallModel(1))), (checkpoint(SmallModel(1)), DesmoothedCheckpoint(minding, 0.0))):
        both = compare_part(pair, rows, PassOptions(batch_size))
        losses = both.first_loss_nats if pair[0] is minding else both.second_loss_nats
        np.testing.assert_allclose(losses, scored, atol=1e-5)
    assert max(rows for rows, _ in model.shapes) <= (batch_size or 3)


def test_a_function_that_minds_and_does_not_say_so_gives_other_losses(rows):
    alone, together = (score_part(checkpoint(Watched("rows")), rows, 0, PassOptions(size)) for size in (1, 3))
    assert np.abs(alone.columns["loss_nats"] - together.columns["loss_nats"]).max() > 0.1


def test_a_function_says_one_of_three():
    with pytest.raises(ValueError, match="batching must be one of padded, equal lengths, one window, not 'alone'"):
        checkpoint(batching="alone")
