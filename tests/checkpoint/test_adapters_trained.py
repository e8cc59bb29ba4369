"""Adapters that were really trained, on embeddings, on tied and larger vocabularies, and on quantised bases.

Each is compared with the very model that was trained, in float64: nothing between saving and scoring is left out.
"""

from __future__ import annotations

import copy
import warnings

import peft
import pytest
import safetensors.torch
import torch
from adapter_files import configure, make_adapter, peft_logits
from checkpoint import builders
from checkpoint import quantized_files as files

from lossprobe.checkpoint.adapters.sharing import SharedBases
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

IDS = (torch.arange(48) * 7 % builders.VOCABULARY).reshape(2, 24)
TRAINED = {
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head"]},
    "embedding with DoRA": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "embedding, tie ensured": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "embedding saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "embedding saved, tie ensured": {
        "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True
    },
    "embedding and head saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 7, 14]},
    "norm saved": {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Whether embedding and head are tied → a model, its folder, and what keeps it in memory."""
    made = {}
    for tied in (False, True):
        model = builders.model("llama", tie_word_embeddings=tied)
        made[tied] = model, builders.save(model, tmp_path_factory.mktemp("base") / "llama"), SharedBases()
    return made


def losses(z, ids=IDS):
    return -z.double().log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])


def scored(folder, base, shared, ids=IDS, **options):
    opened = open_checkpoint(folder, LoadOptions(base=base, **options), shared)
    return losses(opened.logits(opened.hidden(ids).flatten(0, 1)).reshape(*ids.shape, -1), ids), opened.facts


def train(model, folder, ids=IDS, save=None, **config):
    """Train an adapter for three steps, save it, and return the losses of what was trained, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **config))
        optimizer = torch.optim.AdamW([each for each in adapted.parameters() if each.requires_grad], lr=0.02)
        for _ in range(3):
            adapted(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        adapted.save_pretrained(folder, **(save or {}))
    with torch.inference_mode():
        return losses(adapted.double().eval()(input_ids=ids).logits, ids)


@pytest.mark.thorough
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", TRAINED)
def test_trained_embeddings_have_the_loss_of_the_trained_model(bases, tmp_path, kind, tied):
    model, base, shared = bases[tied]
    without = losses(model(input_ids=IDS).logits.detach())
    expected = train(copy.deepcopy(model), tmp_path / "lora", **TRAINED[kind])
    assert float((without - expected).abs().max()) > 0.05
    beside, facts = scored(tmp_path / "lora", base, shared)
    assert not facts.notices
    assert abs(float((beside - expected).mean())) < 1e-6
    assert float((beside - expected).abs().max()) < 2e-5
    merged, _ = scored(tmp_path / "lora", base, shared, merge=True)
    assert float((merged - expected).abs().max()) < 2e-5


def train_larger(model, folder, **config):
    """Train with three tokens more than the model has; return the ids that it was trained on, and the losses."""
    larger = copy.deepcopy(model)
    larger.resize_token_embeddings(builders.VOCABULARY + 3, mean_resizing=False)
    ids = IDS.clone()
    ids[:, ::5] = builders.VOCABULARY + 2
    return ids, train(larger, folder, ids, {"save_embedding_layers": True}, **config)


@pytest.mark.parametrize(
    ("tied", "config"),
    [
        (True, TRAINED["embedding"]),
        pytest.param(False, {"target_modules": ["q_proj"]}, marks=pytest.mark.thorough),
        pytest.param(False, TRAINED["embedding and head saved"], marks=pytest.mark.thorough),
        pytest.param(True, TRAINED["embedding and head saved"], marks=pytest.mark.thorough),
        pytest.param(False, TRAINED["embedding and head"], marks=pytest.mark.thorough),
    ],
)
def test_a_trained_vocabulary_that_grew(bases, tmp_path, tied, config):
    model, base, shared = bases[tied]
    ids, expected = train_larger(model, tmp_path / "lora", **config)
    found, facts = scored(tmp_path / "lora", base, shared, ids)
    assert facts.vocab_size == builders.VOCABULARY + 3
    assert float((found - expected).abs().max()) < 2e-5


def test_new_rows_of_a_head_that_peft_does_not_save_are_missed(bases, tmp_path):
    """peft saves the embeddings that are targets, even with save_embedding_layers, and leaves out a head of its own."""
    model, base, shared = bases[False]
    train_larger(model, tmp_path / "lora", **TRAINED["embedding"])
    with pytest.raises(CheckpointError, match="3 rows of the larger vocabulary are not in the file") as caught:
        scored(tmp_path / "lora", base, shared)
    assert caught.value.id == "adapter.vocabulary"


@pytest.mark.thorough
@pytest.mark.parametrize("start", ["pissa", "olora", "pissa_niter_4"])
def test_the_advice_on_a_start_that_changes_the_base_gives_the_trained_model(bases, tmp_path, start):
    """What is left of the base, given as base, always; opened again by peft and merged, unless the start is random."""
    model, base, _ = bases[False]
    trained, rest, merged = copy.deepcopy(model), tmp_path / "rest", tmp_path / "merged"
    lora = {"target_modules": ["q_proj", "o_proj"], "init_lora_weights": start}
    expected = train(trained, tmp_path / "lora", **lora)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "lora")
        builders.save(opened.merge_and_unload(), merged)
    weights = {name.replace("base_layer.", ""): each.float() for name, each in trained.named_parameters()}
    left = copy.deepcopy(model)
    left.load_state_dict({name: each for name, each in weights.items() if "lora_" not in name}, strict=False)
    builders.save(left, rest)
    found, _ = scored(tmp_path / "lora", rest, None, ignore_config=("init_lora_weights",))
    assert float((found - expected).abs().max()) < 1e-4
    wrong, _ = scored(tmp_path / "lora", base, None, ignore_config=("init_lora_weights",))
    assert float((wrong - expected).abs().max()) > 0.1, "on the base as it is the loss is another one"
    opened = open_checkpoint(merged)
    again = losses(opened.logits(opened.hidden(IDS).flatten(0, 1)).reshape(*IDS.shape, -1))
    if start != "pissa_niter_4":
        assert float((again - expected).abs().max()) < 1e-3


QUANTISED = {
    "gptq": (
        lambda each: files.gptq(each, 4, 16),
        {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": True},
        "int4 (GPTQ)",
    ),
    "nf4": (
        lambda each: files.four_bit(tuple(each.shape), "nf4", nested=False),
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "NF4 (bitsandbytes)",
    ),
}


@pytest.mark.parametrize("name", ["gptq", pytest.param("nf4", marks=pytest.mark.thorough)])
def test_an_adapter_runs_beside_the_dequantised_weights_of_its_base(tmp_path, name):
    convert, config, stored = QUANTISED[name]
    model = builders.model("llama", intermediate_size=64)
    base = builders.save(model, tmp_path / "base")
    content, meant = {}, {}
    for key, tensor in safetensors.torch.load_file(base / builders.WEIGHTS).items():
        if "proj" in key:
            parts, value = convert(tensor)
            content |= {key.removesuffix(".weight") + end: part.contiguous() for end, part in parts.items()}
            meant[key] = torch.from_numpy(value).float()
        else:
            content[key] = tensor
    safetensors.torch.save_file(content, base / builders.WEIGHTS)
    builders.reconfigure(base, quantization_config=config)
    model.load_state_dict(meant, strict=False)
    lora = make_adapter(model, tmp_path / "lora", target_modules=["q_proj", "up_proj", "embed_tokens"])
    configure(lora, base_model_name_or_path="org/base-4bit")
    expected = losses(peft_logits(model, lora, IDS))
    for merge in (False, True):
        found, facts = scored(lora, base, None, merge=merge)
        assert float((found - expected).abs().max()) < 2e-5
        assert facts.adapter.words == f"LoRA of rank 4 on base in {stored}"
        said = [each for each in facts.notices if "runs beside its weights as they are dequantised" in each]
        assert len(said) == 1
        assert facts.quantization in said[0]
        assert not [each for each in facts.notices if "which is not" in each]
