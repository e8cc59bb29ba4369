"""Tokenizer classes of transformers that make other tokens than tokenizer.json: notices, and use by protocols."""

from __future__ import annotations

import json

import pytest
import transformers
from checkpoint import builders
from checkpoint.test_tokenizer_files import END, folder

from lossprobe.checkpoint.interface import MultiReaderTokenizer
from lossprobe.checkpoint.tokenizers.auto_tokenizer import quick_look
from lossprobe.checkpoint.tokenizers.tokenizer_files import TokenizerFiles
from lossprobe.checkpoint.tokenizers.tokenizer_readers import gguf_bos, open_tokenizer
from lossprobe.errors import CheckpointError

TEXTS = [
    builders.CORPUS + " The  CAT\n\n123456 café it's <s> x <|endoftext|> y",
    " the cat",
    "ﬁne cafe\u0301 <s>the",
    builders.CORPUS,
]
ENDS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
BYTES, PIECES = builders.byte_level_bpe, builders.sentencepiece_bpe
# Declared class, tokenizer, family, class that is chosen, and whether that is clear without a child process.
CLASSES = [
    ("PreTrainedTokenizerFast", BYTES, "llama", "TokenizersBackend", True),
    (None, PIECES, "mistral", "TokenizersBackend", True),
    (None, BYTES, "gpt2", "GPT2Tokenizer", True),
    ("GPT2TokenizerFast", BYTES, "llama", "GPT2Tokenizer", True),
    ("CodeGenTokenizer", BYTES, "codegen", "CodeGenTokenizer", True),
    ("BloomTokenizerFast", BYTES, "bloom", "TokenizersBackend", True),
    ("LlamaTokenizerFast", BYTES, "llama", "TokenizersBackend", True),
    ("NoSuchTokenizer", BYTES, "llama", "TokenizersBackend", True),
    ("LlamaTokenizer", PIECES, "llama", "LlamaTokenizer", False),
    ("PreTrainedTokenizerFast", BYTES, "qwen2", "Qwen2Tokenizer", False),
    ("GPTNeoXTokenizerFast", BYTES, "gpt_neox", "GPTNeoXTokenizer", False),
    ("GemmaTokenizer", PIECES, "gemma", "GemmaTokenizer", False),
    ("T5TokenizerFast", builders.metaspace_unigram, "llama", "T5Tokenizer", False),
    ("BertTokenizer", builders.wordpiece, "bert", "BertTokenizer", False),
]


def opened(path):
    tokenizer = open_tokenizer(path)
    asked = tokenizer._child is not None
    tokenizer.compare_with_auto_tokenizer()
    return tokenizer, asked


@pytest.mark.thorough
@pytest.mark.parametrize(("declared", "build", "family", "taken", "clear"), CLASSES)
def test_a_class_gives_our_tokens_or_a_notice_says_so(declared, build, family, taken, clear, tmp_path):
    config = ENDS if build is PIECES else {}
    config = config if declared is None else {"tokenizer_class": declared, **config}
    path = folder(tmp_path / "m", tokenizer=build(), family=family, config=config or None)
    reference = transformers.AutoTokenizer.from_pretrained(path)
    assert type(reference).__name__ == taken
    tokenizer, asked = opened(path)
    assert asked != clear
    expected = [reference(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    ends = (reference.bos_token_id, reference.eos_token_id)
    same = [tokenizer.encode(text).ids.tolist() for text in TEXTS] == expected
    assert tokenizer.notices != () or (same and ends == (tokenizer.bos_id, tokenizer.eos_id))
    if clear:
        assert tokenizer.notices == ()
    else:
        (notice,) = tokenizer.notices
        start = (
            f"{path}/tokenizer.json: AutoTokenizer of transformers {transformers.__version__} takes {taken} and makes "
        )
        assert notice.startswith(start)
    assert isinstance(tokenizer, MultiReaderTokenizer)
    twin = tokenizer.read_by("transformers")
    assert [twin.encode(text).ids.tolist() for text in TEXTS] == expected
    assert (twin.bos_id, twin.eos_id) == ends
    first = [] if twin.first_id is None else [twin.first_id]
    assert [*first, *twin.encode("the").ids.tolist(), *twin.last_ids] == reference("the")["input_ids"]
    assert (twin.canonical == tokenizer.canonical) == clear


@pytest.mark.parametrize(
    "name",
    ["GPT2Tokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer", "CohereTokenizer", "LlamaTokenizer", "GemmaTokenizer"],
)
def test_what_a_class_saves_itself_is_clear(name, tmp_path):
    """Releases of these classes agree with them: no second process is started, and nothing is said."""
    pieces = name in ("LlamaTokenizer", "GemmaTokenizer")
    model = json.loads((PIECES() if pieces else BYTES()).to_str())["model"]
    made = getattr(transformers, name)(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    made.save_pretrained(tmp_path)
    tokenizer, asked = opened(tmp_path)
    assert not asked
    assert tokenizer.notices == ()
    assert (tokenizer.bos_id, tokenizer.eos_id) == (made.bos_token_id, made.eos_token_id)
    for text in TEXTS:
        assert tokenizer.encode(text).ids.tolist() == made(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": {"content": END}},
            "Special token bos_token has to be",
        ),
        ({"auto_map": {"AutoTokenizer": ["tokenization.Mine", None]}, "tokenizer_class": "CTRLTokenizer"}, ""),
    ],
)
def test_what_autotokenizer_refuses_is_told_and_refused_as_a_tool_sees_it(config, reason, tmp_path):
    path = folder(tmp_path / "m", config=config)
    (path / "tokenization.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    tokenizer, _ = opened(path)
    (notice,) = tokenizer.notices
    assert notice.startswith(f"{path}/tokenizer.json: transformers' AutoTokenizer cannot load it: {reason}")
    assert tokenizer.encode("the").ids.tolist() == BYTES().encode("the").ids
    with pytest.raises(CheckpointError) as caught:
        tokenizer.read_by("transformers")
    assert (caught.value.id, caught.value.exit_code) == ("tokenizer.auto_tokenizer", 3)
    assert caught.value.message == notice
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("declared", "more"),
    [
        ("MarkupLMTokenizer", {}),  # cannot be made without a dictionary of its own
        ("FNetTokenizer", {}),  # has no constructor of its own, but another class's
        ("GPT2Tokenizer", {"vocab": True}),
        ("CodeLlamaTokenizer", {"prefix_token": True}),
    ],
)
def test_a_class_that_cannot_be_made_for_a_look_is_asked_for(declared, more, tmp_path):
    definition = json.loads(BYTES().to_str())
    assert quick_look(TokenizerFiles("x", definition, {"tokenizer_class": declared, **more}), {}) is None


def test_a_tokenizer_that_splits_special_tokens_is_told_and_refused_as_a_tool_sees_it(tmp_path):
    path = folder(tmp_path / "m", config={"tokenizer_class": "PreTrainedTokenizerFast", "split_special_tokens": True})
    tokenizer, _ = opened(path)
    assert "takes TokenizersBackend and makes " in tokenizer.notices[0]
    with pytest.raises(CheckpointError, match="split_special_tokens is set"):
        tokenizer.read_by("transformers")


def test_a_bos_that_only_the_template_knows(tmp_path):
    path = folder(tmp_path / "m", tokenizer=PIECES(), config={"tokenizer_class": "PreTrainedTokenizerFast"})
    tokenizer, _ = opened(path)
    assert tokenizer.notices == (f"{path}/tokenizer.json: puts id 1 before every text, which is used as its BOS",)
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (1, True)
    twin = tokenizer.read_by("transformers")
    assert (
        (twin.bos_id, twin.first_id) == (transformers.AutoTokenizer.from_pretrained(path).bos_token_id, 1) == (None, 1)
    )


def test_tokenizer_json_alone(tmp_path):
    """As Levanter reads it: tokenizer_config.json only names tokens, and adds none."""
    config = {
        "added_tokens_decoder": {"264": {"content": "<|x|>", "special": True}},
        "bos_token": "<|x|>",
        "eos_token": END,
    }
    tokenizer, _ = opened(folder(tmp_path / "m", config=config))
    plain = tokenizer.read_by("tokenizers")
    assert (tokenizer.bos_id, plain.bos_id, plain.eos_id) == (264, None, 0)
    assert (
        plain.encode("a<|x|>").ids.tolist() == BYTES().encode("a<|x|>").ids != tokenizer.encode("a<|x|>").ids.tolist()
    )


TEMPLATE = json.loads(PIECES().to_str())["post_processor"]


@pytest.mark.parametrize(
    ("config", "changes", "expected"),
    [
        ({}, {}, (7, True)),
        ({"bos_token": "<s>"}, {}, (1, True)),
        ({"bos_token": {"content": "<s>"}}, {}, (1, True)),
        ({"bos_token": "</s>"}, {}, (2, False)),  # what the template puts first is not the BOS
        ({"cls_token": "<s>"}, {}, (1, True)),
        ({"bos_token": "<nowhere>"}, {}, (7, False)),
        ({"bos_token": "<s>", "add_bos_token": False}, {}, (1, False)),
        ({"bos_token": "<s>", "add_bos_token": True}, {"post_processor": None}, (1, True)),
        ({"bos_token": "<s>"}, {"post_processor": None}, (1, True)),  # sentencepiece's kind
        ({"bos_token": "<s>"}, {"post_processor": {"type": "Sequence", "processors": [TEMPLATE]}}, (1, True)),
        ({"bos_token": "<s>"}, {"post_processor": None, "model": {"type": "BPE", "byte_fallback": False}}, (1, False)),
        ({"eos_token": "</s>"}, {"post_processor": {"type": "RobertaProcessing", "cls": ["<s>", 1]}}, (7, True)),
    ],
)  # fmt: skip
def test_the_bos_of_a_converted_file(config, changes, expected):
    assert gguf_bos(config, builders.definition("sentencepiece_bpe", **changes), 7) == expected
