"""Tells decimal commas from commas between thousands: "2,345" is a loss of 2.345 or 2345 things."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

NOTE = "losses are written with a decimal comma (2,345 is 2.345), and so every number is read"
LOSS_VALUE = re.compile(rb"(?i)loss\b[\"']?[a-z/ ]{0,20}[ \t]{0,8}[:=]?[ \t]{0,8}[\"']?[-+]?(\d[\d.,]*)(?:e[-+]?\d+)?")
# Counts keep the commas of their thousands also in a log with decimal commas; every other comma in a number is one.
COUNT_OR_COMMA = re.compile(
    rb"(?i)\b(?:step|iteration|iter|update|batch|tokens?|samples)\W{0,20}\d{1,3}(?:,\d{3})+(?![,.]?\d)|(?<=\d),(?=\d)"
)
ONE_COMMA = re.compile(r"\d+,\d+")
THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+")
CELL = re.compile(r"[-+]?(\d[\d.,]*)(?:[eE][-+]?\d+)?")


def in_text(start: bytes) -> bool:
    """Return whether the losses of a text are written with decimal commas, from its first bytes."""
    return b"," in start and are_decimal([found.rstrip(b".,").decode() for found in LOSS_VALUE.findall(start)])


def are_decimal(numbers: Collection[str]) -> bool:
    """Return whether the commas in numbers of one quantity are decimal commas.

    They are where no number has a point and one comma could not part thousands ("2,34", "0,345"), and also where every
    number has one: a quantity that is never below 1000 is rare, and no mean loss of a token.

    Args:
        numbers: digits, points and commas, without signs and exponents.

    >>> are_decimal(["2,34"]), are_decimal(["2,345", "2,301"]), are_decimal(["2,345", "987"]), are_decimal(["1,024.5"])
    (True, True, False, False)
    """
    commas = [number for number in numbers if "," in number]
    if not commas or any("." in number for number in numbers) or not all(map(ONE_COMMA.fullmatch, commas)):
        return False
    return len(commas) == len(numbers) or not all(map(THOUSANDS.fullmatch, commas))


def with_points(block: bytes) -> bytes:
    """Return lines of a text with points in place of decimal commas."""
    return COUNT_OR_COMMA.sub(lambda found: b"." if found[0] == b"," else found[0], block)


def of_cells(cells: Sequence[str], *, counts: bool) -> bool | None:
    """Return whether commas in the cells of a column are decimal commas; None where there are none, or no numbers.

    Args:
        cells: the cells of a column.
        counts: whether the column counts something, such as steps, whose commas part thousands.
    """
    found = [CELL.fullmatch(cell.strip()) for cell in cells]
    numbers = [match[1] for match in found if match is not None]
    commas = [number for number in numbers if "," in number]
    if not commas:
        return None
    if counts and all(map(THOUSANDS.fullmatch, commas)):
        return False
    if are_decimal(numbers):
        return True
    return False if all(THOUSANDS.fullmatch(number.partition(".")[0]) for number in commas) else None
