"""Character tokenizers: spans tile the text, and hostile vocabularies are refused without running."""

import json
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.checkpoint.files.pickle_outline import PickleOutline
from lossprobe.checkpoint.tokenizers.characters import CharacterTokenizer, read_fundamentallm_tokenizer, read_meta_pkl
from lossprobe.errors import CheckpointError

SPECIALS = ["<PAD>", "<UNK>", "<BOS>", "<EOS>"]
ALPHABET = "\n abcé€😀\U0010ffff"


def mapping(characters=ALPHABET):
    return {name: index for index, name in enumerate([*SPECIALS, *characters])}


def write_json(path, **changes):
    content = {"min_frequency": 1, "char_to_id": mapping(), "special_tokens": SPECIALS} | changes
    path.write_text(json.dumps(content), encoding="ascii")
    return path


def meta(characters="abc", **changes):
    stoi = {character: index for index, character in enumerate(characters)}
    return {"vocab_size": len(stoi), "itos": {i: c for c, i in stoi.items()}, "stoi": stoi} | changes


def refusal(read, path, id):
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert (caught.value.id, caught.value.exit_code) == (id, 3)
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(str(path))
    return caught.value.message


@given(st.text())
def test_spans_tile_the_text_and_rebuild_it(text):
    tokenizer = CharacterTokenizer(mapping(), 1, range(4))
    tokens = tokenizer.encode(text)
    data = text.encode()
    assert (tokens.ids.dtype, tokens.byte_stop.dtype, tokens.unknown.dtype) == (np.int32, np.int64, np.bool_)
    starts = [0, *tokens.byte_stop[:-1].tolist()]
    spans = [data[start:stop] for start, stop in zip(starts, tokens.byte_stop.tolist(), strict=True)] if text else []
    assert b"".join(spans) == data
    assert [span.decode() for span in spans] == list(text)
    assert tokens.unknown.tolist() == [character not in ALPHABET for character in text]
    for token_id, span, unknown in zip(tokens.ids.tolist(), spans, tokens.unknown.tolist(), strict=True):
        assert tokenizer.token_bytes(token_id) == (b"<UNK>" if unknown else span)


@given(st.text(alphabet=ALPHABET))
def test_known_text_comes_back_from_its_ids(text):
    tokenizer = CharacterTokenizer(mapping(), 1, range(4))
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text).ids.tolist())) == text.encode()


def test_special_names_in_the_text_are_characters():
    tokens = CharacterTokenizer(mapping("<UNK>"), 1, range(4)).encode("<UNK>")
    assert tokens.ids.tolist() == [4, 5, 6, 7, 8]


def test_without_an_unknown_id_zero_stands_in():
    tokens = CharacterTokenizer({"a": 0, "b": 1}).encode("bxa")
    assert (tokens.ids.tolist(), tokens.unknown.tolist()) == ([1, 0, 0], [False, True, False])


def test_a_name_that_is_one_character_long_is_still_special():
    tokenizer = CharacterTokenizer({"a": 0, "#": 1}, 1, {1})
    assert tokenizer.encode("#").unknown.tolist() == [True]
    assert tokenizer.token_bytes(1) == b"#"
    assert tokenizer.token_bytes(9) == b""


def test_a_vocabulary_of_specials_knows_no_character():
    assert CharacterTokenizer(mapping(""), 1, range(4)).encode("a\0").unknown.all()


def test_the_hash_follows_the_mapping():
    base = CharacterTokenizer({"a": 0, "b": 1})
    assert base.sha256 == CharacterTokenizer({"b": 1, "a": 0}).sha256
    assert base.sha256 != CharacterTokenizer({"a": 1, "b": 0}).sha256
    assert base.sha256 != CharacterTokenizer({"a": 0, "b": 1}, 1).sha256
    assert base.sha256 != CharacterTokenizer({"a": 0, "b": 1}, None, {1}).sha256


def test_a_large_text_is_encoded_at_once():
    tokens = CharacterTokenizer(mapping(), 1, range(4)).encode("aé😀x" * 250_000)
    assert len(tokens.ids) == 1_000_000
    assert tokens.byte_stop[-1] == 8 * 250_000
    assert tokens.unknown.sum() == 250_000


def test_reads_a_fundamentallm_tokenizer(tmp_path):
    tokenizer = read_fundamentallm_tokenizer(write_json(tmp_path / "tokenizer.json"))
    tokens = tokenizer.encode("b😀z")
    assert (tokens.ids.tolist(), tokens.unknown.tolist()) == ([7, 11, 1], [False, False, True])
    assert (tokenizer.vocab_size, tokenizer.special_ids) == (13, {0, 1, 2, 3})
    assert (tokenizer.kind, tokenizer.bos_id, tokenizer.adds_bos) == ("characters", None, False)


@pytest.mark.parametrize(
    ("changes", "id", "message"),
    [
        ({"char_to_id": mapping() | {"z": 14}}, "tokenizer.id_gap", "13 is missing (14 symbols, highest id 14)"),
        ({"char_to_id": mapping() | {"z": 12}}, "tokenizer.id_gap", "13 is missing (14 symbols, highest id 12)"),
        ({"char_to_id": mapping() | {"z": -1}}, "tokenizer.id_gap", "13 is missing"),
        ({"char_to_id": mapping() | {"z": True}}, "tokenizer.bad_id", "1 of 14 ids are no whole number"),
        ({"char_to_id": mapping() | {"z": 13.0}}, "tokenizer.bad_id", "1 of 14 ids are no whole number"),
        ({"char_to_id": mapping() | {"yz": 13}}, "tokenizer.not_a_character", "yz is not a single character (1 of 10)"),
        ({"char_to_id": mapping() | {"": 13}}, "tokenizer.not_a_character", "is not a single character"),
        ({"char_to_id": mapping() | {"<PAD>": 4, "\n": 0}}, "tokenizer.specials", "<PAD> does not have id 0"),
        ({"char_to_id": {}}, "tokenizer.bad_id", "0 of 0"),
        ({"char_to_id": ["a"]}, "tokenizer.format", "no FundamentaLLM tokenizer"),
        ({"special_tokens": SPECIALS[:2]}, "tokenizer.specials", "special_tokens is not <PAD>, <UNK>, <BOS>, <EOS>"),
    ],
)
def test_a_wrong_vocabulary_is_refused(tmp_path, changes, id, message):
    assert message in refusal(read_fundamentallm_tokenizer, write_json(tmp_path / "tokenizer.json", **changes), id)


def test_a_hugging_face_tokenizer_is_another_format(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"version": "1.0", "model": {}}')
    assert "(model, version)" in refusal(read_fundamentallm_tokenizer, path, "tokenizer.format")


@pytest.mark.parametrize(
    "text", ['{"char_to_id": {"a": 0, "a": 1}}', '{"char_to_id": {"a": NaN}}', "{", "[" * 100_000, "[]", "\xff"]
)
def test_json_that_is_not_strict_is_refused(tmp_path, text):
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="latin-1")
    refusal(read_fundamentallm_tokenizer, path, "checkpoint.bad_json")


@pytest.mark.parametrize("protocol", range(6))
def test_reads_meta_pkl_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "meta.pkl"
    characters = [chr(32 + i) for i in range(300)] + ["😀"]
    path.write_bytes(pickle.dumps(meta(characters), protocol))
    tokenizer = read_meta_pkl(path)
    assert tokenizer.vocab_size == 301
    assert tokenizer.encode("!😀\n").unknown.tolist() == [False, False, True]
    assert tokenizer.encode("!😀\n").ids.tolist() == [1, 300, 0]


@pytest.mark.parametrize(
    ("content", "id", "message"),
    [
        (meta(vocab_size=4), "tokenizer.inconsistent", "vocab_size is 4, stoi has 3 entries"),
        (meta(vocab_size={}), "tokenizer.inconsistent", "vocab_size is a dict"),
        (meta(itos={0: "a", 1: "b", 2: "d"}), "tokenizer.inconsistent", "itos (3 entries) and stoi (3) disagree"),
        (meta(stoi={"a": 0, "b": 2}), "tokenizer.id_gap", "1 is missing (2 symbols, highest id 2)"),
        (meta(["a", "bc"]), "tokenizer.not_a_character", "bc is not a single character (1 of 2)"),
        ({"stoi": {}}, "tokenizer.format", "stoi or itos is missing or not a dict"),
        (3, "tokenizer.format", "holds int, not a dict"),
        (meta(itos=["a"]), "tokenizer.unsafe_pickle", "more than text and whole numbers"),
    ],
)
def test_an_inconsistent_meta_pkl_is_refused(tmp_path, content, id, message):
    path = tmp_path / "meta.pkl"
    path.write_bytes(pickle.dumps(content))
    assert message in refusal(read_meta_pkl, path, id)


class Hostile:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"echo ran > {self.canary}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_meta_pkl_does_not_run(tmp_path, protocol):
    canary, path = tmp_path / "canary", tmp_path / "meta.pkl"
    path.write_bytes(pickle.dumps(meta() | {"x": Hostile(canary)}, protocol))
    assert f"contains {os.system.__module__}.system; not loaded" in refusal(
        read_meta_pkl, path, "tokenizer.unsafe_pickle"
    )
    assert not canary.exists()
    pickle.loads(path.read_bytes())  # shows that the file would run code
    assert canary.read_text() == "ran\n"


def test_the_unpickler_itself_names_nothing(tmp_path, monkeypatch):
    """The unpickler finds no name and no persistent object, even if the outline missed an instruction."""
    monkeypatch.setattr("lossprobe.checkpoint.tokenizers.characters.outline_pickle", lambda data: PickleOutline())
    canary, path = tmp_path / "canary", tmp_path / "meta.pkl"
    for data in (pickle.dumps(Hostile(canary)), b"Pname\n."):
        path.write_bytes(data)
        refusal(read_meta_pkl, path, "tokenizer.format")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.", "tokenizer.format"),  # text of 2^40 bytes
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "tokenizer.format"),  # bytes of 2^40
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "tokenizer.format"),  # bytearray of 2^40
        (b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.", "tokenizer.format"),  # frame of 2^40
        (b"\x80\x02}r" + struct.pack("<I", 2**31) + b".", "tokenizer.format"),  # memo index 2^31
        (b"}p2147483648\n.", "tokenizer.format"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.", "tokenizer.format"),  # number of 2^31 bytes
        (b"I" + b"9" * 100_000 + b"\n.", "tokenizer.format"),
        (b"\x80\x02B\x01\x00\x00\x00x.", "tokenizer.unsafe_pickle"),  # bytes
        (b"Pname\n.", "tokenizer.unsafe_pickle"),  # persistent id
        (b"\x80\x04C\x01x\x97.", "tokenizer.unsafe_pickle"),  # out-of-band buffer
        (b"\x80\x02\x82\x01.", "tokenizer.unsafe_pickle"),  # extension registry
        (b"\x80\x02}u.", "tokenizer.format"),  # takes more items than are on the stack
        (b"\x80\x02h\x05.", "tokenizer.format"),  # memo entry that does not exist
        (b"\x80\x02}(K\x01u.", "tokenizer.format"),  # odd number of items
        (b"\x80\x02}}}s.", "tokenizer.format"),  # a key that cannot be one
        (b"\x80\x02}", "tokenizer.format"),
        (b"", "tokenizer.format"),
        (b"hello", "tokenizer.format"),
        (b"\x80\x02}." + b"x" * 1_000_000, "tokenizer.too_large"),
    ],
)
def test_a_pickle_that_is_no_vocabulary_is_refused(tmp_path, data, id):
    path = tmp_path / "meta.pkl"
    path.write_bytes(data)
    refusal(read_meta_pkl, path, id)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.pkl"
    path.write_bytes(b"\x80\x04" + data)
    with pytest.raises(CheckpointError) as caught:
        read_meta_pkl(path)
    assert caught.value.id in {"tokenizer.format", "tokenizer.unsafe_pickle"}


def test_a_missing_file_is_refused(tmp_path):
    assert "cannot be read" in refusal(read_meta_pkl, tmp_path / "meta.pkl", "tokenizer.unreadable")
