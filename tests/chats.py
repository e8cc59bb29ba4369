"""Conversations and published chat templates for tests, and the parts that are expected of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lossprobe.checkpoint.templates.worker import WorkerTemplate

FOLDER = Path(__file__).parent / "chat_templates"
SPANS = Path(__file__).parent / "chat_spans"
SPECIAL = {"bos_token": "<BOS>", "eos_token": "<EOS>"}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {
    "type": "object", "properties": {"a": {"type": "number", "description": "x"}}, "required": ["a"],
}}}  # fmt: skip


def call(arguments: Any) -> dict[str, Any]:
    return {"type": "function", "id": "abcdefghi", "function": {"name": "add", "arguments": arguments}}


def said(*contents: str) -> list[dict[str, Any]]:
    """Return a conversation in which user and assistant say these words in turn."""
    return [{"role": ("user", "assistant")[index % 2], "content": each} for index, each in enumerate(contents)]


CASES: dict[str, list[dict[str, Any]]] = {
    "plain": [
        {"role": "system", "content": "Be short."},
        *said(" Hi <|im_end|> thére ", " Hello\n<|eot_id|>. ", "Bye\n", "So long."),
    ],
    "thinking": [
        *said("Question", "<think>\nReason one.\n</think>\n\nAnswer one", "More", "Answer two"),
    ],
    "tools": [
        {"role": "system", "content": "Sys"},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "", "tool_calls": [call({"a": 2})]},
        {"role": "tool", "name": "add", "tool_call_id": "abcdefghi", "content": '4 "x"'},
        {"role": "assistant", "content": "Four."},
    ],
    "empty": said("a", "", "b", "c"),
    "two": said("One?", "One.", "Two?", "Two."),
}
CASES["thinking"][3]["reasoning_content"] = "Reason two."
NO_TOOLS = ("cohere", "gemma3", "phi3")
FAMILIES = ("qwen2_5", "llama3_1", "gemma3", "qwen3", "mistral", "deepseekv3", "cohere", "phi3", "gptoss", "glm4moe")


def messages_of(family: str, case: str) -> list[dict[str, Any]]:
    """Return the messages of a case in the form that a family's template takes."""
    messages = CASES[case]
    if family == "deepseekv3" and case == "tools":  # this template takes arguments as a string
        return [{**each, "tool_calls": [call('{"a": 2}')]} if "tool_calls" in each else each for each in messages]
    return messages


def template(name: str) -> WorkerTemplate:
    return WorkerTemplate((FOLDER / f"{name}.jinja").read_text("utf-8"), SPECIAL)


def told(answer: dict[str, Any]) -> list[str]:
    """Return the spans of a rendered conversation, one line each; long ones are cut in the middle."""
    data, start, lines = answer["text"].encode(), 0, []
    for stop, turn, role, part, scored in answer["spans"]:
        text = data[start:stop].decode()
        shown = repr(text) if len(text) <= 100 else f"{text[:40]!r} … {text[-40:]!r} ({len(text)})"
        lines.append(f"{'-' if turn is None else turn} {role or '-'} {part}{'' if scored else ' unscored'} {shown}")
        start = stop
    assert start == len(data)
    return lines


def expected(family: str) -> dict[str, list[str]]:
    """Return the expected lines of each case of a family."""
    cases: dict[str, list[str]] = {}
    for line in (SPANS / f"{family}.txt").read_text("utf-8").splitlines():
        if line.startswith("# "):
            cases[line[2:]] = []
        elif line:
            cases[list(cases)[-1]].append(line)
    return cases
