"""GGUF files run by llama.cpp: its tokens with the bytes they cover, its logits in rows, its rules for BOS."""

import importlib.util

import numpy as np
import pytest
import torch
from gguf_files import VOCAB, gguf_bytes, random_gguf, small_vocabulary

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs lossprobe[gguf]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    (folder / "x.gguf").write_bytes(random_gguf("llama", context_length=2048))
    return folder


@pytest.fixture(scope="module")
def opened(folder):
    return open_checkpoint(folder / "x.gguf")


def spelled(tokenizer, text):
    """Return what each token covers of a text."""
    tokens = tokenizer.encode(text)
    data, stops = text.encode(), tokens.byte_stop.tolist()
    return tokens, [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def test_tokens_tile_the_text_and_spell_it(opened):
    for text in ("", "ab", " ab", "  ab aab", "é�\n\t🙂 x", "\0a", "a</s>", "<s> ab</s>ab", "x" * 3000):
        tokens, pieces = spelled(opened.tokenizer, text)
        assert b"".join(pieces) == text.encode()
        assert (tokens.tiles, tokens.normalized_bytes) == (True, 0), text
        told = [opened.tokenizer.token_bytes(index) for index in tokens.ids.tolist()]
        after = [True, *(index in opened.tokenizer.special_ids for index in tokens.ids.tolist())]
        for piece, own, fresh in zip(pieces, told, after, strict=False):
            assert piece == own or (fresh and b" " + piece == own), text


def test_the_sign_for_a_blank_is_told_as_rewritten(opened):
    tokens, pieces = spelled(opened.tokenizer, "a▁b")
    assert (pieces, tokens.tiles, tokens.normalized_bytes) == ([b"a", "▁".encode(), b"b"], True, 2)


def test_names_of_special_tokens_are_ids_or_text(folder, opened):
    assert opened.tokenizer.encode("a</s>").ids.tolist()[-1] == 2
    assert opened.tokenizer.encode("a</s>").special_strings == 1
    plain = open_checkpoint(folder / "x.gguf", LoadOptions(special_strings="text")).tokenizer
    tokens, pieces = spelled(plain, "a</s>")
    assert tokens.special_strings == 0
    assert pieces[1:] == [b"<", b"/", b"s", b">"]
    assert plain.sha256 != opened.tokenizer.sha256


def test_bos_is_as_the_file_says(folder, opened):
    assert (opened.tokenizer.bos_id, opened.tokenizer.adds_bos) == (1, True)
    keys = {"general.architecture": "llama"} | small_vocabulary(**{"tokenizer.ggml.add_bos_token": False})
    (folder / "plain.gguf").write_bytes(random_gguf("llama", vocabulary=keys))
    assert not open_checkpoint(folder / "plain.gguf").tokenizer.adds_bos


def test_rows_come_in_any_order_and_from_several_windows(opened):
    ids = torch.tensor([[(7 * i * i + 5) % 271 for i in range(1100)]])  # three chunks
    other = torch.tensor([[3, 200, 9]])
    hidden, second = opened.hidden(ids)[0], opened.hidden(other)[0]
    whole = opened.logits(hidden)
    assert whole.shape == (1100, 271)
    rows = [1099, 3, 600, 601, 0]
    mixed = opened.logits(torch.cat([hidden[rows], second]))
    assert torch.equal(mixed[:5], whole[rows])
    assert torch.equal(mixed[5:], opened.logits(opened.hidden(other)[0]))
    short = opened.logits(opened.hidden(ids[:, :20])[0])
    assert torch.allclose(short, whole[:20], atol=0.05)  # llama.cpp rounds differently for fewer tokens


def test_facts_say_what_the_number_means(folder, opened):
    facts = opened.facts
    assert (facts.family, facts.head, facts.batching) == ("llama (GGUF)", "streamed", "one window")
    assert facts.stored_dtype == "F32, 32.00 bits per weight"
    assert "llama.cpp" in facts.kernels
    assert facts.parameters == sum(header.values for header in read(folder / "x.gguf").tensors.values())
    assert facts.files == (str(folder / "x.gguf"),)


def read(path):
    from lossprobe.checkpoint.gguf.header import read_header

    return read_header(path)


def test_a_model_that_llama_cpp_refuses(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "nothing"}, {"a": np.ones(4, np.float32)}))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert caught.value.id == "gguf.failed"
    assert "unknown model architecture: 'nothing'" in caught.value.message
    path.write_bytes(random_gguf("llama", drop=("blk.3.attn_q.weight",)))
    with pytest.raises(CheckpointError, match=r"blk\.3\.attn_q\.weight"):
        open_checkpoint(path)
    path.write_bytes(random_gguf("llama", vocabulary=small_vocabulary() | {"tokenizer.ggml.tokens": ["a"] * 271}))
    with pytest.raises(CheckpointError, match=r"llama\.cpp failed: .*GGML_ASSERT"):  # and not a debugger's last words
        open_checkpoint(path)


def test_a_file_that_is_named_as_gguf_and_is_none(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUX" + bytes(100))
    with pytest.raises(CheckpointError, match=r"x\.gguf: does not start with GGUF"):
        open_checkpoint(tmp_path / "x.gguf")


def vocabulary(**more):
    keys = {f"tokenizer.{key}": value for key, value in more.items()}
    return {"general.architecture": "llama"} | small_vocabulary(**keys)


def test_the_chat_template_is_that_of_the_file_and_impossible_ids_are_told(tmp_path, opened):
    """A template beside the file is another model's: llama.cpp does not read it either."""
    (tmp_path / "chat_template.jinja").write_text("other", "utf-8")
    path, words = tmp_path / "x.gguf", {"chat_template": "{{ bos_token }}own", "chat_template.tool_use": "tools"}
    path.write_bytes(random_gguf("llama", vocabulary=vocabulary(**words, **{"ggml.bos_token_id": 99999})))
    found = open_checkpoint(path)
    template = found.tokenizer.chat_template
    assert (template.source, template.tool_source, template.special_tokens["bos_token"]) == (*words.values(), "<s>")
    assert template.origin == "x.gguf (tokenizer.chat_template)"
    assert opened.tokenizer.chat_template is None
    assert found.tokenizer.bos_id == 1
    (notice,) = found.facts.notices
    assert notice.startswith("tokenizer.ggml.bos_token_id is 99,999: the vocabulary has 271 entries")
    assert opened.facts.notices == ()


def test_a_template_decides_no_token_and_another_one_can_be_given(tmp_path, opened):
    (tmp_path / "other.jinja").write_text("other", "utf-8")
    path = tmp_path / "x.gguf"
    path.write_bytes(random_gguf("llama", vocabulary=vocabulary(**{"chat_template": "a", "chat_template.rag": "b"})))
    given = open_checkpoint(path, LoadOptions(chat_template=tmp_path / "other.jinja")).tokenizer
    assert (given.chat_template.source, given.sha256) == ("other", opened.tokenizer.sha256)


NO_BYTES = {"ggml.tokens": [f"x{number}" for number in range(VOCAB)], "ggml.token_type": [("i32", 1)] * VOCAB}
CONTRADICTIONS = {
    "layers": (
        {"block_count": 2**31 - 1}, "checkpoint.bad_header",
        "llama.block_count is 2,147,483,647, and there are 65 tensors",
    ),
    "tokens": (
        {"vocabulary": vocabulary(**{"ggml.tokens": ["<unk>", "a"]})}, "checkpoint.wrong_shape",
        "tokenizer.ggml.tokens has 2 entries, and token_embd.weight has 271 rows",
    ),
    "no token for a byte": (
        {"vocabulary": vocabulary(**NO_BYTES)}, "gguf.failed",
        "llama.cpp failed: its vocabulary has no token for a byte of the text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("dequantize", [pytest.param(False, marks=pytest.mark.thorough), True])
@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_the_header_contradicts_is_told_in_its_words(tmp_path, case, dequantize):
    more, id, message = CONTRADICTIONS[case]
    path = tmp_path / "x.gguf"
    path.write_bytes(random_gguf("llama", **more))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, LoadOptions(dequantize=dequantize))
    assert caught.value.id == id
    assert message in caught.value.message
