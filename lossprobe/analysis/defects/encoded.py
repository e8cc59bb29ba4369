"""Data that was written in letters: base64, hexadecimal digits, escapes. No model can foresee it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.spans import TextSpans

NAME = "encoded-data"
# What stands between two lines of one blob: a line end, also one that is spelled out, or the quotes of two strings.
BREAK = rb"""(?:\r?\n[ \t>]{0,40}|\\r\\n|\\n|["'][ \t]{0,3}[+.\\]?[ \t]{0,3}\r?\n[ \t]{0,80}["'])"""


def _base64(letters: bytes, sign: bytes) -> re.Pattern[bytes]:
    """Return a pattern of lines of 40 characters or more, and of a last line that is shorter and can be no word."""
    own = rb"[A-Za-z0-9%b]" % letters
    last = BREAK + rb"(?=%b*(?:[0-9%b=]|[a-z][A-Z]))%b{1,76}={0,2}(?=[ \t]*(?:[\r\n\\\"']|\Z))" % (own, sign, own)
    begin = rb"(?:(?<!%b)(?!(?<=\\)[nrt])|(?<=\\[nrt]))(?!__?Z)" % own  # "\n" that is spelled out is no part
    return re.compile(rb"%b%b{40,}(?:%b%b{40,})*(?:={1,2}|%b)?" % (begin, own, BREAK, own, last))


BASE64 = (_base64(rb"+/", rb"+/"), _base64(rb"_-", rb"_"))
HEX = re.compile(
    rb"(?<![0-9A-Za-z])(?:(?:0x)?(?:[0-9a-f]{32,}|[0-9A-F]{32,})|(?:[0-9a-f]{4} ){7,}[0-9a-f]{4})(?![0-9A-Za-z])"
)
PAIRS = re.compile(
    rb"(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{2}(?:[:,-]| {1,2}|\r?\n[ \t>]{0,40})){15,}[0-9A-Fa-f]{2}(?![0-9A-Za-z])"
)
ARRAY = re.compile(rb"(?<![0-9A-Za-z])(?:0x[0-9A-Fa-f]{2},\s{0,40}){15,}0x[0-9A-Fa-f]{2}(?![0-9A-Za-z])")
ESCAPES = re.compile(
    rb"(?:\\x[0-9A-Fa-f]{2}){4,}|(?:\\u[0-9A-Fa-f]{4}){2,}|(?:%[0-9A-Fa-f]{2}){6,}|(?:=[0-9A-F]{2}){4,}"
)
KINDS = (
    (ESCAPES, "escapes"), (ARRAY, "array of bytes"), (PAIRS, "pairs of hexadecimal digits"), (HEX, "hexadecimal"),
    *((pattern, "base64") for pattern in BASE64),
)  # fmt: skip
FEWEST_PER_CLASS = 0.03  # of capitals, small letters and digits each, in base64: random data has 41 %, 41 % and 16 %
FEWEST_CHANGES = 0.35  # of neighbours of another class; random data has 63 %, names and paths far fewer
WORDS = re.compile(rb"[a-z]{4,}")
# Standard deviations more of + / or of - _ than the one in 32 of random data: paths have many, names have most.
MOST_SLASHES, MOST_DASHES = 6, 4
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-", re.IGNORECASE)
BEFORE_ADDRESS = re.compile(rb"[^\s\"'<>()\[\]{}|,?#=]*\Z")
ADDRESS_BYTES = 300  # at most, before what is looked at
MOST_IN_WORDS = 0.45  # of the characters of base64: of 40 random ones it is more in one of 1,000 runs, of more in fewer
FEWEST_DIGITS, FEWEST_LETTERS = 0.3, 0.15  # of hexadecimal digits: random data has 62 % and 38 %
FEWEST_DIFFERENT = 8  # characters: else it is a line, zeros, or a pattern
# A loss below half of what random digits cost shows that the model can foresee them: a table, a counter.
LEAST_NATS = {
    "base64": math.log(64) / 2, "hexadecimal": math.log(16) / 2, "pairs of hexadecimal digits": math.log(16) / 3,
    "array of bytes": math.log(16) / 6, "escapes": 0.0,
}  # fmt: skip
CLASSES = bytes(
    1 if 0x41 <= byte <= 0x5A else 2 if 0x61 <= byte <= 0x7A else 3 if 0x30 <= byte <= 0x39 else 4
    for byte in range(256)
)


def find_encoded(page: TextPage) -> Iterator[Found]:
    """Yield every run of data in letters; whether the model can foresee it is for `is_foreseen`."""
    taken = TextSpans()
    for pattern, detail in KINDS:
        for match in pattern.finditer(page.data):
            for start, stop in _free(pattern, match, taken):
                for first, last in _segments(page.data, start, stop) if pattern in BASE64 else [(start, stop)]:
                    if _is_data(page.data[first:last], detail):
                        taken.add(first, last)
                        yield Found(NAME, first, last, detail)


def _free(pattern: re.Pattern[bytes], match: re.Match[bytes], taken: TextSpans) -> Iterator[tuple[int, int]]:
    """Yield what a pattern finds in the free parts of a match: lines of base64 may run on into ones of digits."""
    if not taken.touches(*match.span()):
        yield match.span()
        return
    for begin, end in taken.free(*match.span()):
        part = pattern.search(match.string[begin:end])
        if part is not None:
            yield begin + part.start(), begin + part.end()


def _segments(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield a run of base64, or the long parts of the path of an address."""
    before = BEFORE_ADDRESS.search(data, max(0, start - ADDRESS_BYTES), start)
    if before is None or b"://" not in before[0]:
        yield start, stop
        return
    for part in re.finditer(rb"[^/\s]{40,}", data[start:stop]):
        yield start + part.start(), start + part.end()


def is_foreseen(detail: str, loss_nats: float, scored_bytes: int) -> bool:
    """Return whether the loss of a place says that its data is no random data: nats a byte below `LEAST_NATS`.

    >>> is_foreseen("hexadecimal", 32.0, 64), is_foreseen("hexadecimal", 160.0, 64)
    (True, False)
    """
    return scored_bytes > 0 and loss_nats / scored_bytes < LEAST_NATS[detail]


def _is_data(run: bytes, detail: str) -> bool:
    if detail == "escapes":
        return True
    if len(set(run.lower())) < FEWEST_DIFFERENT:
        return False
    if detail != "base64":
        digits, letters = (sum(run.lower().count(byte) for byte in group) for group in (b"0123456789", b"abcdef"))
        return digits >= FEWEST_DIGITS * (digits + letters) and letters >= FEWEST_LETTERS * (digits + letters)
    expected = len(run) / 32
    for marks, most in ((b"+/", MOST_SLASHES), (b"-_", MOST_DASHES)):
        if sum(run.count(mark) for mark in marks) > expected + most * math.sqrt(expected):
            return False
    if UUID.search(run) is not None:
        return False
    classes = run.translate(CLASSES)
    shares = [classes.count(kind) / len(run) for kind in (1, 2, 3)]
    changes = sum(one != other for one, other in pairwise(classes)) / len(run)
    in_words = sum(map(len, WORDS.findall(run))) / len(run)
    return min(shares) >= FEWEST_PER_CLASS and changes >= FEWEST_CHANGES and in_words <= MOST_IN_WORDS
