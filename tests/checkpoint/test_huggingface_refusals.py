"""Hugging Face directories that would give wrong numbers, run code or fetch something: each is refused."""

import sys
import time

import pytest
import torch
from checkpoint import builders

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.interface import CheckpointFacts
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

EMBEDDING = "transformer.wte.weight"


@pytest.fixture
def gpt2(copy_of):
    return copy_of("gpt2")


def spoiled(value, count):
    def change(tensors):
        tensors["transformer.ln_f.weight"][:count] = value
        return tensors

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(gpt2, value):
    builders.rewrite(gpt2, spoiled(value, 3))
    assert "transformer.ln_f.weight: 3 non-finite values" in builders.refused(gpt2, "checkpoint.non_finite")


def test_a_tensor_that_is_missing(gpt2):
    name = "transformer.h.1.mlp.c_fc.weight"
    builders.rewrite(gpt2, lambda tensors: {n: t for n, t in tensors.items() if n != name})
    assert f"tensor {name} is missing (27 of 28 present)" in builders.refused(gpt2, "checkpoint.missing_tensor")
    builders.rewrite(gpt2, lambda tensors: {n: t for n, t in tensors.items() if ".mlp." not in n})
    assert "is missing (and 7 more)" in builders.refused(gpt2, "checkpoint.missing_tensor")


def test_a_tensor_that_is_not_expected(gpt2, copy_of):
    name = "x\x1b[31m\n::error::<script>"
    builders.rewrite(gpt2, lambda tensors: tensors | {name: torch.ones(2)})
    assert r"unexpected tensor x\x1b[31m\n::error::<script>" in builders.refused(gpt2, "checkpoint.unexpected_tensor")
    fewer = copy_of("gpt2", "fewer")
    builders.reconfigure(fewer, n_layer=1)
    message = builders.refused(fewer, "checkpoint.unexpected_tensor")
    assert (
        "unexpected tensor transformer.h.1.attn.c_attn.weight (and 5 more)" in message
    )  # its biases are 0, which changes nothing


@pytest.mark.parametrize(("family", "key"), [("gpt2", "n_layer"), ("gpt2", "n_head"), ("llama", "num_attention_heads")])
def test_a_number_that_the_configuration_leaves_out(copy_of, family, key):
    path = copy_of(family)
    builders.reconfigure(path, drop=(key,))
    assert builders.refused(path, "checkpoint.config_key").endswith(f"config.json: lacks {key}")


def test_a_vocabulary_of_another_size(gpt2):
    builders.reconfigure(gpt2, vocab_size=builders.VOCABULARY + 10)
    message = builders.refused(gpt2, "checkpoint.wrong_shape")
    assert f"tensor {EMBEDDING} has shape [320, 32], config.json wants [330, 32]" in message


def test_a_tied_pair_of_which_neither_is_stored(copy_of):
    for family, name in (("gpt2", EMBEDDING), ("qwen3", "model.embed_tokens.weight")):
        path = copy_of(family, family)
        builders.rewrite(path, lambda tensors, name=name: {n: t for n, t in tensors.items() if n != name})
        assert "is missing" in builders.refused(path, "checkpoint.missing_tensor")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "line 1"),
        ("[" * 100_000, "nested too deeply"),
        ('{"model_type": "gpt2",\n"n_head": NaN}', "NaN is not allowed"),
        ('{"model_type": "gpt2", "n_head": 4, "n_head": 2}', "key n_head appears twice"),
        ("[]", "holds a list, not an object"),
        ("\xff", "codec can't decode"),
        ("9" * 5000, "limit"),
    ],
)
def test_a_configuration_that_is_not_strict_json(gpt2, content, reason):
    (gpt2 / "config.json").write_text(content, encoding="latin-1")
    message = builders.refused(gpt2, "checkpoint.bad_json")
    assert message.startswith(f"{gpt2}/config.json: ")
    assert reason in message


def test_a_configuration_that_cannot_be_read(gpt2):
    (gpt2 / "config.json").write_text(" " * ((1 << 20) + 1))
    assert "larger than 1,048,576 bytes" in builders.refused(gpt2, "checkpoint.json_too_large")
    (gpt2 / "config.json").unlink()
    assert "cannot be read: No such file" in builders.refused(gpt2, "checkpoint.unreadable")


def resident_bytes():
    """Return the largest memory this process ever took, where the system tells."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize(
    ("changes", "id", "message"),
    [
        ({"n_layer": 10**6}, "checkpoint.config_size", "n_layer is 1,000,000, but the files hold 28 tensors"),
        ({"vocab_size": 10**10}, "checkpoint.config_size", "config needs 1.28e+03 GB in float32, the files hold 0.00"),
        ({"n_positions": 10**10}, "checkpoint.config_size", "config needs 1.28e+03 GB"),
        ({"n_embd": 10**5}, "checkpoint.config_size", "GB in float32"),
        ({"n_inner": 10**9}, "checkpoint.config_size", "GB in float32"),
        ({"mlp": {"num_experts": 10**6}}, "checkpoint.config_size", "num_experts is 1,000,000"),
    ],
)
def test_a_configuration_that_asks_for_too_much_is_refused_at_once(gpt2, changes, id, message):
    builders.reconfigure(gpt2, **changes)
    started, before = time.monotonic(), resident_bytes()
    assert message in builders.refused(gpt2, id)
    assert time.monotonic() - started < 5.0
    assert resident_bytes() - before < 200e6


def test_a_hundred_million_labels_cost_nothing(gpt2):
    builders.reconfigure(gpt2, num_labels=10**8)
    before = resident_bytes()
    assert load_huggingface(gpt2, LoadOptions()).facts.family == "gpt2"
    assert resident_bytes() - before < 200e6


EVIL = "import pathlib; pathlib.Path('canary').touch()"


@pytest.mark.parametrize("family", ["evil", "gpt2", None, 5, "t5", "vit"])
def test_custom_code_is_never_run(gpt2, audit, monkeypatch, family):
    monkeypatch.chdir(gpt2)
    (gpt2 / "evil.py").write_text(EVIL)
    references = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), "evil.Evil")
    builders.reconfigure(gpt2, model_type=family, auto_map=references)
    with audit:
        if family == "gpt2":
            assert load_huggingface(gpt2, LoadOptions()).facts.family == "gpt2"
        elif not isinstance(family, str):
            assert "lacks model_type" in builders.refused(gpt2, "checkpoint.no_family")
        else:
            message = builders.refused(gpt2, "checkpoint.unknown_family")
            assert f"model_type '{family}' is no causal language model" in message
            assert message.endswith("and needs custom code, which is never run")
    assert not (gpt2 / "canary").exists()
    assert "config.json" in audit.opened()
    assert "evil.py" not in audit.opened()
    assert audit.named("socket.", "os.system", "builtins.input") == []


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal",
                                 "experts_implementation", "_experts_implementation_internal"])  # fmt: skip
@pytest.mark.parametrize("depth", ["top", "nested", "mapping"])
def test_a_kernel_by_name_is_never_fetched(gpt2, audit, key, depth):
    named = {"top": {key: "org/repo"}, "nested": {"text_config": {key: "org/repo"}}, "mapping": {key: {"": "org/repo"}}}
    builders.reconfigure(gpt2, **named[depth])
    with audit:
        message = builders.refused(gpt2, "checkpoint.external_kernel")
    assert f"{key} names an external kernel" in message
    assert "org/repo" in message
    assert audit.named("socket.") == []


def test_the_hook_hears_sockets(audit):
    import socket

    with audit:
        socket.socket().close()
    assert audit.named("socket.")


def test_quantised_weights(gpt2, copy_of):
    builders.reconfigure(gpt2, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    message = builders.refused(gpt2, "checkpoint.quantized_tensor")
    assert "config.json says bitsandbytes FP4 in blocks, but no tensor is quantised" in message
    integers = copy_of("gpt2", "integers")
    builders.rewrite(integers, lambda tensors: tensors | {EMBEDDING: torch.ones(320, 32, dtype=torch.int8)})
    message = builders.refused(integers, "checkpoint.quantized")
    assert f"tensor {EMBEDDING} is stored as I8" in message
    assert "config.json has no quantization_config" in message


def test_logits_that_are_not_finite(gpt2):
    builders.rewrite(gpt2, lambda tensors: tensors | {EMBEDDING: tensors[EMBEDDING] * 1e37})
    assert "the logits of a short probe are not finite" in builders.refused(gpt2, "checkpoint.non_finite_logits")


def test_logits_of_another_width():
    facts = CheckpointFacts(name="x", family="x", sha256="", vocab_size=300, context_length=64)
    with pytest.raises(CheckpointError, match="x: the logits have 320 entries, the configuration says 300") as caught:
        CausalLM(builders.model("llama"), facts, tokenizer=None)
    assert (caught.value.id, caught.value.exit_code) == ("checkpoint.vocab_size", 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_that_sees_what_it_is_to_predict(family_paths, dtype):
    message = builders.refused(family_paths["bert"], "checkpoint.not_causal", LoadOptions(dtype=dtype))
    assert "later tokens change earlier logits" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"n_head": 5},
        {"n_head": 0},
        {"activation_function": "os.system"},
        {"layer_norm_epsilon": "small"},
        {"n_layer": None},
        {"vocab_size": []},
        {"text_config": {"vocab_size": 5}},
    ],
)
def test_values_that_the_family_cannot_build(gpt2, changes):
    builders.reconfigure(gpt2, **changes)
    message = builders.refused(gpt2, "checkpoint.bad_config")
    assert "no model can be built: " in message


@pytest.mark.parametrize(
    "changes",
    [
        {"return_dict": False, "use_return_dict": False, "output_attentions": True, "output_hidden_states": True},
        {"get_text_config": 5, "attribute_map": {"n_head": "n_layer"}, "__class__": "x", "_name_or_path": "org/repo"},
        {"transformers_weights": "../x", "fusion_config": {"x": True}, "distributed_config": {"tp_size": 8}},
        {"dtype": "float64", "torch_dtype": "nothing", "id2label": {"0": "x"}, "num_labels": 7},
    ],
)
def test_keys_that_steer_the_library_change_nothing(gpt2, family_paths, changes):
    expected = load_huggingface(family_paths["gpt2"], LoadOptions())
    builders.reconfigure(gpt2, **changes)
    checkpoint = load_huggingface(gpt2, LoadOptions())
    ids = torch.arange(10)[None]
    assert torch.equal(checkpoint.hidden(ids), expected.hidden(ids))
    assert checkpoint.facts.compute_dtype == "float32"
