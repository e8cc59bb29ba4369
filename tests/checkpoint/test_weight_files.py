"""Weights in one file or in shards are found; contradictory indices and paths out of the directory are refused."""

import json

import pytest
import safetensors.torch
from checkpoint import builders

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

EMBEDDING = "transformer.wte.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def gpt2(copy_of):
    return copy_of("gpt2")


@pytest.fixture
def sharded(tmp_path):
    path = builders.save(builders.model("gpt2"), tmp_path / "sharded", max_shard_size="100KB")
    assert len(list(path.glob("*.safetensors"))) == 2
    return path


def reindex(path, change):
    content = json.loads((path / INDEX).read_text())
    content["weight_map"] = change(content["weight_map"])
    (path / INDEX).write_text(json.dumps(content))


def test_a_shard_that_is_missing(sharded):
    first, second = sorted(sharded.glob("*.safetensors"))
    second.unlink()
    assert f"shard 2 of 2 missing: {second.name}" in builders.refused(sharded, "checkpoint.missing_shard")
    first.unlink()
    assert "shard 1 of 2 missing" in builders.refused(sharded, "checkpoint.missing_shard")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/../b", "..", ".", "", "deep/x.safetensors"])
def test_a_shard_outside_the_directory(sharded, name):
    reindex(sharded, lambda stored: stored | {EMBEDDING: name})
    assert "leaves the directory" in builders.refused(sharded, "checkpoint.shard_path")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_shard_with_a_name_that_no_file_can_have(sharded, name):
    reindex(sharded, lambda stored: stored | {EMBEDDING: name})
    assert "cannot be read" in builders.refused(sharded, "checkpoint.unreadable")


def test_links(gpt2, tmp_path):
    weights = gpt2 / "model.safetensors"
    elsewhere = tmp_path / "elsewhere" / "x"
    elsewhere.parent.mkdir()
    weights.rename(elsewhere)
    weights.symlink_to(elsewhere)
    notice = f"model.safetensors is a link, read from {elsewhere}"
    assert load_huggingface(gpt2, LoadOptions()).facts.notices == (notice,)
    blob = tmp_path / "blobs" / "0a1b"  # as the hub's cache keeps its files
    blob.parent.mkdir()
    elsewhere.rename(blob)
    weights.unlink()
    weights.symlink_to(blob)
    assert load_huggingface(gpt2, LoadOptions()).facts.notices == ()


def test_a_link_loop(sharded):
    first = min(sharded.glob("*.safetensors"))
    first.unlink()
    first.symlink_to(first.with_name("loop"))
    first.with_name("loop").symlink_to(first)
    with pytest.raises(CheckpointError, match=first.name) as caught:
        load_huggingface(sharded, LoadOptions())
    # From Python 3.13 on a loop is resolved to itself, and then there is no such file.
    assert caught.value.id in ("checkpoint.link_loop", "checkpoint.missing_shard")


def test_two_sets_of_weights(sharded):
    first = min(sharded.glob("*.safetensors"))
    (sharded / "model.safetensors").write_bytes(first.read_bytes())
    assert f"holds both model.safetensors and {INDEX}" in builders.refused(sharded, "checkpoint.two_weight_sets")


def test_an_index_that_names_the_single_file(gpt2):
    names = safetensors.torch.load_file(gpt2 / "model.safetensors")
    before = load_huggingface(gpt2, LoadOptions()).facts
    (gpt2 / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")}))
    facts = load_huggingface(gpt2, LoadOptions()).facts
    assert (facts.sha256, facts.notices) == (before.sha256, ())
    assert str(gpt2 / INDEX) in facts.files
    reindex(gpt2, lambda stored: {name: file for name, file in stored.items() if name != EMBEDDING})
    builders.refused(gpt2, "checkpoint.bad_index")
    reindex(gpt2, lambda stored: stored | {EMBEDDING: "other.safetensors"})
    builders.refused(gpt2, "checkpoint.two_weight_sets")


def test_an_index_that_lists_what_is_not_needed(sharded):
    reindex(sharded, lambda stored: stored | {"lm_head.weight": max(stored.values())})
    (notice,) = load_huggingface(sharded, LoadOptions()).facts.notices
    assert notice == f"{INDEX} lists tensors that no file holds and the model does not need: lm_head.weight"


def test_an_index_that_lists_what_is_needed(sharded):
    first = min(sharded.glob("*.safetensors"))
    name = min(safetensors.torch.load_file(first))
    builders.rewrite(sharded, lambda tensors: {key: each for key, each in tensors.items() if key != name}, first.name)
    assert f"tensor {name} is missing" in builders.refused(sharded, "checkpoint.missing_tensor")


def test_files_of_a_folder(sharded):
    names = ["config.json", INDEX, "tokenizer.json", *(path.name for path in sharded.glob("*.safetensors"))]
    assert set(load_huggingface(sharded, LoadOptions()).facts.files) >= {str(sharded / name) for name in names}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("consolidated.safetensors", "convert_mistral_weights_to_hf.py"),
        ("model-00001-of-00001.safetensors", "rename model-00001-of-00001.safetensors to model.safetensors"),
        ("model-00001-of-00002.safetensors", f"model-00002-of-00002.safetensors, {INDEX}"),
        ("pytorch_model.bin", "convert its pytorch_model files"),
    ],
)
def test_a_way_out_where_the_weights_have_another_name(gpt2, name, hint):
    (gpt2 / "model.safetensors").rename(gpt2 / name)
    with pytest.raises(CheckpointError) as caught:
        load_huggingface(gpt2, LoadOptions())
    assert hint in caught.value.hint


def test_a_key_of_the_configuration_is_ignored_when_asked_for(gpt2):
    builders.reconfigure(gpt2, quantization_config={"quant_method": "fp8"})
    builders.refused(gpt2, "checkpoint.quantized_tensor")
    facts = load_huggingface(gpt2, LoadOptions(ignore_config=("quantization_config",))).facts
    assert facts.config_from == "config.json without quantization_config"
    assert facts.notices == ("config.json: quantization_config is ignored, as asked",)


def test_no_weights(gpt2):
    (gpt2 / "model.safetensors").rename(gpt2 / "pytorch_model.bin")
    message = builders.refused(gpt2, "checkpoint.no_weights")
    assert "no model.safetensors" in message
    assert "found: config.json, generation_config.json, pytorch_model.bin, tokenizer.json" in message


def test_an_index_that_does_not_fit(sharded):
    reindex(sharded, lambda stored: {name: file for name, file in stored.items() if name != EMBEDDING})
    assert f"index and shards disagree on 1 tensor, first {EMBEDDING}" in builders.refused(
        sharded, "checkpoint.bad_index"
    )
    for weight_map in ({}, [], "x", {EMBEDDING: 1}, None):
        reindex(sharded, lambda _, new=weight_map: new)
        assert "weight_map must map" in builders.refused(sharded, "checkpoint.bad_index")


def test_a_tensor_in_two_shards(sharded):
    first, second = sorted(sharded.glob("*.safetensors"))
    extra = safetensors.torch.load_file(first)
    name = min(extra)
    builders.rewrite(sharded, lambda tensors: tensors | {name: extra[name]}, second.name)
    assert f"tensor {name} is in {first.name} and {second.name}" in builders.refused(
        sharded, "checkpoint.duplicate_tensor"
    )
