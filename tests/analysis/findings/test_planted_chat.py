"""The ends of turns of answers, where others have a loss too: against numpy and pandas on the stored columns."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_runs import as_pairs
from planted_runs import Planted, frame, jackknife, spread

from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.findings.facts import find_facts
from lossprobe.analysis.findings.findings import find_findings

CLOSE = 1e-5  # columns are float32


@pytest.fixture(scope="module")
def text() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def ends(text) -> list[tuple[int, str, str]]:
    """Return labels of conversations whose every tenth token ends a turn, of users and the assistant in turn."""
    labels = []
    for size in np.bincount(text.documents).tolist():
        labels.append((0, "system", "content"))
        labels += [
            (place // 10, ("user", "assistant")[place // 10 % 2], "end_of_turn" if place % 10 == 9 else "content")
            for place in range(size)
        ]
    return labels


@pytest.mark.parametrize("hard", ["assistant", "user"])
def test_only_ends_of_answers_count(text, ends, tmp_path, hard):
    own = np.array([label[1] for label in ends])[_scored(text)]
    part = np.array([label[2] for label in ends])[_scored(text)] == "end_of_turn"
    logits = text.lower(part & (own == hard), 4.0)
    easy = np.flatnonzero(part & (own != hard))
    logits[easy, text.targets[easy]] = 60.0
    run = text.run(tmp_path, logits, labels=ends)
    found = [each for each in findings_of("findings", find_facts(run)) if each.id == "end-of-turn-hard"]
    if hard == "user":
        assert found == []
        return
    rows = frame(run)
    chosen = (rows["role"] == "assistant") & (rows["part"] == "end_of_turn")
    loss = rows["loss"].to_numpy()
    value, low, high = jackknife(rows["document"][chosen], lambda kept: loss[spread(chosen.to_numpy(), kept)].mean())
    assert found[0].value == pytest.approx(value, rel=CLOSE)
    assert found[0].sentence == (
        f"the {chosen.sum():,} tokens that end the turns of answers cost {value:.2f} nats [{low:.2f}, {high:.2f}] each"
    )
    assert found[0].share_of_loss == pytest.approx(loss[chosen].sum() / loss.sum(), rel=CLOSE)


def test_of_pairs_the_ends_of_chosen_answers_count_and_calibration_is_not_judged(text, ends, tmp_path):
    """The rejected answers, which are the odd documents, are over-confident and end where nobody would."""
    own = np.array([label[1] for label in ends])[_scored(text)]
    end = (np.array([label[2] for label in ends])[_scored(text)] == "end_of_turn") & (own == "assistant")
    rejected = text.documents % 2 == 1
    logits = text.lower(rejected, 4.0)
    easy = np.flatnonzero(end & ~rejected)
    logits[easy, text.targets[easy]] = 60.0
    found = find_findings(as_pairs(text.run(tmp_path, logits, labels=ends)))
    assert not {each.id for each in found.findings} & {"end-of-turn-hard", "expects-less-loss", "temperature-far"}
    assert any("rejected answers" in note for note in found.notes)
    assert not any("can be ranked" in note for note in found.notes)
    run = text.run(tmp_path / "all", text.lower(end, 4.0), labels=ends)
    swapped, rows = find_facts(as_pairs(run)), frame(run)
    chosen = (rows["role"] == "assistant") & (rows["part"] == "end_of_turn") & (rows["document"] % 2 == 0)
    assert swapped.answer_ends.mean_loss_nats == pytest.approx(rows["loss"][chosen].mean(), rel=CLOSE)
    assert swapped.answer_ends.tokens == chosen.sum()


def _scored(text: Planted) -> np.ndarray:
    """Return the rows of the stored run that have a loss: all but the first of each document."""
    first = np.append(True, np.diff(text.documents) > 0)
    return np.arange(len(first)) + first.cumsum()
