"""A protocol scores its tool's tokens, with the tool's BOS and EOS: against plain passes over AutoTokenizer's ids."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from checkpoint import builders
from checkpoint.test_tokenizer_files import END, PLAIN, folder
from protocol_references import SAYING, Peer

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError, UsageError
from lossprobe.passes.protocol_tokens import checkpoint_of_tool
from lossprobe.passes.protocols import score_all_protocols, score_protocol
from lossprobe.passes.score import score
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.text.documents import StringSource

CONTEXT = 24
TEXT = builders.CORPUS + " 1234567 It's  the\n\n cat." * 3
CHATML = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "added_tokens_decoder": {"0": {"content": END, **PLAIN}, "264": {"content": "<|im_end|>", **PLAIN}},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def saved(path, family="llama", *, tokenizer=None, bos=None, eos=None, **files):
    """Write a model of a family with its tokenizer; `bos` and `eos` are ids that config.json alone names."""
    built = builders.model(family)
    built.save_pretrained(path)
    folder(path, tokenizer=tokenizer, family=None, **files)
    builders.reconfigure(path, bos_token_id=bos, eos_token_id=eos)
    return built


def peer_of(built, tokenizer) -> Peer:
    full = tokenizer("a")["input_ids"]
    adds = len(full) > len(tokenizer("a", add_special_tokens=False)["input_ids"]) and full[0] == tokenizer.bos_token_id
    return Peer(
        lambda ids: built(ids).logits,
        lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        adds,
    )


def said_and_scored(protocol, path, built, texts=(TEXT,)):
    """Return the numbers of a plain loop over AutoTokenizer's tokens, and the protocol's result with its notices."""
    reference = transformers.AutoTokenizer.from_pretrained(path)
    source = StringSource(list(texts))
    checkpoint = open_checkpoint(path)
    with torch.inference_mode():
        said = SAYING[protocol](peer_of(built, reference), list(texts), CONTEXT, None)
    _, result = score_protocol(protocol, checkpoint, source, ScoreOptions(context=CONTEXT))
    return said, result, source.notices, checkpoint


@pytest.mark.parametrize(
    ("protocol", "family"),
    [("lm-eval", "qwen3"), ("paloma", "qwen3"), ("transformers", "qwen3"), ("evaluate", "gpt_neox")],
)
def test_the_tokens_of_a_class_that_builds_them_anew(protocol, family, tmp_path):
    config = {"bos_token": END, "eos_token": END}
    built = saved(tmp_path / "m", family, bos=0, eos=0, config=config)
    texts = [TEXT, " cafe\u0301 ² the cat's 12\n\n\nthe mat"]
    said, result, notices, checkpoint = said_and_scored(protocol, tmp_path / "m", built, texts)
    assert result.tokens_read == said.read
    assert result.nats_per_token == pytest.approx(said.mean, rel=1e-6)
    assert result.value == pytest.approx(next(iter(said.rows.values()))[0], rel=1e-5)
    whole = ["\n\n".join(texts)] if protocol == "transformers" else texts
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    theirs = sum(len(reference(text, add_special_tokens=False)["input_ids"]) for text in whole)
    ours = sum(len(checkpoint.tokenizer.encode(text).ids) for text in whole)
    assert theirs != ours
    expected = (
        f"{protocol}: reads the tokenizer's files otherwise: {theirs} tokens, which are scored here, where {ours} "
    )
    assert sum(notice.startswith(expected) for notice in notices) == 1


def test_special_strings_as_text_are_refused_where_the_tool_builds_its_tokens_anew(tmp_path):
    saved(tmp_path / "m", "qwen3", bos=0, eos=0, config={"bos_token": END, "eos_token": END})
    checkpoint = open_checkpoint(tmp_path / "m", LoadOptions(special_strings="text"))
    assert checkpoint_of_tool("lm-eval", checkpoint).tokenizer is not checkpoint.tokenizer
    with pytest.raises(UsageError, match="`special_strings` text: lm-eval reads special strings as control ids"):
        score_protocol("lm-eval", checkpoint, StringSource([TEXT]), ScoreOptions(context=CONTEXT))


@pytest.mark.parametrize("bos", [0, 5, None])
def test_the_bos_of_config_json_is_no_prefix_of_lm_eval(bos, tmp_path):
    built = saved(tmp_path / "m", bos=bos, eos=264, config=CHATML)
    said, result, notices, checkpoint = said_and_scored("lm-eval", tmp_path / "m", built)
    assert checkpoint.tokenizer.bos_id == bos  # of `bos` always, for want of another
    assert result.nats_per_token == pytest.approx(said.mean, rel=1e-6)
    assert notices == []
    with pytest.raises(UsageError, match="evaluate: puts a BOS"):
        score_protocol("evaluate", checkpoint, StringSource([TEXT]))
    seen = {protocol: checkpoint_of_tool(protocol, checkpoint).tokenizer for protocol in SAYING}
    assert {name: (each.bos_id, each.eos_id) for name, each in seen.items() if each is not checkpoint.tokenizer} == {
        "lm-eval": (None, 264), "paloma": (None, 264), "transformers": (None, 264),
        "transformers-corrected": (None, 264), "evaluate": (None, 264), "levanter": (None, None),
        "llama.cpp": (bos, 264), "gptq": (None, 264), "llama-factory": (None, 264), "trainer": (None, 264),
        "trl": (None, 264),
    }  # fmt: skip


def test_a_conflict_between_tokenizer_and_model_is_told(tmp_path):
    saved(tmp_path / "m", bos=1, eos=[2, 3], special_map={"bos_token": END, "eos_token": "the"})
    checkpoint = open_checkpoint(tmp_path / "m")
    assert (checkpoint.tokenizer.bos_id, checkpoint.tokenizer.eos_id) == (0, 258)
    assert checkpoint.facts.notices == (
        f"{tmp_path}/m: BOS is id 0 in the tokenizer's files, 1 in config.json; 0 is used",
        f"{tmp_path}/m: EOS is id 258 in the tokenizer's files, 2, 3 in config.json; 258 is used",
    )
    # llama.cpp's converter does not read special_tokens_map.json
    assert checkpoint_of_tool("llama.cpp", checkpoint).tokenizer.bos_id == 1
    builders.reconfigure(tmp_path / "m", bos_token_id=0, eos_token_id=[2, 258])
    assert open_checkpoint(tmp_path / "m").facts.notices == ()


def test_ids_that_the_model_does_not_have_are_refused(tmp_path):
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    extra = {str(264 + index): {"content": f"<{index}>", **PLAIN} for index in range(builders.VOCABULARY - 264)}
    saved(tmp_path / "m", config=config | {"added_tokens_decoder": extra})
    checkpoint = open_checkpoint(tmp_path / "m")
    assert checkpoint.tokenizer.bos_id == builders.VOCABULARY
    words = f"id {builders.VOCABULARY}.*, the model has {builders.VOCABULARY} ids"
    with pytest.raises(UsageError, match=words):
        score_protocol("lm-eval", checkpoint, StringSource([TEXT]))
    with pytest.raises(UsageError, match=words):
        score(checkpoint, StringSource([TEXT]), ScoreOptions(bos="always"))


def test_a_tool_that_cannot_read_the_tokenizer(tmp_path):
    saved(tmp_path / "m", config={"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": {"content": END}})
    checkpoint = open_checkpoint(tmp_path / "m")
    with pytest.raises(CheckpointError, match="AutoTokenizer cannot load it: Special token bos_token"):
        score_protocol("lm-eval", checkpoint, StringSource([TEXT]))
    table = score_all_protocols(checkpoint, StringSource([TEXT * 3]), ScoreOptions(context=CONTEXT))[1].table
    reasons = table.set_index("protocol")["why"].str.contains("AutoTokenizer cannot load it")
    readers = {name for name, about in PROTOCOLS.items() if about.reader == "transformers"}
    assert {"lm-eval", "paloma", "transformers", "transformers-corrected", "evaluate", "trainer", "trl"} <= readers
    assert set(reasons[reasons].index) == readers
    assert table.set_index("protocol")["value"].drop([*readers]).notna().all()


def test_tokens_after_a_text_are_told(tmp_path):
    tokenizer = builders.sentencepiece_bpe()
    content = json.loads(tokenizer.to_str())
    content["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    content["post_processor"]["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    saved(tmp_path / "m", tokenizer=type(tokenizer).from_str(json.dumps(content)), config=config)
    for protocol, told in (("lm-eval", True), ("transformers", True), ("paloma", False)):
        source = StringSource([TEXT])
        score_protocol(protocol, open_checkpoint(tmp_path / "m"), source, ScoreOptions(context=CONTEXT))
        words = f"{protocol}: scores 1 token that the tokenizer puts after a text; not here"
        assert (words in source.notices) == told


def test_a_tokenizer_of_another_folder(tmp_path):
    """A `tokenizer` that is a folder has the class which that folder names; one that is a file has none."""
    saved(tmp_path / "m", "gpt2")
    other = folder(tmp_path / "other", family="qwen3")
    for given, classes in ((other, "Qwen2Tokenizer"), (other / "tokenizer.json", None)):
        checkpoint = open_checkpoint(tmp_path / "m", LoadOptions(tokenizer=given))
        assert [classes in notice for notice in checkpoint.facts.notices] == [True] * (classes is not None)
        text = f"cafe\u0301 {TEXT}"
        source = StringSource([text])
        _, result = score_protocol("transformers", checkpoint, source, ScoreOptions(context=CONTEXT))
        reference = transformers.AutoTokenizer.from_pretrained(given) if classes else builders.byte_level_bpe()
        ids = reference(text)["input_ids"] if classes else reference.encode(text).ids
        assert result.tokens_read == len(ids)
        told = [notice for notice in source.notices if "reads the tokenizer's files otherwise" in notice]
        assert len(told) == (classes is not None)
