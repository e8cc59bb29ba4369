"""Chinese and Korean text whose two bytes a character were read as two letters, and UTF-8 that was read as GBK."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Iterator
from typing import NamedTuple

from lossprobe.analysis.defects.encodings import WrongReading, wrong_reading
from lossprobe.analysis.defects.meant import scripts_of

WESTERN, EUC = "Windows-1252", "GBK or EUC-KR"
FEWEST_WESTERN = 8  # characters beyond ASCII in a row: no language of Latin letters has so many
FEWEST_KINDS = 5  # different ones, and not in the order of a table
COMMON_LEADS = range(0xA1, 0xD8)  # first bytes of signs and of the frequent characters of GBK; of all of EUC-KR
MOST_RARE = 0.25  # of the characters
LAST_OF_KOREAN = 0xC8  # no later byte begins a syllable
WHOLE = re.compile("[^\ufffd]+")  # between bytes that are lost
HAN = re.compile("[\u3400-\u9fff]")
FEWEST_MEANT = 3  # characters that the bytes of Chinese ones are in UTF-8: by chance one of 10,000 runs has as many
CONTINUING = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that begin no character


class Wrong(NamedTuple):
    """A part of a run of characters: its first one and its end, what happened and what was meant ("" where unknown)."""

    start: int
    stop: int
    detail: str
    meant: str


def double_bytes(run: str, sides: tuple[str, str]) -> Iterator[Wrong]:
    """Yield the parts of a run of characters beyond ASCII that such a wrong reading made.

    Args:
        run: the characters.
        sides: "a" for a small ASCII letter before and after it, "A" for a capital, "" for anything else.
    """
    for part in WHOLE.finditer(run):
        beside = (sides[0] if part.start() == 0 else "", sides[1] if part.end() == len(run) else "")
        for wrong in _found_in(part[0], beside):
            yield Wrong(part.start(), part.end(), *wrong)


def _found_in(run: str, sides: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what happened to a whole run and what was meant, if anything did."""
    reading = wrong_reading(WESTERN)
    if len(run) >= FEWEST_WESTERN and set(run) <= set(reading.letters):
        yield from _read_as_western(run, reading)
    elif HAN.search(run) is not None:
        yield from _read_as_gbk(run, sides)


def _read_as_western(run: str, reading: WrongReading) -> Iterator[tuple[str, str]]:
    data = reading.bytes_of(run)
    if len(set(run)) < FEWEST_KINDS or list(run) == sorted(run) or _is_utf8(data):
        return
    try:
        meant = data.decode("gbk")
    except UnicodeDecodeError:
        return
    leads = [letter.encode("gbk")[0] for letter in meant]
    if sum(lead not in COMMON_LEADS for lead in leads) > MOST_RARE * len(leads):
        return
    chinese = max(leads) > LAST_OF_KOREAN
    yield f"{'GBK' if chinese else EUC} read as {WESTERN}", meant if chinese else ""


def _is_utf8(data: bytes) -> bool:
    """Return whether most of some bytes are UTF-8: then that is what was read wrongly."""
    return 2 * len(data.decode("utf-8", "ignore").encode()) > len(data)


def _read_as_gbk(run: str, sides: tuple[str, str]) -> Iterator[tuple[str, str]]:
    try:
        # A lost byte before it, or after it, may have left a part of a character.
        data = run.encode("gbk").lstrip(CONTINUING)
        meant = getincrementaldecoder("utf-8")().decode(data)
    except UnicodeError:
        return
    scripts = scripts_of(meant)
    if not scripts or len(scripts) > 1:
        return
    # Two or three Chinese characters may well be Latin letters by chance, but not inside a word of Latin letters.
    inside = sides[0] != "" and sides[1] == "a"
    if inside if scripts == {"Latin"} else len(meant) >= FEWEST_MEANT:
        yield "UTF-8 read as GBK", meant
