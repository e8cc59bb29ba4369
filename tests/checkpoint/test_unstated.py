"""A notice names keys that a config.json lacks and that change the losses, with the defaults that are used."""

import dataclasses
import json

import pytest
import torch
import transformers
from checkpoint import builders
from checkpoint.released_configs import RELEASES
from families import keys, tiny

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.model.model_config import build_config, causal_model
from lossprobe.checkpoint.model.unstated import YOUNGER, tell_unstated
from lossprobe.checkpoint.options import LoadOptions

pytestmark = pytest.mark.filterwarnings("default")  # the code of many families has its own

SAID = "config.json: lacks keys that change the losses; the family's defaults are used: "
REFUSED = ("num_hidden_layers", "num_attention_heads")  # where they are missing
# Llama 2 and Falcon are older than some keys; all others state everything.
TOLD = {
    "llama-2-7b": "rope_theta 10000",
    "falcon-7b": "max_position_embeddings 2048, activation gelu, rope_theta 10000",
}


@pytest.mark.parametrize("name", RELEASES)
def test_released_files(name):
    settings = RELEASES[name]
    model_class, config = causal_model(build_config(settings, "config.json"))
    with torch.device("meta"):
        model = model_class(config)
    told = tell_unstated(model, settings, "config.json")
    assert told == ((SAID + TOLD[name],) if name in TOLD else ())


@pytest.mark.parametrize(
    ("family", "dropped", "told"),
    [
        ("llama", ("rms_norm_eps",), "rms_norm_eps 1e-06"),
        ("llama", ("max_position_embeddings", "hidden_act"), "hidden_act silu, max_position_embeddings 2048"),
        ("llama", ("rope_parameters",), "rope_theta 10000"),
        (
            "gpt2",
            ("layer_norm_epsilon", "activation_function"),
            "activation_function gelu_new, layer_norm_epsilon 1e-05",
        ),
        ("gpt_neox", ("rope_parameters",), "rope_theta 10000, partial_rotary_factor 0.25"),
        ("granite", ("residual_multiplier",), "residual_multiplier 1"),
        ("llama", ("attention_dropout", "initializer_range", "use_cache", "attention_bias", "bos_token_id"), ""),
        ("llama", ("intermediate_size_of_nothing", "tie_word_embeddings", "mlp_bias", "pretraining_tp"), ""),
    ],
)
def test_what_is_missing_is_told(copy_of, family, dropped, told):
    path = copy_of(family)
    assert load_huggingface(path, LoadOptions()).facts.notices == (), "transformers' own files state everything"
    builders.reconfigure(path, drop=dropped)
    notices = load_huggingface(path, LoadOptions()).facts.notices
    assert notices == ((f"{path}/{SAID}{told}",) if told else ())


def test_at_most_five_are_named(copy_of):
    path = copy_of("gemma2")
    dropped = ("rms_norm_eps", "hidden_activation", "query_pre_attn_scalar", "final_logit_softcapping",
               "attn_logit_softcapping", "sliding_window", "max_position_embeddings")  # fmt: skip
    builders.reconfigure(path, drop=dropped)
    (notice,) = load_huggingface(path, LoadOptions()).facts.notices
    assert notice.endswith(" and 2 more")
    assert sum(name in notice for name in dropped) == 5


def lacking(path):
    return [line for line in load_huggingface(path, LoadOptions()).facts.notices if "lacks keys" in line]


def test_a_key_of_the_text_part(tmp_path):
    tiny.save("qwen3_5", tmp_path)
    assert not lacking(tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    del text["rms_norm_eps"]
    builders.reconfigure(tmp_path, text_config=text)
    (line,) = lacking(tmp_path)
    assert line.endswith("used: rms_norm_eps 1e-06")


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral", "roberta"])
def test_no_key_that_changes_a_logit_is_passed_over(family):
    """Change each key in a model with the same tensors: keys that change a logit must be named when they are missing.

    Without is_decoder the model is no next-token predictor; whether head and embedding are tied is what is stored;
    a key whose default is null is off without it, or derived from others.
    """
    settings = tiny.settings(family)
    config = transformers.AutoConfig.for_model(family, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    tiny.randomise(model)
    seen_otherwise = {
        "is_decoder",
        "tie_word_embeddings",
        *REFUSED,
        *(config.attribute_map.get(name, name) for name in REFUSED),
    }
    off = {field.name for field in dataclasses.fields(config) if field.default is None}
    decisive = keys.decisive_keys(model) - off - YOUNGER.get(family, set()) - seen_otherwise
    assert len(decisive) >= 2
    for key in decisive:
        content = {name: value for name, value in json.loads(config.to_json_string()).items() if name != key}
        without = build_config(content, "config.json")
        with torch.device("meta"):
            changed = transformers.AutoModelForCausalLM.from_config(without)
        assert key == "rope_parameters" or f" {key} " in tell_unstated(changed, content, "config.json")[0]
