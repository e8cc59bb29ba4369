"""FundamentaLLM: losses are those of the original program, and files that would give wrong ones are refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lossprobe.checkpoint.families.fundamentallm import FundamentaLLM, is_fundamentallm, load_fundamentallm
from lossprobe.checkpoint.files.torch_file import read_torch_file
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

VOCAB, CONTEXT, WIDTH, LAYERS = 23, 12, 16, 2
IDS = [(7 * i * i + 3 * i + 1) % VOCAB for i in range(13)]
CONFIG = {
    "vocab_size": VOCAB, "d_model": WIDTH, "num_heads": 4, "num_layers": LAYERS, "sequence_length": CONTEXT,
    "dropout": 0.1, "ffn_expansion": 4, "pos_encoding": "learned",
}  # fmt: skip
# Printed by the original program for these weights: the mean, then every token's loss (five decimals).
GOLDEN = {
    "learned": "4.202763 4.56649 7.07444 2.58042 2.90799 7.59853 2.38477"
    " 3.53118 4.83331 2.36219 4.49816 5.60421 2.49148",
    "sinusoidal": "5.195409 4.43941 9.63886 5.20773 5.03615 6.54509 4.97965"
    " 1.54244 5.52862 2.60257 4.39873 6.93295 5.49269",
}

MEAN = 4.202763  # of the learned one


def formula_state(pos_encoding="learned"):
    shapes = {"token_embedding.weight": (VOCAB, WIDTH), "output_norm.weight": (WIDTH,)}
    if pos_encoding == "learned":
        shapes["positional_encoding.embeddings.weight"] = (CONTEXT, WIDTH)
    for i in range(LAYERS):
        block = f"blocks.{i}."
        shapes |= {f"{block}norm{n}.weight": (WIDTH,) for n in (1, 2)}
        for part in "qkvo":
            shapes |= {f"{block}attention.W_{part}.weight": (WIDTH, WIDTH), f"{block}attention.W_{part}.bias": (WIDTH,)}
        shapes |= {f"{block}ffn.linear1.weight": (4 * WIDTH, WIDTH), f"{block}ffn.linear1.bias": (4 * WIDTH,)}
        shapes |= {f"{block}ffn.linear2.weight": (WIDTH, 4 * WIDTH), f"{block}ffn.linear2.bias": (WIDTH,)}
    state = {}
    for number, name in enumerate(sorted(shapes)):
        j = np.arange(math.prod(shapes[name]), dtype=np.float64)
        values = 0.5 * np.sin(1.7 * j * j + 1.1 * number + 0.5) + (1.0 if "norm" in name else 0.0)
        state[name] = torch.from_numpy(values.astype(np.float32)).reshape(shapes[name])
    state["output_proj.weight"] = state["token_embedding.weight"]
    if pos_encoding == "sinusoidal":
        angles = torch.arange(CONTEXT)[:, None] * torch.exp(-torch.arange(0, WIDTH, 2) * math.log(10000.0) / WIDTH)
        state["positional_encoding.pe"] = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return state


def write_tokenizer(path: Path, symbols=VOCAB):
    specials = ["<PAD>", "<UNK>", "<BOS>", "<EOS>"]
    names = specials + [chr(ord("a") + i) for i in range(symbols - len(specials))]
    content = {"min_frequency": 1, "char_to_id": {n: i for i, n in enumerate(names)}, "special_tokens": specials}
    path.write_text(json.dumps(content), encoding="utf-8")


def save(folder: Path, *, state=None, config=CONFIG, name="final_model.pt", symbols=VOCAB):
    content = {
        "model_state": formula_state() if state is None else state,
        "epoch": 1,
        "step": 9,
        "metrics": {"loss": 1.0},
    }
    if config is not None:
        content["model_config"] = config
    torch.save(content, folder / name)
    write_tokenizer(folder / "tokenizer.json", symbols)
    return folder / name


def load(path: Path, **options) -> FundamentaLLM:
    return load_fundamentallm(read_torch_file(path), LoadOptions(**options))


def losses(checkpoint, ids=IDS):
    inputs = torch.tensor(ids[:-1])[None]
    logits = checkpoint.logits(checkpoint.hidden(inputs).flatten(0, 1))
    assert logits.shape == (len(ids) - 1, checkpoint.facts.vocab_size)
    return torch.nn.functional.cross_entropy(logits.float(), torch.tensor(ids[1:]), reduction="none").double().numpy()


def refused(folder: Path, id: str, **saved):
    with pytest.raises(CheckpointError) as caught:
        load(save(folder, **saved))
    assert (caught.value.id, caught.value.exit_code) == (id, 3)
    assert "\n" not in caught.value.message
    assert str(folder) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("pos_encoding", GOLDEN)
def test_gives_the_original_losses(tmp_path, pos_encoding):
    mean, *expected = map(float, GOLDEN[pos_encoding].split())
    config = CONFIG | {"pos_encoding": pos_encoding}
    actual = losses(load(save(tmp_path, state=formula_state(pos_encoding), config=config)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
    assert actual.mean() == pytest.approx(mean, rel=0, abs=1e-5)


def test_facts_say_what_it_is(tmp_path):
    facts = load(save(tmp_path)).facts
    assert facts.parameters == sum(t.numel() for n, t in formula_state().items() if n != "output_proj.weight")
    assert (facts.family, facts.vocab_size, facts.context_length) == ("fundamentallm", VOCAB, CONTEXT)
    assert (facts.tied, facts.head, facts.config_from, facts.notices) == (True, "linear", "model_config", ())


def test_a_head_that_is_not_tied_is_used_as_stored(tmp_path):
    state = formula_state()
    state["output_proj.weight"] = state["output_proj.weight"] * 2
    checkpoint = load(save(tmp_path, state=state))
    assert checkpoint.facts.tied is False
    assert "stored head is used" in checkpoint.facts.notices[0]
    hidden = checkpoint.hidden(torch.tensor([IDS[:-1]]))[0]
    torch.testing.assert_close(checkpoint.logits(hidden), hidden @ state["output_proj.weight"].T)


def test_the_stored_position_table_wins_over_its_formula_and_is_no_parameter(tmp_path):
    config = CONFIG | {"pos_encoding": "sinusoidal"}
    state = formula_state("sinusoidal")
    plain = load(save(tmp_path, state=state, config=config))
    assert plain.facts.parameters == load(save(tmp_path)).facts.parameters - CONTEXT * WIDTH
    state["positional_encoding.pe"] = state["positional_encoding.pe"].flip(0)
    assert np.abs(losses(load(save(tmp_path, state=state, config=config))) - losses(plain)).max() > 0.1


def test_long_windows_in_parts_give_the_same_bits(tmp_path, monkeypatch):
    path, ids = save(tmp_path), torch.tensor([IDS[:-1], IDS[1:], IDS[:-1]])
    whole = load(path).hidden(ids)
    monkeypatch.setattr("lossprobe.checkpoint.families.fundamentallm.MAX_SCORES", 1)
    assert torch.equal(load(path).hidden(ids), whole)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "auto"])
def test_computes_in_the_asked_dtype(tmp_path, dtype):
    state = {name: tensor.half() for name, tensor in formula_state().items()}
    checkpoint = load(save(tmp_path, state=state), dtype=dtype)
    expected = "float16" if dtype == "auto" else dtype
    assert (checkpoint.facts.stored_dtype, checkpoint.facts.compute_dtype) == ("float16", expected)
    assert str(checkpoint.logits(checkpoint.hidden(torch.tensor([[1, 2]]))[0]).dtype) == f"torch.{expected}"
    assert losses(checkpoint).mean() == pytest.approx(MEAN, abs=0.1)


@pytest.mark.parametrize("name", ["best.yaml", "best.yml", "config.yaml", "model.yaml"])
def test_the_configuration_is_looked_up_in_the_original_order(tmp_path, name):
    order = ["best.yaml", "best.yml", "config.yaml", "model.yaml"]
    for other in order[order.index(name) + 1 :]:
        (tmp_path / other).write_text("vocab_size: 1\n")
    (tmp_path / name).write_text("\n".join(f"{key}: {value}" for key, value in CONFIG.items()))
    assert load(save(tmp_path, config=None, name="best.pt")).facts.config_from == name


def test_a_key_named_config_comes_before_model_config(tmp_path):
    path = save(tmp_path, config={"vocab_size": 1})
    torch.save(torch.load(path, weights_only=True) | {"config": CONFIG}, path)
    assert is_fundamentallm(read_torch_file(path).content)
    assert load(path).facts.config_from == "config"


def test_older_names_of_the_sizes_are_read(tmp_path):
    config = {key: value for key, value in CONFIG.items() if key not in {"d_model", "sequence_length"}}
    assert (
        load(save(tmp_path, config=config | {"hidden_dim": WIDTH, "max_seq_len": CONTEXT})).facts.context_length
        == CONTEXT
    )
    assert load(save(tmp_path, config=config | {"model_dim": WIDTH, "max_seq_len": CONTEXT})).facts.tied


def test_the_hash_covers_the_configuration_file(tmp_path):
    path = save(tmp_path, config=None, name="best.pt")
    text = "\n".join(f"{key}: {value}" for key, value in CONFIG.items())
    (tmp_path / "model.yaml").write_text(text)
    first = load(path).facts.sha256
    (tmp_path / "model.yaml").write_text(text + "\n# other bytes")
    assert load(path).facts.sha256 != first


def test_best_without_model_yaml_means_training_goes_on(tmp_path):
    message = refused(tmp_path, "checkpoint.no_config", config=None, name="best.pt")
    assert "training not finished? model.yaml missing" in message


def test_no_tokenizer_means_training_goes_on(tmp_path):
    path = save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"training not finished\? tokenizer.json missing") as caught:
        load(path)
    assert (caught.value.id, caught.value.exit_code) == ("tokenizer.missing", 3)


@pytest.mark.parametrize("as_folder", [True, False])
def test_takes_the_tokenizer_that_is_named(tmp_path, as_folder):
    path = save(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "tokenizer.json").rename(elsewhere / "tokenizer.json")
    checkpoint = load(path, tokenizer=elsewhere if as_folder else elsewhere / "tokenizer.json")
    assert checkpoint.tokenizer.encode("ab").ids.tolist() == [4, 5]


def test_a_tokenizer_of_another_size_is_refused(tmp_path):
    assert "22 symbols, model has 23" in refused(tmp_path, "tokenizer.vocab_size", symbols=VOCAB - 1)


@pytest.mark.parametrize(
    ("changes", "id", "message"),
    [
        ({"pos_encoding": "rope"}, "checkpoint.rope", "refuses to build"),
        ({"pos_encoding": "alibi"}, "checkpoint.bad_config", "not learned or"),
        ({"num_heads": 3}, "checkpoint.bad_config", "d_model 16 is not divisible by num_heads 3"),
        ({"num_heads": True}, "checkpoint.bad_config", "num_heads is True, not a whole number"),
        ({"num_layers": 49}, "checkpoint.bad_config", "from 1 to 48"),
        ({"num_layers": 3}, "checkpoint.missing_tensor", "(32 of 46 present)"),
        ({"num_layers": 1}, "checkpoint.unexpected_tensor", "(32 stored, 18 expected)"),
        ({"vocab_size": 10**10}, "checkpoint.bad_config", "vocab_size is 10000000000"),
        ({"vocab_size": 60}, "checkpoint.wrong_shape", "has shape [23, 16], the configuration asks for [60, 16]"),
        ({"ffn_expansion": 3}, "checkpoint.wrong_shape", "ffn.linear1.weight has shape [64, 16]"),
        ({"sequence_length": 11}, "checkpoint.wrong_shape", "positional_encoding.embeddings.weight has shape [12, 16]"),
        (
            {"pos_encoding": "sinusoidal"},
            "checkpoint.missing_tensor",
            "positional_encoding.pe is missing (31 of 32 present)",
        ),
        ({"activation\x1b": "silu"}, "checkpoint.bad_config", r"unknown key activation\x1b"),
        ({"hidden_dim": 16}, "checkpoint.bad_config", "gives d_model twice"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path, changes, id, message):
    assert message in refused(tmp_path, id, config=CONFIG | changes)


@pytest.mark.parametrize("key", ["vocab_size", "num_heads"])
def test_what_no_tensor_shows_must_be_stated(tmp_path, key):
    config = {name: value for name, value in CONFIG.items() if name != key}
    assert f"lacks {key}" in refused(tmp_path, "checkpoint.bad_config", config=config)


def test_a_configuration_of_another_kind_is_refused(tmp_path):
    assert "model_config is str, not a dict" in refused(tmp_path, "checkpoint.bad_config", config="vocab_size: 23")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nvocab_size: *x\n", "line 1: aliases, anchors, tags and deep nesting are not allowed"),
        ("vocab_size: !!python/object/apply:os.getpid []\n", "line 1: aliases, anchors, tags"),
        ("vocab_size: 1\nvocab_size: 23\n", "each key once"),
        ("vocab_size: " + "[" * 60_000, "line 1: aliases, anchors, tags and deep nesting"),
        ("- 1\n- 2\n", "not a mapping"),
        ("vocab_size: 23\n  num_heads: {", "line 2: not YAML"),
        ("vocab_size: " + "9" * 5000, "not YAML"),
        ("vocab_size: \xff\n", "not YAML in UTF-8"),
        ("# " + "x" * 70_000, "more than 65,536 bytes"),
        ("d_model: yes\nvocab_size: 23\nnum_heads: 4\n", "d_model is True, not a whole number"),
    ],
)
def test_a_hostile_yaml_is_refused(tmp_path, text, message):
    (tmp_path / "model.yaml").write_text(text, encoding="latin-1")
    assert message in refused(tmp_path, "checkpoint.bad_config", config=None, name="best.pt")


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "model.yaml").mkdir()
    assert "cannot be read" in refused(tmp_path, "checkpoint.unreadable", config=None, name="best.pt")


def test_a_missing_tensor_is_named(tmp_path):
    state = formula_state()
    del state["blocks.1.ffn.linear2.bias"]
    message = refused(tmp_path, "checkpoint.missing_tensor", state=state)
    assert "tensor blocks.1.ffn.linear2.bias is missing (31 of 32 present)" in message


def test_a_non_finite_weight_is_named(tmp_path):
    state = formula_state()
    state["output_norm.weight"][:3] = torch.tensor([math.nan, math.inf, -math.inf])
    assert "output_norm.weight: 3 non-finite values" in refused(tmp_path, "checkpoint.non_finite", state=state)


@pytest.mark.parametrize("state", [{"a": torch.zeros(2, dtype=torch.int64)}, {"a": 1}, {3: torch.zeros(1)}])
def test_a_state_with_other_things_than_floating_tensors_is_refused(tmp_path, state):
    assert "not a floating-point tensor" in refused(tmp_path, "checkpoint.not_float", state=state)


@pytest.mark.parametrize("state", [{}, [1]])
def test_a_state_without_tensors_is_refused(tmp_path, state):
    assert "model_state holds no tensors" in refused(tmp_path, "checkpoint.no_tensors", state=state)


def test_later_tokens_do_not_reach_earlier_positions(tmp_path):
    checkpoint = load(save(tmp_path))
    first = checkpoint.hidden(torch.tensor([IDS[:12]]))
    changed = checkpoint.hidden(torch.tensor([[*IDS[:11], 0]]))
    assert torch.equal(first[:, :11], changed[:, :11])
    assert not torch.equal(first[:, 11], changed[:, 11])
