"""Tests options that a tool does not have, texts that it cannot score, and its default windows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import BOS, ByteTokenizer, SmallModel, checkpoint, uniform_logits

from lossprobe.errors import TextError, UsageError
from lossprobe.passes.protocol_windows import protocol_policy
from lossprobe.passes.protocols import prepare_protocol, score_all_protocols, score_protocol
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.plan.rows import WindowPolicy
from lossprobe.plan.windows import Layout
from lossprobe.text.documents import StringSource

LOOPS = ("transformers", "transformers-corrected")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model(limit=64, *, adds_bos=True, bos=BOS, eos=7, hard=True):
    tokenizer = ByteTokenizer(adds_bos=adds_bos)
    tokenizer.bos_id, tokenizer.eos_id = bos, eos
    made = checkpoint(SmallModel(), tokenizer=tokenizer, context_length=limit)
    made.facts = replace(made.facts, hard_limit=hard)
    return made


def refused(protocol, id, checkpoint=None, **options) -> str:
    with pytest.raises(UsageError) as caught:
        protocol_policy(protocol, checkpoint or model(), ScoreOptions(**options))
    assert (caught.value.id, caught.value.exit_code) == (id, 2)
    return caught.value.message


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (
            5000,
            {
                "lm-eval": WindowPolicy(5000, 5000, BOS, True, Layout.LAST_FULL, BOS),
                "paloma": WindowPolicy(2048, 2048, 7, True, Layout.LAST_FULL),
                "transformers": WindowPolicy(4999, 512, BOS, True),
                "evaluate": WindowPolicy(4999, 5000, BOS, True, Layout.WHOLE),
                "llama.cpp": WindowPolicy(511, 512, BOS, True, Layout.SECOND_HALF),
                "levanter": WindowPolicy(4095, 4095, None, True),
                "fundamentallm": WindowPolicy(5000, 5000, None, True),
            },
        ),
        (
            100,
            {
                "lm-eval": WindowPolicy(100, 100, BOS, True, Layout.LAST_FULL, BOS),
                "paloma": WindowPolicy(100, 100, 7, True, Layout.LAST_FULL),
                "transformers": WindowPolicy(99, 100, BOS, True, Layout.DISJOINT),
                "evaluate": WindowPolicy(99, 100, BOS, True, Layout.WHOLE),
                "llama.cpp": WindowPolicy(99, 100, BOS, True, Layout.SECOND_HALF),
                "levanter": WindowPolicy(99, 99, None, True),
                "fundamentallm": WindowPolicy(100, 100, None, True),
            },
        ),
        (None, {"lm-eval": WindowPolicy(2048, 2048, BOS, True, Layout.LAST_FULL, BOS),
                "evaluate": WindowPolicy(16383, 16384, BOS, True, Layout.WHOLE)}),
    ],
)  # fmt: skip
def test_windows_where_nothing_is_chosen(limit, expected):
    for protocol, policy in expected.items():
        assert protocol_policy(protocol, model(limit), ScoreOptions()) == policy, protocol
    for same, other in (LOOPS, ("fundamentallm", "nanogpt")):
        assert protocol_policy(same, model(limit), ScoreOptions()) == protocol_policy(
            other, model(limit), ScoreOptions()
        )


def test_bos_where_the_tokenizer_adds_none():
    plain = model(adds_bos=False)
    found = {protocol: protocol_policy(protocol, plain, ScoreOptions()) for protocol in PROTOCOLS}
    assert {protocol: (each.bos_id, each.own_bos_id) for protocol, each in found.items()} == {
        "lm-eval": (BOS, None), "paloma": (7, None), "transformers": (None, None),
        "transformers-corrected": (None, None), "evaluate": (BOS, None), "llama.cpp": (None, None),
        "levanter": (BOS, None), "fundamentallm": (None, None), "nanogpt": (None, None), "gptq": (None, None),
        "llama-factory": (None, None), "trainer": (None, None), "trl": (None, None),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_options_that_a_tool_does_not_have(protocol):
    if protocol not in LOOPS:
        assert f"`stride` 8: {protocol} has no stride" in refused(protocol, "protocol.option", stride=8)
    assert f"`bos` always: {protocol} decides that" in refused(protocol, "protocol.option", bos="always")
    policy = protocol_policy(protocol, model(), ScoreOptions(context=9, stride=3 if protocol in LOOPS else None))
    if protocol == "evaluate":
        assert protocol_policy(protocol, model(), ScoreOptions(bos="never", context=9)).bos_id is None
    elif protocol == "lm-eval":
        never = protocol_policy(protocol, model(), ScoreOptions(bos="never", context=9))
        assert never == replace(policy, own_bos_id=None) != policy
    else:
        assert f"`bos` never: {protocol} decides that" in refused(protocol, "protocol.option", bos="never")
    assert refused(protocol, "windows.context", context=65) == "`context` 65: the model's limit is 64"


@pytest.mark.parametrize("protocol", [*LOOPS, "evaluate", "llama.cpp", "levanter"])
def test_windows_of_one_token_predict_nothing(protocol):
    assert "`context` 1: " in refused(protocol, "windows.context", context=1)
    least = 3 if protocol == "llama.cpp" else 2  # of which the second half is more than its first token
    assert f"at least {least} tokens" in refused(protocol, "windows.context", context=least - 1)
    assert protocol_policy(protocol, model(), ScoreOptions(context=least)).context == least - 1


@pytest.mark.parametrize("protocol", LOOPS)
def test_the_stride_of_the_loop(protocol):
    assert "`stride` 33: must lie between 1 and the context, 32" in refused(
        protocol, "windows.stride", context=32, stride=33
    )
    assert protocol_policy(protocol, model(), ScoreOptions(context=32, stride=32)).layout is Layout.DISJOINT
    assert protocol_policy(protocol, model(), ScoreOptions(context=32, stride=31)).layout is Layout.ROLLING


def test_no_token_to_put_first():
    none = model(adds_bos=False, bos=None, eos=None)
    assert refused("lm-eval", "protocol.no_prefix", none) == (
        "lm-eval: puts a BOS or EOS before each document, and the tokenizer of callable has none"
    )
    assert "paloma: puts an EOS before" in refused("paloma", "protocol.no_prefix", model(eos=None))
    assert "evaluate: puts a BOS (without `bos` never) before" in refused("evaluate", "protocol.no_prefix", none)
    assert protocol_policy("evaluate", none, ScoreOptions(bos="never")).bos_id is None
    table = score_all_protocols(none, StringSource(["abcdefghij" * 20]))[1].table.set_index("protocol")
    reasons = table.loc[["lm-eval", "paloma"], "why"]
    assert reasons.str.startswith("no number: ").all()
    assert table["value"].notna().sum() == 10  # evaluate and the Trainer have no room for 200 tokens


@pytest.mark.parametrize("size", [63, 64])
def test_llama_cpp_needs_two_windows(size):
    text = StringSource(["x" * (size - 1)])  # and the BOS
    options = ScoreOptions(context=32)
    if size == 64:
        assert score_protocol("llama.cpp", model(), text, options)[1].tokens_scored == 2 * 15
        return
    with pytest.raises(TextError, match=r"63 tokens, llama\.cpp needs at least 64 in windows of 32") as caught:
        score_protocol("llama.cpp", model(), text, options)
    assert (caught.value.id, caught.value.exit_code) == ("protocol.too_short", 4)
    assert caught.value.hint == "a smaller `context` needs fewer"


def test_llama_cpp_without_a_full_window():
    with pytest.raises(TextError, match=r"21 tokens, llama\.cpp needs at least 64 in windows of 32") as caught:
        score_protocol("llama.cpp", model(), StringSource(["x" * 20]), ScoreOptions(context=32))
    assert (caught.value.id, caught.value.exit_code) == ("protocol.too_short", 4)


@pytest.mark.parametrize("fits", [True, False])
def test_evaluate_refuses_what_does_not_fit_into_one_window(fits):
    text = StringSource(["ab", "x" * (63 if fits else 64)])
    if fits:
        assert score_protocol("evaluate", model(), text)[1].tokens_scored == 65
        return
    with pytest.raises(TextError, match=r"document 1 has 65 tokens, one window holds at most 64") as caught:
        score_protocol("evaluate", model(), text)
    assert (caught.value.id, caught.value.exit_code) == ("text.too_long", 4)
    assert score_protocol("evaluate", model(), text, ScoreOptions(context=64))[1].tokens_unscored == {
        "special": 2,
        "truncated": 1,
    }


def test_evaluate_runs_past_a_limit_that_is_none():
    soft = model(16, hard=False)
    soft._function = uniform_logits
    result = score_protocol("evaluate", soft, StringSource(["ab", "x" * 16, "y" * 15]))[1]
    assert result.notes == ["1 document longer than the model's 16 tokens, run past them"]
    assert result.tokens_scored == 33
    assert protocol_policy("evaluate", soft, ScoreOptions(context=20)).context == 19
    assert protocol_policy("paloma", soft, ScoreOptions(context=17)).context == 17


def test_windows_and_documents_of_a_tool():
    given = ScoreOptions(context=16, batch_size=3, max_unknown=0.4, keep_text=False, score_unknown=False)
    source, policy = prepare_protocol("paloma", model(), StringSource(["a", "b"]), given)
    assert policy == WindowPolicy(16, 16, 7, False, Layout.LAST_FULL)  # no unknown tokens: there are none
    assert [document.text for document in source.documents()] == ["a", "b"]
    source, _ = prepare_protocol("transformers", model(), StringSource(["a", "b"]), given)
    assert [document.text for document in source.documents()] == ["a\n\nb"]


def test_all_with_a_bos_of_their_own():
    """The options `bos` and `stride` change lossprobe's own row, but not the rows of tools that fix them."""
    texts = StringSource(["abcdefghij" * 4])
    never = score_all_protocols(model(), texts, ScoreOptions(bos="never", stride=8))[1].table
    auto = score_all_protocols(model(), texts, ScoreOptions(stride=8))[1].table
    assert never["value"][1:].equals(auto["value"][1:])
    assert never["value"][0] != auto["value"][0]
    assert never["value"].notna().sum() == 10  # 40 tokens: no two windows of 64, no full block
