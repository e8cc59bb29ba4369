"""Where chat templates are found, and rendering them in the child process."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest
from bundled import CHECKPOINT
from chats import FOLDER, SPECIAL, TOOL, said, template, told
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers.utils.chat_template_utils import render_jinja_template

from lossprobe.checkpoint.deferred import TokenizerFacts
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.templates.find import find_template, given_template
from lossprobe.checkpoint.templates.renderer import LIMITS, Renderer
from lossprobe.checkpoint.templates.template import ChatTemplate
from lossprobe.checkpoint.templates.worker import Worker, WorkerTemplate
from lossprobe.checkpoint.tokenizers.frames import Limits
from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer
from lossprobe.errors import BadTextError, CheckpointError
from lossprobe.passes.known_checkpoint import _tokenizer_facts
from lossprobe.report.chat_template import told_template
from lossprobe.text.examples import Conversation
from lossprobe.text.spans import Part, Span, choose_scored

NAMED = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
PLACES = {
    "none": {},
    "a string": {"tokenizer_config.json": {"chat_template": "s"}},
    "a list": {"tokenizer_config.json": {"chat_template": NAMED}},
    "a file": {"tokenizer_config.json": {"chat_template": "s"}, "chat_template.jinja": "f\r\nf"},
    "a file above a list": {"tokenizer_config.json": {"chat_template": NAMED}, "chat_template.jinja": "f"},
    "more files": {"chat_template.jinja": "f", "additional_chat_templates/tool_use.jinja": "a"},
    "a list without default": {"tokenizer_config.json": {"chat_template": NAMED[1:]}},
    "only more files": {
        "tokenizer_config.json": {"chat_template": "s"},
        "additional_chat_templates/tool_use.jinja": "a",
    },
}


def written(folder, files):
    """Write a tokenizer with some files beside it."""
    vocabulary = {"a": 0, "<unk>": 1, "<BOS>": 2, "<EOS>": 3}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<EOS>", "bos_token": "<BOS>"}
    for name, content in {"tokenizer_config.json": {}, **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        text = json.dumps(settings | content) if isinstance(content, dict) else content
        (folder / name).write_text(text, "utf-8", newline="")
    return folder


@pytest.mark.parametrize("place", PLACES)
def test_templates_are_found_where_transformers_finds_them(tmp_path, place):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(written(tmp_path, PLACES[place]))
    try:
        chosen = [theirs.get_chat_template(tools=tools) for tools in (None, [TOOL])]
    except ValueError as error:
        chosen = [str(error)]
    if "with no default specified" in chosen[0]:
        with pytest.raises(CheckpointError, match="none of them named default: tool_use"):
            find_template(tmp_path, SPECIAL)
        return
    found, files = find_template(tmp_path, SPECIAL)
    if found is None:
        assert "no template" in chosen[0]
        assert files == ()
        return
    assert [found.source, found.tool_source or found.source] == chosen
    assert all(file.is_file() for file in files)


def test_a_processor_s_template_counts_where_there_is_nothing_else(tmp_path):
    (tmp_path / "chat_template.json").write_text('{"chat_template": "p"}')
    assert find_template(tmp_path, {})[0].source == "p"
    assert given_template(tmp_path / "chat_template.json", {}).source == "p"
    assert given_template(tmp_path, {}).source == "p"


def test_special_tokens_are_those_that_transformers_gives_to_templates(tmp_path):
    from transformers import AutoTokenizer

    folder = written(tmp_path, {})
    tokenizer = open_tokenizer(folder)
    tokenizer.compare_with_auto_tokenizer()
    assert tokenizer.special_tokens == AutoTokenizer.from_pretrained(folder).special_tokens_map


@pytest.mark.parametrize(("content", "what"), [(b"\xff", "not UTF-8 at byte 0"), (b"a" * (1 << 21), "larger than")])
def test_a_file_that_is_no_template_is_refused(tmp_path, content, what):
    (tmp_path / "t.jinja").write_bytes(content)
    with pytest.raises(CheckpointError, match=what) as caught:
        given_template(tmp_path / "t.jinja", {})
    assert caught.value.id == "template.broken"


def test_a_checkpoint_opens_without_a_usable_template_and_says_so_when_it_is_needed(tmp_path):
    (tmp_path / "m").mkdir()
    for file in CHECKPOINT.iterdir():
        shutil.copy(file, tmp_path / "m")
    (tmp_path / "m" / "additional_chat_templates").mkdir()
    (tmp_path / "m" / "additional_chat_templates" / "rag.jinja").write_text("x")
    template = open_checkpoint(tmp_path / "m").tokenizer.chat_template
    with pytest.raises(CheckpointError, match="several chat templates, none of them named default: rag") as caught:
        Renderer(template, "m").render(Conversation(tuple(said("a"))), "w")
    assert caught.value.id == "template.missing"


def test_a_named_template_overrules_and_its_file_is_one_of_the_checkpoint_s(tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("mine")
    opened = open_checkpoint(CHECKPOINT, LoadOptions(chat_template=file))
    assert opened.tokenizer.chat_template.source == "mine"
    assert str(file) in opened.facts.files
    assert opened.tokenizer.chat_template.special_tokens["eos_token"]


def test_generation_blocks_decide_what_is_scored_by_default():
    answer = template("phi3_training").render(said("a", "b"), None)
    spans = [Span(stop, turn, role, Part(part), scored) for stop, turn, role, part, scored in answer["spans"]]
    for score in ("auto", "assistant"):
        assert choose_scored(spans, score, 0) == tuple(spans)
    assert all(span.scored for span in choose_scored(spans, "all", 0))
    assert [span.role for span in choose_scored(spans, "user", 0) if span.scored] == ["user", "user"]


def test_a_template_is_kept_with_the_facts_of_a_tokenizer(tmp_path):
    tokenizer = open_tokenizer(written(tmp_path, {}))
    tokenizer.chat_template = ChatTemplate("s", "o", "t", {"bos_token": "<s>"})
    facts = TokenizerFacts.of(tokenizer)
    assert _tokenizer_facts(json.loads(json.dumps(asdict(facts)))) == facts


@pytest.fixture(scope="module")
def chatml():
    made = Renderer(ChatTemplate((FOLDER / "qwen2_5.jinja").read_text("utf-8"), "qwen2_5.jinja", "", SPECIAL), "m")
    yield made
    made.close()


def renderer(source: str, limits: Limits = LIMITS) -> Renderer:
    return Renderer(ChatTemplate(source, "t.jinja", "", SPECIAL), "m", limits)


def test_a_conversation_is_rendered_with_byte_offsets(chatml):
    rendered = chatml.render(Conversation(({"role": "user", "content": "é", "name": None},)), "a.jsonl: line 1")
    data = rendered.text.encode()
    assert rendered.spans[-1].byte_stop == len(data)
    stops = [0, *(span.byte_stop for span in rendered.spans)]
    contents = [
        data[start:stop].decode()
        for start, stop, span in zip(stops, stops[1:], rendered.spans, strict=False)
        if span.part == "content"
    ]
    assert contents == ["é"]
    assert rendered.dated is False


def test_tools_take_the_template_for_tools():
    made = Renderer(ChatTemplate("plain {{ messages[0].content }}", "o", "tools {{ messages[0].content }}", {}), "m")
    messages = ({"role": "user", "content": "x"},)
    assert made.render(Conversation(messages), "w").text == "plain x"
    assert made.render(Conversation(messages, tools=(TOOL,)), "w").text == "tools x"
    made.close()


RAISING = (
    "{{ raise_exception('Roles must alternate') if messages|length == 2 else messages[0].content + messages[0].no }}"
)
REFUSALS = [
    (said("a", "b"), "template.refused", "Roles must alternate"),
    (said("a"), "template.broken", "UndefinedError: 'dict object' has no attribute 'no'"),
    (said("a", "b"), "template.refused", "Roles must alternate"),
]


def test_what_a_template_raises_is_one_line_with_the_record():
    made = renderer(RAISING)
    for messages, id, reason in REFUSALS:  # the child process goes on after an error
        with pytest.raises((BadTextError, CheckpointError)) as caught:
            made.render(Conversation(tuple(messages)), "a.jsonl: line 7")
        assert caught.value.id == id
        assert caught.value.message == f"a.jsonl: line 7: chat template of t.jinja: {reason}"
    made.close()


def test_a_text_that_is_no_template_is_named_with_its_line():
    opening = json.dumps({"source": "a\n{% if %}", "tool_source": "", "special_tokens": {}}).encode()
    answer = json.loads(Worker(opening).answer(json.dumps({"messages": said("a"), "tools": [], "values": {}}).encode()))
    assert answer["error"] == "broken"
    assert answer["reason"].startswith("line 2: ")


def test_an_empty_conversation_is_refused(chatml):
    with pytest.raises(BadTextError, match="line 3: a conversation without messages") as caught:
        chatml.render(Conversation(()), "a.jsonl: line 3")
    assert caught.value.id == "template.refused"


@pytest.mark.thorough
def test_a_template_without_end_is_stopped_and_named():
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}"
    made = renderer(endless + "{% endfor %}{% endfor %}", Limits(seconds=3.0))
    with pytest.raises(CheckpointError, match=r"line 1: chat template of t\.jinja ran longer than 3") as caught:
        made.render(Conversation(tuple(said("a"))), "a.jsonl: line 1")
    assert caught.value.id == "template.time"


def test_a_template_that_fills_memory_is_stopped_and_named():
    made = renderer("{{ 'x' * 9000000000 }}", Limits(memory=2 << 30))
    with pytest.raises(CheckpointError, match=r"t\.jinja exceeded 2 GiB") as caught:
        made.render(Conversation(tuple(said("a"))), "w")
    assert caught.value.id == "template.memory"


def test_the_date_is_always_the_same_and_told():
    made = WorkerTemplate("{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}", {})
    answer = made.render(said("a"), None)
    assert (answer["text"], answer["dated"]) == ("26 Jul 2024 a", True)


def test_a_template_gets_the_values_of_the_record_as_transformers_gives_them():
    """GLM's template writes /nothink after what the user says where thinking is turned off."""
    source = (FOLDER / "glm4moe.jinja").read_text("utf-8")
    messages = said("What?", "That.")
    made = Renderer(ChatTemplate(source, "t.jinja", "", SPECIAL), "m")
    found = {}
    for values in ({}, {"enable_thinking": False}, {"enable_thinking": True}, {"bos_token": "never"}):
        rendered = made.render(Conversation(tuple(messages), template_values=values), "w")
        texts, _ = render_jinja_template([messages], chat_template=source, **values | SPECIAL)
        assert rendered.text == texts[0]
        found[str(values)] = rendered.text
    assert [("/nothink" in text) for text in found.values()] == [False, True, False, False]
    made.close()


def test_what_a_value_adds_to_the_prompt_belongs_to_the_header():
    """As in TRL, where a completion begins after the prompt with what the template adds to it for generation."""
    source = (FOLDER / "qwen3.jinja").read_text("utf-8")
    messages = said("What?", "That.")
    lines = told(WorkerTemplate(source, SPECIAL, {"enable_thinking": False}).render(messages, None))
    header = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    prompt, _ = render_jinja_template(
        [messages[:1]], chat_template=source, add_generation_prompt=True, enable_thinking=False, **SPECIAL
    )
    assert prompt[0].endswith(header)
    assert lines[4:6] == [f"1 assistant header {header!r}", "1 assistant content 'That.'"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('Only with tools') }}", "Only with tools"),
        ("{{ messages[0].name + messages[0].content }}", "UndefinedError: 'dict object' has no attribute 'name'"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", None),
    ],
)
def test_a_template_that_fails_at_once_is_told_so(source, reason):
    found = WorkerTemplate(source, {}).behaviour()
    assert found["fault"] == reason
    about = {"origin": "t.jinja", "for_tools": False, **found}
    assert (f"fails on a question with its answer: {reason}" in told_template(about)) == (reason is not None)


def test_what_a_template_does_is_told(chatml):
    about = chatml.behaviour()
    assert (about.generation_markers, about.bos, about.prefix_preserving) == (False, False, True)
    assert (about.strips_space, about.takes_system, about.own_system) == (False, True, True)
    other = template("qwen3").behaviour()
    assert (other["prefix_preserving"], other["keeps_thinking"], other["dated"]) == (False, "last", False)
