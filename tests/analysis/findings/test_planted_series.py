"""Rules on the checkpoints of a training run with a planted cause: against numpy and pandas on the stored columns."""

from __future__ import annotations

import numpy as np
import pytest
from planted_runs import Planted, frame, jackknife

from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.findings.words import percent
from lossprobe.analysis.series.series import measure_series

CLOSE = 1e-5  # columns are float32


@pytest.fixture(scope="module")
def text() -> Planted:
    return Planted(tokens=3000, documents=30)


def told(runs) -> dict:
    return {each.id: each for each in findings_of("series", measure_series(runs))}


def checkpoints(folder, text, *logits) -> list:
    return [text.run(folder / str(step), each, name=f"step-{step}") for step, each in enumerate(logits)]


def test_a_last_checkpoint_that_is_worse(text, tmp_path):
    everything = np.ones(len(text.targets), bool)
    runs = checkpoints(tmp_path, text, text.lower(everything, 1.0), text.logits, text.lower(everything, 0.1))
    found = told(runs)["last-checkpoint-worse"]
    change = (frame(runs[2])["loss"] - frame(runs[1])["loss"]).to_numpy()
    value, low, high = jackknife(frame(runs[0])["document"], lambda kept: change[kept].mean())
    assert [found.value, *found.value_interval] == pytest.approx([value, low, high], rel=1e-4)
    assert (
        found.sentence
        == f"the loss rose at the last checkpoint, by {value:+.4f} nats [{low:+.4f}, {high:+.4f}] a token"
    )
    assert told(runs[:2]) == {}


def test_tokens_that_were_known_on_the_way(text, tmp_path):
    """A tenth of the tokens is known at the second of three checkpoints alone."""
    some = text.rng.random(len(text.targets)) < 0.1
    noise = 0.05 * text.rng.standard_normal(text.logits.shape)
    runs = checkpoints(tmp_path, text, text.lower(some, 4.0), text.lower(some, -20.0), text.lower(some, 4.0) + noise)
    found = told(runs)["tokens-lost"]
    known = np.array([frame(run)["loss"] < 1.0 for run in runs])
    share, back = ((known[:-1].any(axis=0) & ~known[-1]).mean(), (known[0] & ~known[1] & known[2]).mean())
    assert found.value == pytest.approx(share - back)
    assert found.sentence == (
        f"{percent(share)} of the tokens were known at a checkpoint (below 1 nat) and are not at the last, while "
        f"{percent(back)} were lost on the way and are known again"
    )
    still = checkpoints(tmp_path / "clean", text, text.lower(some, 4.0), text.logits, text.logits + noise)
    assert "tokens-lost" not in told(still)


def test_checkpoints_that_fluctuate_lose_nothing(tmp_path):
    """Of eight checkpoints that know the same, more than a token in twenty is known at one and not at the last."""
    text = Planted(tokens=1500, documents=15)
    noisy = [text.logits + 0.7 * text.rng.standard_normal(text.logits.shape) for _ in range(8)]
    result = measure_series(checkpoints(tmp_path, text, *noisy))
    assert result.states["forgotten"] > 0.07 * result.tokens
    assert "tokens-lost" not in {each.id for each in findings_of("series", result)}
