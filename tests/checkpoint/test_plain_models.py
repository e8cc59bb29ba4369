"""Plain models compute bit for bit what transformers' classes do, and stand for nothing that is not plain."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bundled import EXAMPLES
from checkpoint.builders import COMMON, SMALL, WEIGHTS, byte_level_bpe, model, reconfigure, refused, rewrite, save

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.families import prepared as folders
from lossprobe.checkpoint.families.prepared import prepare
from lossprobe.checkpoint.model.exact_load import load_exactly
from lossprobe.checkpoint.model.model_config import build_config
from lossprobe.checkpoint.model.plain.families import FAMILIES, WITHOUT_EFFECT
from lossprobe.checkpoint.model.plain.language_model import PlainLM
from lossprobe.checkpoint.model.shared_prefix import name_of_kept
from lossprobe.checkpoint.options import LoadOptions

LLAMA3 = {
    "rope_theta": 500.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SCALED = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
GPT2 = COMMON | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
SHAPES = {
    "shared keys": ("llama", SMALL),
    "one key for all": ("llama", SMALL | {"num_key_value_heads": 1}),
    "a key each": ("llama", SMALL | {"num_key_value_heads": 4}),
    "tied": ("llama", SMALL | {"tie_word_embeddings": True}),
    "biases": ("llama", SMALL | {"attention_bias": True, "mlp_bias": True}),
    "wide heads": ("llama", SMALL | {"head_dim": 24}),
    "narrow heads": ("llama", SMALL | {"head_dim": 6}),
    "a width that is no multiple": ("llama", SMALL | {"hidden_size": 36, "head_dim": 8}),
    "another epsilon": ("llama", SMALL | {"rms_norm_eps": 0.01}),
    "another base": ("llama", SMALL | {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}),
    "padding id": ("llama", SMALL | {"pad_token_id": 5}),
    "positions of llama 3": ("llama", SMALL | {"head_dim": 16, "rope_parameters": LLAMA3}),
    "mistral": ("mistral", SMALL | {"sliding_window": None}),
    "wide heads of mistral": ("mistral", SMALL | {"sliding_window": None, "head_dim": 16}),
    "qwen2": ("qwen2", SMALL | {"tie_word_embeddings": True}),
    "untied qwen2": ("qwen2", SMALL | {"rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}}),
    "qwen3": ("qwen3", SMALL | {"head_dim": 16, "tie_word_embeddings": True}),
    "wide heads of qwen3": ("qwen3", SMALL | {"head_dim": 64}),
    "biases of qwen3": ("qwen3", SMALL | {"head_dim": 8, "attention_bias": True}),
    "gpt2": ("gpt2", GPT2),
    "untied gpt2": ("gpt2", GPT2 | {"tie_word_embeddings": False, "n_inner": 56}),
    "torch's gelu": ("gpt2", GPT2 | {"activation_function": "gelu_pytorch_tanh", "layer_norm_epsilon": 0.001}),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LENGTH = 40


@pytest.fixture(params=SHAPES, scope="module")
def folder(request, tmp_path_factory) -> Path:
    family, changes = SHAPES[request.param]
    built = model(family, **changes)
    with torch.no_grad():
        for weight in built.parameters():
            if weight.ndim == 1:  # norms and biases, which else are ones and zeros
                weight.add_(torch.randn(weight.shape) / 4)
    return save(built, tmp_path_factory.mktemp("plain") / "model", byte_level_bpe())


def both(folder: Path, dtype: torch.dtype) -> tuple[PlainLM, torch.nn.Module]:
    """Return the plain model of a folder, and that of transformers."""
    found = []
    for plain in (True, False):
        prepared = prepare(folder, LoadOptions(), plain=plain)
        assert prepared.plain == plain
        loaded = load_exactly(folder, prepared.model_class, prepared.config, prepared.weights, dtype)
        assert loaded.notices == ()
        found.append(loaded.model)
    assert isinstance(found[0], PlainLM)
    assert not isinstance(found[1], PlainLM)
    return found[0], found[1]


def ids(seed: int = 0, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(0, 320, (3, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.inference_mode()
def test_logits_are_those_of_transformers_bit_for_bit(folder, dtype):
    plain, other = both(folder, dtype)
    for length in (1, 2, 7, LENGTH, 64):
        for rows in (ids(length=length), ids(length=length)[:1]):
            assert torch.equal(plain(input_ids=rows, use_cache=False).logits, other(rows, use_cache=False).logits)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.inference_mode()
def test_rows_padded_on_the_left_are_those_of_transformers(folder, dtype):
    plain, other = both(folder, dtype)
    for padding in ([0, 0, 0], [3, 0, 11], [0, 39, 1]):
        place = torch.arange(LENGTH) - torch.tensor(padding)[:, None]
        inputs = {"input_ids": ids(), "attention_mask": (place >= 0).long(), "position_ids": place.clamp(min=0)}
        assert torch.equal(plain(**inputs, use_cache=False).logits, other(**inputs, use_cache=False).logits)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.inference_mode()
def test_a_kept_start_is_continued_as_by_transformers(folder, dtype):
    plain, other = both(folder, dtype)
    for before, after in ((20, 20), (20, 1), (1, 30)):
        found = []
        for each in (plain, other):
            body = each._modules[each.base_model_prefix]
            name = name_of_kept(body)
            kept = getattr(body(input_ids=ids(1, before), use_cache=True), name)
            rest = body(input_ids=ids(2, after), **{name: copy.copy(kept)}, use_cache=True).last_hidden_state
            found.append((rest, [type(layer) for layer in kept.layers]))
        assert torch.equal(found[0][0], found[1][0])
        assert found[0][1] == found[1][1]


def test_names_shapes_and_ties_are_those_of_transformers(folder):
    plain, other = both(folder, torch.float32)
    assert {name: weight.shape for name, weight in plain.named_parameters()} == {
        name: weight.shape for name, weight in other.named_parameters()
    }
    assert list(plain.state_dict()) == list(other.state_dict())
    assert list(dict(plain.named_parameters())) == list(dict(other.named_parameters()))
    assert (plain.lm_head.weight is plain.get_input_embeddings().weight) == other.config.tie_word_embeddings
    assert plain.dtype == other.dtype


def opened_both(folder: Path, monkeypatch, dtype: str):
    options = LoadOptions(dtype=dtype)
    plain = open_checkpoint(folder, options)
    with monkeypatch.context() as patched:
        patched.setattr(folders, "is_plain", lambda _: False)
        other = open_checkpoint(folder, options)
    assert isinstance(plain._model, PlainLM)
    assert not isinstance(other._model, PlainLM)
    return plain, other


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_checkpoint_is_the_same_with_its_kernels(folder, monkeypatch, dtype):
    plain, other = opened_both(folder, monkeypatch, dtype)
    assert plain.facts == other.facts
    assert plain.facts.hard_limit == (plain.facts.family == "gpt2")
    rows = ids(3)
    assert torch.equal(plain.logits(plain.hidden(rows).flatten(0, 1)), other.logits(other.hidden(rows).flatten(0, 1)))
    padding = torch.tensor([0, 2, 9])
    assert torch.equal(plain.hidden_left_padded(rows, padding), other.hidden_left_padded(rows, padding))
    shared, others = plain.shared_prefix(), other.shared_prefix()
    assert shared is not None
    assert others is not None
    which = torch.tensor([2, 0, 0])
    found = (each.hidden_after(each.run(rows[:, :30]), which, rows[:, 30:]) for each in (shared, others))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["jargon-plain", "jargon-smoothed"])
def test_bundled_models_are_plain_and_the_same(name, monkeypatch):
    plain, other = opened_both(EXAMPLES / name, monkeypatch, "float32")
    assert plain.facts == other.facts
    rows = torch.arange(256)[None] * 7 % 1024
    assert torch.equal(plain.hidden(rows), other.hidden(rows))


UNUSUAL = {
    "unknown key": {"attention_sinks": 4},
    "activation": {"hidden_act": "gelu"},
    "scaled positions": {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}},
    "partial rotation": {
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.5}
    },
    "positions stated twice": {"rope_theta": 20000.0},
    "tensor parallel training": {"pretraining_tp": 2},
    "quantised": {"quantization_config": {"quant_method": "fp8"}},
    "code": {"auto_map": {"AutoModelForCausalLM": "modeling.Model"}},
    "text for a number": {"vocab_size": "320"},
    "truth for a number": {"num_hidden_layers": True},
    "another epsilon": {"rms_norm_eps": 0},
    "huge": {"vocab_size": 10**30},
    "too many layers": {"num_hidden_layers": 10**6},
    "heads that do not fit": {"num_attention_heads": 5},
    "padding id beyond the vocabulary": {"pad_token_id": 320},
    "another class": {"architectures": ["LlamaForSequenceClassification"]},
    "another shape": {"intermediate_size": 40},
    "tied in words only": {"tie_word_embeddings": True},
}


def is_plain_folder(folder: Path) -> bool:
    settings = json.loads((folder / "config.json").read_text())
    known = folders.is_plain(settings)
    entries = folders._weights(folder, {}).entries
    return known and folders.plain_model(settings, entries) is not None


@pytest.mark.parametrize("case", UNUSUAL)
def test_anything_unusual_is_left_to_transformers(case, tmp_path):
    folder = save(model("llama"), tmp_path / "model", byte_level_bpe())
    assert is_plain_folder(folder)
    reconfigure(folder, **UNUSUAL[case])
    assert not is_plain_folder(folder)


SCALES = (None, 1, 2.0, 3.0, 0.5, 1e5, math.nan, math.inf, 8, 63, 64)
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, 5, 6, 64, -1, 1 << 24, (1 << 24) + 1, 10**19, 10**30, 10**400,
    0.0, 0.02, 0.5, 1.0, 1.5, -0.5, 1e12, 1e39, 1e300, math.inf, "", "silu", "tanh", "gelu_new", "float16", "32",
    [], [1], [1, 2], [10**30], [None], [True], ["GPT2LMHeadModel"], {}, {"rope_type": "default"},
    *({"rope_type": "default", "rope_theta": base} for base in (1, 2, 1e6, True, None, 10**30, 10**400, math.inf)),
    *(LLAMA3 | {key: value} for key in LLAMA3 for value in SCALES),
    *(SCALED | {key: value} for key in SCALED for value in SCALES),
    ["full_attention"], ["full_attention"] * 2, ["full_attention", "sliding_attention"],
)  # fmt: skip


# Fields that transformers' configurations of a family lack, and that are not False in each of its models.
ALWAYS = {("qwen2", "attention_bias"): True, ("qwen3", "head_norms"): True}


def fields_of(read: Any, family: str) -> dict[str, Any]:
    """Return what a configuration of transformers says, as the fields of a plain one."""
    if family == "gpt2":
        return read.to_dict() | {"n_inner": read.n_inner or 4 * read.n_embd}
    rope = dict(read.rope_parameters)
    kind, base = rope.pop("rope_type"), rope.pop("rope_theta")
    assert kind in ("default", "llama3")
    found = {"rope": {"rope_theta": base, "scaling": rope if kind == "llama3" else None}}
    found |= {"attention_bias": False, "output_bias": False, "mlp_bias": False, "head_norms": False}
    found |= {name: value for (other, name), value in ALWAYS.items() if other == family} | read.to_dict()
    found["output_bias"] = found["attention_bias"] and family != "qwen2"
    assert getattr(read, "sliding_window", None) is None
    assert set(getattr(read, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    return found | {"head_dim": getattr(read, "head_dim", None) or read.hidden_size // read.num_attention_heads}


def plain_settings(family: str, tmp_path: Path) -> dict[str, Any]:
    """Return the config.json of a small model."""
    changes = {"qwen3": {"head_dim": 8}, "mistral": {"sliding_window": None}}.get(family, {})
    built = model(family, **(GPT2 if family == "gpt2" else SMALL | changes))
    return json.loads((save(built, tmp_path / "model", byte_level_bpe()) / "config.json").read_text())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_configuration_is_plain_that_transformers_refuses_or_reads_otherwise(family, tmp_path):
    settings = plain_settings(family, tmp_path)
    known = {**WITHOUT_EFFECT, **FAMILIES[family].needed, **FAMILIES[family].optional}
    older = {key: value for key, value in settings.items() if key != "rope_parameters"} | {"rope_theta": 10000.0}
    count = 0
    for key in known.keys() - {"model_type"}:
        kept = older if key in ("rope_theta", "rope_scaling") else settings
        for value in ODD:
            changed = kept | {key: value}
            if not folders.is_plain(changed):
                continue
            plain = dataclasses.asdict(FAMILIES[family].configure(changed))
            expected = fields_of(build_config(changed, "config.json"), family)
            assert plain == {name: expected[name] for name in plain}, (key, value)
            count += 1
    assert count > 100


@pytest.mark.parametrize("base", [10**30, 10**400], ids=["no tensor", "no float"])
def test_a_base_that_no_dtype_can_hold_is_refused_in_one_line(base, tmp_path):
    folder = save(model("llama"), tmp_path / "model", byte_level_bpe())
    reconfigure(folder, rope_parameters={"rope_theta": base, "rope_type": "default"})
    refused(folder, "checkpoint.bad_config")


def test_a_folder_with_two_faults_is_refused_as_by_transformers(tmp_path):
    """The configuration is refused first, whatever is wrong with the weights."""
    folder = save(model("llama"), tmp_path / "model", byte_level_bpe())
    reconfigure(folder, num_attention_heads=6, num_key_value_heads=3)
    (folder / WEIGHTS).unlink()
    refused(folder, "checkpoint.bad_config")


def test_headers_are_read_once_whoever_builds_the_model(tmp_path, monkeypatch):
    folder = save(model("llama"), tmp_path / "model", byte_level_bpe())
    reconfigure(folder, intermediate_size=40)
    read = []
    find = folders.find_weights
    monkeypatch.setattr(folders, "find_weights", lambda path: read.append(path) or find(path))
    assert not prepare(folder, LoadOptions(), plain=True).plain
    assert read == [folder]


def test_heads_that_do_not_divide_the_width_are_left_to_transformers(tmp_path):
    """The tensors fit, but transformers refuses to build such a model."""
    folder = save(model("llama", head_dim=24), tmp_path / "model", byte_level_bpe())
    assert is_plain_folder(folder)
    reconfigure(folder, num_attention_heads=6, num_key_value_heads=3, head_dim=16)
    assert not is_plain_folder(folder)


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_parameters", "hidden_act", "num_attention_heads"])
def test_a_missing_key_is_left_to_transformers(key, tmp_path):
    folder = save(model("llama"), tmp_path / "model", byte_level_bpe())
    reconfigure(folder, drop=(key,))
    assert not is_plain_folder(folder)


@pytest.mark.parametrize("change", [
    {"activation_function": "relu"}, {"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False},
    {"add_cross_attention": True}, {"n_head": 3},
])  # fmt: skip
def test_an_unusual_gpt2_is_left_to_transformers(change, tmp_path):
    folder = save(model("gpt2"), tmp_path / "model", byte_level_bpe())
    assert is_plain_folder(folder)
    reconfigure(folder, **change)
    assert not is_plain_folder(folder)


@pytest.mark.parametrize("tensors", [
    lambda stored: stored | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)},
    lambda stored: {name: stored[name] for name in sorted(stored)[1:]},
    lambda stored: {f"module.{name}": tensor for name, tensor in stored.items()},
    lambda stored: stored | {"model.norm.weight": torch.ones(32, dtype=torch.int8)},
])  # fmt: skip
def test_other_tensors_are_left_to_transformers(tensors, tmp_path):
    folder = save(model("llama"), tmp_path / "model", byte_level_bpe())
    rewrite(folder, tensors)
    assert not is_plain_folder(folder)


def test_a_tied_head_that_is_stored_too_is_left_to_transformers(tmp_path):
    folder = save(model("llama", tie_word_embeddings=True), tmp_path / "model", byte_level_bpe())
    assert is_plain_folder(folder)
    rewrite(folder, lambda stored: stored | {"lm_head.weight": stored["model.embed_tokens.weight"].clone()})
    assert not is_plain_folder(folder)


UNUSUAL_LIKE = [
    ("llama", {"rope_parameters": LLAMA3 | {"factor": 8}}),
    ("llama", {"rope_parameters": LLAMA3 | {"factor": 0.5}}),
    ("llama", {"rope_parameters": LLAMA3 | {"high_freq_factor": 1.0}}),
    ("llama", {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 64}}),
    ("llama", {"rope_parameters": LLAMA3 | {"partial_rotary_factor": 0.5}}),
    ("llama", {"rope_parameters": SCALED}),
    ("llama", {"rope_scaling": SCALED}),
    ("mistral", {"sliding_window": 16}),
    ("mistral", {"attention_bias": False}),
    ("mistral", {"layer_types": ["full_attention", "full_attention"]}),
    ("qwen2", {"use_sliding_window": True}),
    ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}),
    ("qwen2", {"layer_types": ["full_attention"]}),
    ("qwen2", {"head_dim": 8}),
    ("qwen2", {"use_mrope": True}),
    ("qwen2", {"attention_bias": True}),
    ("qwen3", {"head_dim": None}),
    ("qwen3", {"mlp_bias": False}),
    ("qwen3", {"num_key_value_heads": None}),
]


@pytest.mark.parametrize(("family", "change"), UNUSUAL_LIKE)
def test_an_unusual_one_of_its_like_is_left_to_transformers(family, change, tmp_path):
    settings = {"sliding_window": None} if family == "mistral" else {}
    folder = save(model(family, **SMALL | {"head_dim": 8} | settings), tmp_path / "model", byte_level_bpe())
    reconfigure(folder, drop=("head_dim",) if family == "qwen2" else ())
    assert is_plain_folder(folder)
    reconfigure(folder, **change)
    assert not is_plain_folder(folder)


@pytest.mark.parametrize(("family", "key"), [
    ("mistral", "sliding_window"), ("mistral", "num_key_value_heads"), ("qwen2", "num_key_value_heads"),
    ("qwen3", "num_key_value_heads"), ("qwen3", "head_dim"),
])  # fmt: skip
def test_a_key_that_has_a_value_by_itself_is_left_to_transformers(family, key, tmp_path):
    """Where it is missing, transformers takes the value of the family's first model."""
    folder = save(
        model(family, **SMALL | {"sliding_window": None, "head_dim": 8}), tmp_path / "model", byte_level_bpe()
    )
    reconfigure(folder, drop=("head_dim",) if family == "qwen2" else ())
    assert is_plain_folder(folder)
    reconfigure(folder, drop=(key,))
    assert not is_plain_folder(folder)


# Keys beside the shape in the config.json of releases: Llama 3.2, Qwen2.5, Qwen3 and Mistral 0.3.
RELEASED = {
    "llama": {
        "rope_scaling": SCALED | {"factor": 32.0}, "rope_theta": 500000.0, "attention_bias": False, "mlp_bias": False,
        "pretraining_tp": 1, "torch_dtype": "bfloat16", "eos_token_id": [2, 3], "attention_dropout": 0.0,
    },
    "qwen2": {
        "rope_theta": 1000000.0, "max_window_layers": 21, "sliding_window": 32768, "use_mrope": False,
        "use_sliding_window": False, "attention_dropout": 0.0, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    },
    "qwen3": {
        "rope_theta": 1000000, "rope_scaling": None, "attention_bias": False, "max_window_layers": 28,
        "sliding_window": None, "use_sliding_window": False, "torch_dtype": "bfloat16",
    },
    "mistral": {"rope_theta": 1000000.0, "sliding_window": None, "torch_dtype": "bfloat16", "attention_dropout": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("family", RELEASED)
def test_configurations_as_they_are_released_are_plain(family, tmp_path, monkeypatch):
    folder = save(model(family, **SMALL | {"head_dim": 8}), tmp_path / "model", byte_level_bpe())
    written = (
        "rope_parameters",
        "dtype",
        "layer_types",
        "sliding_window",
        *(["head_dim"] if family == "qwen2" else []),
    )
    reconfigure(folder, drop=written)
    reconfigure(folder, **RELEASED[family])
    plain, other = opened_both(folder, monkeypatch, "float32")
    assert plain.facts == other.facts
    assert torch.equal(plain.hidden(ids(length=64)), other.hidden(ids(length=64)))


def test_gpt2_as_it_was_first_released_is_plain(tmp_path, monkeypatch):
    """Its tensors have no prefix, and masks lie beside them."""
    folder = save(model("gpt2"), tmp_path / "model", byte_level_bpe())
    mask = torch.ones(64, 64).tril()[None, None]
    rewrite(folder, lambda stored: {name.removeprefix("transformer."): each for name, each in stored.items()}
            | {f"h.{layer}.attn.bias": mask.clone() for layer in range(2)})  # fmt: skip
    reconfigure(folder, n_ctx=64, task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}})
    plain, other = opened_both(folder, monkeypatch, "float32")
    assert plain.facts == other.facts
    assert "attn.bias" in str(plain.facts)
    assert torch.equal(plain.hidden(ids()), other.hidden(ids()))


def test_a_mask_with_other_values_is_refused_alike(tmp_path, monkeypatch):
    folder = save(model("gpt2"), tmp_path / "model", byte_level_bpe())
    rewrite(folder, lambda stored: stored | {"transformer.h.0.attn.bias": torch.rand(1, 1, 64, 64)})
    assert is_plain_folder(folder)
    assert len(set(refusals(folder, monkeypatch, "attn.bias"))) == 1


def test_older_keys_are_plain_too(tmp_path, monkeypatch):
    folder = save(model("llama"), tmp_path / "model", byte_level_bpe())
    reconfigure(folder, drop=("rope_parameters", "dtype", "head_dim", "mlp_bias"),
                rope_theta=20000.0, rope_scaling=None, torch_dtype="float32", num_key_value_heads=2)  # fmt: skip
    plain, other = opened_both(folder, monkeypatch, "float32")
    assert plain.facts == other.facts
    assert torch.equal(plain.hidden(ids()), other.hidden(ids()))


@pytest.mark.parametrize("options", [{"dtype": "autocast"}, {"stream_weights": "always"}])
def test_other_ways_to_run_a_model_are_left_to_transformers(options):
    opened = open_checkpoint(EXAMPLES / "jargon-plain", LoadOptions(**options))
    assert not isinstance(opened._model, PlainLM)


def refusals(folder: Path, monkeypatch, named: str) -> list[tuple[type, str]]:
    """Return how a folder is refused as a plain one, and by transformers."""
    told = []
    for plain in (True, False):
        if not plain:
            monkeypatch.setattr(folders, "is_plain", lambda _: False)
        with pytest.raises(Exception, match=named) as caught:
            open_checkpoint(folder)
        told.append((type(caught.value), str(caught.value)))
    return told


def test_values_that_are_not_finite_are_refused_alike(tmp_path, monkeypatch):
    folder = save(model("llama"), tmp_path / "model", byte_level_bpe())
    rewrite(folder, lambda stored: stored | {"model.norm.weight": torch.full((32,), torch.nan)})
    assert is_plain_folder(folder)
    assert len(set(refusals(folder, monkeypatch, "norm"))) == 1


def test_a_plain_model_is_scored_without_transformers_modelling_code(tmp_path):
    code = (
        f"import sys\nfrom lossprobe.checkpoint.detect import open_checkpoint\n"
        f"open_checkpoint({str(EXAMPLES / 'jargon-plain')!r})\n"
        "print(*sorted({'torch', 'transformers.modeling_utils', 'transformers.activations', 'torch._dynamo'} "
        "& sys.modules.keys()))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert process.stdout.split() == ["torch"], "that import takes a second"
