"""Models whose results depend on other rows of a forward pass: found by their configuration or by the probe."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import transformers
from checkpoint import builders

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.interface import CheckpointFacts, Tokens
from lossprobe.checkpoint.model.batching import LEAST, MOST, configured_batching, probe_length
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError
from lossprobe.plan.rows import SCORED, WindowPolicy, cut_parts, plan_documents
from lossprobe.scoring.measure import PassOptions
from lossprobe.scoring.reference import reference_losses
from lossprobe.scoring.scorer import score_part

CONTEXT = 80
LENGTHS = (9, 60, 21, 34, 33, 32, 90, 60, 13)  # about the limit of 32, where it has one; 90 is two windows
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [2.0, 4.0, 8.0, 16.0]}
SIZE = builders.SMALL | {"head_dim": 8, "max_position_embeddings": 32}
LONG = SIZE | {"max_position_embeddings": 128, "original_max_position_embeddings": 32}
PHI = {key: value for key, value in LONG.items() if key != "head_dim"} | {"num_key_value_heads": 4}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
PER_LAYER = {"rope_type": "longrope", "rope_theta": 1e5, "factor": 4.0, "original_max_position_embeddings": 32}
NTK = {"type": "dynamic", "factor": 4.0}
SPARSE = {key: value for key, value in SIZE.items() if key != "head_dim"} | {
    "num_key_value_heads": 4, "max_position_embeddings": 128, "q_lora_rank": 16, "kv_lora_rank": 16,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1,
    "index_topk": 4, "index_head_dim": 16, "index_n_heads": 2,
}  # fmt: skip
COMPRESSED = {key: SPARSE[key] for key in SPARSE if "layer" not in key and "v_head" not in key} | {
    "num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 16, "o_lora_rank": 16, "o_groups": 2,
    "sliding_window": 8,
}  # fmt: skip
MODELS = {
    "longrope": ("phi3", PHI | {"rope_scaling": FACTORS | {"type": "longrope"}}, "equal lengths"),
    "longrope elsewhere": ("llama", LONG | {"rope_parameters": FACTORS | PER_LAYER}, "equal lengths"),
    "longrope with scales": (
        "phimoe",
        PHI
        | {
            "num_local_experts": 4,
            "rope_scaling": FACTORS | PER_LAYER | {"short_mscale": 1.0, "long_mscale": 1.3},
        },
        "equal lengths",
    ),
    "longrope in one kind of layer": (
        "gemma3_text",
        LONG | LAYERS | {"rope_parameters": {"sliding_attention": PLAIN, "full_attention": FACTORS | PER_LAYER}},
        "equal lengths",
    ),
    "dynamic llama": ("llama", SIZE | {"rope_scaling": NTK}, "equal lengths"),
    "dynamic qwen2": ("qwen2", SIZE | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "equal lengths"),
    "dynamic in one kind of layer": (
        "gemma3_text",
        SIZE | LAYERS | {"rope_parameters": {"sliding_attention": PLAIN, "full_attention": NTK | {"rope_theta": 1e5}}},
        "equal lengths",
    ),
    "index": ("deepseek_v32", SPARSE, "one window"),
    "index elsewhere": ("glm_moe_dsa", SPARSE, "one window"),
    "index of blocks": ("deepseek_v4", COMPRESSED, "one window"),
    "yarn": ("llama", LONG | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "padded"),
    "window": ("mistral", LONG | {"sliding_window": 8}, "padded"),
    "sinks": (
        "gpt_oss",
        LONG | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
        "padded",
    ),
    "keeps its last state": (
        "recurrent_gemma",
        LONG | {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16},
        "padded",
    ),
    "looks at the weight of its head": (
        "mamba",
        builders.COMMON | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        "padded",
    ),
    "scales its layers at the first pass": (
        "rwkv",
        builders.COMMON
        | {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "context_length": 128}
        | {"rescale_every": 1},
        "padded",
    ),
}


def built(family: str, sizes: dict[str, object]) -> transformers.PreTrainedModel:
    given = builders.FAMILIES.get(family, {})
    return builders.model(family, **{key: value for key, value in sizes.items() if given.get(key, ...) != value})


def windows(lengths=LENGTHS):
    """Return documents of ids, and their windows: inputs with the targets behind them."""
    drawn = np.random.default_rng(1)
    documents = [drawn.integers(1, builders.VOCABULARY, length).tolist() for length in lengths]
    cut = [[ids[at : at + CONTEXT + 1] for at in range(0, len(ids) - 1, CONTEXT)] for ids in documents]
    return documents, cut


def tokens(ids: list[int]) -> Tokens:
    count = len(ids)
    return Tokens(np.array(ids, np.int32), np.arange(1, count + 1), np.zeros(count, bool))


def scored(checkpoint, documents, size=None, order=1, plain=False, **how):
    """Return the losses of the documents, scored in some order."""
    policy = WindowPolicy(CONTEXT, CONTEXT, None, False)
    numbers = range(len(documents))[::order]
    found = {}
    for part in cut_parts(plan_documents((tokens(documents[number]) for number in numbers), policy)):
        rows = part.take(part.own & (part.unscored == SCORED))
        if plain:
            losses = reference_losses(checkpoint, part, size, **how)
        else:
            own = part.take(part.own)
            losses = score_part(checkpoint, part, 0, PassOptions(size)).columns["loss_nats"][own.unscored == SCORED]
        for place in np.unique(rows.document):
            found[numbers[place]] = losses[rows.document == place].tolist()
    return np.array([loss for number in sorted(found) for loss in found[number]])


@torch.no_grad()
def alone(fresh, cut):
    """Return the losses of every window in a model that has seen nothing else."""
    losses = []
    for window in (window for document in cut for window in document):
        ids = torch.tensor([window])
        logits = fresh()(input_ids=ids[:, :-1], use_cache=False).logits[0].double()
        losses += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").tolist()
    return np.array(losses)


class _Tokenizer:
    bos_id = None


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODELS)
def test_each_window_comes_out_as_it_does_alone_in_a_fresh_model(name, tmp_path):
    family, sizes, batching = MODELS[name]
    path = builders.save(built(family, sizes), tmp_path / "model")
    checkpoint = load_huggingface(path, LoadOptions())
    assert checkpoint.facts.batching == batching
    said = [notice for notice in checkpoint.facts.notices if "forward pass" in notice]
    assert len(said) == (batching != "padded")
    documents, cut = windows()
    expected = alone(lambda: transformers.AutoModelForCausalLM.from_pretrained(path).eval(), cut)
    for size, order in ((None, 1), (3, -1), (1, 1)):
        np.testing.assert_allclose(scored(checkpoint, documents, size, order), expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(scored(checkpoint, documents, plain=True), expected, rtol=0, atol=2e-5)
    if family not in ("rwkv", "recurrent_gemma", "mamba"):  # recurrent models do not skip what is masked
        padded = scored(checkpoint, documents, 4, plain=True, left_padded=True)
        np.testing.assert_allclose(padded, expected, rtol=0, atol=2e-5)


def test_the_first_phi_3_files_call_longrope_su(tmp_path):
    path = builders.save(built(*MODELS["longrope"][:2]), tmp_path / "new")
    expected = load_huggingface(path, LoadOptions())
    builders.reconfigure(path, drop=("rope_parameters",), rope_scaling=FACTORS | {"type": "su"})
    old = load_huggingface(path, LoadOptions())
    ids = torch.arange(1, 61)[None]
    assert old.facts.batching == "equal lengths"
    assert torch.equal(old.hidden(ids), expected.hidden(ids))
    short = built("phi3", PHI)(input_ids=ids).logits[0]  # without other factors for long inputs
    assert (old.logits(old.hidden(ids)[0]) - short).abs().max() > 0.01


class Body(transformers.LlamaModel):
    """A body whose hidden states depend on something that no configuration mentions."""

    def forward(self, input_ids, **options):
        output = super().forward(input_ids=input_ids, **options)
        output.last_hidden_state = self.extra(output.last_hidden_state, input_ids)
        return output


class Whole(transformers.LlamaForCausalLM):
    """A model whose logits depend on something that no configuration mentions."""

    def forward(self, input_ids, **options):
        output = super().forward(input_ids=input_ids, **options)
        output.logits = self.extra(output.logits, input_ids)
        return output


def unchanged(model, hidden, ids):
    return hidden


def changed(extra, whole=False):
    model = builders.model("llama")
    part, base = (model, Whole) if whole else (model.model, Body)
    part.__class__ = type("Other", (base,), {"extra": extra})
    return model


def opened(model, context=CONTEXT) -> CausalLM:
    facts = CheckpointFacts("fake", "fake", "", vocab_size=builders.VOCABULARY, context_length=context)
    return CausalLM(model, facts, _Tokenizer())


def beside_other_rows(model, logits, ids):
    return logits + 0.1 * logits.mean(dim=0, keepdim=True)


def by_the_padded_length(model, logits, ids):
    return logits * (1 + 4 / ids.shape[1])


def by_the_padding(model, logits, ids):
    return logits * (1 + 0.1 * (ids == 0).sum(dim=1)[:, None, None])


def by_long_rows_beside(model, logits, ids):
    return logits * (1.1 if ids.shape[1] > 64 else 1.0)


def by_calls(model, logits, ids):
    model.calls = getattr(model, "calls", 0) + 1
    return logits * (1 + 0.1 * model.calls)


@pytest.mark.parametrize(
    ("extra", "batching"),
    [
        (beside_other_rows, "one window"),
        (by_the_padded_length, "equal lengths"),
        (by_the_padding, "equal lengths"),
        (by_long_rows_beside, "equal lengths"),
        (by_calls, "padded"),
        (unchanged, "padded"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_what_no_configuration_names_is_found_by_the_probe(extra, batching, whole):
    if whole and extra is by_the_padding:
        batching = "padded"  # the rows of the probe hold no padding of their own: the split into body and head stands
    checkpoint = opened(changed(extra, whole))
    assert checkpoint.facts.head == ("full" if whole and extra not in (unchanged, by_the_padding) else "linear")
    assert checkpoint.facts.batching == batching
    told = any("a probe showed that they change" in notice for notice in checkpoint.facts.notices)
    assert told == (batching != "padded")
    documents, cut = windows()
    expected = alone(lambda: changed(extra, whole), cut)
    for size, order in ((None, 1), (3, -1)):
        np.testing.assert_allclose(scored(checkpoint, documents, size, order), expected, rtol=0, atol=2e-5)


SEEN: list[int] = []


def noise(model, logits, ids):
    return logits + 0.1 * torch.randn(logits.shape)


def noise_in_long_rows(model, logits, ids):
    return noise(model, logits, ids) if ids.shape[1] > 40 else logits


def noise_drawn_once(model, logits, ids):
    if not hasattr(model, "drawn"):
        model.drawn = torch.randn(logits.shape[-1])
    return logits + 0.1 * model.drawn


def noise_by_the_seed(model, logits, ids):
    generator = torch.Generator().manual_seed(int(torch.randint(1 << 30, ())))
    return logits + 0.1 * torch.randn(logits.shape, generator=generator)


def noise_of_python(model, logits, ids):
    return logits * (1 + random.random())


def count_outside(model, logits, ids):
    SEEN.append(1)
    return logits * (1 + 0.1 * len(SEEN))


def longest_outside(model, logits, ids):
    SEEN.append(ids.shape[1])
    return logits * (1 + 0.1 * max(SEEN))


@pytest.mark.parametrize(
    ("extra", "id"),
    [
        (noise, "random"),
        (noise_in_long_rows, "random"),
        (noise_drawn_once, "random"),
        (noise_by_the_seed, "random"),
        (noise_of_python, "stateful"),
        (count_outside, "stateful"),
        (longest_outside, "stateful"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_what_gives_other_values_each_time_is_refused(extra, id, whole):
    SEEN.clear()
    with pytest.raises(CheckpointError, match=r"fake: the same \d+ tokens twice give values [\d.]+ apart") as caught:
        opened(changed(extra, whole))
    assert (caught.value.id, caught.value.exit_code) == (f"checkpoint.{id}", 3)


def later_tokens_in_long_rows(model, logits, ids):
    return logits + 0.01 * logits.sum(dim=1, keepdim=True) * (ids.shape[1] > 40)


@pytest.mark.parametrize("whole", [False, True])
def test_what_sees_later_tokens_in_long_rows_only_is_refused(whole):
    with pytest.raises(CheckpointError, match="later tokens change earlier logits") as caught:
        opened(changed(later_tokens_in_long_rows, whole))
    assert caught.value.id == "checkpoint.not_causal"


REFORMER = builders.COMMON | {
    "attn_layers": ["local", "lsh"], "is_decoder": True, "hidden_size": 32, "num_attention_heads": 2,
    "attention_head_size": 16, "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [16, 16], "feed_forward_size": 48,
    "max_position_embeddings": 256, "pad_token_id": 0,
}  # fmt: skip


def test_reformer_hashes_at_random(tmp_path):
    path = builders.save(built("reformer", REFORMER), tmp_path / "reformer")
    assert "draws random numbers" in builders.refused(path, "checkpoint.random")
    assert opened(built("reformer", REFORMER | {"attn_layers": ["local", "local"]})).facts.batching == "padded"


def test_a_load_leaves_random_numbers_and_the_model_as_they_were():
    sizes = MODELS["dynamic llama"][1]
    model = built("llama", sizes)
    positions = model.model.rotary_emb
    frequencies, state = positions.inv_freq.clone(), torch.get_rng_state()
    checkpoint = opened(model)
    assert torch.equal(torch.get_rng_state(), state)
    for length in (64, 80, 64):
        ids = torch.arange(1, length + 1)[None]
        expected = built("llama", sizes).model(input_ids=ids, use_cache=False).last_hidden_state
        torch.testing.assert_close(checkpoint.hidden(ids), expected, rtol=0, atol=1e-5)
    checkpoint.hidden(torch.arange(1, 9)[None])
    assert torch.equal(positions.inv_freq, frequencies)


def test_an_ordinary_model_watches_nothing():
    checkpoint = opened(builders.model("llama"))
    assert checkpoint._fresh._watched == []


class RowsTogether(transformers.LlamaForCausalLM):
    """A head that subtracts the mean over all rows from the logits, which a chunk of rows does not have."""

    def forward(self, input_ids, **options):
        output = super().forward(input_ids=input_ids, **options)
        output.logits = output.logits - 0.1 * output.logits.mean(dim=(0, 1), keepdim=True)
        return output


def test_a_head_that_looks_at_other_rows_is_not_run_on_chunks():
    with pytest.raises(CheckpointError) as caught:
        opened(RowsTogether(builders.model("llama").config).eval())
    assert caught.value.id == "checkpoint.not_causal"  # the mean is over later tokens too


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_rounding_is_no_dependence(family, dtype):
    sizes = SIZE | {"num_local_experts": 4, "num_hidden_layers": 8, "max_position_embeddings": 512}
    model = built(family, sizes if family != "gpt2" else {"n_layer": 8, "n_positions": 512})
    assert opened(model.to(getattr(torch, dtype)), 512).facts.batching == "padded"


@pytest.mark.parametrize("rope_type", ["default", "linear", "llama3", "yarn"])
def test_positions_that_do_not_depend_on_the_length_cost_nothing(rope_type):
    rope = {"rope_type": rope_type, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_type": "default"} if rope_type == "default" else rope
    assert configured_batching(built("llama", LONG | {"rope_scaling": rope})).batching == "padded"


def test_a_key_that_the_family_does_not_have_says_nothing():
    model = builders.model("llama")
    model.config.index_topk = 4
    assert configured_batching(model).batching == "padded"
    assert "index_topk 4" in configured_batching(built("deepseek_v32", SPARSE)).reason


def test_the_probe_is_short_where_weights_are_many():
    class Large(torch.nn.Module):
        def __init__(self, weights):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.empty(1).expand(weights))

    expected = [MOST, 200, LEAST, LEAST]  # 8e9 weights times tokens on a CPU, over four long rows
    assert [probe_length(Large(10**n), None) for n in (6, 7, 8, 9)] == expected
    assert [probe_length(Large(10), context) for context in (64, 10, 2, 1)] == [56, 5, 1, 1]
