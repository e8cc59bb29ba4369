"""Tokens that the files beside a tokenizer.json add are those of transformers' AutoTokenizer on the same folder."""

from __future__ import annotations

import json

import pytest
import transformers
from checkpoint.builders import byte_level_bpe, sentencepiece_bpe
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lossprobe.checkpoint.tokenizers.tokenizer_files import read_tokenizer_files
from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer
from lossprobe.checkpoint.tokenizers.tokenizer_settings import read_settings
from lossprobe.errors import CheckpointError

TEXT = "the <|x|> cat<|y|>  a <|endoftext|> the<|z|>\n <s> é [PAD]"
END = "<|endoftext|>"
PLAIN = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
X, Y = {"content": "<|x|>", **PLAIN}, {"content": "<|y|>", **PLAIN}
TYPED = {"__type": "AddedToken", **X, "rstrip": True, "normalized": True}
AS_IS = {"tokenizer_class": "PreTrainedTokenizerFast"}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def folder(path, *, tokenizer=None, family="llama", **files):
    """Write a folder; `config`, `special_map` and `added` are contents of the files of these names, None for none."""
    path.mkdir(exist_ok=True)
    (tokenizer or byte_level_bpe()).save(str(path / "tokenizer.json"))
    names = {"config": "tokenizer_config", "special_map": "special_tokens_map", "added": "added_tokens"}
    contents = {names[key]: content for key, content in files.items() if content is not None}
    if family:
        contents["config"] = {"model_type": family}
    for name, content in contents.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


CASES = {
    "nothing": ({}, None),
    "null": ({"config": {"bos_token": None, "eos_token": END}}, None),
    "only the decoder": ({"config": {"added_tokens_decoder": {"264": X}}}, None),
    "sorted by id": ({"config": {"added_tokens_decoder": {"265": X, "264": Y}}}, None),
    "a gap": (
        {"config": {"added_tokens_decoder": {"310": X}}},
        "<|x|>: id 310 in tokenizer_config.json, but 264 in the vocabulary",
    ),
    "an id twice": ({"config": {"added_tokens_decoder": {"0": X}}}, "<|x|>: id 0 in tokenizer_config.json, but 264"),
    "other flags": (
        {"config": {"added_tokens_decoder": {"0": {"content": END, **PLAIN, "rstrip": True, "lstrip": True}}}},
        "<|endoftext|>: lstrip is False and True, rstrip is False and True in tokenizer.json and tokenizer_config.json",
    ),
    "in the vocabulary": ({"config": {"added_tokens_decoder": {"258": {"content": "the", **PLAIN}}}}, None),
    "plain, but named": (
        {"config": {"added_tokens_decoder": {"264": {**X, "special": False}}, "bos_token": "<|x|>"}},
        None,
    ),
    "typed": ({"config": {"bos_token": TYPED, "eos_token": END}}, None),
    "phi-3": (
        {"config": {"added_tokens_decoder": {"264": {**X, "rstrip": True}, "265": {**Y, "lstrip": True}}}},
        None,
    ),
    "chatml": (
        {"config": {"added_tokens_decoder": {"0": {"content": END, **PLAIN}, "264": X}, "eos_token": "<|x|>",
                    "bos_token": None, "additional_special_tokens": ["<|x|>", "<|y|>"]}},
        None,
    ),
    "unk and pad": ({"config": {"unk_token": "<unk>", "pad_token": "[PAD]", "eos_token": END}}, None),
    "an image": ({"config": {"image_token": "<|x|>"}}, None),
    "named extras": ({"config": {"extra_special_tokens": {"image_token": "<|x|>", "video_token": "<|y|>"}}}, None),
    "both lists": (
        {"config": {"extra_special_tokens": ["<|x|>", {**TYPED, "content": "<|z|>"}],
                    "additional_special_tokens": ["<|y|>"]}},
        None,
    ),
    "the older list": ({"config": {"additional_special_tokens": ["<|y|>", "<|x|>"]}}, None),
    "only the map": ({"special_map": {"bos_token": END, "eos_token": "<|x|>"}}, None),
    "the map overrules": (
        {"config": {"bos_token": END}, "special_map": {"bos_token": {**X, "rstrip": True}}},
        "bos_token is <|endoftext|> in tokenizer_config.json and <|x|> in special_tokens_map.json; the latter",
    ),
    "the map is old": (
        {"config": {"bos_token": END, "added_tokens_decoder": {}}, "special_map": {"bos_token": "<|x|>"}},
        "bos_token is <|endoftext|> in tokenizer_config.json and <|x|> in special_tokens_map.json; the former",
    ),
    "left out": (
        {"config": {"added_tokens_decoder": {"264": X}}, "added": {"<|y|>": 265}},
        "<|y|>: only in added_tokens.json, left out beside tokenizer_config.json",
    ),
    "the map's extras": ({"special_map": {"additional_special_tokens": ["<|x|>"]}}, None),
    "the map's named extras": ({"special_map": {"extra_special_tokens": {"image_token": "<|x|>"}}}, None),
    "both files' extras": (
        {"config": {"extra_special_tokens": ["<|z|>"]}, "special_map": {"extra_special_tokens": ["<|x|>", "<|z|>"]}},
        None,
    ),
    "added alone": ({"added": {"<|x|>": 264, "<|y|>": 265}}, None),
    "added and named": ({"added": {"<|x|>": 265, "<|y|>": 264}, "special_map": {"eos_token": "<|x|>"}}, None),
    "added with a gap": ({"added": {"<|x|>": 999}}, "<|x|>: id 999 in added_tokens.json, but 264"),
    "added over another": ({"added": {"<|x|>": 0}}, None),
    "template": ({"tokenizer": sentencepiece_bpe(), "config": {"bos_token": "<s>", "eos_token": "</s>"}}, None),
    "add_bos_token": (
        {"tokenizer": sentencepiece_bpe(), "config": {"bos_token": "<s>", "add_bos_token": False}},
        "add_bos_token is False, but tokenizer.json adds one",
    ),
    "another BOS": ({"tokenizer": sentencepiece_bpe(), "config": {"bos_token": "</s>"}}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_tokens_and_ends_are_those_of_transformers(case, tmp_path):
    files, notice = CASES[case]
    files = files | {"config": AS_IS | files.get("config", {})}
    path = folder(tmp_path / "m", **files)
    reference = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer = open_tokenizer(path)
    assert tokenizer.encode(TEXT).ids.tolist() == reference(TEXT, add_special_tokens=False)["input_ids"]
    assert (tokenizer.bos_id, tokenizer.eos_id) == (reference.bos_token_id, reference.eos_token_id)
    assert tokenizer.added_ids == reference.added_tokens_encoder
    special = {index for index, token in reference.added_tokens_decoder.items() if token.special}
    assert tokenizer.special_ids == special
    assert tokenizer.adds_bos == (reference("a")["input_ids"][0] == reference.bos_token_id)
    if notice is None:
        assert tokenizer.notices == ()
    else:
        assert len(tokenizer.notices) == 1
        assert tokenizer.notices[0].startswith(f"{path}/tokenizer.json: {notice}")
    assert set(tokenizer.files) == set(path.iterdir())
    assert tokenizer.read_by("transformers").sha256 == tokenizer.sha256


CONTENTS = st.sampled_from([END, "<|x|>", "<|y|>", "the", "é", "Q"])
FLAGS = st.fixed_dictionaries({name: st.booleans() for name in PLAIN})
WITH_FLAGS = st.builds(lambda content, flags: {"content": content, **flags}, CONTENTS, FLAGS)
TYPED_TOKENS = WITH_FLAGS.map(lambda token: {"__type": "AddedToken", **token})
TOKENS = st.one_of(st.none(), CONTENTS, TYPED_TOKENS)
NAMED = {f"{name}_token": TOKENS for name in ("bos", "eos", "pad", "unk", "image")}
LISTS = {name: st.lists(CONTENTS, max_size=3) for name in ("extra_special_tokens", "additional_special_tokens")}
DECODERS = st.dictionaries(st.integers(0, 300).map(str), WITH_FLAGS, max_size=4)
CONFIGS = st.fixed_dictionaries({}, optional=NAMED | LISTS | {"added_tokens_decoder": DECODERS})
MAPS = st.none() | st.fixed_dictionaries({}, optional={key: st.one_of(CONTENTS, WITH_FLAGS) for key in NAMED} | LISTS)
ADDED = st.none() | st.dictionaries(CONTENTS, st.integers(0, 300), max_size=4).filter(
    lambda ids: len(set(ids.values())) == len(ids)
)


@pytest.mark.thorough
@settings(max_examples=100, derandomize=True)
@given(CONFIGS, MAPS, ADDED)
def test_any_files_give_the_tokens_of_transformers(tmp_path_factory, config, special_map, added):
    path = folder(tmp_path_factory.mktemp("m"), config=AS_IS | config, special_map=special_map, added=added)
    reference = transformers.AutoTokenizer.from_pretrained(path)
    files = read_tokenizer_files(path)
    tokens = read_settings(files.config, files.special_map, files.added)
    made = Tokenizer.from_str(json.dumps(tokens.add_to(files.definition)))
    found = {index: repr(token) for index, token in made.get_added_tokens_decoder().items()}
    assert found == {index: repr(token) for index, token in reference.added_tokens_decoder.items()}
    assert [tokens.content(role) for role in ("bos_token", "eos_token")] == [
        reference.bos_token or "",
        reference.eos_token or "",
    ]
    assert made.encode(TEXT).ids == reference(TEXT)["input_ids"]


def refused(path, **files):
    with pytest.raises(CheckpointError) as caught:
        open_tokenizer(folder(path, **files))
    assert (caught.value.id, caught.value.exit_code) == ("tokenizer.settings", 3)
    return caught.value.message


def test_settings_that_are_none_are_refused(tmp_path):
    for index, wrong in enumerate([["<|x|>"], {"x": X}, {"1": "<|x|>"}, {"1": {}}, {"-1": X}, {"9" * 5000: X}]):
        message = refused(tmp_path / str(index), config={"added_tokens_decoder": wrong})
        assert "does not map a token id to a token" in message
        assert len(message) < 300
    message = refused(tmp_path / "twice", added={"<|x|>": 7, "<|y|>": 7})
    assert message.endswith("added_tokens.json: id 7 is <|x|> and <|y|>")


def test_a_file_for_later_versions_is_taken_as_transformers_does(tmp_path):
    path = folder(
        tmp_path / "m", config=AS_IS | {"fast_tokenizer_files": ["tokenizer.4.0.0.json", "tokenizer.99.0.0.json"]}
    )
    with pytest.raises(CheckpointError, match=r"m/tokenizer\.4\.0\.0\.json: no tokenizer\.json found"):
        open_tokenizer(path)
    sentencepiece_bpe().save(str(path / "tokenizer.4.0.0.json"))
    tokenizer = open_tokenizer(path)
    assert path / "tokenizer.4.0.0.json" in tokenizer.files
    reference = transformers.AutoTokenizer.from_pretrained(path)
    assert tokenizer.encode("the cat").ids.tolist() == reference("the cat", add_special_tokens=False)["input_ids"]


def test_a_file_under_any_name_is_read_with_its_neighbours(tmp_path):
    path = folder(tmp_path / "m", config=AS_IS | {"added_tokens_decoder": {"264": X}, "bos_token": "<|x|>"})
    other = (path / "tokenizer.json").rename(path / "mine.json")
    (path / "config.json").write_text("[]")  # of something else: only a folder's is read
    tokenizer = open_tokenizer(other)
    assert tokenizer.bos_id == 264
    assert tokenizer.encode("a<|x|>").ids.tolist()[-1] == 264
    assert tokenizer.files == (other, path / "tokenizer_config.json")
