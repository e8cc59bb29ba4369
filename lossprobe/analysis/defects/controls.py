"""Characters that nobody sees: control characters, byte-order marks, invisible marks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.spans import TextSpans

NAME = "control-characters"
ANSI = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
LOW = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+")
# C1 controls, soft hyphen, zero width space, line and paragraph separator, bidirectional marks, word joiner, byte-order
# mark, noncharacters. The joiners U+200C and U+200D belong to Persian, Indian scripts and emoji.
HIDDEN = re.compile(
    "[\u0080-\u009f]+|\u00ad+|\u200b+|[\u200e\u200f]+|[\u2028\u2029]+|[\u202a-\u202e\u2066-\u2069]+|\u2060+|\ufeff+"
    "|[\ufdd0-\ufdef\ufffe\uffff]+"
)
NAMES = {
    0x00: "NUL", 0x08: "backspace", 0x0B: "vertical tab", 0x0C: "form feed", 0x1B: "escape", 0x7F: "DEL",
    0xAD: "soft hyphen", 0x200B: "zero width space", 0x2028: "line separator", 0x2029: "paragraph separator",
    0x2060: "word joiner", 0xFEFF: "byte-order mark",
}  # fmt: skip
DIRECTIONS = range(0x200E, 0x206A)
RIGHT_TO_LEFT = ("R", "AL")


def find_controls(page: TextPage) -> Iterator[Found]:
    """Yield every run of the same kind of invisible characters."""
    escapes = [match.span() for match in ANSI.finditer(page.data)]
    coloured = TextSpans(escapes)
    for start, stop in escapes:
        yield Found(NAME, start, stop, "colours of a terminal")
    for match in LOW.finditer(page.data):
        if not coloured.touches(*match.span()):
            yield Found(NAME, *match.span(), _name(match[0][0]))
    if page.is_ascii:
        return
    leftwards = None
    for hidden in HIDDEN.finditer(page.text):
        code = ord(hidden[0][0])
        if code in DIRECTIONS and code not in NAMES:
            if leftwards is None:
                leftwards = any(unicodedata.bidirectional(letter) in RIGHT_TO_LEFT for letter in page.text
                                if letter > "\u0590" and not HIDDEN.match(letter))  # fmt: skip
            if leftwards:  # where they are needed
                continue
        yield Found(NAME, page.byte_place(hidden.start()), page.byte_place(hidden.end()), _name(code))


def _name(code: int) -> str:
    if code in NAMES:
        return NAMES[code]
    if code in DIRECTIONS:
        return "mark of direction"
    return (
        "control characters of Latin-1"
        if 0x80 <= code < 0xA0
        else "control characters"
        if code < 0x20
        else "no character"
    )
