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
# Letters of scripts that write no blanks, between which zero width spaces say where words end.
UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1a20-\u1aad]")
UTF16 = re.compile(rb"(?:[\t\n\r -~]\x00){4,}|(?:\x00[\t\n\r -~]){4,}")
NAMES = {
    0x00: "NUL", 0x08: "backspace", 0x0B: "vertical tab", 0x0C: "form feed", 0x1B: "escape", 0x7F: "DEL",
    0xAD: "soft hyphen", 0x200B: "zero width space", 0x2028: "line separator", 0x2029: "paragraph separator",
    0x2060: "word joiner", 0xFEFF: "byte-order mark",
}  # fmt: skip
ZERO_WIDTH = 0x200B
DIRECTIONS = range(0x200E, 0x206A)
RIGHT_TO_LEFT = ("R", "AL")


def find_controls(page: TextPage) -> Iterator[Found]:
    """Yield every run of the same kind of invisible characters."""
    told = TextSpans()
    for match in ANSI.finditer(page.data):
        told.add(*match.span())
        yield Found(NAME, *match.span(), "colours of a terminal")
    for match in UTF16.finditer(page.data) if b"\x00" in page.data else ():
        told.add(*match.span())
        yield _wide(*match.span(), page.data)
    for match in LOW.finditer(page.data):
        if not told.touches(*match.span()):
            yield Found(NAME, *match.span(), _name(match[0][0]))
    if page.is_ascii:
        return
    yield from _invisible(page)


def _invisible(page: TextPage) -> Iterator[Found]:
    """Yield every run of characters beyond ASCII that nobody sees, but for those that their script needs."""
    leftwards = None
    for hidden in HIDDEN.finditer(page.text):
        code = ord(hidden[0][0])
        if code in DIRECTIONS and code not in NAMES:
            if leftwards is None:
                leftwards = any(unicodedata.bidirectional(letter) in RIGHT_TO_LEFT for letter in page.text
                                if letter > "\u0590" and not HIDDEN.match(letter))  # fmt: skip
            if leftwards:
                continue
        if code == ZERO_WIDTH and any(map(UNSPACED.match, _beside(page.text, *hidden.span()))):
            continue
        yield Found(NAME, page.byte_place(hidden.start()), page.byte_place(hidden.end()), _name(code))


def _wide(start: int, stop: int, data: bytes) -> Found:
    """Return the place of text in UTF-16 that was read as one byte a letter; the NULs alone count."""
    spans = tuple((at, at + 1) for at in range(start, stop) if data[at] == 0)
    return Found(NAME, start, stop, "NUL beside every letter, as in UTF-16", spans=spans)


def _beside(text: str, start: int, stop: int) -> tuple[str, str]:
    """Return the characters before and after a part of a text, "" at its ends."""
    return text[start - 1 : start] if start else "", text[stop : stop + 1]


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
