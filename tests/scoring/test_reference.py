"""The plain way to losses: against one float64 forward pass a window, and with padding on either side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checkpoint import builders
from fakes import VOCAB as BYTES
from fakes import SmallModel, checkpoint

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.interface import LeftPadding, Tokens
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.plan.rows import SCORED, Rows, WindowPolicy, cut_parts, plan_documents
from lossprobe.scoring.measure import PassOptions
from lossprobe.scoring.reference import other_threads, reference_losses
from lossprobe.scoring.scorer import score_part


def planned(sizes, policy: WindowPolicy, vocab: int = BYTES, part_rows: int = 10_000) -> list[Rows]:
    """Return the parts of documents of random tokens, some of them unknown."""
    rng = np.random.default_rng(5)
    documents = []
    for size in sizes:
        ids = rng.integers(3, vocab - 1, size).astype(np.int32)
        documents.append(Tokens(ids, np.arange(1, size + 1), ids % 11 == 0))
    return list(cut_parts(plan_documents(documents, policy), part_rows))


def direct(model, rows: Rows) -> np.ndarray:
    """Return the loss of each scored row of its own, from a forward pass over what it sees and nothing else."""
    found = []
    for row in np.flatnonzero(rows.own & (rows.unscored == SCORED)):
        seen = torch.from_numpy(rows.token_id[row - rows.context[row] : row])
        with torch.no_grad():
            logs = torch.log_softmax(model(seen[None])[0, -1].double(), -1)
        found.append(-logs[rows.token_id[row]].item())
    return np.array(found)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("policy", [WindowPolicy(12, 12, 256), WindowPolicy(9, 4)])
def test_losses_are_those_of_single_windows(policy, batch_size):
    for part in planned([30, 7, 2, 19], policy, part_rows=20):
        expected = direct(SmallModel(), part)
        assert len(expected) > 5
        losses = reference_losses(checkpoint(SmallModel()), part, batch_size)
        assert losses.dtype == np.float64
        np.testing.assert_allclose(losses, expected, rtol=2e-6)
        fast = score_part(checkpoint(SmallModel()), part, 0, PassOptions(batch_size)).columns["loss_nats"]
        scored = part.take(part.own).unscored == SCORED
        np.testing.assert_allclose(np.asarray(fast)[scored], losses, rtol=1e-5)


def test_the_sum_over_the_vocabulary_is_in_float64():
    """Logits whose exponentials float32 cannot add: 1 + 256 · 1e-8 would be 1."""

    def steep(ids):
        logits = torch.full((*ids.shape, BYTES), -18.420681)
        logits[..., 0] = 0.0
        return logits

    (part,) = planned([20], WindowPolicy(9, 9))
    wanted = np.log1p(256 * np.exp(np.float64(np.float32(-18.420681)))) - np.float64(np.float32(-18.420681))
    np.testing.assert_allclose(reference_losses(checkpoint(steep), part), wanted, rtol=1e-14)


def test_logits_are_made_in_chunks(monkeypatch):
    monkeypatch.setattr("lossprobe.scoring.reference.chunk_rows", lambda vocab_size: 7)
    sizes = []
    made = checkpoint(SmallModel())
    monkeypatch.setattr(made, "logits", lambda hidden: sizes.append(len(hidden)) or hidden)
    (part,) = planned([30], WindowPolicy(12, 12))
    np.testing.assert_allclose(reference_losses(made, part), direct(SmallModel(), part), rtol=2e-6)
    assert max(sizes) == 7


@pytest.mark.parametrize("head", ["as it is", "full"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_padding_on_the_left_gives_what_padding_on_the_right_gives(family, head, tmp_path):
    model = builders.model(family)
    loaded = load_huggingface(builders.save(model, tmp_path / family), LoadOptions())
    if head == "full":
        loaded.facts = loaded.facts.__class__(**{**vars(loaded.facts), "head": "full"})
    assert isinstance(loaded, LeftPadding)
    assert not isinstance(checkpoint(SmallModel()), LeftPadding)
    (part,) = planned([40, 5, 23, 2, 17], WindowPolicy(16, 16, 1), builders.VOCABULARY)
    right, left = (reference_losses(loaded, part, 4, left_padded=each) for each in (False, True))
    np.testing.assert_allclose(left, right, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(right, direct(lambda ids: model(ids).logits, part), atol=1e-5, rtol=1e-5)
    ids = torch.full((2, 9), 7)
    hidden = loaded.hidden_left_padded(ids, torch.tensor([0, 4]))
    torch.testing.assert_close(hidden[0], loaded.hidden(ids)[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(hidden[1, 4:], loaded.hidden(ids[:1, 4:])[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("before", [1, 2])
def test_other_threads_within_the_block_and_as_many_as_before_after_it(before):
    found = torch.get_num_threads()
    try:
        torch.set_num_threads(before)
        with other_threads() as used:
            assert used == (3 - before, before)
            assert torch.get_num_threads() == 3 - before
        assert torch.get_num_threads() == before
        with pytest.raises(ZeroDivisionError), other_threads():
            assert 1 / 0
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(found)
