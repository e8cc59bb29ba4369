"""llama2.c: losses of the original program for each form of the file, its own tokens, and every damage refused."""

import math
import struct

import numpy as np
import pytest
import torch
from llama2c_files import model_bytes, plain_pieces, quantized, tokenizer_bytes

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.tokenizers.llama2c_tokenizer import ScoredPairTokenizer, read_tokenizer_bin
from lossprobe.errors import CheckpointError

VOCAB, WIDTH, FEED, LAYERS, HEADS, SHARED_HEADS, CONTEXT = SIZES = (23, 16, 24, 2, 4, 2, 12)
HEADER = (WIDTH, FEED, LAYERS, HEADS, SHARED_HEADS, VOCAB, CONTEXT)
IDS = [(7 * i * i + 3 * i + 1) % VOCAB for i in range(13)]
# Printed by the original program for these weights.
GOLDEN = "1.72050 5.89676 4.01655 4.05679 4.51801 3.78925 3.35373 4.21511 4.04187 3.89327 3.36151 4.05833"
WORDS = [b" ", b"a", b"b", b"ab", b" a", b" ab", "é".encode(), b"aa", b"aab", b"\n", b"  ", b"ba"]


def formula_state(sizes=HEADER):
    width, feed, layers, heads, shared, vocab, _ = sizes
    keys = width // heads * shared
    shapes = {"output.weight": (vocab, width), "norm.weight": (width,)}
    for i in range(layers):
        start = f"layers.{i}."
        shapes |= {f"{start}{norm}.weight": (width,) for norm in ("attention_norm", "ffn_norm")}
        shapes |= {f"{start}attention.{n}.weight": (k, width) for n, k in (("wq", width), ("wk", keys), ("wv", keys))}
        shapes |= {f"{start}attention.wo.weight": (width, width), f"{start}feed_forward.w1.weight": (feed, width)}
        shapes |= {f"{start}feed_forward.w2.weight": (width, feed), f"{start}feed_forward.w3.weight": (feed, width)}
    state = {}
    for number, name in enumerate(sorted(shapes)):
        j = np.arange(math.prod(shapes[name]), dtype=np.float64)
        values = 0.5 * np.sin(1.7 * j * j + 1.1 * number + 0.5) + ("norm" in name)
        state[name] = values.astype(np.float32).reshape(shapes[name])
    state["tok_embeddings.weight"] = state["output.weight"]
    return state


def losses(logits, ids=IDS):
    return torch.nn.functional.cross_entropy(logits.double(), torch.tensor(ids[1:]), reduction="none").tolist()


def opened(path, data, pieces=None):
    path.mkdir(exist_ok=True)
    (path / "model.bin").write_bytes(data)
    (path / "tokenizer.bin").write_bytes(pieces if pieces is not None else tokenizer_bytes(*plain_pieces(WORDS)))
    return open_checkpoint(path / "model.bin")


def wide(**more):
    """Return a model whose vocabulary is that of the tokenizer, and the seven numbers of its header."""
    sizes = (16, 24, 2, 4, 2, 259 + len(WORDS), 12)
    return formula_state(sizes) | more, sizes


def reference_logits(state, sizes, ids):
    """Return float64 logits of llama2.c's forward pass, written from its description with neighbours that turn."""
    width, _, layers, heads, shared, _, _ = sizes
    size, count = width // heads, len(ids)
    state = {name: value.astype(np.float64) for name, value in state.items()}
    angle = np.arange(count)[:, None] / 10000.0 ** (np.arange(0, size, 2) / size)
    turn = np.exp(1j * angle)[:, None]

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

    def turned(x):
        pairs = (x[..., ::2] + 1j * x[..., 1::2]) * turn
        return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)

    x = state["tok_embeddings.weight"][ids]
    for i in range(layers):
        w = {
            name: state[f"layers.{i}.{name}.weight"]
            for name in (
                "attention.wq",
                "attention.wk",
                "attention.wv",
                "attention.wo",
                "feed_forward.w1",
                "feed_forward.w2",
                "feed_forward.w3",
                "attention_norm",
                "ffn_norm",
            )
        }
        y = norm(x, w["attention_norm"])
        q = turned((y @ w["attention.wq"].T).reshape(count, heads, size))
        k, v = (
            np.repeat(part.reshape(count, shared, size), heads // shared, 1)
            for part in (y @ w["attention.wk"].T, y @ w["attention.wv"].T)
        )
        k = turned(k)
        score = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(size)
        score = np.where(np.tril(np.ones((count, count), bool)), score, -np.inf)
        weight = np.exp(score - score.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", weight, v).reshape(count, width) @ w["attention.wo"].T
        y = norm(x, w["ffn_norm"])
        gate = y @ w["feed_forward.w1"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w["feed_forward.w3"].T)) @ w["feed_forward.w2"].T
    return norm(x, state["norm.weight"]) @ state["output.weight"].T


def test_the_reference_has_the_losses_of_the_original():
    logits = torch.from_numpy(reference_logits(formula_state(), HEADER, IDS[:-1]))
    assert losses(logits) == pytest.approx([float(each) for each in GOLDEN.split()], abs=1e-5)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("version", [0, 1])
def test_logits_are_those_of_llama2c(tmp_path, version, shared):
    state, sizes = wide()
    if not shared:
        state["output.weight"] = state["output.weight"][::-1].copy()
    checkpoint = opened(tmp_path, model_bytes(state, sizes, version, shared))
    ids = [(11 * i * i + 5) % sizes[5] for i in range(12)]
    expected = reference_logits(state, sizes, ids)
    actual = checkpoint.logits(checkpoint.hidden(torch.tensor([ids]))[0]).double().numpy()
    np.testing.assert_allclose(actual, expected, atol=2e-5)
    facts = checkpoint.facts
    assert (facts.family, facts.context_length, facts.tied, facts.head) == ("llama2.c", 12, shared, "linear")


def test_int8_weights_are_multiplied_by_the_scale_of_their_group(tmp_path):
    state, sizes = wide()
    checkpoint = opened(tmp_path, model_bytes(state, sizes, version=2, group=8))
    rounded = {
        name: value if "norm" in name else np.multiply(*quantized(value, 8)).reshape(value.shape)
        for name, value in state.items()
    }
    ids = [3, 200, 30, 31]
    actual = checkpoint.logits(checkpoint.hidden(torch.tensor([ids]))[0]).double().numpy()
    np.testing.assert_allclose(actual, reference_logits(rounded, sizes, ids), atol=2e-5)
    assert np.abs(actual - reference_logits(state, sizes, ids)).max() > 1e-2
    assert checkpoint.facts.stored_dtype == "int8 in groups of 8"
    assert any("weights only" in notice for notice in checkpoint.facts.notices)


def by_search(pieces, scores, text):
    """Return ids as run.c finds them: a search through all pairs for each union."""
    ids = {piece: index for index, piece in reversed(list(enumerate(pieces)))}
    tokens = [ids[b" "]] if text else []
    for character in text:
        data = character.encode()
        tokens += [ids[data]] if data in ids else [3 + value for value in data]
    while True:
        best, place, union = -1e10, None, None
        for i in range(len(tokens) - 1):
            found = ids.get(pieces[tokens[i]] + pieces[tokens[i + 1]])
            if found is not None and scores[found] > best:
                best, place, union = scores[found], i, found
        if place is None:
            return tokens
        tokens[place : place + 2] = [union]


def test_tokens_are_those_of_run_c_and_their_bytes_tile_the_text():
    pieces, scores = plain_pieces(WORDS)
    random = np.random.default_rng(0)
    for _ in range(20):  # ties and any order of scores
        scores[259:] = random.integers(-5, 3, len(WORDS)).astype(float).tolist()
        tokenizer = ScoredPairTokenizer(pieces, scores)
        for _ in range(30):
            text = "".join(random.choice(list("aab b  é\n�z\0🙂"), 25))
            tokens = tokenizer.encode(text)
            assert tokens.ids.tolist() == by_search(pieces, scores, text)
            starts = [0, *tokens.byte_stop[:-1].tolist()]
            data = text.encode()
            spelled = [data[start:stop] for start, stop in zip(starts, tokens.byte_stop.tolist(), strict=True)]
            assert b"".join(spelled) == data
            told = [tokenizer.token_bytes(index) for index in tokens.ids.tolist()]
            assert spelled[1:] == told[1:]
            assert told[0] == b" " + spelled[0]
    assert tokenizer.encode("").ids.tolist() == []


def test_a_half_of_a_surrogate_pair_is_refused():
    with pytest.raises(CheckpointError, match="half a surrogate pair at character 1"):
        ScoredPairTokenizer(*plain_pieces(WORDS)).encode("a\ud800")


def changed(data, offset, form, *values):
    size = struct.calcsize(form)
    return data[:offset] + struct.pack(form, *values) + data[offset + size :]


def test_every_damage_of_a_model_file_is_refused(tmp_path):
    state, sizes = wide()
    files = {version: model_bytes(state, sizes, version, group=8) for version in (0, 1, 2)}
    poisoned = changed(files[1], 300, "<f", math.nan)
    damages = {
        "short": (files[1][:-4], "checkpoint.truncated"),
        "long": (files[1] + b"\0" * 4, "checkpoint.trailing"),
        "legacy short": (files[0][:-1], "checkpoint.truncated"),
        "legacy long": (files[0] + b"\0", "checkpoint.trailing"),
        "int8 short": (files[2][:-1], "checkpoint.truncated"),
        "header alone": (files[1][:100], "checkpoint.truncated"),
        "version 3": (changed(files[1], 4, "<i", 3), "checkpoint.bad_config"),
        "no layers": (changed(files[1], 16, "<i", 0), "checkpoint.bad_config"),
        "negative vocabulary": (changed(files[1], 28, "<i", -271), "checkpoint.bad_config"),
        "absurd vocabulary": (changed(files[1], 28, "<i", 2**31 - 1), "checkpoint.bad_config"),
        "odd heads": (changed(files[1], 20, "<i", 3), "checkpoint.bad_config"),
        "shared heads": (changed(files[1], 24, "<i", 3), "checkpoint.bad_config"),
        "one layer more": (changed(files[1], 16, "<i", 3), "checkpoint.truncated"),
        "flag": (changed(files[1], 36, "<B", 2), "checkpoint.bad_header"),
        "padding": (changed(files[1], 100, "<B", 1), "checkpoint.bad_header"),
        "group": (changed(files[2], 37, "<i", 7), "checkpoint.bad_config"),
        "group 0": (changed(files[2], 37, "<i", 0), "checkpoint.bad_config"),
        "not a number": (poisoned, "checkpoint.non_finite"),
    }
    for name, (data, id) in damages.items():
        with pytest.raises(CheckpointError) as caught:
            opened(tmp_path / name, data)
        assert caught.value.id == id, name


def test_every_damage_of_a_tokenizer_is_refused(tmp_path):
    pieces, scores = plain_pieces(WORDS)
    whole = tokenizer_bytes(pieces, scores)
    swapped = [*pieces]
    swapped[10], swapped[11] = pieces[11], pieces[10]
    damages = {
        "tokenizer.format": [whole[:-1], b"ab", whole + b"\0", changed(whole, 8, "<I", 2**31),
                             changed(whole, 4, "<f", math.nan), changed(whole, 0, "<I", 2)],
        "tokenizer.vocab_size": [tokenizer_bytes(pieces[:-1], scores[:-1]), b"\1\0\0\0"],
        "tokenizer.inconsistent": [tokenizer_bytes(swapped, scores),
                                   tokenizer_bytes([p if p != b" " else b"#" for p in pieces], scores)],
    }  # fmt: skip
    for id, files in damages.items():
        for number, data in enumerate(files):
            (tmp_path / "tokenizer.bin").write_bytes(data)
            with pytest.raises(CheckpointError) as caught:
                read_tokenizer_bin(tmp_path / "tokenizer.bin", len(pieces))
            assert caught.value.id == id, (id, number)


def test_a_folder_with_model_and_tokenizer_opens_and_a_missing_tokenizer_is_told(tmp_path):
    state, sizes = wide()
    opened(tmp_path, model_bytes(state, sizes, 0))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tokenizer.adds_bos
    assert checkpoint.tokenizer.bos_id == 1
    (tmp_path / "tokenizer.bin").rename(tmp_path / f"tok{sizes[5]}.bin")
    assert open_checkpoint(tmp_path).tokenizer.sha256 == checkpoint.tokenizer.sha256
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / f"tok{sizes[5]}.bin").rename(other / "words.bin")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "model.bin")
    assert caught.value.id == "tokenizer.missing"
    named = open_checkpoint(tmp_path / "model.bin", LoadOptions(tokenizer=other / "words.bin"))
    assert named.facts.sha256 == checkpoint.facts.sha256
