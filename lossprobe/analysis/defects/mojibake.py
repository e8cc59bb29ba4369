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
from lossprobe.analysis.defects.double_bytes import double_bytes
from lossprobe.analysis.defects.encodings import READ_AS, WrongReading, wrong_reading
from lossprobe.analysis.defects.meant import scripts_of
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
    leader = _leader([wrong for run in runs for wrong in _wrong_parts(run, NOBODY) if wrong.reading])
    yield from cyrillic
    for run in runs:
        for wrong in _wrong_parts(run, leader):
            found = _found(page, run.at + wrong.start, run.at + wrong.stop, wrong.detail, wrong.meant)
            if not taken.touches(found.start, found.stop):
                yield found


def _found(page: TextPage, start: int, stop: int, detail: str, meant: str) -> Found:
    return Found(NAME, page.byte_place(start), page.byte_place(stop), detail, meant)


class _Leader(NamedTuple):
    """The encoding that a document was most often read as, with the scripts of what was meant: less proof will do."""

    name: str
    scripts: frozenset[str]


NOBODY = _Leader("", frozenset())


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


def _leader(wrong: list[_Wrong]) -> _Leader:
    """Return who leads by parts that need no leader."""
    counts = Counter(part.reading for part in wrong)
    if not counts:
        return NOBODY
    name = max(counts, key=lambda name: (counts[name], -list(READ_AS).index(name)))
    scripts = (scripts_of(part.meant) or frozenset() for part in wrong if part.reading == name)
    return _Leader(name, frozenset().union(*scripts))


def _wrong_parts(run: _Run, leader: _Leader) -> tuple[_Wrong, ...]:
    """Return the wrong parts of a run; short runs come often, and are worked out once."""
    return (_kept_parts if len(run.text) <= SHORT else _parts)(run.text, run.sides, leader)


@lru_cache(1 << 16)
def _kept_parts(run: str, sides: tuple[str, str], leader: _Leader) -> tuple[_Wrong, ...]:
    return _parts(run, sides, leader)


def _parts(run: str, sides: tuple[str, str], leader: _Leader) -> tuple[_Wrong, ...]:
    """Return the wrong parts of a run beyond ASCII, in order.

    Args:
        run: characters beyond ASCII.
        sides: what stands before and after them, see `_sides`.
        leader: the encoding that the document was most often read as; `NOBODY` for none.
    """
    found = []
    for reading in map(wrong_reading, READ_AS):
        told = f"UTF-8 read as {reading.name}"
        for match in reading.units.finditer(run):
            for meant, again in _meant(reading, match, sides, leader):
                found.append(_Wrong(match.start(), match.end(), told + again, meant, reading.name))
        if reading.cut is not None:
            found += [_Wrong(match.start(), match.end(), f"{told}, a byte lost", "", reading.name)
                      for match in reading.cut.finditer(run)]  # fmt: skip
    found += [_Wrong(*wrong, "") for wrong in double_bytes(run, sides)]
    for pattern, told in ((GBK, "U+FFFD in UTF-8 read as GBK"), (LOST, "bytes lost (U+FFFD)")):
        found += [_Wrong(match.start(), match.end(), told, "", "") for match in pattern.finditer(run)]
    chosen, taken = [], TextSpans()
    for wrong in sorted(found, key=lambda wrong: (wrong.start - wrong.stop, wrong.reading != leader.name)):
        if not taken.touches(wrong.start, wrong.stop):
            taken.add(wrong.start, wrong.stop)
            chosen.append(wrong)
    return tuple(sorted(chosen))


def _meant(
    reading: WrongReading, match: re.Match[str], sides: tuple[str, str], leader: _Leader
) -> Iterator[tuple[str, str]]:
    """Yield what was meant by wrong characters, and ", twice" where it was done twice; nothing where it is chance."""
    wrong, run = match[0], match.string
    try:
        meant = reading.undone(wrong)
    except UnicodeDecodeError:
        return
    again = reading.undone(meant) if reading.units.fullmatch(meant) is not None and is_bad(meant) else ""
    scripts = scripts_of(again or meant)
    if scripts is None or len(scripts) > 1:
        return
    leads = reading.name == leader.name and scripts <= leader.scripts
    beside = (sides[0] if match.start() == 0 else "", sides[1] if match.end() == len(run) else "")
    # Inside a word of another script a foreign letter is at home.
    at_home = _is_foreign(run[match.start() - 1 : match.start()]) or _is_foreign(run[match.end() : match.end() + 1])
    long = (len(wrong) == len(run) and len(meant) >= FEWEST_UNITS) or (leads and len(wrong) > 2 * len(meant))
    odd = not _opens_a_word(wrong) and _is_odd(wrong, meant, beside, at_home=at_home)
    if odd or long or (leads and is_bad(wrong)):
        yield again or meant, ", twice" if again else ""


def _opens_a_word(wrong: str) -> bool:
    """Return whether this is a quote or a dash with a letter after it, as writers put them: »öffnen«."""
    return len(wrong) == 2 and unicodedata.category(wrong[0]) in ("Pi", "Pf", "Pd") and wrong[1].isalpha()


def _is_odd(wrong: str, meant: str, beside: tuple[str, str], *, at_home: bool) -> bool:
    """Return whether no writer puts these characters side by side.

    That is so by the rules of ftfy; where three of them stand for one dash, quote or sign; and where they are a letter
    of Latin script inside a Latin word, and begin with a capital after a small letter or are of another script.
    """
    if is_bad(wrong) or any(letter in SIGNS for letter in meant):
        return True
    if not all(letter in LATIN for letter in meant):
        return False
    foreign = any(map(_is_foreign, wrong)) and not at_home
    return (foreign and any(beside)) or (beside[0] == "a" and meant.islower() and not wrong[0].islower())


def _is_foreign(letter: str) -> bool:
    return unicodedata.name(letter or " ", "").startswith(("CYRILLIC", "GREEK", "BOX DRAWINGS"))


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
