"""Rules on pairs of answers, and on a training and a validation text: against pandas on the stored columns."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_runs import as_pairs
from planted_runs import Planted, frame

from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.findings.findings import find_findings
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


def answers(pairs: int = 100) -> tuple[Planted, np.ndarray]:
    """Return a text of answers of 25 tokens each, and which rows are chosen ones: those of the even documents."""
    text = Planted(tokens=pairs * 50, documents=2 * pairs)
    text.documents = np.repeat(np.arange(2 * pairs), 25)
    return text, text.documents % 2 == 0


def sums(run) -> np.ndarray:
    """Return the summed losses of both sides of each pair, [pairs, 2]."""
    return frame(run).groupby("document")["loss"].sum().to_numpy().reshape(-1, 2)


def test_training_that_went_the_wrong_way(tmp_path):
    """The model likes the chosen answers less than its reference does, although still better than the rejected ones."""
    text, chosen = answers()
    labels = [(1, "assistant", "content")] * (len(chosen) + 200)
    reference = as_pairs(text.run(tmp_path / "reference", text.lower(chosen, -1.0), labels=labels, name="reference"))
    noise = 0.3 * text.rng.standard_normal(text.logits.shape)
    for kind, by in (("wrong", -0.8), ("right", -1.2)):
        run = as_pairs(text.run(tmp_path / kind, text.lower(chosen, by) + noise, labels=labels))
        result = measure_preferences(run, reference)
        found = told("preferences", result)
        before, after = sums(reference), sums(run)
        share = (after[:, 1] - after[:, 0] > before[:, 1] - before[:, 0]).mean()
        assert result.reward_accuracy == share
        assert found.get("rewards-wrong") == (share if kind == "wrong" else None)
        assert "chosen-less-likely" not in found


def test_pairs_that_cannot_be_ranked(tmp_path):
    """Of 100 pairs the sides of three are equal, and of two one side has no token that is scored."""
    text, chosen = answers()
    for pair in (10, 20, 30):
        one, other = (np.flatnonzero(text.documents == 2 * pair + side) for side in (0, 1))
        text.targets[other], text.logits[other] = text.targets[one], text.logits[one]
    kept = ~np.isin(text.documents, (80, 91))
    for name in ("logits", "targets", "documents"):
        setattr(text, name, getattr(text, name)[kept])
    labels = [(1, "assistant", "content")] * (len(text.targets) + 200)
    run = as_pairs(text.run(tmp_path / "faulty", labels=labels, fields=[{}] * 200))
    (found,) = findings_of("preferences", measure_preferences(run))
    assert (found.id, found.value) == ("pairs-unranked", 0.05)
    assert found.sentence == (
        "5 % of the pairs cannot be ranked: 3 with equal sides, 2 with a side without scored tokens"
    )
    text, _ = answers()
    clean = as_pairs(text.run(tmp_path / "clean", labels=[(1, "assistant", "content")] * (len(chosen) + 200)))
    assert told("preferences", measure_preferences(clean)) == {}


def test_where_no_pair_can_be_ranked_a_note_says_so(tmp_path):
    text, chosen = answers(10)
    text.targets[~chosen], text.logits[~chosen] = text.targets[chosen], text.logits[chosen]
    labels = [(1, "assistant", "content")] * (len(chosen) + 20)
    notes = find_findings(as_pairs(text.run(tmp_path, labels=labels))).notes
    assert "no pair can be ranked: the sides of each are equal, or one has no scored token" in notes


def test_of_two_short_pairs_nothing_is_told(tmp_path):
    """One of two pairs has equal sides: they have 80 scored tokens in all, of which no rule speaks."""
    text = Planted(tokens=80, documents=4)
    text.documents = np.repeat(np.arange(4), 20)
    text.targets[20:40], text.logits[20:40] = text.targets[:20], text.logits[:20]
    run = as_pairs(text.run(tmp_path, labels=[(1, "assistant", "content")] * 84))
    assert told("preferences", measure_preferences(run)) == {}


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
