"""The family of a path is decided by its content; otherwise the error says what was looked for and found."""

import json
import pickle

import pytest
import torch

from lossprobe.checkpoint.detect import open_checkpoint, resolve_device
from lossprobe.checkpoint.families.callable import CallableCheckpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError, UsageError

VOCAB, WIDTH, CONTEXT = 6, 8, 4
LOOKED_FOR = "looked for a Hugging Face directory (config.json and safetensors)"


def refused(path, id, exit_code=3, options=None):
    with pytest.raises((CheckpointError, UsageError)) as caught:
        open_checkpoint(path, options)
    assert (caught.value.id, caught.value.exit_code) == (id, exit_code), caught.value.message
    assert caught.value.message.isprintable()
    return caught.value.message


def write_nanogpt(path):
    """Write a nanoGPT checkpoint of one layer without biases, and the characters beside it."""
    block = "transformer.h.0."
    shapes = {
        "transformer.wpe.weight": (CONTEXT, WIDTH),
        "transformer.ln_f.weight": (WIDTH,),
        "lm_head.weight": (VOCAB, WIDTH),
        f"{block}ln_1.weight": (WIDTH,),
        f"{block}ln_2.weight": (WIDTH,),
        f"{block}attn.c_attn.weight": (3 * WIDTH, WIDTH),
        f"{block}attn.c_proj.weight": (WIDTH, WIDTH),
        f"{block}mlp.c_fc.weight": (4 * WIDTH, WIDTH),
        f"{block}mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
    }
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    state["transformer.wte.weight"] = state["lm_head.weight"]
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": WIDTH, "block_size": CONTEXT, "vocab_size": VOCAB}
    torch.save({"model": state, "model_args": sizes | {"bias": False, "dropout": 0.0}}, path)
    symbols = dict(enumerate("abcdef"))
    meta = {"vocab_size": VOCAB, "itos": symbols, "stoi": {symbol: index for index, symbol in symbols.items()}}
    path.with_name("meta.pkl").write_bytes(pickle.dumps(meta))
    return path


def write_fundamentallm(path):
    """Write a FundamentaLLM checkpoint of one layer, and its tokenizer beside it."""
    shapes = {
        "token_embedding.weight": (VOCAB, WIDTH),
        "positional_encoding.embeddings.weight": (CONTEXT, WIDTH),
        "output_norm.weight": (WIDTH,),
        "blocks.0.norm1.weight": (WIDTH,),
        "blocks.0.norm2.weight": (WIDTH,),
        "blocks.0.ffn.linear1.weight": (2 * WIDTH, WIDTH),
        "blocks.0.ffn.linear1.bias": (2 * WIDTH,),
        "blocks.0.ffn.linear2.weight": (WIDTH, 2 * WIDTH),
        "blocks.0.ffn.linear2.bias": (WIDTH,),
    }
    for part in "qkvo":
        shapes |= {f"blocks.0.attention.W_{part}.weight": (WIDTH, WIDTH), f"blocks.0.attention.W_{part}.bias": (WIDTH,)}
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    state["output_proj.weight"] = state["token_embedding.weight"]
    config = {"vocab_size": VOCAB, "d_model": WIDTH, "num_heads": 2, "num_layers": 1, "sequence_length": CONTEXT}
    config |= {"dropout": 0.0, "ffn_expansion": 2, "pos_encoding": "learned"}
    torch.save({"model_state": state, "model_config": config, "epoch": 1, "step": 1, "metrics": {"loss": 1.0}}, path)
    specials = ["<PAD>", "<UNK>", "<BOS>", "<EOS>"]
    symbols = {name: index for index, name in enumerate([*specials, "a", "b"])}
    content = {"min_frequency": 1, "char_to_id": symbols, "special_tokens": specials}
    path.with_name("tokenizer.json").write_text(json.dumps(content))
    return path


def test_families_are_told_apart_by_content(tmp_path, family_paths):
    assert open_checkpoint(family_paths["llama"]).facts.family == "llama"
    assert open_checkpoint(str(family_paths["gpt2"])).facts.family == "gpt2"
    # The names say the opposite of the contents.
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    nanogpt = write_nanogpt(tmp_path / "a" / "final_model.pt")
    fundamentallm = write_fundamentallm(tmp_path / "b" / "ckpt.pt")
    for path in (nanogpt, nanogpt.parent):
        assert open_checkpoint(path).facts.family == "nanogpt"
    for path in (fundamentallm, fundamentallm.parent):
        assert open_checkpoint(path).facts.family == "fundamentallm"
    (tmp_path / "link").symlink_to(nanogpt.parent)
    assert open_checkpoint(tmp_path / "link").facts.family == "nanogpt"


def test_a_path_with_nothing_behind_it(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "no", tmp_path / "file" / "x", tmp_path / "dangling", "gpt2", "meta-llama/Llama-3.1-8B"):
        assert refused(path, "checkpoint.missing", 2) == f"{path}: does not exist"


def test_a_symbolic_link_loop(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert refused(tmp_path / "a", "checkpoint.link_loop") == f"{tmp_path}/a: symbolic link loop"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have(tmp_path, name):
    assert "cannot be read" in refused(tmp_path / name, "checkpoint.unreadable")


def test_a_directory_of_something_else(tmp_path):
    message = refused(tmp_path, "checkpoint.unknown")
    assert message.startswith(f"{tmp_path}: {LOOKED_FOR}")
    assert message.endswith("found nothing")
    (tmp_path / "notes\x1b[2J.txt").touch()
    (tmp_path / "model.onnx").touch()
    assert refused(tmp_path, "checkpoint.unknown").endswith("found model.onnx, notes\\x1b[2J.txt")
    torch.save({"weights": torch.ones(2), "step": 3}, tmp_path / "x.pt")
    message = refused(tmp_path / "x.pt", "checkpoint.unknown")
    assert LOOKED_FOR in message
    assert message.endswith("found the keys step, weights")


def test_a_directory_with_several_candidates(tmp_path):
    for name in ("best.pt", "final_model.pt"):
        write_nanogpt(tmp_path / name)
    assert refused(tmp_path, "checkpoint.several", 2).endswith("several candidates: best.pt, final_model.pt")
    (tmp_path / "final_model.pt").unlink()
    assert open_checkpoint(tmp_path).facts.family == "nanogpt"


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_3.pth", "training_args.bin", "scaler.pt"]
)
def test_training_state_is_no_candidate(tmp_path, audit, name):
    (tmp_path / name).write_bytes(b"never read")
    with audit:
        assert refused(tmp_path, "checkpoint.unknown").endswith(f"found {name}")
        write_nanogpt(tmp_path / "ckpt.pt")
        assert open_checkpoint(tmp_path).facts.family == "nanogpt"
    assert "ckpt.pt" in audit.opened()
    assert name not in audit.opened()


@pytest.mark.parametrize(
    ("name", "id", "message"),
    [
        (".metadata", "checkpoint.distributed", "a distributed checkpoint (.distcp)"),
        ("__0_0.distcp", "checkpoint.distributed", "a distributed checkpoint (.distcp)"),
    ],
)
def test_what_has_to_be_converted_first(tmp_path, audit, name, id, message):
    (tmp_path / name).write_bytes(b"never read")
    with audit:
        assert refused(tmp_path, id) == f"{tmp_path}: {message}"
    assert name not in audit.opened()


def test_weights_without_a_configuration(tmp_path, family_paths):
    path = tmp_path / "model.safetensors"
    path.write_bytes((family_paths["gpt2"] / path.name).read_bytes())
    assert refused(path, "checkpoint.bare_safetensors") == f"{path}: weights without a config.json"
    assert "found model.safetensors" in refused(tmp_path, "checkpoint.unknown")


@pytest.mark.parametrize("device", ["tpu", "cpu:1", "cpu:x", "cuda:99", "cuda:", "cuda:-1", "", "\x1b[2J"])
def test_a_device_that_is_not_there(family_paths, device):
    message = refused(family_paths["gpt2"], "device.missing", 2, LoadOptions(device=device))
    assert message.startswith("`device` ")
    assert message.endswith("not available here")


def test_devices(monkeypatch, family_paths):
    assert resolve_device("cpu") == "cpu"
    assert open_checkpoint(family_paths["gpt2"], LoadOptions(device="auto")).facts.device == resolve_device("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [resolve_device(name) for name in ("auto", "cuda", "cuda:1", "cpu:0")] == ["cuda", "cuda", "cuda:1", "cpu:0"]
    with pytest.raises(UsageError, match="cuda:2: not available"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == "mps"
    with pytest.raises(UsageError, match="cuda: not available"):
        resolve_device("cuda")


def test_a_python_function_is_a_checkpoint(tokenizers_by_kind):
    table = torch.randn(5, 5)
    calls = []

    def function(ids):
        calls.append((ids.dtype, torch.is_inference_mode_enabled()))
        return table[ids]

    tokenizer = tokenizers_by_kind["word_level"]
    checkpoint = CallableCheckpoint(function, tokenizer, vocab_size=5, context_length=9, name="mine", sha256="ab")
    ids = torch.tensor([[0, 1, 2], [4, 4, 0]])
    hidden = checkpoint.hidden(ids)
    assert torch.equal(checkpoint.logits(hidden.flatten(0, 1)), table[ids.flatten()])
    assert calls == [(torch.int64, True)]
    facts = checkpoint.facts
    assert (facts.family, facts.head, facts.name, facts.sha256) == ("callable", "full", "mine", "ab")
    assert (facts.vocab_size, facts.context_length, facts.config_from) == (5, 9, "Python")
    assert (facts.parameters, facts.tied) == (None, None)
    assert checkpoint.tokenizer is tokenizer


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 4), torch.zeros(6, 5), (torch.zeros(2, 3, 5),), None])
def test_a_function_that_gives_something_else_than_logits(wrong):
    checkpoint = CallableCheckpoint(lambda _: wrong, tokenizer=None, vocab_size=5, name="mine")
    with pytest.raises(CheckpointError, match=r"mine: the function gave .*, not logits \[2, 3, 5\]") as caught:
        checkpoint.hidden(torch.zeros(2, 3, dtype=torch.int64))
    assert (caught.value.id, caught.value.exit_code) == ("checkpoint.callable", 3)
