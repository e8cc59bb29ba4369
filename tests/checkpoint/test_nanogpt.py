"""nanoGPT: losses are those of the original program for both GELUs; files that would give wrong ones are refused."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lossprobe.checkpoint.families.nanogpt import is_nanogpt, load_nanogpt
from lossprobe.checkpoint.files.torch_file import read_torch_file
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

VOCAB, CONTEXT, WIDTH, LAYERS = 23, 12, 16, 2
IDS = [(7 * i * i + 3 * i + 1) % VOCAB for i in range(13)]
ARGS = {
    "n_layer": LAYERS,
    "n_head": 4,
    "n_embd": WIDTH,
    "block_size": CONTEXT,
    "bias": True,
    "vocab_size": VOCAB,
    "dropout": 0.0,
}
# Printed by the original program for these weights (five decimals), by bias and GELU.
GOLDEN = {
    (True, "erf"): (
        3.626497,
        "2.72231 2.91353 4.14454 4.57850 2.80253 4.24196 4.43848 4.58536 1.08473 5.36539 4.25221 2.38842",
    ),
    (True, "tanh"): (
        3.626431,
        "2.72235 2.91335 4.14452 4.57849 2.80243 4.24179 4.43841 4.58542 1.08477 5.36545 4.25198 2.38822",
    ),
    (False, "erf"): (
        3.927951,
        "3.59115 1.33778 4.12701 4.31418 2.86157 5.69758 4.70825 4.55395 6.45261 2.41734 3.32956 3.74444",
    ),
    (False, "tanh"): (
        3.927980,
        "3.59103 1.33793 4.12686 4.31438 2.86193 5.69792 4.70794 4.55404 6.45246 2.41679 3.32947 3.74500",
    ),
}
MASK = torch.tril(torch.ones(CONTEXT, CONTEXT)).view(1, 1, CONTEXT, CONTEXT)


def formula_state(bias=True):
    shapes = {"lm_head.weight": (VOCAB, WIDTH), "transformer.wpe.weight": (CONTEXT, WIDTH)}
    biased = {"transformer.ln_f": (WIDTH,)}
    for i in range(LAYERS):
        block = f"transformer.h.{i}."
        biased |= {f"{block}ln_{n}": (WIDTH,) for n in (1, 2)}
        biased |= {f"{block}attn.c_attn": (3 * WIDTH, WIDTH), f"{block}attn.c_proj": (WIDTH, WIDTH)}
        biased |= {f"{block}mlp.c_fc": (4 * WIDTH, WIDTH), f"{block}mlp.c_proj": (WIDTH, 4 * WIDTH)}
    shapes |= {f"{name}.weight": shape for name, shape in biased.items()}
    if bias:
        shapes |= {f"{name}.bias": shape[:1] for name, shape in biased.items()}
    state = {}
    for number, name in enumerate(sorted(shapes)):
        j = np.arange(math.prod(shapes[name]), dtype=np.float64)
        norm = "ln_" in name and name.endswith("weight")
        values = 0.5 * np.sin(1.7 * j * j + 1.1 * number + 0.5) + (1.0 if norm else 0.0)
        state[name] = torch.from_numpy(values.astype(np.float32)).reshape(shapes[name])
    state["transformer.wte.weight"] = state["lm_head.weight"]
    return state


def write_meta(path: Path, symbols=VOCAB):
    characters = [chr(ord("a") + i) for i in range(symbols)]
    meta = {
        "vocab_size": symbols,
        "itos": dict(enumerate(characters)),
        "stoi": {c: i for i, c in enumerate(characters)},
    }
    path.write_bytes(pickle.dumps(meta))


def save(folder: Path, *, state=None, args=ARGS, symbols=VOCAB):
    content = {"model": formula_state() if state is None else state, "model_args": args, "iter_num": 5}
    content |= {"best_val_loss": torch.tensor(1.5), "config": {"dataset": "shakespeare_char", "compile": True}}
    torch.save(content, folder / "ckpt.pt")
    if symbols:
        write_meta(folder / "meta.pkl", symbols)
    return folder / "ckpt.pt"


def load(path: Path, **options):
    file = read_torch_file(path)
    assert is_nanogpt(file.content)
    return load_nanogpt(file, LoadOptions(**options))


def losses(checkpoint):
    logits = checkpoint.logits(checkpoint.hidden(torch.tensor([IDS[:-1]])).flatten(0, 1))
    assert logits.shape == (12, VOCAB)
    return torch.nn.functional.cross_entropy(logits.float(), torch.tensor(IDS[1:]), reduction="none").double().numpy()


def refused(folder: Path, id: str, options=None, **saved):
    with pytest.raises(CheckpointError) as caught:
        load(save(folder, **saved), **(options or {}))
    assert (caught.value.id, caught.value.exit_code) == (id, 3)
    assert "\n" not in caught.value.message
    assert str(folder) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(("bias", "gelu"), GOLDEN)
def test_gives_the_original_losses(tmp_path, bias, gelu):
    mean, expected = GOLDEN[bias, gelu]
    checkpoint = load(save(tmp_path, state=formula_state(bias), args=ARGS | {"bias": bias}), gelu=gelu)
    actual = losses(checkpoint)
    np.testing.assert_allclose(actual, np.array(expected.split(), dtype=float), rtol=0, atol=1e-5)
    assert actual.mean() == pytest.approx(mean, rel=0, abs=1e-5)
    assert checkpoint.facts.config_from == f"model_args, gelu {gelu}"


def test_facts_say_what_it_is(tmp_path):
    facts = load(save(tmp_path)).facts
    assert facts.parameters == sum(t.numel() for n, t in formula_state().items() if n != "lm_head.weight")
    assert (facts.family, facts.vocab_size, facts.context_length) == ("nanogpt", VOCAB, CONTEXT)
    assert (facts.tied, facts.head, facts.notices, facts.stored_dtype) == (True, "linear", (), "float32")


def test_a_head_that_is_not_tied_is_used_as_stored(tmp_path):
    state = formula_state()
    state["lm_head.weight"] = state["lm_head.weight"] * 2
    checkpoint = load(save(tmp_path, state=state))
    assert (checkpoint.facts.tied, checkpoint.facts.head) == (False, "linear")
    assert "stored head is used" in checkpoint.facts.notices[0]
    hidden = checkpoint.hidden(torch.tensor([IDS[:-1]]))[0]
    torch.testing.assert_close(checkpoint.logits(hidden), hidden @ state["lm_head.weight"].T)


def test_names_of_a_compiled_model_are_read(tmp_path):
    state = {f"_orig_mod.{name}": tensor for name, tensor in formula_state().items()}
    assert losses(load(save(tmp_path, state=state))).mean() == pytest.approx(GOLDEN[True, "erf"][0], rel=0, abs=1e-5)


@pytest.mark.parametrize(
    "start",
    ["module.", "_orig_mod.module.", "module._orig_mod.", "_fsdp_wrapped_module.", "model.", "module.model._orig_mod."],
)
def test_names_of_wrapped_models_are_read(tmp_path, start):
    state = {f"{start}{name}": tensor for name, tensor in formula_state().items()}
    checkpoint = load(save(tmp_path, state=state))
    assert losses(checkpoint).mean() == pytest.approx(GOLDEN[True, "erf"][0], rel=0, abs=1e-5)
    (notice,) = checkpoint.facts.notices
    assert notice.startswith("tensor names are read without ")


def test_names_that_wrappers_put_inside(tmp_path):
    inner = "transformer.h.1._fsdp_wrapped_module._checkpoint_wrapped_module."
    state = {name.replace("transformer.h.1.", inner): tensor for name, tensor in formula_state().items()}
    checkpoint = load(save(tmp_path, state=state))
    assert losses(checkpoint).mean() == pytest.approx(GOLDEN[True, "erf"][0], rel=0, abs=1e-5)


@pytest.mark.parametrize("name", ["lm_head.weight", "transformer.wte.weight"])
def test_a_tied_pair_that_is_stored_once(tmp_path, name):
    state = formula_state()
    del state[name]
    checkpoint = load(save(tmp_path, state=state))
    assert losses(checkpoint).mean() == pytest.approx(GOLDEN[True, "erf"][0], rel=0, abs=1e-5)
    assert f"{name} is not stored; nanoGPT ties it to " in checkpoint.facts.notices[0]


@pytest.mark.parametrize(
    "args", [{"flash": True}, {"bias": 1}, {"attn_dropout": 0.1, "compile": True}, {"n_head": np.int64(4)}]
)
def test_arguments_that_change_nothing_are_read_and_told(tmp_path, args):
    checkpoint = load(save(tmp_path, args=ARGS | args))
    assert losses(checkpoint).mean() == pytest.approx(GOLDEN[True, "erf"][0], rel=0, abs=1e-5)
    unknown = [key for key in sorted(args) if key not in ARGS]
    assert list(checkpoint.facts.notices) == (
        [f"model_args: {', '.join(unknown)} not used, since they do not change what the model computes"]
        if unknown
        else []
    )


def test_a_key_is_ignored_when_asked_for(tmp_path):
    path = save(tmp_path, args=ARGS | {"rope": False})
    assert "unknown keys: rope" in refused(tmp_path, "checkpoint.bad_config", args=ARGS | {"rope": False})
    facts = load(path, ignore_config=("rope", "moe")).facts
    assert facts.config_from == "model_args without rope, gelu erf"
    assert facts.notices == (
        "model_args: rope is ignored, as asked",
        "model_args: moe was to be ignored, but there is no such key",
    )
    asked = {"ignore_config": ("n_head",)}
    assert "n_head is NoneType" in refused(tmp_path, "checkpoint.bad_config", asked)


def test_files_of_a_checkpoint(tmp_path):
    path = save(tmp_path)
    assert load(path).facts.files == (str(path), str(tmp_path / "meta.pkl"))


def test_both_forms_of_names_are_refused(tmp_path):
    state = formula_state()
    state["_orig_mod.lm_head.weight"] = state["lm_head.weight"]
    assert "1 of 30 tensor names start with _orig_mod." in refused(tmp_path, "checkpoint.mixed_names", state=state)


def test_an_early_file_has_masks_and_lacks_bias_and_vocab_size(tmp_path):
    state = formula_state() | {f"transformer.h.{i}.attn.bias": MASK for i in range(LAYERS)}
    args = {key: value for key, value in ARGS.items() if key not in {"bias", "vocab_size"}}
    checkpoint = load(save(tmp_path, state=state, args=args))
    assert losses(checkpoint).mean() == pytest.approx(GOLDEN[True, "erf"][0], rel=0, abs=1e-5)
    assert checkpoint.facts.parameters == load(save(tmp_path)).facts.parameters


def test_only_a_mask_is_ignored(tmp_path):
    state = formula_state() | {"transformer.h.0.attn.bias": torch.zeros(WIDTH)}
    message = refused(tmp_path, "checkpoint.unexpected_tensor", state=state)
    assert "unexpected tensor transformer.h.0.attn.bias (30 stored, 29 expected)" in message


@pytest.mark.parametrize("dtype", ["bfloat16", "auto"])
def test_computes_in_the_asked_dtype(tmp_path, dtype):
    state = {name: tensor.bfloat16() for name, tensor in formula_state().items()}
    checkpoint = load(save(tmp_path, state=state), dtype=dtype)
    assert (checkpoint.facts.stored_dtype, checkpoint.facts.compute_dtype) == ("bfloat16", "bfloat16")
    assert losses(checkpoint).mean() == pytest.approx(GOLDEN[True, "erf"][0], abs=0.1)


@pytest.mark.parametrize(
    ("changes", "id", "message"),
    [
        ({"n_layer": 10**6}, "checkpoint.bad_config", "n_layer is 1000000, not a whole number from 1 to 29"),
        ({"n_layer": 3}, "checkpoint.missing_tensor", "(29 of 41 present)"),
        ({"n_layer": 1}, "checkpoint.unexpected_tensor", "(29 stored, 17 expected)"),
        ({"n_layer": True}, "checkpoint.bad_config", "n_layer is True"),
        ({"n_head": "4"}, "checkpoint.bad_config", "n_head is 4, not a whole number"),
        ({"n_head": 3}, "checkpoint.bad_config", "n_embd 16 is not divisible by n_head 3"),
        ({"n_embd": 10**10}, "checkpoint.bad_config", "n_embd is 10000000000"),
        ({"n_embd": 32}, "checkpoint.wrong_shape", "has shape [23, 16], the configuration asks for [23, 32]"),
        ({"block_size": 11}, "checkpoint.wrong_shape", "transformer.wpe.weight has shape [12, 16]"),
        ({"vocab_size": 60}, "checkpoint.vocab_size", "vocab_size 60 in model_args, 23 in transformer.wte.weight"),
        ({"bias": False}, "checkpoint.unexpected_tensor", "transformer.h.0.attn.c_attn.bias"),
        ({"bias": 2}, "checkpoint.bad_config", "bias is int, not true or false"),
        ({"rope\x1b": True}, "checkpoint.bad_config", r"unknown keys: rope\x1b"),
    ],
)
def test_wrong_model_args_are_refused(tmp_path, changes, id, message):
    assert message in refused(tmp_path, id, args=ARGS | changes)


@pytest.mark.parametrize("name", ["transformer.wpe.weight", "transformer.h.1.mlp.c_fc.weight"])
def test_a_missing_tensor_is_named(tmp_path, name):
    state = formula_state()
    del state[name]
    assert f"tensor {name} is missing (28 of 29 present)" in refused(tmp_path, "checkpoint.missing_tensor", state=state)


def test_a_non_finite_weight_is_named(tmp_path):
    state = formula_state()
    state["transformer.ln_f.weight"][:3] = math.nan
    assert "transformer.ln_f.weight: 3 non-finite values" in refused(tmp_path, "checkpoint.non_finite", state=state)


def test_llama2c_is_another_family():
    args = {"dim": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 12}
    assert not is_nanogpt({"model": {}, "model_args": args})
    assert not is_nanogpt({"model": {}, "model_args": 3})
    assert not is_nanogpt({"model_args": ARGS})
    assert is_nanogpt({"model": {}, "model_args": ARGS})


def test_model_args_must_be_a_dict(tmp_path):
    with pytest.raises(CheckpointError, match="model_args is list, not a dict"):
        load_nanogpt(read_torch_file(save(tmp_path, args=[1])), LoadOptions())


def test_characters_come_from_meta_pkl(tmp_path):
    path = save(tmp_path)
    assert load(path).tokenizer.encode("cab").ids.tolist() == [2, 0, 1]
    elsewhere = tmp_path / "data"
    elsewhere.mkdir()
    (tmp_path / "meta.pkl").rename(elsewhere / "meta.pkl")
    for named in (elsewhere, elsewhere / "meta.pkl"):
        assert load(path, tokenizer=named).tokenizer.encode("cab").ids.tolist() == [2, 0, 1]


def test_no_tokenizer_is_an_error_not_a_guess(tmp_path):
    assert "vocab 23 needs `tokenizer` meta.pkl" in refused(tmp_path, "tokenizer.missing", symbols=0)


def test_the_gpt2_vocabulary_needs_its_own_tokenizer(tmp_path):
    state = formula_state()
    state["lm_head.weight"] = state["transformer.wte.weight"] = torch.zeros(50304, WIDTH)
    args = ARGS | {"vocab_size": 50304}
    message = refused(tmp_path, "tokenizer.missing", state=state, args=args, symbols=0)
    assert "vocab 50304 needs `tokenizer` with a local tokenizer.json of GPT-2" in message


def test_a_meta_pkl_of_another_size_is_refused(tmp_path):
    assert "22 symbols, model has 23" in refused(tmp_path, "tokenizer.vocab_size", symbols=22)


def test_a_hugging_face_tokenizer_can_be_named(tmp_path):
    vocabulary = {chr(ord("a") + i): i for i in range(VOCAB)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    tokens = load(save(tmp_path, symbols=0), tokenizer=tmp_path / "tokenizer.json").tokenizer.encode("cab")
    assert (tokens.ids.tolist(), tokens.byte_stop.tolist()) == ([2, 0, 1], [1, 2, 3])


def test_the_hash_is_that_of_the_file(tmp_path):
    first = load(save(tmp_path)).facts.sha256
    assert load(tmp_path / "ckpt.pt", gelu="tanh").facts.sha256 == first
    state = formula_state()
    state["transformer.ln_f.bias"][0] += 1
    assert load(save(tmp_path, state=state)).facts.sha256 != first
