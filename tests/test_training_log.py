"""A trainer's smoothed validation loss, computed as the trainer does it, comes out of the stored run."""

import pytest
import torch
from fakes import ByteTokenizer, SmallModel, checkpoint
from torch.nn import functional

from lossprobe.analysis.objectives.formulas import ObjectiveOptions
from lossprobe.analysis.objectives.objectives import measure_objectives
from lossprobe.passes.score import score
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource

TEXT = "The trainer cuts its validation text into windows and drops what is left over at the end. " * 3


def logged(model: torch.nn.Module, ids: torch.Tensor, size: int, epsilon: float) -> float:
    """Return the mean smoothed loss over windows of `size` inputs with targets shifted by one, the tail dropped."""
    windows = (len(ids) - size - 1) // size + 1
    losses = []
    for index in range(windows):
        window = ids[index * size : index * size + size + 1]
        logits = model(window[None, :-1])[0].double()
        losses.append(functional.cross_entropy(logits, window[1:], label_smoothing=epsilon))
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("size", [7, 32, 64])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3])
def test_the_smoothed_validation_loss_of_a_training_log(tmp_path, size, epsilon):
    model = SmallModel()
    inner = checkpoint(model, context_length=64, tokenizer=ByteTokenizer(adds_bos=False))
    run = score(inner, StringSource([TEXT]), ScoreOptions(context=size), output=tmp_path / "run").run
    table = measure_objectives(run, ObjectiveOptions(smoothing=epsilon, full_windows=True)).table.set_index("objective")
    ids = torch.tensor(list(TEXT.encode()))
    assert (len(ids) - 1) % size, "a tail is there to be dropped"
    assert table.loc["smoothed_torch_nats", "mean"] == pytest.approx(logged(model, ids, size, epsilon), abs=2e-6)
    everything = measure_objectives(run, ObjectiveOptions(smoothing=epsilon)).table.set_index("objective")
    assert abs(everything.loc["smoothed_torch_nats", "mean"] - logged(model, ids, size, epsilon)) > 1e-5
