"""BOS, notices and identity of a tokenizer by its files, and files that are refused."""

import json

import pytest
import transformers
from checkpoint.builders import byte_level_bpe, definition, write_settings

from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer
from lossprobe.errors import CheckpointError

TEMPLATES = {
    "none": None,
    "before": {"single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
    "after": {"single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]},
    "both": {
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}},
        ]
    },
}


def template(name):
    if TEMPLATES[name] is None:
        return None
    specials = {token: {"id": token, "ids": [index], "tokens": [token]} for token, index in (("<s>", 1), ("</s>", 2))}
    return {"type": "TemplateProcessing", "pair": [], "special_tokens": specials} | TEMPLATES[name]


@pytest.mark.parametrize(
    ("processor", "configured", "bos_id", "adds"),
    [
        ("none", {}, None, False),
        ("none", {"bos_token": "<s>"}, 1, False),
        ("none", {"bos_token": {"content": "<s>", "special": True}}, 1, False),
        ("none", {"bos_token": "<nowhere>", "add_bos_token": True}, 286, False),  # a token of its own, as transformers
        ("none", {"bos_token": "<s>", "add_bos_token": True}, 1, False),
        ("none", {"add_bos_token": True}, None, False),
        ("before", {}, 1, True),
        ("before", {"bos_token": "<s>"}, 1, True),
        ("before", {"bos_token": "<s>", "add_bos_token": False}, 1, True),
        ("before", {"bos_token": "</s>"}, 2, False),  # what it puts there is not what it calls BOS
        ("after", {}, None, False),  # an end of text is no beginning
        ("after", {"bos_token": "<s>"}, 1, False),
        ("both", {"bos_token": "<s>"}, 1, True),
    ],
)
def test_bos(tmp_path, processor, configured, bos_id, adds):
    content = definition("sentencepiece_bpe", post_processor=template(processor))
    tokenizer = BackendTokenizer(content, configured, "x")
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (bos_id, adds)
    against = [notice for notice in tokenizer.notices if "add_bos_token is" in notice]
    assert len(against) == (processor in ("none", "before") and "add_bos_token" in configured and bos_id is not None)
    if configured.get("bos_token") in (None, "<s>"):
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        write_settings(tmp_path, **configured)
        reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert (reference("the cat")["input_ids"][0] == 1) == adds


def test_two_tokens_before_a_text_are_noted():
    before = TEMPLATES["before"]["single"]
    content = definition("sentencepiece_bpe", post_processor=template("before") | {"single": [before[0], *before]})
    tokenizer = BackendTokenizer(content, {}, "x/tokenizer.json")
    assert tokenizer.notices == ("x/tokenizer.json: puts 2 tokens before a text, of which only the first is used",)
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (1, True)


def test_the_hash_covers_what_decides_the_output(tokenizers_by_kind):
    hashes = {tokenizer.sha256 for tokenizer in tokenizers_by_kind.values()}
    plain = definition("sentencepiece_bpe")
    hashes |= {BackendTokenizer(plain, {"bos_token": "</s>"}, "x").sha256}
    hashes |= {BackendTokenizer(plain | {"normalizer": None}, {}, "x").sha256}
    assert len(hashes) == len(tokenizers_by_kind) + 2
    same = BackendTokenizer(plain, {"model_max_length": 5}, "elsewhere")
    assert same.sha256 == tokenizers_by_kind["sentencepiece_bpe"].sha256


def test_embedded_truncation_padding_and_dropout_are_ignored_with_a_notice(tokenizers_by_kind):
    plain = definition()
    content = plain | {
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 10},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
        "model": plain["model"] | {"dropout": 0.9},
    }
    tokenizer = BackendTokenizer(content, {}, "a/tokenizer.json")
    assert tokenizer.notices == tuple(
        f"a/tokenizer.json: ignored embedded {name}" for name in ("truncation", "padding", "dropout")
    )
    for text in ("the", "the cat the cat the cat"):
        assert tokenizer.encode(text).ids.tolist() == tokenizers_by_kind["byte_level_bpe"].encode(text).ids.tolist()
    assert tokenizer.sha256 == tokenizers_by_kind["byte_level_bpe"].sha256
    assert tokenizers_by_kind["byte_level_bpe"].notices == ()


def test_an_id_above_the_models_vocabulary_is_returned_as_it_is():
    content = definition("word_level")
    content["model"]["vocab"]["dog"] = 2**31 - 1
    assert BackendTokenizer(content, {}, "x").encode("the dog").ids.tolist() == [1, 2**31 - 1]


def split(expression):
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}}, "index out of bounds"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "Cannot parse precompiled_charsmap"),
        ({"pre_tokenizer": split("(")}, "unmatched parenthesis"),
        ({"model": None}, "did not match"),
        ({"model": {"type": "BPE", "vocab": {"a": 2**31}, "merges": []}}, "token id 2147483648 is above 2147483647"),
        ({"model": {"type": "BPE", "vocab": {"\ud800": 0}, "merges": []}}, "codec can't decode"),
    ],
)
def test_a_tokenizer_that_cannot_be_built_is_refused(changes, reason):
    with pytest.raises(CheckpointError) as caught:
        BackendTokenizer(definition(**changes), {}, "a/tokenizer.json")
    assert (caught.value.id, caught.value.exit_code) == ("tokenizer.broken", 3)
    assert caught.value.message.startswith("a/tokenizer.json: tokenizer failed: ")
    assert reason in caught.value.message


def test_a_tokenizer_that_fails_on_a_text_goes_on_with_the_next():
    tokenizer = BackendTokenizer(definition(pre_tokenizer=split("(a+)+$")), {}, "a/tokenizer.json")
    for text in ("a" * 50 + "b", "\ud800"):
        with pytest.raises(CheckpointError) as caught:
            tokenizer.encode(text)
        assert (caught.value.id, caught.value.exit_code) == ("tokenizer.failed", 3)
    assert len(tokenizer.encode("aa").ids) == 2


def test_opening(tmp_path):
    for missing in (tmp_path, tmp_path / "nothing.json"):
        with pytest.raises(CheckpointError, match=r"no tokenizer\.json found") as caught:
            open_tokenizer(missing)
        assert (caught.value.id, caught.value.exit_code) == ("tokenizer.missing", 3)
    byte_level_bpe().save(str(tmp_path / "tokenizer.json"))
    write_settings(tmp_path, bos_token="<|endoftext|>", added_tokens_decoder={"0": {"content": "x" * (1 << 20)}})
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        tokenizer = open_tokenizer(path)
        assert (tokenizer.bos_id, tokenizer.adds_bos) == (0, False)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer.json: line 1"):
        open_tokenizer(tmp_path)
