"""Reads numbers out of lines that a program printed, by patterns, in blocks of bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lossprobe.logs.lines import LogFile
from lossprobe.logs.records import Table

NUMBER = rb"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:[nN]a[nN]|NAN|[iI]nf(?:inity)?|INF))"
# A number for people, with commas between its thousands: what `float_of` reads.
WITH_THOUSANDS = rb"([-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!,?\d)|" + NUMBER[1:]
WHOLE = rb"(\d+)"


@dataclass(frozen=True)
class Line:
    """A line that a program prints.

    Attributes:
        pattern: a regular expression of bytes; every group is a number.
        keys: the key of each group.
    """

    pattern: bytes
    keys: tuple[str, ...]


def float_of(text: bytes) -> float:
    """Return the number of a text that `WITH_THOUSANDS` matches.

    >>> float_of(b"1,048,576"), float_of(b"2.5e-3")
    (1048576.0, 0.0025)
    """
    return float(text.replace(b",", b""))


def read_lines(file: LogFile, lines: Sequence[Line]) -> Table:
    """Return the numbers of a log whose lines match one of some patterns; each match is a record."""
    table = Table()
    either = re.compile(b"|".join(line.pattern for line in lines), re.MULTILINE)
    keys = [key for line in lines for key in line.keys]
    for block in file.blocks():
        found = either.findall(block)
        for index, key in enumerate(keys if found else ()):
            texts = np.array([groups[index] for groups in found])
            rows = np.flatnonzero(texts != b"")
            table.add(key, rows, texts[rows].astype(np.float64))
        table.end_block(len(found))
    return table
