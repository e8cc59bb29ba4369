"""Checkpoints of other programs are recognised by names, never unpickled, and the hint says how to convert them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer
from lossprobe.errors import CheckpointError, UsageError

PARTS, OTHER, NO_WEIGHTS = "checkpoint.distributed", "checkpoint.other_format", "checkpoint.no_weights"
CONSOLIDATED = "convert_{}_weights_to_hf.py"


@pytest.fixture
def gpt2(copy_of):
    return copy_of("gpt2")


def lay(folder: Path, names: str) -> Path:
    """Write files that nothing may read, and return the folder."""
    for name in names.split():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"never read")
    return folder


def refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert caught.value.exit_code == 3
    assert "\n" not in f"{caught.value.message}{caught.value.hint}"
    return caught.value


@pytest.mark.parametrize(
    ("names", "id", "what", "command"),
    [
        ("latest zero_to_fp32.py global_step5/a_model_states.pt", PARTS, "a DeepSpeed", "python zero_to_fp32.py . OUT"),
        ("latest global_step5/mp_rank_00_model_states.pt", PARTS, "a DeepSpeed", "in FOLDER; the script is deepspeed"),
        ("latest_universal global_step5_universal/x", PARTS, "a DeepSpeed", "in FOLDER; the script is deepspeed"),
        ("zero_pp_rank_0_mp_rank_00_model_states.pt", PARTS, "a DeepSpeed", "--safe_serialization, in PARENT; the"),
        ("mp_rank_00_model_states.pt bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", PARTS, "a DeepSpeed", "--safe_"),
        ("mp_rank_00_model_states.pt", PARTS, "a DeepSpeed checkpoint without ZeRO", '["module"], "OUT.pt")'),
        ("model_world_size_2_rank_0.pt model_world_size_2_rank_1.pt", PARTS, "a checkpoint of verl", "_dir FOLDER"),
        (".metadata __0_0.distcp", PARTS, "a distributed checkpoint (.distcp)", "format_utils dcp_to_torch "),
        ("pytorch_model_fsdp_0/.metadata optimizer.bin", PARTS, "an FSDP", "FOLDER/pytorch_model_fsdp_0 OUT"),
        ("latest_checkpointed_iteration.txt iter_0000010/x", PARTS, "a Megatron", '("FOLDER/iter_0000010", "OUT")'),
        ("mp_rank_00/model_optim_rng.pt", PARTS, "a Megatron", "--ckpt-convert-format torch_dist"),
        ("common.pt .metadata __0_0.distcp", PARTS, "a Megatron", '.export_ckpt("FOLDER", "OUT")'),
        ("context/x weights/.metadata", OTHER, "a NeMo 2", 'llm.export_ckpt(path=Path("FOLDER"), target="hf"'),
        ("a.nemo", OTHER, "holds a NeMo archive", "name the archive: FOLDER/a.nemo"),
        ("weights.npz", OTHER, "weights of MLX", "get the safetensors"),
        ("consolidated.safetensors tekken.json", OTHER, "weights in Mistral's", CONSOLIDATED.format("mistral")),
        ("consolidated.00.pth tekken.json", OTHER, "weights in Mistral's", "LENGTH --modules_are_split"),
        ("consolidated.00.pth consolidated.01.pth", OTHER, "weights in Meta's", "--num_shards 2"),
        ("config.json consolidated.safetensors", NO_WEIGHTS, "no model.safetensors", CONSOLIDATED.format("mistral")),
        ("config.json pytorch_model.bin", NO_WEIGHTS, "no model.safetensors", 'from_pretrained("FOLDER").save_pret'),
        ("config.json model-00001-of-00001.safetensors", NO_WEIGHTS, "no model.safetensors", "rename model-00001-of-"),
        (
            "config.json zero_to_fp32.py global_step5/x",
            NO_WEIGHTS,
            "no model.safetensors",
            "zero_to_fp32.py . OUT",
        ),
    ],
    ids=lambda value: value if " " in value else "",
)
def test_a_folder_of_another_program(family_paths, tmp_path, audit, names, id, what, command):
    folder = lay(tmp_path, names)
    if (folder / "config.json").exists():
        (folder / "config.json").write_bytes((family_paths["gpt2"] / "config.json").read_bytes())
    with audit:
        error = refused(folder)
    assert (error.id, error.message.startswith(f"{folder}: {what}")) == (id, True), error.message
    assert command.replace("FOLDER", str(folder)).replace("PARENT", str(folder.parent)) in str(error.hint)
    assert {name for name in audit.opened() if Path(name).name not in {"config.json", "params.json"}}.isdisjoint(
        names.split()
    )


def test_meta_and_mistral_are_told_apart_by_their_parameters(tmp_path):
    for params, name in (({"hidden_dim": 14336}, "mistral"), ({"multiple_of": 256}, "llama")):
        lay(tmp_path, "consolidated.00.pth tokenizer.model")
        (tmp_path / "params.json").write_text(json.dumps(params))
        assert CONSOLIDATED.format(name) in str(refused(tmp_path).hint)


def test_missing_shards_are_named(family_paths, tmp_path):
    lay(tmp_path, "model-00002-of-00003.safetensors")
    (tmp_path / "config.json").write_bytes((family_paths["gpt2"] / "config.json").read_bytes())
    wanted = "model-00001-of-00003.safetensors, model-00003-of-00003.safetensors, model.safetensors.index.json"
    assert wanted in str(refused(tmp_path).hint)


@pytest.mark.parametrize(
    ("name", "content", "id", "hint"),
    [
        ("a.nemo", b"x", OTHER, "--output_path OUT.bin --hf_input_path"),
        ("a.gguf", b"GGUF", "checkpoint.truncated", "None"),
        ("pytorch_model.bin", b"GGUF", "checkpoint.truncated", "None"),
        ("weights.npz", b"PK", OTHER, "safetensors"),
        ("model.safetensors", b"x", "checkpoint.bare_safetensors", "give its folder: "),
    ],
)
def test_a_file_of_another_program(tmp_path, name, content, id, hint):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path / name)
    assert error.id == id
    assert hint in str(error.hint)


def test_weights_in_the_place_of_their_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    torch.save({"lm_head.weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    error = refused(tmp_path / "pytorch_model.bin")
    assert (error.id, error.hint) == ("checkpoint.unknown", f"give its folder: {shlex.quote(str(tmp_path))}")


def test_a_gguf_file_beside_a_checkpoint_is_a_second_candidate(tmp_path):
    lay(tmp_path, "ckpt.pt model.gguf")
    with pytest.raises(UsageError) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.id == "checkpoint.several"


def test_weights_that_mlx_has_quantised(gpt2):
    config = json.loads((gpt2 / "config.json").read_text())
    quantization = {"group_size": 64, "bits": 4}
    config |= {"quantization": quantization, "quantization_config": quantization}
    (gpt2 / "config.json").write_text(json.dumps(config))
    name = "transformer.h.0.mlp.c_fc"
    packed = {f"{name}.weight": torch.ones(2, 2, dtype=torch.int32)}
    packed |= {f"{name}.scales": torch.ones(2, 1), f"{name}.biases": torch.ones(2, 1)}
    safetensors.torch.save_file(packed, gpt2 / "model.safetensors")
    error = refused(gpt2)
    assert (error.id, "--dequantize --dtype float32" in str(error.hint)) == ("checkpoint.quantized", True)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ("vocab.json merges.txt", "AutoTokenizer"),
        ("tokenizer.model", "converting tokenizer.model can lose its BOS and its normalisation"),
        ("tekken.json", "converting tekken.json can lose"),
        ("x.tiktoken", "converting x.tiktoken can lose"),
        ("other.txt", "get the tokenizer.json of the same model"),
    ],
)
def test_a_folder_without_tokenizer_json(tmp_path, names, hint):
    with pytest.raises(CheckpointError) as caught:
        open_tokenizer(lay(tmp_path, names))
    assert (caught.value.id, hint in str(caught.value.hint)) == ("tokenizer.missing", True)


@pytest.mark.parametrize(
    ("architectures", "hint"),
    [
        (["LlamaForCausalLM"], 'add "model_type": "llama", the family of LlamaForCausalLM'),
        (["MyModel"], "as its authors publish it"),
        (None, "as its authors publish it"),
    ],
)
def test_a_configuration_without_model_type(gpt2, architectures, hint):
    (gpt2 / "config.json").write_text(json.dumps({"architectures": architectures}))
    error = refused(gpt2)
    assert (error.id, hint in str(error.hint)) == ("checkpoint.no_family", True)


@pytest.mark.thorough
def test_the_command_for_a_distributed_checkpoint_is_one_of_torch():
    module = [sys.executable, "-m", "torch.distributed.checkpoint.format_utils"]
    said = subprocess.run([*module, "--help"], capture_output=True, text=True, check=True).stdout
    assert "dcp_to_torch" in said
