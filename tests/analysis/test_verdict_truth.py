"""What calibration says of models of which it is known what was done to them; `tests/simulations` draws more texts."""

import pytest
from simulations.verdict_truth import simulate

NAMES = ("plain", "T 0.7", "T 1.3", "ε 0.1", "ε 0.1, over-fitted", "ε 0.1, uneven floor")
TEXTS = 5


@pytest.fixture(scope="module")
def said():
    return simulate(TEXTS, NAMES)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "word"),
    [("T 0.7", "over-confident"), ("T 1.3", "under-confident"), ("ε 0.1", "under-confident"),
     ("ε 0.1, over-fitted", "over-confident")],
)  # fmt: skip
def test_a_fault_is_called_by_its_name(said, name, word):
    assert {one.whole for one in said[name]} == {word}


@pytest.mark.thorough
def test_a_calibrated_model_is_seldom_called_anything(said):
    """An interval of 95 % excludes 0 once in twenty texts; twice in five once in 45 such tests."""
    assert sum(one.whole != "" for one in said["plain"]) <= 1
    assert sum(one.first != "" for one in said["plain"]) <= 1
    assert not any(one.makes_ece_worse for one in said["plain"])


@pytest.mark.thorough
def test_smoothing_is_named_where_it_is_and_the_reason_is_true_where_it_is_not(said):
    assert [one.smoothing.epsilon for one in said["ε 0.1"]] == pytest.approx([0.1] * TEXTS, abs=0.02)
    for name in ("plain", "T 0.7", "T 1.3"):
        for one in said[name]:
            assert one.smoothing.epsilon is None
            assert "; spread of log p" in one.smoothing.reason, "no floor"
            assert ("over-confidence" in one.smoothing.reason) == (name == "T 0.7")
    for one in said["ε 0.1, over-fitted"]:
        assert one.smoothing.reason.endswith("not above 0: over-confidence hides smoothing, if there is any")
