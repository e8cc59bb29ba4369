"""De-smoothing removes the uniform part, keeps the order of the entries, and makes a separate run."""

import math

import numpy as np
import pytest
import torch
from fakes import VOCAB, SmallModel, checkpoint
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.checkpoint.desmoothed import KEPT_SHARE, DesmoothedCheckpoint
from lossprobe.passes.score import score
from lossprobe.text.documents import StringSource


def desmoothed(logits: np.ndarray, epsilon: float) -> np.ndarray:
    """Return the probabilities that a de-smoothed checkpoint gives for some logits of a model."""
    inner = checkpoint(lambda ids: torch.zeros((*ids.shape, VOCAB)))
    outer = DesmoothedCheckpoint(inner, epsilon)
    return torch.softmax(outer.logits(torch.from_numpy(logits).float()).double(), dim=-1).numpy()


def test_the_worked_row_of_the_docstring():
    q = np.array([[0.025, 0.925, 0.025, 0.025]])
    expected = np.array([[0.0025, 0.9, 0.0025, 0.0025]]) / 0.9075
    assert desmoothed(np.log(q), 0.1) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("vocabulary", [7, 512, 50_257])
def test_the_smoothed_optimum_gives_the_true_distribution_back(epsilon, vocabulary):
    p = np.random.default_rng(0).dirichlet(np.full(vocabulary, 0.3), size=5)
    q = (1 - epsilon) * p + epsilon / vocabulary
    found = desmoothed(np.log(q), epsilon)
    exact = (1 - epsilon) * p > 2 * KEPT_SHARE * q  # well above the share that every entry keeps
    for row in range(len(p)):
        ratio = (found[row] / p[row])[exact[row]]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    assert np.abs(found - p).sum(axis=-1).max() < 2 * KEPT_SHARE * epsilon / (1 - epsilon)


@given(st.integers(0, 10_000), st.floats(0.0, 0.95))
def test_it_is_the_formula_in_float64_and_keeps_the_order(seed, epsilon):
    logits = np.random.default_rng(seed).normal(scale=4.0, size=(3, 33)).astype(np.float32).astype(float)
    q = np.exp(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))
    expected = np.maximum(q - epsilon / 33, KEPT_SHARE * q)
    expected /= expected.sum(axis=-1, keepdims=True)
    found = desmoothed(logits, epsilon)
    assert found == pytest.approx(expected, rel=2e-4, abs=1e-9)
    assert (found.argmax(axis=-1) == logits.argmax(axis=-1)).all()


def test_masked_entries_stay_impossible_and_nothing_becomes_nan():
    logits = np.array([[0.0, -math.inf, 5.0], [-200.0, 0.0, -math.inf]])
    found = desmoothed(logits, 0.1)
    assert np.isfinite(found).all()
    assert found[0, 1] == found[1, 2] == 0.0


def test_nothing_is_taken_off_at_zero():
    logits = np.random.default_rng(1).normal(size=(4, VOCAB))
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert desmoothed(logits, 0.0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, math.nan])
def test_an_impossible_epsilon_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        DesmoothedCheckpoint(checkpoint(), epsilon)


def test_the_run_is_one_of_its_own(tmp_path):
    inner, text = checkpoint(SmallModel()), StringSource(["abc " * 10, "xyz"])
    plain = score(inner, text, output=tmp_path / "plain").run
    run = score(DesmoothedCheckpoint(inner, 0.1), text, output=tmp_path / "run").run
    other = score(DesmoothedCheckpoint(inner, 0.2), text, output=tmp_path / "other").run
    hashes = {each.manifest["settings"]["checkpoint"]["sha256"] for each in (plain, run, other)}
    assert len(hashes) == 3
    assert run.name == f"{plain.name} de-smoothed 0.1"
    ranks = [each.query("SELECT rank, top_id FROM tokens ORDER BY document, token") for each in (plain, run)]
    assert ranks[0].equals(ranks[1])
    assert plain.scalar("SELECT sum(loss_nats) FROM tokens") != run.scalar("SELECT sum(loss_nats) FROM tokens")


def test_a_model_without_identity_has_none_de_smoothed_either():
    assert DesmoothedCheckpoint(checkpoint(sha256=""), 0.1).facts.sha256 == ""
