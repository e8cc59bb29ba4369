"""Rules on pairs of answers, and on a training and a validation text: against pandas on the stored columns."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_runs import as_pairs
from planted_runs import Planted, frame

from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.gap.gap import measure_gap
from lossprobe.analysis.preferences.preferences import measure_preferences

CLOSE = 1e-5  # columns are float32


def told(view: str, result) -> dict[str, float]:
    """Return the numbers of the findings by rule."""
    return {each.id: each.value for each in findings_of(view, result)}


def test_pairs_whose_chosen_answers_are_less_likely(tmp_path):
    """100 pairs of answers of 20 and 30 tokens in turn, the chosen ones 0.5 nats a token less likely."""
    text = Planted(tokens=5000, documents=200)
    sizes = np.array([20, 30, 30, 20] * 50)
    text.documents = np.repeat(np.arange(200), sizes)
    chosen = text.documents % 2 == 0
    labels = [(1, "assistant", "content")] * (5000 + 200)
    run = as_pairs(text.run(tmp_path, text.lower(chosen, 0.9), labels=labels))
    found = told("preferences", measure_preferences(run))
    means = frame(run).groupby("document")["loss"].mean().to_numpy().reshape(100, 2)
    assert found["chosen-less-likely"] == (means[:, 0] < means[:, 1]).mean()
    right = frame(run).groupby("document")["loss"].sum().to_numpy().reshape(100, 2)
    right = right[:, 0] < right[:, 1]
    longer = np.arange(100) % 2 == 1
    assert found["length-bias"] == pytest.approx(abs(right[longer].mean() - right[~longer].mean()))
    assert found.keys() == {"chosen-less-likely", "length-bias"}


def test_a_training_text_that_is_known_far_better(tmp_path):
    """Of the training text three documents are known by heart, and of the validation text one."""
    train, other = Planted(1), Planted(2)
    known = np.isin(train.documents, _middling(train)[:3])
    logits = train.lower(np.ones(len(train.targets), bool), -2.0)
    logits[np.flatnonzero(known), train.targets[known]] += 40.0
    leaked = other.documents == _middling(other)[0]
    one = {"settings_changes": {"checkpoint": {"sha256": "one"}}}  # the logits stand for the weights otherwise
    runs = [
        train.run(tmp_path / "train", logits, text_name="train", **one),
        other.run(tmp_path / "validation", other.lower(leaked, -40.0), text_name="validation", **one),
    ]
    found = told("gap", measure_gap(*runs))
    assert found.keys() >= {"over-fitted", "validation-leak", "training-by-heart"}
    assert found["validation-leak"] == 1
    sizes = frame(runs[0]).groupby("document")["loss"].agg(["size", "mean"])
    judged = sizes[sizes["size"] >= 32]
    assert found["training-by-heart"] == (judged["mean"] < 0.1).mean()
    level, low = (frame(run)["loss"].mean() for run in reversed(runs))
    result = measure_gap(*runs)
    gaps = [level - low, result.gap_same_mix_nats]
    assert result.gap_nats == pytest.approx(gaps[0], rel=CLOSE)
    assert min(abs(found["over-fitted"] - gap / level) for gap in gaps if gap is not None) < CLOSE


def _middling(text: Planted) -> np.ndarray:
    """Return documents that are long enough to be judged, and do not decide the mean."""
    sizes = np.bincount(text.documents)
    return np.flatnonzero((sizes >= 40) & (sizes < 80))
