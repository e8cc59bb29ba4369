"""Rules of a tokenizer whose result can depend on text at any distance are found."""

import json

import pytest
from checkpoint import builders
from tokenizers import Regex, normalizers, pre_tokenizers

from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.checkpoint.tokenizers.unbounded_rules import is_unbounded, unbounded_rules

# Patterns of releases, by the tokenizer that brought them.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
    r"\s+(?!\S)|\s"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
NEAR = [
    GPT2, LLAMA3, CL100K, O200K, DEEPSEEK, BLOOM, r"\s+", " {2,}", r"[0-9][0-9][0-9]", r"[^\n]+|[\n]+", ".+",
    "[\u4e00-\u9fa5\u3040-\u309f]+", r"\d{1,3}(?=(?:\d{3})*(?:\D|$))", r"(?<=a)b", r"\S+", "", "<[^>]{0,80}>",
    "(?>a)", "<[^>]{80}>", r"[^\s\]]+x", " (?:a)+b",
]  # fmt: skip
FAR = [
    "<[^>]*>", r"cat(?=[\s\S]*END)", "a.*b", r"<!--(?s:.)*?-->", r"(?: \w+)*x", r"(a)\1", r"\((?:[^()]|x)*\)",
    "x[ab ]{0,100000}y", "x[ab ]{5,}y", r"(?<!\()[^)]+\)", "[abc", r"\k<x>", "a|<[^>]*>|b", r"(<[^>]*>)",
    "x{y", r"\p{Nothing}+x", "[z-a]",
]  # fmt: skip


@pytest.mark.parametrize("pattern", NEAR)
def test_patterns_that_white_space_or_another_character_ends(pattern):
    assert not is_unbounded(pattern)


@pytest.mark.parametrize("pattern", FAR)
def test_patterns_that_hang_on_what_is_far_away_or_are_not_understood(pattern):
    assert is_unbounded(pattern)


@pytest.mark.parametrize("kind", builders.TOKENIZERS)
def test_ordinary_tokenizers_have_nothing_of_the_kind(kind):
    assert unbounded_rules(builders.definition(kind)) == []


def test_components_are_named():
    tokenizer = builders.byte_level_bpe()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex("<[^>]*>"), "")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.FixedLength(5), pre_tokenizers.Split("x", "isolated"), pre_tokenizers.ByteLevel()]
    )
    assert unbounded_rules(json.loads(tokenizer.to_str())) == ["FixedLength", "Replace"]
    assert unbounded_rules({"normalizer": {"type": "Replace", "pattern": 3}}) == ["Replace"]
    assert unbounded_rules({"normalizer": None, "pre_tokenizer": {"type": "New"}}) == ["New"]
    assert unbounded_rules({"normalizer": {"type": "New", "pattern": {"String": "x"}}}) == ["New"]


def test_a_long_document_is_marked_only_where_a_rule_looks_far():
    tags = builders.byte_level_bpe()
    tags.normalizer = normalizers.Replace(Regex("<[^>]*>"), "")
    text = "the cat sat on the mat. " * 6000  # more than 128 KiB
    for tokenizer, far in ((tags, ("Replace",)), (builders.byte_level_bpe(), ())):
        opened = BackendTokenizer(json.loads(tokenizer.to_str()), {}, "x")
        assert (opened.unbounded_rules, opened.longest_whole_bytes) == (far, 132 << 10)
        assert opened.encode(text).in_pieces == bool(far)
        assert not opened.encode(text[: 132 << 10]).in_pieces
        assert not opened.encode_whole(text).in_pieces


def test_the_whole_has_the_tokens_that_pieces_can_miss():
    tags = builders.byte_level_bpe()
    tags.normalizer = normalizers.Replace(Regex("<[^>]*>"), "")
    opened = BackendTokenizer(json.loads(tags.to_str()), {}, "x")
    text = "<" + "the cat sat on the mat. " * 6000 + "> cat"
    assert opened.encode_whole(text).ids.tolist() == tags.encode(text).ids == [tags.token_to_id("Ġcat")]
    assert len(opened.encode(text).ids) > 1
