"""Strings that belong to a chat template or a tokenizer, and stand in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.spans import TextSpans

NAME = "template-string"
SPECIAL = re.compile(
    rb"<\|[A-Za-z0-9_]{2,40}\|>|<\xef\xbd\x9c.{2,60}?\xef\xbd\x9c>"
    rb"|\[/?INST\]|<</?SYS>>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\]"
    rb"|(?<![^A-Za-z][BCEFILSXZ])<s>|</s>|<(?:bos|eos|pad|unk|mask|sep|cls)>|\[(?:PAD|UNK|CLS|SEP|MASK|BOS|EOS|gMASK|sMASK)\]"
    rb"|<(?:start|end)_of_(?:turn|image|text)>|<(?:PAD|UNK|BOS|EOS)>|<(?:fim|repo)_[a-z]{3,10}>|<extra_id_[0-9]{1,3}>"
    rb"|<unused[0-9]{1,4}>|</?tool_(?:call|response)>|</?think>|<[se]op>",
    re.DOTALL,
)
HEADING = re.compile(
    rb"^[ \t]*#{2,4} ?(?:Instruction|Response|Input|Human|Assistant|User|System|Prompt|Output)s?:", re.MULTILINE
)
SPEAKER = re.compile(rb"^(?:USER|ASSISTANT|SYSTEM|User|Human|Assistant):(?=\s)", re.MULTILINE)
# What other texts have, too: told where a template's own headings and speakers stand beside it.
COMMON = re.compile(rb"\W*(?:Input|Output|User|System|Prompt)s?:", re.IGNORECASE)
# Of the names in braces only those that templates of prompts have: other texts write {{links}} so.
FILLED = rb"(?:prompt|instructions?|inputs?|outputs?|questions?|answers?|responses?|messages?|content|context|query"
FILLED += rb"|completion|user\w*|system\w*|assistant\w*|bos_token|eos_token|loop)"
PLACEHOLDER = re.compile(
    rb"\{\{-?\s{0,3}" + FILLED + rb"\b[^{}\n]{0,60}\}\}|\{%-?\s{0,3}(?:if|for|set|end\w+|else)\b[^%\n]{0,80}-?%\}"
)
HTML_PAIR = re.compile(rb"<s>[^<>]{1,200}</s>")  # struck out
KINDS = (
    (SPECIAL, "special token"), (HEADING, "heading of a prompt"), (SPEAKER, "speaker of a prompt"),
    (PLACEHOLDER, "template that was not filled in"),
)  # fmt: skip
MARKS = re.compile(rb"<\||<\xef\xbd\x9c|\[/?[gs]?[A-Z_]{3,16}\]|<<|</?[a-zA-Z_0-9]{1,13}>|##|:\s|\{\{|\{%")
FEWEST_SPEAKERS = 2  # of both sides: one word before a colon is no dialogue of a template


def find_template_strings(page: TextPage) -> Iterator[Found]:
    """Yield every string of a template that the text holds; those that a chat template wrote itself are none."""
    data = page.data
    if MARKS.search(data) is None:
        return
    struck = [match.span() for match in HTML_PAIR.finditer(data)] if b"<br" in data or b"<p>" in data else []
    meant = TextSpans([*struck, *page.template])
    for pattern, detail in KINDS:
        spans = [match.span() for match in pattern.finditer(data)]
        if pattern in (HEADING, SPEAKER) and all(COMMON.match(data, *span) for span in spans):
            continue
        if pattern is SPEAKER and len({data[start:stop].lower() for start, stop in spans}) < FEWEST_SPEAKERS:
            continue
        for start, stop in spans:
            if not meant.holds(start, stop):
                yield Found(NAME, start, stop, detail)
