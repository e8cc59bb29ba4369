"""The parts of rendered conversations, against tables and against other ways to find them."""

from __future__ import annotations

import random
import re

import pytest
from chats import CASES, FAMILIES, NO_TOOLS, SPECIAL, TOOL, expected, messages_of, said, template, told

from lossprobe.checkpoint.templates.worker import Refused, WorkerTemplate

MADE = {}


def made(name: str) -> WorkerTemplate:
    MADE.setdefault(name, template(name))
    return MADE[name]


def parts(answer) -> list[tuple[str | None, str, str]]:
    """Return (role, part, text) of each span."""
    data, start, found = answer["text"].encode(), 0, []
    for stop, _, role, part, _ in answer["spans"]:
        found.append((role, str(part), data[start:stop].decode()))
        start = stop
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_published_templates(family):
    """The tables in chat_spans were checked by eye against the templates."""
    cases = expected(family)
    assert cases.keys() == {"plain", "thinking", "tools", "empty"} - ({"tools"} if family in NO_TOOLS else set())
    for case, lines in cases.items():
        answer = made(family).render(messages_of(family, case), [TOOL] if case == "tools" else None)
        assert told(answer) == lines, case


# What the assistant writes in an answer, found by the names of each family's control tokens.
ANSWERS = {
    "qwen2_5": r"assistant\n(.*?<\|im_end\|>)",
    "llama3_1": r"assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
    "gemma3": r"<start_of_turn>model\n(.*?<end_of_turn>)",
    "qwen3": r"assistant\n(.*?<\|im_end\|>)",
    "mistral": r"\[/INST\] (.*?<EOS>)",
    "deepseekv3": r"<｜Assistant｜>(.*?<｜end▁of▁sentence｜>)",
    "cohere": r"<\|CHATBOT_TOKEN\|>(.*?<\|END_OF_TURN_TOKEN\|>)",
    "phi3": r"<\|assistant\|>\n(.*?<\|end\|>)",
    "gptoss": r"<\|start\|>assistant<\|channel\|>final<\|message\|>(.*?<\|(?:end|return)\|>)",
    "glm4moe": r"<\|assistant\|>(.*?)(?=<\||\Z)",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_that_control_tokens_show(family):
    answer = made(family).render(CASES["two"], None)
    written: list[str] = [""]
    for role, part, text in parts(answer):
        if role == "assistant" and part != "header":
            written[-1] += text
        elif written[-1]:
            written.append("")
    assert [text for text in written if text] == re.findall(ANSWERS[family], answer["text"], re.DOTALL)


TRAINING = ("llama3_training", "phi3_training", "qwen3_training", "glm4moe_training", "gemma3_training")


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("case", ["plain", "thinking", "two"])
def test_generation_blocks_of_others_mark_the_same(name, case):
    """Blocks that TRL's authors put into templates agree with what is derived without them.

    They may go on over the white space after an answer, and over an EOS that ends the conversation.
    """
    answer = made(name).render(CASES[case], None)
    data, start = answer["text"].encode(), 0
    for stop, turn, role, part, scored in answer["spans"]:
        text = data[start:stop].decode()
        start = stop
        assert scored == (role == "assistant" and part != "header"), (turn, part, text)
        if scored and part == "template":
            assert text.strip() in ("", SPECIAL["eos_token"])


def test_contents_come_back_whatever_they_hold():
    chosen = random.Random(16)
    bits = ["a", " ", "\n", "<|im_end|>", "<|eot_id|>", "[INST]", "é", "{{ x }}", "assistant", "</s>", "\t"]
    for _ in range(30):
        contents = ["".join(chosen.choices(bits, k=chosen.randrange(6))) + "b" for _ in range(chosen.choice([2, 4, 6]))]
        for family, strip in (("qwen2_5", False), ("llama3_1", True), ("gptoss", False), ("cohere", True)):
            found = parts(made(family).render(said(*contents), None))
            assert "".join(text for *_, text in found)
            kept = [text for _, part, text in found if part == "content"]
            assert kept == [content.strip() if strip else content for content in contents], (family, contents)


def test_a_long_conversation_takes_time_in_proportion():
    calls = 0
    made_anew = template("phi3")
    render = made_anew._render

    def counted(messages, prompt):
        nonlocal calls
        calls += 1
        return render(messages, prompt)

    made_anew._render = counted
    answer = made_anew.render(said(*["word"] * 400), None)
    assert len([part for _, part, _ in parts(answer) if part == "content"]) == 400
    assert calls < 100


BROKEN = {
    "twice": ("{{ m.role }}:{{ m.content }}|{{ m.content }}\n", "turn 0: the template writes its words 2 times"),
    "by length": (
        "{{ m.role }}({{ m.content|length }}):{{ m.content }}\n",
        "turn 0: the template writes other words around it when its own change",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_certain_is_refused_with_the_turn(case):
    body, reason = BROKEN[case]
    with pytest.raises(Refused) as caught:
        WorkerTemplate(f"{{% for m in messages %}}{body}{{% endfor %}}", SPECIAL).render(said("a b", "c d"), None)
    assert (caught.value.id, str(caught.value)) == ("not_certain", reason)


def test_an_answer_that_ends_otherwise_when_more_follows_is_refused():
    source = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{{ 'END' if loop.last else (loop.index|string) * 2 }}{% endfor %}{{ 'assistant:' if add_generation_prompt }}"
    )
    with pytest.raises(Refused, match="turn 1: the template ends this answer in another way when more follows"):
        WorkerTemplate(source, SPECIAL).render(said("a", "b", "c", "d"), None)


def test_a_generation_block_around_a_question_is_refused():
    source = "{% for m in messages %}{{ m.role }}:{% generation %}{{ m.content }}.{% endgeneration %}{% endfor %}"
    with pytest.raises(Refused, match="turn 0: a generation block holds words of user"):
        WorkerTemplate(source, SPECIAL).render(said("a", "b"), None)


def test_earlier_thinking_that_is_left_out_is_named():
    answer = made("qwen3").render(CASES["thinking"], None)
    assert (answer["dropped"], answer["changed"]) == ((1,), 1)
    assert made("qwen2_5").render(CASES["two"], None)["changed"] == 0


def test_private_use_characters_in_a_text_are_no_marks():
    contents = ("\ue100\ue140\ue101\ue102", "\ue13f x")
    found = parts(made("qwen2_5").render(said(*contents), None))
    assert [text for _, part, text in found if part == "content"] == list(contents)
    with pytest.raises(Refused, match="private-use characters of every block"):
        made("qwen2_5").render(said("\ue100 \uf200 \U0010f000", "b"), None)


def test_a_list_of_texts_is_found_piece_by_piece():
    content = [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Three"}]
    found = parts(made("gemma3").render(messages, None))
    assert ("user", "content", "OneTwo") in found


def test_a_tool_response_in_the_words_of_a_user_keeps_the_template_in_its_branch():
    messages = [*said("Add", "Let me.", "<tool_response>\n4\n</tool_response>", "Four.")]
    found = parts(made("qwen3").render(messages, None))
    assert ("user", "content", "4") in found
