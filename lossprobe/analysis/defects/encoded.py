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
BASE64 = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{40,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}")
HEX = re.compile(rb"(?<![0-9A-Za-z])(?:0x)?(?:[0-9a-f]{32,}|[0-9A-F]{32,})(?![0-9A-Za-z])")
PAIRS = re.compile(rb"(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{2}[ :,-]){15,}[0-9A-Fa-f]{2}(?![0-9A-Za-z])")
ESCAPES = re.compile(
    rb"(?:\\x[0-9A-Fa-f]{2}){4,}|(?:\\u[0-9A-Fa-f]{4}){2,}|(?:%[0-9A-Fa-f]{2}){6,}|(?:=[0-9A-F]{2}){4,}"
)
KINDS = ((BASE64, "base64"), (HEX, "hexadecimal"), (PAIRS, "pairs of hexadecimal digits"), (ESCAPES, "escapes"))
FEWEST_PER_CLASS = 0.05  # of capitals, small letters and digits each, in base64: random data has 41 %, 41 % and 16 %
FEWEST_CHANGES = 0.35  # of neighbours of another class; random data has 63 %, names and paths far fewer
WORDS = re.compile(rb"[a-z]{4,}")
MOST_IN_WORDS = 0.45  # of the characters of base64: of 40 random ones it is more in one of 1,000 runs, of more in fewer
FEWEST_DIGITS, FEWEST_LETTERS = 0.3, 0.15  # of hexadecimal digits: random data has 62 % and 38 %
FEWEST_DIFFERENT = 8  # characters: else it is a line, zeros, or a pattern
# A loss below half of what random digits cost shows that the model can foresee them: a table, a counter.
LEAST_NATS = {
    "base64": math.log(64) / 2, "hexadecimal": math.log(16) / 2, "pairs of hexadecimal digits": math.log(16) / 3,
    "escapes": 0.0,
}  # fmt: skip
CLASSES = bytes(
    1 if 0x41 <= byte <= 0x5A else 2 if 0x61 <= byte <= 0x7A else 3 if 0x30 <= byte <= 0x39 else 4
    for byte in range(256)
)


def find_encoded(page: TextPage) -> Iterator[Found]:
    """Yield every run of data in letters; whether the model can foresee it is for `is_foreseen`."""
    taken = TextSpans()
    for pattern, detail in KINDS[::-1]:
        for match in pattern.finditer(page.data):
            # Lines of base64 may run on into lines of digits, which are another place.
            for begin, end in taken.free(*match.span()):
                part = pattern.search(page.data[begin:end])
                if part is not None and _is_data(part[0], detail):
                    start, stop = begin + part.start(), begin + part.end()
                    taken.add(start, stop)
                    yield Found(NAME, start, stop, detail)


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
    classes = run.translate(CLASSES)
    shares = [classes.count(kind) / len(run) for kind in (1, 2, 3)]
    changes = sum(one != other for one, other in pairwise(classes)) / len(run)
    in_words = sum(map(len, WORDS.findall(run))) / len(run)
    return min(shares) >= FEWEST_PER_CLASS and changes >= FEWEST_CHANGES and in_words <= MOST_IN_WORDS
