"""Hashes of words, of runs of words and of lines, made with numpy for a whole document at once.

A word is a run of ASCII letters, digits and characters beyond ASCII that are no punctuation; case does not matter. Each
character of Chinese and Japanese is a word, since no blanks stand between theirs. The hash of bytes b₀ … bₙ is the
polynomial Σ r(bᵢ) Mⁱ modulo 2⁶⁴ with an odd M and a random 64-bit number r for each byte; sums over prefixes give that
of every part of a text, divided by M to the power of where it begins (Karp and Rabin 1987). Two different runs of words
have the same hash with a probability of about 2⁻⁶⁴.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
LETTERS = b"0123456789abcdefghijklmnopqrstuvwxyz"
BYTE_BASE, WORD_BASE = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # odd
BLOCK = 1 << 20  # bytes hashed at once, cut between words


@dataclass(frozen=True)
class Words:
    """The words of a document.

    Attributes:
        hashes: uint64 [N].
        starts, stops: int64 [N], their bytes.
    """

    hashes: Hashes
    starts: Places
    stops: Places


def words_of(data: bytes) -> Words:
    """Return the words of a text.

    >>> one, two, three, four = words_of(b"The cat, the CAT").hashes.tolist()
    >>> (one == three, two == four, one == two)
    (True, True, False)
    >>> len(words_of("“今天”，下雨…".encode()).hashes)
    4
    """
    raw = np.frombuffer(data, np.uint8)
    values = _byte_values()[raw]
    begins = np.zeros(len(raw) + 1, bool)
    if not data.isascii():
        values[_punctuation(raw)] = 0
        begins = _beside_ideographs(raw)
    inside = np.concatenate([[False], values != 0, [False]])
    begins[:-1] |= ~inside[:-2]
    starts = np.flatnonzero(begins[:-1] & inside[1:-1]).astype(np.int64)
    stops = np.flatnonzero(inside[1:-1] & (begins[1:] | ~inside[2:])).astype(np.int64) + 1
    hashes = np.empty(len(starts), np.uint64)
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(stops, starts[first] + BLOCK, "right")))
        hashes[first:last] = _hashed(values[starts[first] : stops[last - 1]], starts[first:last] - starts[first],
                                     stops[first:last] - starts[first])  # fmt: skip
        first = last
    return Words(hashes, starts, stops)


def runs_of(words: Hashes, length: int) -> Hashes:
    """Return the hash of every run of `length` words, uint64 [N − length + 1]; none where there are fewer words."""
    count = len(words) - length + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for place in range(length):
        total += words[place : place + count] * np.uint64(pow(WORD_BASE, place, 1 << 64))
    return mixed(total)


def parts_of(words: Hashes, firsts: Places) -> Hashes:
    """Return the hash of every part of a sequence of words, uint64 [P].

    Args:
        words: uint64 [N], N > 0.
        firsts: int64 [P], the first word of each part, 0 among them; a part ends where the next one begins.
    """
    sizes = np.diff(np.append(firsts, len(words)))
    inside = np.arange(len(words)) - np.repeat(firsts, sizes)
    return mixed(np.add.reduceat(words * _powers(WORD_BASE, int(sizes.max()))[inside], firsts))


def mixed(hashes: Hashes) -> Hashes:
    """Return hashes whose every bit depends on all bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _hashed(values: Hashes, starts: Places, stops: Places) -> Hashes:
    """Return the hashes of the parts [start, stop) of values."""
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * _powers(BYTE_BASE, len(values))[: len(values)])])
    inverse = _powers(pow(BYTE_BASE, -1, 1 << 64), len(values))
    return mixed((sums[stops] - sums[starts]) * inverse[starts])


def _powers(base: int, count: int) -> Hashes:
    """Return at least `count` powers of a base modulo 2⁶⁴, from the power 0 on."""
    return _power_table(base, 1 << max(10, count.bit_length()))


@cache
def _power_table(base: int, count: int) -> Hashes:
    table = np.full(count, base, np.uint64)
    table[0] = 1
    return np.multiply.accumulate(table)


def _punctuation(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which bytes belong to quotes, dashes, blanks and such: from U+00A0, U+2000, U+3000 and U+FF01 on."""
    first = raw[:-1]
    second = raw[1:]
    wide = (first == 0xE2) & (second <= 0x81) | (first == 0xE3) & (second == 0x80)
    if len(raw) > 2:
        third = np.append(raw[2:], np.uint8(0))
        wide |= (first == 0xEF) & (second == 0xBC) & ((third <= 0x8F) | (third >= 0x9A) & (third <= 0xA0))
    found = np.zeros(len(raw) + 2, bool)
    for shift in range(3):
        found[shift : shift + len(wide)] |= wide
    narrow = first == 0xC2
    found[: len(narrow)] |= narrow
    found[1 : 1 + len(narrow)] |= narrow
    return found[: len(raw)]


def _beside_ideographs(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return where characters of Chinese and Japanese begin or end (up to U+9FFF, three bytes each), bool [N + 1]."""
    leads = (raw >= 0xE3) & (raw <= 0xE9)
    found = np.zeros(len(raw) + 4, bool)
    found[: len(raw)] |= leads
    found[3 : 3 + len(raw)] |= leads
    return found[: len(raw) + 1]


@cache
def _byte_values() -> Hashes:
    """Return the number of each byte, uint64 [256]; 0 for those that stand between words."""
    drawn = np.random.default_rng(19).integers(1, 2**64 - 1, 256, dtype=np.uint64)
    values = np.zeros(256, np.uint64)
    for letter in LETTERS:
        values[letter] = values[ord(chr(letter).upper())] = drawn[letter]
    values[0x80:] = drawn[0x80:]
    return values
