"""Whether characters that an undone decoding gives are what somebody wrote: common ones, of one script."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import cache

# First and last characters of the blocks that texts of today are written in, with the script of their letters; "" for
# signs that stand beside any script. What is in no block is so rare that chance makes it more often than writers do.
_BLOCKS = (
    (0x00A0, 0x017F, "Latin"), (0x0192, 0x0192, "Latin"), (0x01A0, 0x01A1, "Latin"), (0x01AF, 0x01B0, "Latin"),
    (0x01CD, 0x01DC, "Latin"), (0x0218, 0x021B, "Latin"), (0x0259, 0x0259, "Latin"), (0x02B9, 0x02DD, ""),
    (0x0300, 0x036F, ""), (0x0370, 0x03FF, "Greek"), (0x0400, 0x045F, "Cyrillic"), (0x0490, 0x04BB, "Cyrillic"),
    (0x04D8, 0x04D9, "Cyrillic"), (0x04E8, 0x04E9, "Cyrillic"), (0x0531, 0x058F, "Armenian"),
    (0x0591, 0x05F4, "Hebrew"), (0x0600, 0x06FF, "Arabic"), (0x0900, 0x097F, "Devanagari"),
    (0x0980, 0x09FF, "Bengali"), (0x0A00, 0x0A7F, "Gurmukhi"), (0x0A80, 0x0AFF, "Gujarati"),
    (0x0B00, 0x0B7F, "Oriya"), (0x0B80, 0x0BFF, "Tamil"), (0x0C00, 0x0C7F, "Telugu"), (0x0C80, 0x0CFF, "Kannada"),
    (0x0D00, 0x0D7F, "Malayalam"), (0x0D80, 0x0DFF, "Sinhala"), (0x0E00, 0x0E7F, "Thai"), (0x0E80, 0x0EFF, "Lao"),
    (0x0F00, 0x0FFF, "Tibetan"), (0x1000, 0x109F, "Myanmar"), (0x10A0, 0x10FF, "Georgian"),
    (0x1200, 0x137F, "Ethiopic"), (0x1780, 0x17FF, "Khmer"), (0x1E00, 0x1EFF, "Latin"), (0x1F00, 0x1FFF, "Greek"),
    (0x2000, 0x27FF, ""), (0x2900, 0x2AFF, ""), (0x2B05, 0x2B55, ""), (0x3000, 0x303F, ""),
    (0x3040, 0x312F, "East Asian"),
    (0x3130, 0x318F, "East Asian"), (0x3200, 0x33FF, ""), (0x4E00, 0x9FFF, "East Asian"),
    (0xAC00, 0xD7A3, "East Asian"), (0xFB00, 0xFB06, "Latin"), (0xFE00, 0xFE6F, ""), (0xFEFF, 0xFEFF, ""),
    (0xFF00, 0xFF60, ""), (0xFF61, 0xFFDC, "East Asian"), (0xFFE0, 0xFFE6, ""), (0xFFFD, 0xFFFD, ""),
    (0x1D400, 0x1D7FF, ""), (0x1F000, 0x1FAFF, ""),
)  # fmt: skip
_FIRSTS = [first for first, _, _ in _BLOCKS]
_NOT_WRITTEN = ("Cn", "Cc", "Co", "Cs")  # unassigned, control characters, private use, half of a character


def scripts_of(text: str) -> frozenset[str] | None:
    """Return the scripts of the letters of a text, or None where a character stands in no text of today.

    >>> scripts_of("né"), scripts_of("…"), scripts_of("ȇ") is None
    (frozenset({'Latin'}), frozenset(), True)
    """
    scripts = set()
    for letter in text:
        script = _script(letter)
        if script is None:
            return None
        scripts.add(script)
    return frozenset(scripts - {""})


@cache
def _script(letter: str) -> str | None:
    if letter.isascii():
        return "Latin" if letter.isalpha() else ""
    at = bisect_right(_FIRSTS, ord(letter)) - 1
    category = unicodedata.category(letter)
    if at < 0 or ord(letter) > _BLOCKS[at][1] or category in _NOT_WRITTEN:
        return None
    return _BLOCKS[at][2] if category[0] in "LM" else ""
