"""Hugging Face directories of several families: the numbers are those of transformers' own forward pass."""

import json
import math
import os
import pickle

import pytest
import torch
import transformers
from checkpoint import builders

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.interface import CheckpointFacts
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.checkpoint.model.model_config import build_config
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import UsageError

HEADS = {
    "gpt2": "linear",
    "llama": "linear",
    "qwen3": "linear",
    "gpt_neox": "linear",
    "gemma2": "model",
    "granite": "model",
    "cohere": "model",
}
TIED = {"gpt2", "qwen3", "gemma2", "cohere"}
# The same operations in the same dtype; only how many rows a matrix product takes at once differs, which can change
# the order of its sums of some 32 terms: 32 units in the last place, relative to the largest logit.
ROUNDING = 32
IDS = torch.randint(0, builders.VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(1))


def load(path, **options):
    return load_huggingface(path, LoadOptions(**options))


def reference(path, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True).eval()


@torch.inference_mode()
def full_logits(model, ids=IDS):
    return model(input_ids=ids, use_cache=False).logits


def logits(checkpoint, ids=IDS):
    hidden = checkpoint.hidden(ids)
    return checkpoint.logits(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])


def assert_same(actual, expected):
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    tolerance = ROUNDING * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    assert float((actual - expected).abs().max()) <= tolerance


@pytest.fixture(scope="module")
def loaded(family_paths):
    return {family: load(family_paths[family]) for family in HEADS}


@pytest.mark.parametrize("family", HEADS)
def test_logits_are_those_of_transformers(family_paths, loaded, family):
    checkpoint, expected = loaded[family], full_logits(reference(family_paths[family]))
    assert float(expected.abs().max()) > 0.2, "logits large enough to tell heads apart"
    assert checkpoint.facts.head == HEADS[family]
    assert_same(logits(checkpoint), expected)


@pytest.mark.parametrize("family", HEADS)
def test_rows_are_right_padded_and_heads_run_on_chunks(loaded, family):
    checkpoint = loaded[family]
    padded = IDS.clone()
    padded[0, 7:] = 0
    padded[1, 15:] = builders.VOCABULARY - 1
    for row, length in ((0, 7), (1, 15), (2, 24)):
        alone = logits(checkpoint, IDS[row : row + 1, :length])
        hidden = checkpoint.hidden(padded)[row, :length]
        assert_same(torch.cat([checkpoint.logits(chunk) for chunk in hidden.split(4)])[None], alone)


@pytest.mark.parametrize("family", HEADS)
def test_facts(family_paths, loaded, family):
    facts = loaded[family].facts
    assert (facts.name, facts.family, facts.config_from) == (family, family, "config.json")
    assert (facts.vocab_size, facts.context_length, facts.device) == (builders.VOCABULARY, 64, "cpu")
    assert (facts.stored_dtype, facts.compute_dtype) == ("float32", "float32")
    assert facts.tied == (family in TIED)
    assert facts.parameters == sum(p.numel() for p in reference(family_paths[family]).parameters())
    assert facts.notices == ()


def test_a_soft_cap_shows_even_where_the_probe_has_small_logits(tmp_path):
    model = builders.model("gemma2", final_logit_softcapping=30.0)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(0.02)
    checkpoint = load(builders.save(model, tmp_path / "model"))
    assert float(logits(checkpoint).abs().max()) < 0.1
    assert checkpoint.facts.head == "model"
    hidden = checkpoint.hidden(IDS)[0] * 1e4
    assert 25.0 < float(checkpoint.logits(hidden).abs().max()) <= 30.0


class Averaging(transformers.LlamaForCausalLM):
    """Adds up the logits of all earlier positions: causal, but no function of one row."""

    def forward(self, *arguments, **options):
        output = super().forward(*arguments, **options)
        output.logits = output.logits.cumsum(dim=1)
        return output


def test_a_head_that_is_no_function_of_one_row_is_run_whole():
    facts = CheckpointFacts(name="x", family="x", sha256="", vocab_size=builders.VOCABULARY, context_length=64)
    model = Averaging(builders.model("llama").config).eval()
    checkpoint = CausalLM(model, facts, tokenizer=None)
    assert checkpoint.facts.head == "full"
    assert_same(logits(checkpoint), full_logits(model))


def test_shards_are_one_model(family_paths, tmp_path, loaded):
    path = builders.save(builders.model("llama"), tmp_path / "sharded", max_shard_size="30KB")
    assert len(list(path.glob("*.safetensors"))) > 2
    assert not (path / "model.safetensors").exists()
    sharded = load(path)
    assert torch.equal(logits(sharded), logits(loaded["llama"]))
    assert sharded.facts.parameters == loaded["llama"].facts.parameters


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_half_precision(tmp_path, stored):
    dtype = getattr(torch, stored)
    path = builders.save(builders.model("llama").to(dtype), tmp_path / "half")
    exact, automatic = load(path), load(path, dtype="auto")
    assert (exact.facts.stored_dtype, exact.facts.compute_dtype) == (stored, "float32")
    assert (automatic.facts.stored_dtype, automatic.facts.compute_dtype) == (stored, stored)
    assert exact.facts.sha256 == automatic.facts.sha256
    assert_same(logits(exact), full_logits(reference(path)))
    assert_same(logits(automatic), full_logits(reference(path, dtype)))
    assert automatic.facts.head == "linear"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "auto"])
def test_compute_dtype(family_paths, dtype):
    facts = load(family_paths["gemma2"], dtype=dtype).facts
    assert facts.compute_dtype == ("float32" if dtype == "auto" else dtype)
    assert facts.head == "model"


def test_a_dtype_that_is_not_offered(family_paths):
    with pytest.raises(UsageError, match="`dtype` float64: must be one of float32, bfloat16, float16, auto"):
        load(family_paths["gpt2"], dtype="float64")


def test_a_tied_pair_is_stored_once_under_either_name(copy_of, loaded):
    path = copy_of("qwen3")
    builders.rewrite(
        path, lambda t: {"lm_head.weight" if n == "model.embed_tokens.weight" else n: v for n, v in t.items()}
    )
    checkpoint = load(path)
    assert checkpoint.facts.tied
    assert torch.equal(logits(checkpoint), logits(loaded["qwen3"]))


def test_a_head_that_is_stored_is_used_even_if_the_configuration_calls_it_tied(copy_of, loaded):
    path = copy_of("llama")
    builders.reconfigure(path, tie_word_embeddings=True)
    checkpoint = load(path)
    assert checkpoint.facts.tied is False
    assert torch.equal(logits(checkpoint), logits(loaded["llama"]))


def test_names_of_old_files(copy_of, loaded):
    """GPT-2 on the hub has no prefix, and holds the causal masks."""
    path = copy_of("gpt2")
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64).tril() for layer in range(2)}
    builders.rewrite(path, lambda t: {n.removeprefix("transformer."): v for n, v in t.items()} | masks)
    assert torch.equal(logits(load(path)), logits(loaded["gpt2"]))


def test_configurations_of_old_files(copy_of):
    path = copy_of("llama")
    scaling = {"type": "linear", "factor": 2.0}
    builders.reconfigure(path, drop=("rope_parameters",), rope_theta=500.0, rope_scaling=scaling, torch_dtype="float16")
    plain = full_logits(builders.model("llama"))
    expected = full_logits(reference(path))
    assert float((expected - plain).abs().max()) > 0.01, "the old keys matter"
    assert_same(logits(load(path)), expected)


@pytest.mark.parametrize("written", [float("inf"), {"__float__": "Infinity"}])
def test_infinities_in_a_configuration(written):
    content = {"model_type": "falcon_h1", "num_hidden_layers": 2, "num_attention_heads": 4}
    config = build_config(content | {"time_step_limit": [0.0, written]}, "config.json")
    assert list(config.time_step_limit) == [0.0, math.inf]


def test_the_hash_changes_with_weights_and_configuration(copy_of, loaded):
    hashes = {loaded["llama"].facts.sha256, load(copy_of("llama", "same")).facts.sha256}
    assert len(hashes) == 1
    weights, config, tokenizer = copy_of("llama", "a"), copy_of("llama", "b"), copy_of("llama", "c")
    builders.rewrite(weights, lambda t: t | {"model.norm.weight": t["model.norm.weight"] + 1e-6})
    builders.reconfigure(config, rms_norm_eps=2e-6)
    builders.sentencepiece_bpe().save(str(tokenizer / "tokenizer.json"))
    hashes |= {load(weights).facts.sha256, load(config).facts.sha256}
    assert len(hashes) == 3
    other = load(tokenizer)
    assert other.facts.sha256 in hashes
    assert other.tokenizer.sha256 != loaded["llama"].tokenizer.sha256


class Canary:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch canary",)


def test_nothing_but_the_model_is_opened(copy_of, audit, monkeypatch):
    path = copy_of("gpt2")
    monkeypatch.chdir(path)
    never = ("adapter_config.json", "rng_state.pth", "optimizer.pt", "training_args.bin", "pytorch_model.bin")
    for name in never:
        (path / name).write_bytes(pickle.dumps(Canary()))
    (path / "modeling_evil.py").write_text("import os; os.system('touch canary')")
    builders.reconfigure(path, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    with audit:
        checkpoint = load(path)
    assert torch.isfinite(logits(checkpoint)).all()
    assert "config.json" in audit.opened(), "the hook hears what is opened"
    assert audit.opened().isdisjoint({*never, "modeling_evil.py"})
    assert audit.named("socket.", "os.system", "urllib.") == []
    assert not (path / "canary").exists()


def test_notices_of_the_tokenizer_are_passed_on(copy_of):
    path = copy_of("gpt2")
    content = builders.definition() | {
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    }
    (path / "tokenizer.json").write_text(json.dumps(content))
    assert load(path).facts.notices == (f"{path}/tokenizer.json: ignored embedded truncation",)
    other = path / "other.json"
    builders.sentencepiece_bpe().save(str(other))
    assert load(path, tokenizer=other).tokenizer.kind == "BPE with byte fallback"


def test_the_configuration_names_the_bos_where_the_tokenizer_does_not(copy_of):
    path = copy_of("gpt2")
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    builders.write_settings(path)  # GPT2Tokenizer would name one of its own
    config = json.loads((path / "config.json").read_text())
    found, hashes = {}, {}
    for bos in (3, None, 10**6):
        (path / "config.json").write_text(json.dumps(config | {"bos_token_id": bos}))
        tokenizer = load_huggingface(path, LoadOptions()).tokenizer
        found[bos] = (tokenizer.bos_id, tokenizer.adds_bos)
        hashes[bos] = tokenizer.sha256
    assert found == {3: (3, False), None: (None, False), 10**6: (None, False)}
    assert hashes[None] == hashes[10**6] != hashes[3], "the BOS is part of what the tokenizer does"


def test_a_tokenizer_class_that_is_no_text_is_told(copy_of):
    path = copy_of("llama")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": [["LlamaTokenizer"]]}))
    notices = load_huggingface(path, LoadOptions()).facts.notices
    assert any("AutoTokenizer cannot load it" in notice for notice in notices), notices
