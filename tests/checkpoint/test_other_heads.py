"""Models with another head than a language model's are refused with what to do, and unread weights are told."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from checkpoint import builders

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

VALUES = {"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.bias": torch.ones(1)}


def hint_of(path, id):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert caught.value.id == id, caught.value.message
    assert str(caught.value.hint).isprintable()
    return str(caught.value.hint)


@pytest.mark.parametrize(
    ("family", "head", "architecture", "id"),
    [
        ("llama", "score.weight", "LlamaForSequenceClassification", "checkpoint.missing_tensor"),
        ("llama", "score.weight", "LlamaForCausalLM", "checkpoint.missing_tensor"),
        ("llama", "value_head.weight", "LlamaForCausalLM", "checkpoint.missing_tensor"),  # OpenRLHF's critics
        ("llama", "classifier.bias", "LlamaForTokenClassification", "checkpoint.missing_tensor"),
        ("llama", "v_head.summary.weight", "LlamaForCausalLM", "checkpoint.missing_tensor"),
        ("qwen3", "score.weight", "Qwen3ForSequenceClassification", "checkpoint.unexpected_tensor"),  # tied
        ("gemma2", "score.weight", "Gemma2ForSequenceClassification", "checkpoint.unexpected_tensor"),
        ("gpt2", "score.weight", "GPT2ForSequenceClassification", "checkpoint.unexpected_tensor"),
    ],
)
def test_reward_models_critics_and_classifiers(copy_of, family, head, architecture, id):
    path = copy_of(family)
    builders.reconfigure(path, architectures=[architecture])
    builders.rewrite(
        path, lambda stored: {n: t for n, t in stored.items() if n != "lm_head.weight"} | {head: torch.ones(1, 32)}
    )
    assert hint_of(path, id) == (
        f"a reward model, critic or classifier ({head}) predicts no next token: take the model it came from"
    )


def test_a_classifier_whose_head_is_elsewhere_is_known_by_its_class(copy_of):
    path = copy_of("llama")
    builders.reconfigure(path, architectures=["LlamaForSequenceClassification"])
    builders.rewrite(path, lambda stored: {n: t for n, t in stored.items() if n != "lm_head.weight"})
    assert "(LlamaForSequenceClassification) predicts" in hint_of(path, "checkpoint.missing_tensor")


@pytest.mark.parametrize("start", ["", "pretrained_model."])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_command_leaves_out_the_value_head_of_trl(copy_of, tmp_path, family, start):
    path = copy_of(family, "it's")
    whole = load_huggingface(path, LoadOptions())
    builders.rewrite(path, lambda stored: {start + name: each for name, each in stored.items()} | VALUES)
    hint = hint_of(path, "checkpoint.missing_tensor" if start else "checkpoint.unexpected_tensor")
    command = shlex.split(hint.partition("to leave it out: ")[2].rpartition(", then copy")[0])
    assert command[:2] == ["python", "-c"]
    kept = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, env=kept, capture_output=True)
    for file in path.iterdir():
        if not (tmp_path / "OUT" / file.name).exists():
            shutil.copy(file, tmp_path / "OUT" / file.name)
    saved = load_huggingface(tmp_path / "OUT", LoadOptions())
    ids = torch.arange(12)[None]
    torch.testing.assert_close(saved.logits(saved.hidden(ids)[0]), whole.logits(whole.hidden(ids)[0]), rtol=0, atol=0)


def test_weights_of_another_head_say_nothing_of_a_tensor_that_is_missing(copy_of):
    path = copy_of("llama")
    builders.rewrite(path, lambda stored: {n: t for n, t in stored.items() if ".mlp." not in n})
    assert hint_of(path, "checkpoint.missing_tensor") == "None"


@pytest.mark.parametrize(
    "name",
    ["adapter_model.safetensors", "adapter_model.bin", "value_head.safetensors", "model-00001-of-00002.safetensors"],
)
def test_weights_that_are_not_read_are_told(copy_of, name):
    path = copy_of("gpt2")
    assert load_huggingface(path, LoadOptions()).facts.notices == ()
    (path / name).write_bytes(b"never read")
    notice = f"{path}: {name}: not read, the loss is that of the weights beside it"
    assert notice in load_huggingface(path, LoadOptions()).facts.notices


def test_an_adapter_without_its_configuration(copy_of, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"never read")
    assert hint_of(tmp_path, "checkpoint.unknown").startswith("put the adapter_config.json")
    (tmp_path / "adapter_config.json").write_text("{}")
    hint = hint_of(tmp_path / "adapter_model.safetensors", "checkpoint.bare_safetensors")
    assert hint == f"give its folder: {shlex.quote(str(tmp_path))}"
