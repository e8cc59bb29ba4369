"""Rules on loss by context, on stored runs with a planted cause: against numpy and pandas on the stored columns."""

from __future__ import annotations

import numpy as np
import pytest
from planted_runs import Planted, frame, jackknife

from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.positions import measure_positions

CLOSE = 1e-5  # columns are float32
CONTEXT = 128


@pytest.fixture(scope="module")
def text() -> Planted:
    """Return 20 documents of 256 tokens, in windows of 128 of which each begins at one token of context."""
    text = Planted(tokens=20 * 256, documents=20)
    text.documents, text.place = np.repeat(np.arange(20), 256), np.tile(np.arange(256), 20)
    return text


def contrast(run, near: tuple[int, int], far: tuple[int, int]) -> tuple[float, float, float]:
    """Return mean loss at the contexts `near` minus that at `far`, with the ends of its 95 % interval."""
    rows = frame(run)
    loss, (one, other) = rows["loss"].to_numpy(), (rows["context"].between(*ends).to_numpy() for ends in (near, far))
    return jackknife(rows["document"], lambda kept: loss[kept & one].mean() - loss[kept & other].mean())


def told(run) -> dict:
    return {each.id: each for each in findings_of("positions", measure_positions(run))}


def shown(value: float, low: float, high: float) -> str:
    return f"{value:.2f} nats [{low:.2f}, {high:.2f}]"


def at(run_context: np.ndarray, low: int, high: int) -> np.ndarray:
    return (run_context >= low) & (run_context <= high)


@pytest.fixture(scope="module")
def context(text, tmp_path_factory) -> np.ndarray:
    """Return the context of each row, as it is stored."""
    return frame(text.run(tmp_path_factory.mktemp("plain") / "run", context=CONTEXT))["context"].to_numpy()


def test_the_first_three_tokens_of_context(text, context, tmp_path):
    run = text.run(tmp_path / "costly", text.lower(at(context, 1, 3), 12.0), context=CONTEXT)
    found = told(run)["first-tokens-costly"]
    numbers = contrast(run, (1, 3), (4, 31))
    rows = frame(run)
    share = numbers[0] * rows["context"].between(1, 3).sum() / rows["loss"].sum()
    assert [found.value, *found.value_interval] == pytest.approx(numbers, rel=1e-4)
    assert found.share_of_loss == pytest.approx(share, rel=CLOSE)
    assert found.sentence == (
        f"tokens with 1 to 3 tokens of context cost {shown(*numbers)} more than those with 4 to 31"
    )
    assert "first-tokens-costly" not in told(
        text.run(tmp_path / "usual", text.lower(at(context, 1, 3), 2.0), context=CONTEXT)
    )


def test_context_that_hardly_helps_and_context_that_harms_or_helps(text, context, tmp_path):
    """A model that is nearly even: tokens with little context cost 0.02 nats more, 0.3 less or 0.3 more."""
    flat = Planted.__new__(Planted)
    flat.__dict__.update(vars(text), logits=0.02 * text.logits)
    for name, by in (("gains", 0.02), ("harms", -0.3)):
        run = flat.run(tmp_path / name, flat.lower(at(context, 1, 7), by), context=CONTEXT)
        found, numbers = told(run)["context-unused"], contrast(run, (1, 7), (32, CONTEXT))
        assert [found.value, *found.value_interval] == pytest.approx(numbers, rel=1e-4, abs=CLOSE)
        said, side, sign = ("hardly lowers", "above", 1) if by > 0 else ("does not lower", "below", -1)
        ends = sorted(sign * end for end in numbers[1:])
        assert found.sentence == (
            f"more context {said} the loss: with 1 to 7 tokens of it the loss is {shown(sign * numbers[0], *ends)} "
            f"{side} that with 32 and more"
        )
    helped = flat.run(tmp_path / "helps", flat.lower(at(context, 1, 7), 0.3), context=CONTEXT)
    assert "context-unused" not in told(helped)


@pytest.mark.parametrize(("id", "by"), [("longer-context-pays", -0.5), ("loss-rises-at-end", 0.5)])
def test_the_end_of_the_window(text, context, tmp_path, id, by):
    """The model reads 128 tokens; from 64 on it is better, or worse."""
    run = text.run(tmp_path / "end", text.lower(at(context, 65, CONTEXT), by), context=CONTEXT)
    sign = 1 if id == "longer-context-pays" else -1
    value, *ends = contrast(run, (33, 64), (65, CONTEXT))
    found = told(run)[id]
    assert found.value == pytest.approx(sign * value, rel=CLOSE)
    assert found.value_interval == pytest.approx(sorted(sign * end for end in ends), rel=1e-4)
    assert f"by {shown(found.value, *found.value_interval)} from 33-64 to 65-128 tokens" in found.sentence
    assert "end" in {each.name for each in measure_positions(text.run(tmp_path / "same", context=CONTEXT)).contrasts}
    flat = told(text.run(tmp_path / "level", context=CONTEXT))
    assert not {"longer-context-pays", "loss-rises-at-end"} & flat.keys()
