"""Encodings that UTF-8 is often read as by mistake: what such text looks like, and how the reading is undone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

# Name for people, and Python's. Of two that explain the same text the first is told.
READ_AS = {
    "Windows-1252": "cp1252", "Latin-1": "latin-1", "Mac Roman": "mac_roman", "Windows-1251": "cp1251",
    "code page 437": "cp437", "code page 850": "cp850", "code page 866": "cp866", "Windows-1250": "cp1250",
    "ISO 8859-2": "iso8859-2", "Windows-1254": "cp1254", "Windows-1253": "cp1253", "KOI8-R": "koi8-r",
}  # fmt: skip
# The bytes of one character of UTF-8 beyond ASCII: Table 3-7 of the Unicode Standard, as ranges of bytes.
WELL_FORMED = (
    ((0xC2, 0xDF), (0x80, 0xBF)),
    ((0xE0, 0xE0), (0xA0, 0xBF), (0x80, 0xBF)),
    ((0xE1, 0xEC), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xED, 0xED), (0x80, 0x9F), (0x80, 0xBF)),
    ((0xEE, 0xEF), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xF0, 0xF0), (0x90, 0xBF), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xF1, 0xF3), (0x80, 0xBF), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xF4, 0xF4), (0x80, 0x8F), (0x80, 0xBF), (0x80, 0xBF)),
)


@dataclass(frozen=True)
class WrongReading:
    """UTF-8 that was read as another encoding.

    Attributes:
        name: of the encoding that it was read as.
        letters: the character of each byte from 0x80 to 0xFF, as the encoding reads it.
        units: pattern of whole characters of UTF-8 read so, one or more.
        cut: pattern of one whose last byte was lost, with U+FFFD where that stands for it, since the encoding has no
            character for it; None if all have one.
    """

    name: str
    letters: str
    units: re.Pattern[str]
    cut: re.Pattern[str] | None

    def bytes_of(self, text: str) -> bytes:
        """Return the bytes that were read as this text."""
        return bytes(0x80 + self.letters.index(letter) for letter in text)

    def undone(self, text: str) -> str:
        r"""Return what was meant by a text that `units` matches.

        >>> wrong_reading("Windows-1252").undone("â€œ")
        '“'
        """
        return self.bytes_of(text).decode("utf-8")


@cache
def wrong_reading(name: str) -> WrongReading:
    """Return how UTF-8 looks that was read as an encoding of `READ_AS`."""
    found = [_letter(byte, READ_AS[name]) for byte in range(0x80, 0x100)]
    # Programs give bytes that stand for nothing the control character of the same number.
    letters = "".join(letter or chr(byte) for byte, letter in enumerate(found, start=0x80))
    forms = ("".join(f"[{_escaped(letters[low - 0x80 : high - 0x7F])}]" for low, high in form) for form in WELL_FORMED)
    lost = not all(found[:0x40])
    general = re.escape(letters[0x62] + letters[0x00])  # E2 80: dashes, quotes, dots
    cut = re.compile(f"{general}(?![{_escaped(letters[:0x40])}])\ufffd?") if lost else None
    return WrongReading(name, letters, re.compile(f"(?:{'|'.join(forms)})+"), cut)


def _letter(byte: int, encoding: str) -> str | None:
    try:
        return bytes([byte]).decode(encoding)
    except UnicodeDecodeError:
        return None


def _escaped(letters: str) -> str:
    return "".join(map(re.escape, letters))
