"""Damage and traps in adapters, each refused with an id and what shows it."""

from __future__ import annotations

import copy
import json
import shutil
import sys

import pytest
import safetensors.torch
import torch
from adapter_files import CONFIG, WEIGHTS, change, configure, make_adapter
from checkpoint import builders

from lossprobe.checkpoint.adapters.sharing import SharedBases
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import LossprobeError, UsageError

LAYER = "base_model.model.model.layers.0.self_attn.q_proj."
EMBEDDING = "base_model.model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny Llama with its folder and what opens adapters on it."""
    built = builders.model("llama")
    folder = builders.save(built, tmp_path_factory.mktemp("base") / "llama")
    builders.write_settings(folder)
    return built, folder, SharedBases()


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory):
    return make_adapter(base[0], tmp_path_factory.mktemp("adapter") / "lora", target_modules=["q_proj", "v_proj"])


@pytest.fixture
def adapter(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "lora")


def refused(on, folder, **options):
    """Return the id and the message of the error with which an adapter is refused."""
    with pytest.raises(LossprobeError) as caught:
        open_checkpoint(folder, LoadOptions(**({"base": on[1]} | options)), on[2])
    assert caught.value.message.isprintable()
    assert caught.value.hint or caught.value.id not in ("adapter.kind", "adapter.config_key"), "what to do is said"
    return caught.value.id, caught.value.message


def without(*ends):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.endswith(ends)}


def adding(**named):
    return lambda tensors: tensors | {name.replace("__", "."): tensor for name, tensor in named.items()}


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def with_value(value):
    def changed(tensors):
        tensors[LAYER + "lora_A.weight"][0, 0] = value
        return tensors

    return changed


# What was done to the tensors → id, what the message says.
DAMAGED = {
    "A alone missing": (without("0.self_attn.q_proj.lora_A.weight"), "checkpoint.missing_tensor", "7 of 8 present"),
    "B alone missing": (without("0.self_attn.q_proj.lora_B.weight"), "checkpoint.missing_tensor", "lora_B"),
    "every A missing": (without("lora_A.weight"), "checkpoint.missing_tensor", "4 of 8 present"),
    "a layer missing": (lambda t: {k: v for k, v in t.items() if "layers.1" not in k}, "checkpoint.missing_tensor", ""),
    "a layer too much": (
        lambda t: t | {k.replace("layers.1", "layers.2"): v.clone() for k, v in t.items() if "layers.1" in k},
        "checkpoint.unexpected_tensor", "12 stored, 8 expected",
    ),
    "another module": (
        lambda t: t | {k.replace("q_proj", "o_proj"): v.clone() for k, v in t.items() if "q_proj" in k},
        "checkpoint.unexpected_tensor", "o_proj",
    ),
    "a stray magnitude": (
        adding(**{(LAYER + "lora_magnitude_vector").replace(".", "__"): torch.ones(32)}),
        "checkpoint.unexpected_tensor", "magnitude",
    ),
    "a stray weight of the base": (
        adding(**{(LAYER + "base_layer.weight").replace(".", "__"): torch.ones(32, 32)}),
        "checkpoint.unexpected_tensor", "base_layer",
    ),
    "keys that start base_model. only": (
        renamed("base_model.model.model.", "base_model.model."), "checkpoint.missing_tensor", "not known"
    ),
    "keys without base_model.model.": (renamed("base_model.model.", ""), "adapter.tensor", "8 of 8 tensors"),
    "keys that start base_model": (renamed("base_model.model.", "base_model."), "checkpoint.missing_tensor", ""),
    "keys that start with the wrapper of FSDP": (
        renamed("base_model.model.", "_fsdp_wrapped_module.base_model.model."), "adapter.tensor", "are not named"
    ),
    "keys with the adapter's name": (
        renamed("lora_A.weight", "lora_A.default.weight"), "checkpoint.missing_tensor", "lora_A.default"
    ),
    "another rank": (
        lambda t: {k: v[:2].clone() if "lora_A" in k else v for k, v in t.items()}, "checkpoint.wrong_shape", "[2, 32]"
    ),
    "transposed": (
        lambda t: {k: v.T.contiguous() for k, v in t.items()}, "checkpoint.wrong_shape", "on this base it must be"
    ),
    "flat, as sharded training saves it": (
        lambda t: {k: v.flatten() for k, v in t.items()}, "checkpoint.wrong_shape", "[128]"
    ),
    "NaN": (with_value(torch.nan), "checkpoint.non_finite", "1 non-finite value"),
    "infinity": (with_value(-torch.inf), "checkpoint.non_finite", "lora_A"),
    "integers": (
        lambda t: {k: (v * 100).to(torch.int8) for k, v in t.items()}, "adapter.tensor", "stored as I8"
    ),
    "a vocabulary that was cut": (
        adding(**{EMBEDDING.replace(".", "__"): torch.ones(300, 32)}), "adapter.vocabulary", "300 rows, the base's 320"
    ),
    "a larger embedding without its head": (
        adding(**{EMBEDDING.replace(".", "__"): torch.ones(330, 32)}), "adapter.vocabulary", "10 rows"
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_tensors_are_refused(base, adapter, damage):
    done, id, said = DAMAGED[damage]
    change(adapter, done)
    found = refused(base, adapter)
    assert found[0] == id
    assert said in found[1]


# Changes of adapter_config.json → id, what the message says.
CONFIGURED = {
    "IA3": ({"peft_type": "IA3"}, "adapter.kind", "IA3"),
    "prompt tuning": ({"peft_type": "PROMPT_TUNING"}, "adapter.kind", "PROMPT_TUNING"),
    "prefix tuning": ({"peft_type": "PREFIX_TUNING"}, "adapter.kind", "PREFIX_TUNING"),
    "AdaLoRA": ({"peft_type": "ADALORA"}, "adapter.kind", "ADALORA"),
    "a classifier": ({"task_type": "SEQ_CLS"}, "adapter.kind", "SEQ_CLS"),
    "an encoder-decoder": ({"task_type": "SEQ_2_SEQ_LM"}, "adapter.kind", "SEQ_2_SEQ_LM"),
    "an unknown number": ({"gamma_rank": 3}, "adapter.config_key", "unknown key gamma_rank"),
    "an unknown zero": ({"gamma_rank": 0}, "adapter.config_key", "unknown key gamma_rank"),
    "an unknown switch": ({"use_newlora": True}, "adapter.config_key", "unknown key use_newlora"),
    "KaSA": ({"kasa_config": {"beta": 1e-4}}, "adapter.config_key", "kasa_config"),
    "aLoRA": ({"alora_invocation_tokens": [5, 6]}, "adapter.config_key", "alora_invocation_tokens"),
    "replicated layers": ({"layer_replication": [[0, 2], [0, 2]]}, "adapter.config_key", "layer_replication"),
    "parameters": ({"target_parameters": ["experts.down_proj"]}, "adapter.config_key", "target_parameters"),
    "Arrow": ({"arrow_config": {"top_k": 2}}, "adapter.config_key", "arrow_config"),
    "QA-LoRA": ({"use_qalora": True}, "adapter.config_key", "use_qalora"),
    "BD-LoRA": ({"use_bdlora": {"nblocks": 2}}, "adapter.config_key", "use_bdlora"),
    "VeLoRA": ({"velora_config": {"num_groups": 2}}, "adapter.config_key", "velora_config"),
    "MonteCLoRA": ({"monteclora_config": {"num_samples": 4}}, "adapter.config_key", "monteclora_config"),
    "Megatron": ({"megatron_config": {"x": 1}}, "adapter.config_key", "megatron_config"),
    "LoftQ": ({"loftq_config": {"loftq_bits": 4}}, "adapter.config_key", "loftq_config"),
    "PiSSA, not converted": ({"init_lora_weights": "pissa_niter_4"}, "adapter.config_key", "changes the base"),
    "OLoRA, not converted": ({"init_lora_weights": "olora"}, "adapter.config_key", "changes the base"),
    "CorDA, not converted": ({"init_lora_weights": "corda"}, "adapter.config_key", "changes the base"),
    "LoRA-GA, not converted": ({"init_lora_weights": "lora_ga"}, "adapter.config_key", "changes the base"),
    "LoftQ without its settings": ({"init_lora_weights": "loftq"}, "adapter.config_key", "changes the base"),
    "MiCA": ({"init_lora_weights": "mica"}, "adapter.config_key", "mica"),
    "a damaged pattern": ({"target_modules": "(q_proj"}, "adapter.config_value", "is no regular expression"),
    "a rank of text": ({"r": "8"}, "adapter.config_value", "r is '8'"),
    "rank 0": ({"r": 0}, "adapter.config_value", "r is 0"),
    "a switch of text": ({"use_rslora": "true"}, "adapter.config_value", "use_rslora"),
    "an unknown bias": ({"bias": "some"}, "adapter.config_value", "bias is 'some'"),
    "a pattern of text": ({"rank_pattern": {"q_proj": "4"}}, "adapter.config_value", "rank_pattern"),
    "another rank": ({"r": 8}, "checkpoint.wrong_shape", "on this base it must be [8, 32]"),
    "a rank by pattern": ({"rank_pattern": {"q_proj": 2}}, "checkpoint.wrong_shape", "q_proj"),
    "DoRA without magnitudes": ({"use_dora": True}, "checkpoint.missing_tensor", "8 of 12 present"),
    "more modules": ({"target_modules": ["q_proj", "k_proj", "v_proj"]}, "checkpoint.missing_tensor", "k_proj"),
    "fewer modules": ({"target_modules": ["q_proj"]}, "checkpoint.unexpected_tensor", "v_proj"),
    "fewer layers": ({"layers_to_transform": [0]}, "checkpoint.unexpected_tensor", "layers.1"),
    "no such module": ({"target_modules": ["c_attn"]}, "checkpoint.bad_config", "c_attn"),
    "a saved head": ({"modules_to_save": ["lm_head"]}, "checkpoint.missing_tensor", "lm_head"),
    "biases": ({"lora_bias": True}, "checkpoint.missing_tensor", "lora_B.bias"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "checkpoint.missing_tensor", "embed_tokens"),
    "negative tokens": ({"trainable_token_indices": [-1]}, "adapter.config_value", "trainable_token_indices"),
}  # fmt: skip


@pytest.mark.parametrize("trap", CONFIGURED)
def test_traps_in_the_configuration_are_refused(base, adapter, trap):
    changes, id, said = CONFIGURED[trap]
    configure(adapter, **changes)
    found = refused(base, adapter)
    assert found[0] == id
    assert said in found[1]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("pissa", "merge it into its base with peft"),
        ("olora", "merge it into its base with peft"),
        ("pissa_niter_4", "leave the key out with `ignore_config`"),
        ("loftq", "leave the key out with `ignore_config`"),
    ],
)
def test_how_to_score_a_start_that_changes_the_base_is_told(base, adapter, start, said):
    configure(adapter, init_lora_weights=start)
    with pytest.raises(LossprobeError) as caught:
        open_checkpoint(adapter, LoadOptions(base=base[1]), base[2])
    assert said in caught.value.hint
    assert "path_initial_model_for_weight_conversion" in caught.value.hint


@pytest.mark.parametrize(("kind", "merges"), [("IA3", True), ("LOKR", True), ("PREFIX_TUNING", False), ("CPT", False)])
def test_merging_is_advised_where_peft_can_do_it(base, adapter, kind, merges):
    configure(adapter, peft_type=kind)
    with pytest.raises(LossprobeError) as caught:
        open_checkpoint(adapter, LoadOptions(base=base[1]), base[2])
    assert ("merge_and_unload" in caught.value.hint) is merges


@pytest.mark.parametrize(
    ("changes", "id"),
    [
        ({"gamma_rank": 3}, "adapter.base"),
        ({"r": "8"}, "adapter.base"),
        ({"kasa_config": {"beta": 1}}, "adapter.base"),
        ({"peft_type": "IA3"}, "adapter.kind"),
        ({"task_type": "SEQ_CLS"}, "adapter.kind"),
    ],
)
def test_what_has_to_be_given_is_said_before_what_is_wrong(base, adapter, monkeypatch, changes, id):
    """A kind that no base helps comes first, then the base, the library, and the faults of the folder."""
    monkeypatch.setitem(sys.modules, "peft", None)
    (adapter / WEIGHTS).unlink()
    configure(adapter, base_model_name_or_path="org/base", **changes)
    assert refused(base, adapter, base=None)[0] == id


@pytest.mark.parametrize("key", ["r", "lora_alpha", "target_modules", "peft_type"])
def test_a_key_that_decides_must_be_stated(base, adapter, key):
    """With null, as without the key, peft would take lora_alpha 8 or modules by the family of the base."""
    configure(adapter, **{key: None})
    assert refused(base, adapter)[0] == "adapter.config_key"
    configure(adapter, drop=(key,))
    assert refused(base, adapter)[0] == "adapter.config_key"


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_file_that_is_cut_is_refused(base, adapter, name):
    data = (adapter / name).read_bytes()
    (adapter / name).write_bytes(data[: len(data) // 2])
    assert refused(base, adapter)[0] in ("checkpoint.bad_json", "checkpoint.truncated")


def test_an_adapter_of_mlx_is_named(base, adapter):
    settings = {"fine_tune_type": "lora", "num_layers": 16, "lora_parameters": {"rank": 8, "scale": 20.0}}
    (adapter / CONFIG).write_text(json.dumps(settings))
    assert "MLX" in refused(base, adapter)[1]


def test_weights_that_are_pickled_or_missing_are_refused(base, adapter):
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    assert "only adapter_model.bin, which is not opened" in refused(base, adapter)[1]
    (adapter / "adapter_model.bin").unlink()
    assert refused(base, adapter)[0] == "adapter.no_weights"


def test_a_model_beside_an_adapter_is_refused(base, adapter):
    shutil.copy(base[1] / "model.safetensors", adapter)
    assert refused(base, adapter)[0] == "adapter.two_models"


def test_a_base_of_other_shapes_is_refused(base, adapter, tmp_path):
    other = builders.save(builders.model("llama", hidden_size=64, intermediate_size=96), tmp_path / "wide")
    assert refused(base, adapter, base=other)[0] == "checkpoint.wrong_shape"
    deeper = builders.save(builders.model("llama", num_hidden_layers=3), tmp_path / "deep")
    assert refused(base, adapter, base=deeper)[0] == "checkpoint.missing_tensor"
    family = builders.save(builders.model("gpt2"), tmp_path / "gpt2")
    assert refused(base, adapter, base=family)[0] == "checkpoint.bad_config"


def test_a_base_that_cannot_be_one_is_refused(base, adapter, tmp_path):
    assert refused(base, adapter, base=adapter) == ("adapter.base_kind", f"{adapter}: the base is an adapter itself")
    (tmp_path / "empty").mkdir()
    assert refused(base, adapter, base=tmp_path / "empty")[0] == "adapter.base_kind"
    assert refused(base, adapter, base=tmp_path / "none")[0] == "adapter.base"


@pytest.mark.parametrize(
    ("recorded", "said"), [("meta-llama/Llama-3.1-8B", "nothing is downloaded"), (None, "names no base model")]
)
def test_a_base_that_is_not_here_is_asked_for(base, adapter, recorded, said):
    configure(adapter, base_model_name_or_path=recorded)
    id, message = refused(base, adapter, base=None)
    assert (id, said in message) == ("adapter.base", True)


def test_two_folders_that_a_relative_path_can_mean_are_refused(base, adapter, tmp_path, monkeypatch):
    configure(adapter, base_model_name_or_path="base")
    shutil.copytree(base[1], tmp_path / "base")
    shutil.copytree(base[1], adapter / "base")
    monkeypatch.chdir(tmp_path)
    assert "there are two" in refused(base, adapter, base=None)[1]


def test_contradicting_embeddings_of_a_tied_base_are_refused(tmp_path):
    built = builders.model("llama", tie_word_embeddings=True)
    folder = builders.save(built, tmp_path / "tied")
    adapter = make_adapter(
        copy.deepcopy(built), tmp_path / "lora", target_modules=["q_proj"], save={"save_embedding_layers": True}
    )
    tensors = safetensors.torch.load_file(adapter / WEIGHTS)
    tensors["base_model.model.lm_head.weight"] = tensors["base_model.model.lm_head.weight"] + 1
    safetensors.torch.save_file(tensors, adapter / WEIGHTS)
    with pytest.raises(LossprobeError) as caught:
        open_checkpoint(adapter, LoadOptions(base=folder))
    assert caught.value.id == "adapter.not_applied"


def test_a_folder_of_several_adapters_lists_them(base, plain, tmp_path):
    """peft saves each adapter of a model that is not called default in a folder of its own."""
    for name in ("first", "second"):
        shutil.copytree(plain, tmp_path / "lora" / name)
    (tmp_path / "lora" / "README.md").write_text("two")
    with pytest.raises(LossprobeError) as caught:
        open_checkpoint(tmp_path / "lora")
    assert (caught.value.id, caught.value.hint) == (
        "checkpoint.unknown", "name one of the checkpoints in it: first, second",
    )  # fmt: skip


def test_merging_what_the_base_cannot_hold_is_refused(base, tmp_path):
    adapter = make_adapter(base[0], tmp_path / "lora", target_modules=["q_proj"], lora_bias=True)
    id, message = refused(base, adapter, merge=True)
    assert (id, "cannot be merged" in message) == ("adapter.merge", True)


@pytest.mark.parametrize("options", [{"merge": True}, {"base": "elsewhere"}])
def test_the_options_of_adapters_are_refused_for_other_checkpoints(base, options):
    with pytest.raises(UsageError, match="is no adapter"):
        open_checkpoint(base[1], LoadOptions(**options))


def test_without_peft_the_command_that_installs_it_is_told(base, adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError) as caught:
        open_checkpoint(adapter, LoadOptions(base=base[1]))
    assert (caught.value.id, caught.value.hint) == ("adapter.peft", 'pip install "lossprobe[peft]"')


def test_adapters_of_experts_under_their_old_names_are_refused(tmp_path):
    """transformers 5 joins the experts, and peft would apply such an adapter in part, or √2 too large with rsLoRA."""
    built = builders.model("mixtral", num_local_experts=2, **builders.SMALL)
    folder = builders.save(built, tmp_path / "mixtral")
    adapter = make_adapter(built, tmp_path / "lora", target_modules=["q_proj"])
    experts = "base_model.model.model.layers.{}.block_sparse_moe.experts.{}.{}.lora_{}.weight"
    sides = {"A": (4, 32), "B": (48, 4)}
    change(adapter, adding(**{
        experts.format(layer, expert, name, side).replace(".", "__"): torch.ones(sides[side])
        for layer in range(2) for expert in range(2) for name in ("w1", "w3") for side in "AB"
    }))  # fmt: skip
    for targets in (["q_proj", "w1", "w3"], ["q_proj"]):
        configure(adapter, target_modules=targets, use_rslora=True)
        with pytest.raises(LossprobeError) as caught:
            open_checkpoint(adapter, LoadOptions(base=folder))
        assert caught.value.id in ("checkpoint.missing_tensor", "checkpoint.unexpected_tensor")
