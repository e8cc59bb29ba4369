"""Rules on a training's loss on whole runs: routers drawn token by token, and gradients cast to float16."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_runs import log_probabilities
from planted_runs import Planted

from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.objectives.objectives import measure_objectives
from lossprobe.run.files import write_table
from lossprobe.run.schema import ROUTING_COLUMNS

LAYERS, EXPERTS, CHOSEN = 2, 8, 2
BATCH = 2048  # tokens under the mean of the loss, by default


@pytest.fixture(scope="module")
def text() -> Planted:
    return Planted(tokens=2000, documents=20)


def told(run) -> dict:
    return {each.id: each for each in findings_of("objectives", measure_objectives(run))}


def routed(folder, text, favour: float):
    """Return a run of a mixture whose routers favour two experts of eight by some nats, and its load-balancing loss.

    The loss is Switch Transformer's: experts times the sum over them of share of the slots times mean probability.
    """
    sizes = np.bincount(text.documents) + 1
    logits = np.random.default_rng(4).standard_normal((sizes.sum(), LAYERS, EXPERTS))
    logits[:, :, :CHOSEN] += favour
    probability = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    slots = logits >= np.sort(logits, axis=2)[:, :, -CHOSEN, None]
    loss = EXPERTS * (slots.mean(axis=(0, 1)) * probability.mean(axis=(0, 1))).sum()
    edges = sizes.cumsum() - sizes
    cells = np.indices((len(sizes), LAYERS, EXPERTS)).reshape(3, -1)
    (folder / "routing").mkdir(parents=True)
    values = {
        "document": cells[0], "window": cells[0], "tokens": sizes[cells[0]], "layer": cells[1], "expert": cells[2],
        "probability": np.add.reduceat(probability, edges).ravel(),
        "slots": np.add.reduceat(slots, edges, dtype=int).ravel(),
    }  # fmt: skip
    typed = {each.name: values[each.name].astype(each.type.to_pandas_dtype()) for each in ROUTING_COLUMNS}
    write_table(folder / "routing/part-00000.parquet", ROUTING_COLUMNS, typed)
    router = {"experts_per_token": CHOSEN, "coefficient": 0.01}
    return text.run(folder, settings_changes={"checkpoint": {"router": router}}), loss


def test_experts_that_are_used_unequally(text, tmp_path):
    run, loss = routed(tmp_path / "uneven", text, 1.5)
    found = told(run)["routing-uneven"]
    assert found.value == pytest.approx(loss / CHOSEN, rel=1e-5)
    assert f"the load-balancing loss is {loss / CHOSEN:.2f} times that of even use" in found.sentence
    run, loss = routed(tmp_path / "even", text, 1.0)
    assert 1.1 < loss / CHOSEN < 1.5
    assert "routing-uneven" not in told(run)


def lost(logits: np.ndarray, targets: np.ndarray, scale: float) -> float:
    """Return the part of the sum of all entries of the gradient that a cast to float16 turns into 0."""
    rows = np.arange(len(targets))
    gradient = np.exp(log_probabilities(logits))
    gradient[rows, targets] = 0.0
    gradient[rows, targets] = gradient.sum(axis=1)
    gradient /= BATCH
    return gradient[(scale * gradient).astype(np.float16) == 0].sum() / gradient.sum()


@pytest.mark.parametrize(("by", "kind"), [(0.0, "usual"), (-22.0, "high"), (-40.0, "none")])
def test_gradients_that_float16_loses(text, tmp_path, by, kind):
    """A model that is nearly sure of every token has small gradients: at −22 nats they need 2^17 and more."""
    logits = text.lower(np.ones(len(text.targets), bool), by)
    found = told(text.run(tmp_path, logits)).get("loss-scale-high")
    least = next((2**power for power in range(25) if lost(logits, text.targets, 2**power) < 1e-3), None)
    if kind == "usual":
        assert least <= 65_536
        assert found is None
    elif kind == "high":
        assert least > 65_536
        assert found.value == least
        assert found.sentence == f"float16 needs a loss scale of {least:,} or more to keep the gradient of the logits"
    else:
        assert least is None
        assert found.value == 2**25
        assert found.sentence == "at no loss scale up to 2^24 does float16 keep the gradient of the logits"
