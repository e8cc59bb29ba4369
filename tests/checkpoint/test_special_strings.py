"""Names of special tokens in a text are tokenized as control ids or as text."""

import json

import pytest
import transformers
from checkpoint import builders
from tokenizers import AddedToken

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.errors import UsageError

TEXT = "the<s>cat <|endoftext|> [CLS]</s> [UNK]"
NAMES = {
    "byte_level_bpe": ["<|endoftext|>"],
    "sentencepiece_bpe": ["<s>", "</s>"],
    "metaspace_unigram": ["<s>", "</s>"],
    "wordpiece": ["[CLS]", "[UNK]"],
}


def opened(kind, special_strings="control"):
    return BackendTokenizer(builders.definition(kind), {}, kind, special_strings=special_strings)


@pytest.mark.parametrize("kind", NAMES)
def test_names_in_a_text_are_counted_or_are_text(kind):
    control, text = opened(kind), opened(kind, "text")
    assert control.encode(TEXT).special_strings == len(NAMES[kind])
    tokens = text.encode(TEXT)
    assert tokens.special_strings == 0
    unknown = control._unknown_id
    assert not (text.special_ids - {unknown}) & set(tokens.ids.tolist())
    raw, start = TEXT.encode(), 0
    for id, stop in zip(tokens.ids.tolist(), tokens.byte_stop.tolist(), strict=True):
        assert text.token_bytes(id).strip().lower() == raw[start:stop].strip().lower() or id == unknown
        start = stop
    assert (text.special_ids, text.bos_id, text.adds_bos) == (control.special_ids, control.bos_id, control.adds_bos)
    assert text.sha256 != control.sha256
    assert control.sha256 == opened(kind).sha256
    plain = "the cat sat"
    assert text.encode(plain).ids.tolist() == control.encode(plain).ids.tolist()


@pytest.mark.parametrize("kind", ["byte_level_bpe", "sentencepiece_bpe", "wordpiece"])
def test_ids_are_those_of_transformers_with_split_special_tokens(tmp_path, kind):
    builders.TOKENIZERS[kind]().save(str(tmp_path / "tokenizer.json"))
    builders.write_settings(tmp_path)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for special_strings, split in (("control", False), ("text", True)):
        expected = reference(TEXT, add_special_tokens=False, split_special_tokens=split)["input_ids"]
        assert opened(kind, special_strings).encode(TEXT).ids.tolist() == expected


def test_another_word_is_refused():
    with pytest.raises(UsageError, match="special_strings 'plain': is control or text") as caught:
        opened("byte_level_bpe", "plain")
    assert caught.value.id == "options.special_strings"


def test_added_tokens_that_are_not_special_stay():
    tokenizer = builders.byte_level_bpe()
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    content = json.loads(tokenizer.to_str())
    tokens = BackendTokenizer(content, {}, "x", special_strings="text").encode("the<tool><|endoftext|>")
    assert tokens.ids.tolist().count(tokenizer.token_to_id("<tool>")) == 1
    assert tokens.ids.tolist().count(tokenizer.token_to_id("<|endoftext|>")) == 0
    assert tokens.special_strings == 0


def test_an_unknown_token_is_no_special_string():
    assert opened("metaspace_unigram").encode("the ☃ cat").special_strings == 0
    assert opened("metaspace_unigram").encode("the <unk> cat").special_strings == 1


@pytest.mark.parametrize("special_strings", ["control", "text"])
def test_the_option_reaches_the_tokenizer_of_a_folder(tmp_path, special_strings):
    path = builders.save(builders.model("gpt2"), tmp_path / "m")
    loaded = load_huggingface(path, LoadOptions(special_strings=special_strings))
    assert loaded.tokenizer.special_strings == special_strings
    assert loaded.tokenizer.encode("<|endoftext|>").special_strings == (special_strings == "control")
    assert loaded.tokenizer.kind.endswith(", special strings as text") == (special_strings == "text")
