"""Characters that were decoded wrongly, proved by undoing it: the bytes of the wrong characters are UTF-8 again."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ftfy.badness import is_bad

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.encodings import READ_AS, WrongReading, wrong_reading
from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.spans import TextSpans

NAME = "mojibake"
BEYOND = re.compile(r"[^\x00-\x7f]+")
LOST = re.compile("\ufffd+")
GBK = re.compile("(?:锟斤拷|锟斤)+")  # U+FFFD twice, EF BF BD EF BF BD, read as GBK
# Words of letters that Latin-1 has with accents only: Cyrillic in one byte a letter, read as Western.
ACCENTED = re.compile(r"(?<![^\W\d_])[\u00c0-\u00ff]{4,}(?![^\W\d_])")
CYRILLIC = re.compile(r"[А-ЯЁ]?[а-яё]{3,}")
VOWELS = frozenset("аеёиоуыэюя")
SHORT = 64  # characters of a run whose parts are kept
SIGNS = frozenset("‐‑–—‘’‚“”„†‡•…‰‹›€™")
LATIN = frozenset(chr(code) for code in range(0xC0, 0x180) if chr(code).isalpha())
FEWEST_WORDS = 2  # of Cyrillic read as Western: a single one may be a name
FEWEST_UNITS = 3  # characters in a row that are UTF-8 again need no other evidence


def find_mojibake(page: TextPage) -> Iterator[Found]:
    """Yield every run of characters that a wrong decoding made, in order."""
    if page.is_ascii:
        return
    text = page.text
    runs = [_Run(match.start(), match[0], _sides(text, *match.span())) for match in BEYOND.finditer(text)]
    cyrillic = _western_cyrillic(page)
    taken = TextSpans((place.start, place.stop) for place in cyrillic)
    readings = Counter(wrong.reading for run in runs for wrong in _wrong_parts(run, "") if wrong.reading)
    leader = max(readings, key=lambda name: (readings[name], -list(READ_AS).index(name)), default="")
    yield from cyrillic
    for run in runs:
        for wrong in _wrong_parts(run, leader):
            found = _found(page, run.at + wrong.start, run.at + wrong.stop, wrong.detail, wrong.meant)
            if not taken.touches(found.start, found.stop):
                yield found


def _found(page: TextPage, start: int, stop: int, detail: str, meant: str) -> Found:
    return Found(NAME, page.byte_place(start), page.byte_place(stop), detail, meant)


class _Wrong(NamedTuple):
    """A part of a run of characters: its first and last one, what happened, what was meant, and what it was read as."""

    start: int
    stop: int
    detail: str
    meant: str
    reading: str


class _Run(NamedTuple):
    """A run of characters beyond ASCII: where it begins, the characters, and what stands before and after it."""

    at: int
    text: str
    sides: tuple[str, str]


def _sides(text: str, start: int, stop: int) -> tuple[str, str]:
    """Return "a" for a small ASCII letter, "A" for a capital and "" for anything else, before and after a run."""
    return tuple(  # type: ignore[return-value]
        "" if not letter.isalpha() else "a" if letter.islower() else "A"
        for letter in (text[start - 1 : start], text[stop : stop + 1])
    )


def _wrong_parts(run: _Run, leader: str) -> tuple[_Wrong, ...]:
    """Return the wrong parts of a run; short runs come often, and are worked out once."""
    return (_kept_parts if len(run.text) <= SHORT else _parts)(run.text, run.sides, leader)


@lru_cache(1 << 16)
def _kept_parts(run: str, sides: tuple[str, str], leader: str) -> tuple[_Wrong, ...]:
    return _parts(run, sides, leader)


def _parts(run: str, sides: tuple[str, str], leader: str) -> tuple[_Wrong, ...]:
    """Return the wrong parts of a run beyond ASCII, in order.

    Args:
        run: characters beyond ASCII.
        sides: what stands before and after them, see `_sides`.
        leader: the encoding that the document was most often read as: it needs less evidence; "" for none.
    """
    found = []
    for reading in map(wrong_reading, READ_AS):
        told = f"UTF-8 read as {reading.name}"
        for match in reading.units.finditer(run):
            beside = (sides[0] if match.start() == 0 else "", sides[1] if match.end() == len(run) else "")
            whole = len(match[0]) == len(run)
            for meant, again in _meant(reading, match[0], beside, whole=whole, leads=reading.name == leader):
                found.append(_Wrong(match.start(), match.end(), told + again, meant, reading.name))
        if reading.cut is not None:
            found += [_Wrong(match.start(), match.end(), f"{told}, a byte lost", "", reading.name)
                      for match in reading.cut.finditer(run)]  # fmt: skip
    for pattern, told in ((GBK, "U+FFFD in UTF-8 read as GBK"), (LOST, "bytes lost (U+FFFD)")):
        found += [_Wrong(match.start(), match.end(), told, "", "") for match in pattern.finditer(run)]
    chosen, taken = [], TextSpans()
    for wrong in sorted(found, key=lambda wrong: (wrong.start - wrong.stop, wrong.reading != leader)):
        if not taken.touches(wrong.start, wrong.stop):
            taken.add(wrong.start, wrong.stop)
            chosen.append(wrong)
    return tuple(sorted(chosen))


def _meant(
    reading: WrongReading, wrong: str, beside: tuple[str, str], *, whole: bool, leads: bool
) -> Iterator[tuple[str, str]]:
    """Yield what was meant by wrong characters, and ", twice" where it was done twice; nothing where it is chance."""
    try:
        meant = reading.undone(wrong)
    except UnicodeDecodeError:
        return
    long = (whole and len(meant) >= FEWEST_UNITS) or (leads and len(wrong) > 2 * len(meant))
    if not all(map(_is_written, meant)) or not (long or _is_odd(wrong, meant, beside)):
        return
    again = reading.units.fullmatch(meant) if not meant.isascii() else None
    if again is not None and is_bad(meant):
        yield reading.undone(meant), ", twice"
    else:
        yield meant, ""


def _is_odd(wrong: str, meant: str, beside: tuple[str, str]) -> bool:
    """Return whether no writer puts these characters side by side.

    That is so by the rules of ftfy; where three of them stand for one dash, quote or sign; and where they are a letter
    of Latin script inside a Latin word, and begin with a capital after a small letter or are of another script.
    """
    if is_bad(wrong) or any(letter in SIGNS for letter in meant):
        return True
    if not all(letter in LATIN for letter in meant):
        return False
    foreign = any(_is_foreign(letter) for letter in wrong)
    return (foreign and any(beside)) or (beside[0] == "a" and meant.islower() and not wrong[0].islower())


def _is_foreign(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(("CYRILLIC", "GREEK", "BOX DRAWINGS"))


def _is_written(letter: str) -> bool:
    """Return whether a character stands in texts: one that is assigned, and no control character."""
    return unicodedata.category(letter) not in ("Cn", "Cc", "Co", "Cs")


def _western_cyrillic(page: TextPage) -> list[Found]:
    """Return the words of Cyrillic letters of one byte that were read as Windows-1252."""
    matches = list(ACCENTED.finditer(page.text))
    for name, encoding in (("Windows-1251", "cp1251"), ("KOI8-R", "koi8-r")):
        words = [(match, match[0].encode("latin-1").decode(encoding)) for match in matches]
        words = [(match, word) for match, word in words if _is_cyrillic(word)]
        if len(words) >= FEWEST_WORDS:
            return [_found(page, *match.span(), f"{name} read as Windows-1252", word) for match, word in words]
    return []


def _is_cyrillic(word: str) -> bool:
    """Return whether a word looks like Russian: small letters, vowels among them, not in the order of a table."""
    return bool(CYRILLIC.fullmatch(word)) and len(VOWELS & set(word)) > 0 and list(word) != sorted(word)
