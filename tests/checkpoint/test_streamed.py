"""Models whose layers are read one after the other give the logits of the whole model, or are refused with a reason."""

from __future__ import annotations

import gc
import time
import weakref
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from checkpoint import builders
from checkpoint.builders import COMMON, SMALL
from checkpoint.test_quantized_folders import FORMATS

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.families import streaming
from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.layer_by_layer import streamed_of
from lossprobe.checkpoint.model.free_memory import free_memory
from lossprobe.checkpoint.model.streamed import by_rows, hidden_store, streamed_lm, streamed_weights, weight_plan
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

STREAMED = LoadOptions(stream_weights="always")
KINDS = ["sliding_attention"] * 4 + ["full_attention"]
ALTERNATING = {"sliding_window": 16, "num_hidden_layers": 5, "layer_types": KINDS}
FAMILIES = {
    "llama": {},
    "gpt2": {"n_layer": 3},
    "qwen2": SMALL | {"tie_word_embeddings": True},
    "mistral": SMALL | {"sliding_window": 16},
    "phi3": SMALL,
    "gemma2": {"num_hidden_layers": 3},
    "gemma3_text": SMALL | {"head_dim": 8} | ALTERNATING,
    "gpt_neox": {"num_hidden_layers": 3},
    "opt": COMMON
    | {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "word_embed_proj_dim": 32}
    | {"max_position_embeddings": 64},
    "mixtral": SMALL | {"num_local_experts": 4, "num_hidden_layers": 3},
}
IDS = [torch.arange(2 * 40).reshape(2, 40) * 7 % 300, torch.arange(17)[None] * 3 % 300, torch.arange(3, 4)[None]]


@pytest.fixture
def frugal(monkeypatch):
    """Nothing is small enough to be held: the check has one layer of each kind, embedding and head are read by rows."""
    monkeypatch.setattr(weight_plan, "MOST_EMBEDDING_BYTES", 0)
    monkeypatch.setattr(streamed_weights, "MOST_HEAD_BYTES", 0)
    monkeypatch.setattr(streamed_lm, "MOST_TRIED_BYTES", 0)
    monkeypatch.setattr(by_rows, "TILE_BYTES", 4096)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return a function that writes a random model of a family and returns the model and its folder."""

    def write(family, **changes):
        monkeypatch.setitem(builders.FAMILIES, family, builders.FAMILIES.get(family, {}) | FAMILIES.get(family, {}))
        model = builders.model(family, **changes)
        path = builders.save(model, tmp_path / family)
        builders.write_settings(path)
        return model, path

    return write


def logits_of(checkpoint):
    """Return the logits of all inputs, run together."""
    return [checkpoint.logits(hidden.flatten(0, 1)) for hidden in streamed_of(checkpoint).hidden_of_all(IDS)]


def in_memory(checkpoint):
    """Return how many values of the weights are in memory, in those of 4 bytes."""
    held = (weight for weight in checkpoint._model.parameters() if weight.device.type != "meta")
    return sum(weight.untyped_storage().nbytes() for weight in held) // 4


def assert_right(checkpoint, model, tolerance=1e-5):
    """Check the logits against transformers' own model in float64, which experts cannot be run in."""
    if hasattr(model, "router_aux_loss_coef"):
        model.set_experts_implementation("eager")  # the faster code takes no float64
    double = model.double()
    for found, ids in zip(logits_of(checkpoint), IDS, strict=True):
        with torch.no_grad():
            expected = double(input_ids=ids).logits.flatten(0, 1)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def thorough(values, quick):
    """Return the values as parameters of a test, all but a few of them for the thorough suite."""
    return [each if each in quick else pytest.param(each, marks=pytest.mark.thorough) for each in values]


@pytest.mark.parametrize("family", thorough(FAMILIES, ("llama", "gpt2")))
def test_logits_are_those_of_transformers(written, frugal, family):
    model, path = written(family)
    checkpoint = load_huggingface(path, STREAMED)
    whole = load_huggingface(path, LoadOptions())
    assert builders.without_attention(checkpoint.facts.kernels) == "streamed layers"
    kept = {"kernels": "", "notices": ()}
    assert replace(checkpoint.facts, **kept) == replace(whole.facts, **kept)
    left = in_memory(checkpoint)
    assert left < 0.1 * checkpoint.facts.parameters, "norms, biases and learned positions stay"
    assert_right(checkpoint, model)
    assert in_memory(checkpoint) == left


def test_a_single_input_and_padding_on_the_left(written, frugal):
    model, path = written("llama", num_hidden_layers=3)
    checkpoint, whole = load_huggingface(path, STREAMED), load_huggingface(path, LoadOptions())
    padding = torch.tensor([0, 5])
    for method, extra in (("hidden", ()), ("hidden_left_padded", (padding,))):
        found, expected = (getattr(each, method)(IDS[0], *extra) for each in (checkpoint, whole))
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert model


def test_small_parts_stay_in_memory_and_heads_are_packed(written):
    model, path = written("llama")
    checkpoint = load_huggingface(path, STREAMED)
    assert builders.without_attention(checkpoint.facts.kernels) in (
        "packed head, streamed layers",
        "streamed layers",
    )  # by torch's build
    assert streamed_of(checkpoint).head_rows is None
    assert_right(checkpoint, model)


@pytest.mark.parametrize("stored", thorough([torch.bfloat16, torch.float16], (torch.bfloat16,)))
def test_weights_in_half_precision(written, frugal, stored):
    model, path = written("qwen2")
    builders.rewrite(path, lambda tensors: {name: each.to(stored) for name, each in tensors.items()})
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(stored))
    assert_right(load_huggingface(path, STREAMED), model)
    half = [load_huggingface(path, LoadOptions(stream_weights=how, dtype="auto")) for how in ("always", "never")]
    assert half[0].facts.compute_dtype == half[1].facts.compute_dtype == str(stored).removeprefix("torch.")
    for ids in IDS:
        one, other = (each.logits(each.hidden(ids).flatten(0, 1)).float() for each in half)
        torch.testing.assert_close(one, other, rtol=0, atol=0.02 * float(other.abs().max()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_that_are_wider_than_the_pass(written, frugal, dtype):
    _, path = written("llama", num_hidden_layers=6)
    streamed, whole = (
        load_huggingface(path, LoadOptions(stream_weights=how, dtype=dtype)) for how in ("always", "never")
    )
    every = list(streamed_of(streamed).hidden_of_all(IDS))
    for hidden, ids in zip(every, IDS, strict=True):
        one, other = streamed.logits(hidden.flatten(0, 1)), whole.logits(whole.hidden(ids).flatten(0, 1))
        torch.testing.assert_close(one.float(), other.float(), rtol=0, atol=0.02 * float(other.abs().max()))


def test_no_layer_is_freed_while_another_is_read(written, frugal, monkeypatch):
    _, path = written("llama", num_hidden_layers=6)
    checkpoint = load_huggingface(path, STREAMED)
    reading, freed = [], []
    load, unload = streamed_weights.StreamedWeights.load, streamed_weights.StreamedWeights.unload

    def slowly(self, number):
        reading.append(number)
        time.sleep(0.02)  # longer than the layer before it computes
        load(self, number)
        reading.remove(number)

    def noted(self, number):
        freed.append((number, list(reading)))
        unload(self, number)

    monkeypatch.setattr(streamed_weights.StreamedWeights, "load", slowly)
    monkeypatch.setattr(streamed_weights.StreamedWeights, "unload", noted)
    assert len(list(streamed_of(checkpoint).hidden_of_all(IDS))) == len(IDS)
    assert {number for number, _ in freed} == set(range(6))
    assert all(others == [] for _, others in freed)


def test_each_layer_is_read_once_for_all_inputs_and_never_more_than_two_are_in_memory(written, frugal, monkeypatch):
    _, path = written("llama", num_hidden_layers=6)
    checkpoint = load_huggingface(path, STREAMED)
    read, most = [], []
    load = streamed_weights.StreamedWeights.load

    def counted(self, number):
        load(self, number)
        read.append(number)
        most.append(len(self._loaded))

    monkeypatch.setattr(streamed_weights.StreamedWeights, "load", counted)
    told = []
    assert len(list(checkpoint.hidden_of_all(IDS, lambda *done: told.append(done)))) == len(IDS)
    assert read == list(range(6))
    assert max(most) <= 2
    assert told == [(layer, number) for layer in range(1, 7) for number in range(len(IDS))]


def test_hidden_states_that_lie_in_a_file_are_the_same(written, monkeypatch):
    _, path = written("gpt2")
    checkpoint = load_huggingface(path, STREAMED)
    expected = list(checkpoint.hidden_of_all(IDS))
    for held in (0, 6000):
        monkeypatch.setattr(hidden_store, "MOST_HELD_BYTES", held)
        for found, wanted in zip(checkpoint.hidden_of_all(IDS), expected, strict=True):
            assert torch.equal(found, wanted)


def test_no_inputs(written):
    assert list(load_huggingface(written("llama")[1], STREAMED).hidden_of_all([])) == []


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("equal", [True, False])
def test_a_head_that_is_stored_beside_the_embedding(written, frugal, tie, equal):
    model, path = written("llama", tie_word_embeddings=tie)

    def both(tensors):
        embedding = tensors["model.embed_tokens.weight"]
        return tensors | {"lm_head.weight": embedding.clone() if equal else embedding * 2}

    builders.rewrite(path, both)
    checkpoint, whole = load_huggingface(path, STREAMED), load_huggingface(path, LoadOptions())
    assert (checkpoint.facts.tied, checkpoint.facts.parameters) == (whole.facts.tied, whole.facts.parameters)
    for found, ids in zip(logits_of(checkpoint), IDS, strict=True):
        torch.testing.assert_close(found, whole.logits(whole.hidden(ids).flatten(0, 1)), rtol=0, atol=2e-5)
    assert model


def test_shards_and_names_that_wrappers_change(written, frugal):
    model, path = written("llama", num_hidden_layers=3)
    (path / builders.WEIGHTS).unlink()
    model.save_pretrained(path, max_shard_size="20KB")
    assert len(list(path.glob("*.safetensors"))) > 3
    assert_right(load_huggingface(path, STREAMED), model)
    model, path = written("gpt2")
    builders.rewrite(path, lambda tensors: {f"_orig_mod.{name}": each for name, each in tensors.items()})
    assert_right(load_huggingface(path, STREAMED), model)


@pytest.mark.parametrize("name", thorough(["gptq", "fp8", "w8a8"], ("gptq",)))
def test_quantised_folders(written, frugal, name):
    quantised, config, kind, _ = FORMATS[name]
    _, path = written("llama", num_hidden_layers=3)

    def pack(tensors):
        linear = [each for each in tensors if each.endswith("proj.weight")]
        packed = {key: value for key, value in tensors.items() if key not in linear}
        for each in linear:
            stem = each.removesuffix(".weight")
            packed |= {stem + end: tensor for end, tensor in quantised(tensors[each])[0].items()}
        return packed

    builders.rewrite(path, pack)
    builders.reconfigure(path, quantization_config=config)
    checkpoint, whole = load_huggingface(path, STREAMED), load_huggingface(path, LoadOptions())
    assert checkpoint.facts.stored_dtype == kind
    for found, ids in zip(logits_of(checkpoint), IDS, strict=True):
        torch.testing.assert_close(found, whole.logits(whole.hidden(ids).flatten(0, 1)), rtol=0, atol=2e-5)


def test_faults_are_those_of_a_whole_model(written):
    def message(options):
        with pytest.raises(CheckpointError) as caught:
            load_huggingface(path, options)
        return caught.value.id, caught.value.message

    changes = {
        "missing": lambda tensors: {name: each for name, each in tensors.items() if "layers.1.mlp.up" not in name},
        "surplus": lambda tensors: tensors | {"model.layers.1.mlp.extra.weight": torch.ones(3)},
        "shape": lambda tensors: tensors | {"model.norm.weight": torch.ones(3)},
        "packed": lambda tensors: tensors | {"model.layers.0.mlp.up_proj.weight": torch.ones(48, 32, dtype=torch.int8)},
        "norm": lambda tensors: tensors | {"model.norm.weight": torch.full((32,), torch.nan)},
        "embedding": lambda tensors: tensors | {"model.embed_tokens.weight": torch.full((320, 32), torch.inf)},
        "layer": lambda tensors: tensors | {"model.layers.1.mlp.up_proj.weight": torch.full((48, 32), torch.nan)},
    }
    _, path = written("llama")
    plain = safetensors.torch.load_file(path / builders.WEIGHTS)
    for change in changes.values():
        safetensors.torch.save_file(change(plain), path / builders.WEIGHTS)
        assert message(STREAMED) == message(LoadOptions())


def test_a_layer_that_is_not_finite_is_found_when_it_is_read(written, frugal):
    _, path = written("llama", num_hidden_layers=4)
    name = "model.layers.3.mlp.up_proj.weight"
    builders.rewrite(path, lambda tensors: tensors | {name: torch.full((48, 32), torch.nan)})
    checkpoint = load_huggingface(path, STREAMED)  # layer 3 was not needed for the check
    with pytest.raises(CheckpointError, match=f"{name}: 1,536 non-finite") as caught:
        list(checkpoint.hidden_of_all(IDS))
    assert caught.value.id == "checkpoint.non_finite"
    assert in_memory(checkpoint) < 0.1 * checkpoint.facts.parameters


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.up_proj.weight"]
)
def test_weights_that_overflow_in_a_narrower_dtype(written, frugal, name):
    _, path = written("llama", num_hidden_layers=2)
    builders.rewrite(path, lambda tensors: tensors | {name: tensors[name] * 1e7})  # float32 holds it, float16 does not
    assert streamed_of(load_huggingface(path, STREAMED))
    narrow = replace(STREAMED, dtype="float16")
    assert f"{name}: " in builders.refused(path, "checkpoint.non_finite", narrow)


def test_a_layer_that_overflows_is_found_when_it_is_read(written, frugal):
    _, path = written("llama", num_hidden_layers=4)
    name = "model.layers.3.mlp.up_proj.weight"
    builders.rewrite(path, lambda tensors: tensors | {name: torch.full((48, 32), 1e6)})
    checkpoint = load_huggingface(path, replace(STREAMED, dtype="float16"))
    with pytest.raises(CheckpointError, match=f"{name}: 1,536 non-finite") as caught:
        list(checkpoint.hidden_of_all(IDS))
    assert caught.value.id == "checkpoint.non_finite"


def test_a_file_that_shrinks_while_it_is_scored(written, frugal):
    _, path = written("llama")
    checkpoint = load_huggingface(path, STREAMED)
    with (path / builders.WEIGHTS).open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(CheckpointError, match=r"(bytes missing.* \(|: )file changed during reading"):
        list(checkpoint.hidden_of_all(IDS))


def refused(path, options=STREAMED):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, options)
    assert caught.value.id == "checkpoint.not_streamed"
    assert caught.value.message.startswith(f"{path}: cannot be read layer by layer: ")
    return caught.value.message.rpartition("layer by layer: ")[2]


ALBERT = {"embedding_size": 16, "num_hidden_groups": 1}
SHARED_CACHE = SMALL | {
    "head_dim": 8, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
    "intermediate_size": [48] * 4, "vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 2, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 4,
}  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("family", "config", "reason"),
    [
        ("gemma3n_text", SHARED_CACHE, "its layers need more than the hidden states of the one before"),
        ("rwkv", COMMON | {"hidden_size": 32, "num_hidden_layers": 2}, "its layers keep state from pass to pass"),
    ],
)
def test_what_cannot_be_streamed_says_why(written, monkeypatch, family, config, reason):
    monkeypatch.setitem(builders.FAMILIES, family, config)
    assert refused(written(family)[1]).startswith(reason)


def test_autocast_needs_the_whole_model(written):
    _, path = written("llama")
    assert "autocast" in refused(path, replace(STREAMED, dtype="autocast"))


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(streaming, "free_memory", lambda device: 100_000)


def test_weights_larger_than_the_free_memory_are_streamed_and_it_is_told(written, little_memory):
    _, path = written("llama")
    checkpoint = open_checkpoint(path)
    assert streamed_of(checkpoint) is not None
    (told,) = checkpoint.facts.notices
    need = checkpoint.facts.parameters * 4
    assert told == (
        f"{path}: its weights need {need / 1e9:.3g} GB, 0.0001 GB of memory are free: they are read layer by layer"
    )
    assert streamed_of(open_checkpoint(path, LoadOptions(stream_weights="never"))) is None


def test_where_that_cannot_be_the_notice_says_so(written, little_memory, monkeypatch):
    monkeypatch.setitem(builders.FAMILIES, "gemma3n_text", SHARED_CACHE)
    checkpoint = open_checkpoint(written("gemma3n_text")[1])
    assert streamed_of(checkpoint) is None
    assert "cannot be read layer by layer: its layers need more than" in " ".join(checkpoint.facts.notices)


def test_enough_memory_changes_nothing(written):
    assert streamed_of(open_checkpoint(written("llama")[1])) is None


def test_bytes_that_are_needed_count_the_stored_tensors_where_they_are_converted(written):
    model, path = written("llama")
    weights = streamed_weights_of(path)
    size = sum(weight.numel() for weight in model.parameters())
    assert streaming.needed_bytes(weights, torch.float32) == 4 * size
    assert streaming.needed_bytes(weights, torch.bfloat16) == (2 + 4) * size


def streamed_weights_of(path):
    from lossprobe.checkpoint.files.weight_files import find_weights

    return find_weights(path)


MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    500 kB\n"
MACHINES = {
    "no group": ({"proc/meminfo": MEMINFO}, 500 * 1024),
    "version 2": (
        {
            "proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/x\n", "sys/fs/cgroup/x/memory.max": "200000\n",
            "sys/fs/cgroup/x/memory.current": "150000\n",
            "sys/fs/cgroup/x/memory.stat": "anon 90000\nactive_file 10000\ninactive_file 20000\n",
        },
        80_000,
    ),
    "no limit": (
        {
            "proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/memory.current": "150000\n",
        },
        500 * 1024,
    ),
    "version 1": (
        {
            "proc/meminfo": MEMINFO, "proc/self/cgroup": "9:memory:/y\n",
            "sys/fs/cgroup/memory/y/memory.limit_in_bytes": "100000\n",
            "sys/fs/cgroup/memory/y/memory.usage_in_bytes": "120000\n",
        },
        0,
    ),
    "no Linux": ({}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_free_memory(tmp_path, name):
    files, expected = MACHINES[name]
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert free_memory("cpu", tmp_path) == expected


def test_nothing_keeps_a_streamed_model_alive(written):
    checkpoint = load_huggingface(written("llama")[1], STREAMED)
    kept = weakref.ref(checkpoint)
    del checkpoint
    gc.collect()
    assert kept() is None
