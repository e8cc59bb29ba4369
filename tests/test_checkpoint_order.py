"""The steps of checkpoints by what trainers write and how people call them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lossprobe.errors import UsageError
from lossprobe.logs.checkpoint_order import order_by_step


@pytest.mark.parametrize(
    ("names", "unit", "steps"),
    [
        (["checkpoint-1000", "checkpoint-500", "checkpoint-1500"], "step", (500, 1000, 1500)),
        (["step1000", "step0", "step512"], "step", (0, 512, 1000)),
        (["ckpt_500.pt", "ckpt_1000.pt"], "step", (500, 1000)),
        (["iter-0002", "iter-0010"], "step", (2, 10)),
        (["iter-000002-ckpt/lit_model.pth", "iter-000100-ckpt/lit_model.pth"], "step", (2, 100)),
        (["global_step20", "global_step3"], "step", (3, 20)),
        (["pythia-70m-step1000", "pythia-70m-step16"], "step", (16, 1000)),
        (["olmo-step1000-tokens4B", "olmo-step2000-tokens8B"], "step", (1000, 2000)),
        (["run/step_10k", "run/step_500"], "step", (500, 10_000)),
        (["checkpoint_epoch_2.pt", "checkpoint_epoch_10.pt"], "epoch", (2, 10)),
        (["0500/model.safetensors", "1000/model.safetensors"], "step", (500, 1000)),
        (["gpt2-100", "gpt2-20"], "step", (20, 100)),
    ],
)
def test_steps_are_read_from_names(names, unit, steps):
    found = order_by_step([Path("runs") / name for name in names])
    assert (found.unit, found.steps) == (unit, steps)
    assert [Path(names[at]).parts[-1] for at in found.order] == [Path(name).parts[-1] for name in found.names]
    assert len(set(found.names)) == len(names)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["checkpoint-10", "final"], "no step is known of final"),
        (["first", "second"], "no step is known of first, second"),
        (["a/checkpoint-10", "b/checkpoint-10"], "step 10 is that of a/checkpoint-10, b/checkpoint-10"),
        (["step-1", "epoch-2"], "some names count steps and others epochs"),
        (["v1-2", "v3-4"], "no step is known of v1-2, v3-4"),
        (["step" + "9" * 30, "other"], "no step is known"),
    ],
)
def test_where_names_do_not_say_the_order_given_counts(names, said):
    found = order_by_step([Path("runs") / name for name in names])
    assert (found.unit, found.steps, found.order) == ("checkpoint", (1, 2), (0, 1))
    assert said in found.notes[0]
    assert "in the order given" in found.notes[0]


def test_another_order_is_told():
    assert "not the order given" in order_by_step([Path("step2"), Path("step1")]).notes[0]
    assert order_by_step([Path("step1"), Path("step2")]).notes == ()


def test_the_state_of_the_trainer_counts_more_than_a_name(tmp_path):
    for name, step in (("first", 30), ("second", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    found = order_by_step([tmp_path / "first", tmp_path / "second"])
    assert (found.steps, found.names) == ((10, 30), ("second", "first"))
    (tmp_path / "first" / "trainer_state.json").write_text("{")
    with pytest.raises(UsageError, match="is no JSON"):
        order_by_step([tmp_path / "first", tmp_path / "second"])
