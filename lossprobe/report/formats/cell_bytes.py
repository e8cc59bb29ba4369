"""Compiled loops that write rows of numbers and texts as CSV: the bytes of `csv.batches_to_csv` in a fifth of the time.

Compiling takes some seconds once; the code is cached on disk, see `compiler`. Whole numbers are int64 throughout:
numba would make a float of an int64 and a uint64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lossprobe.compiler import compile_apart, kept, numba
from lossprobe.instructions import put_word, word_at
from lossprobe.report.formats.decimals import (
    DIGITS,
    INFINITE,
    LENGTH,
    POWER,
    POWER_OF_ONE,
    inlined,
    to_decimals,
)

WHOLE, FLOAT, TEXT, WORDS = range(4)  # kinds of columns; words are copied, bytes of a text become a JSON literal
LONGEST_NUMBER = 24  # bytes, with the comma: -2^63 has 20, a float32 at most 17, and an empty text 6
LONGEST_ESCAPE = 6  # bytes for one byte of text, as in \u0000
# Exponents of ten of the first digit, between which a float is written without one.
PLAIN_FROM, PLAIN_BELOW = -6, 10
HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
TEN, EIGHT = np.uint64(10), np.uint64(10**8)  # unsigned, which divides faster
SLACK = 7  # bytes after the end of an array, whose last place is then read or written as a word of eight
NAN, INF, BELOW, ABOVE, FRACTION, ZEROS, LITERAL, QUOTE = (
    int.from_bytes(word, "little") for word in (b"nan", b"inf", b"e-", b"e+", b"0.000000", b"00000000", b'"""', b'\\""')
)
SHORT = np.frombuffer(b"\nn\rr\tt\bb\ff", np.uint8)  # a control character, and its letter in JSON
TENS = np.array([10**power for power in range(19)], np.int64)


def span(start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return pairs of places, each below 2^31, as the values that `write_rows` takes for texts and words."""
    return start << 32 | stop


@inlined
def _length(number: Any) -> Any:
    """Return how many digits a number has that is not negative."""
    length = 1
    while length < 19 and number >= TENS[length]:
        length += 1
    return length


@inlined
def _eight_digits(number: Any) -> Any:
    """Return the eight digits of a number below 10^8 as the bytes of an int64, the first one in the lowest byte.

    Halves, quarters and eighths of the bytes hold four, two and one digit. Multiplied by 2^k / 10^n, rounded up, and
    shifted, they are divided exactly: for all numbers that fit there.
    """
    upper = number * 109951163 >> 40  # ⌊number / 10^4⌋
    halves = upper | (number - 10_000 * upper) << 32
    upper = halves * 5243 >> 19 & 0x7F0000007F  # ⌊half / 100⌋
    quarters = upper | (halves - 100 * upper) << 16
    upper = quarters * 103 >> 10 & 0xF000F000F000F  # ⌊quarter / 10⌋
    return (upper | (quarters - 10 * upper) << 8) + ZEROS


@inlined
def _put_digits(out: Any, at: Any, number: Any, length: Any) -> Any:
    """Write a number that is not negative in `length` digits, with zeros before it; return the place after it."""
    stop = at + length
    rest = np.uint64(number)
    if length > 16:
        put_word(out, at, _eight_digits(np.int64(rest // (EIGHT * EIGHT))) >> 8 * (24 - length))
        at, rest = stop - 16, rest % (EIGHT * EIGHT)
    if at < stop - 8:
        put_word(out, at, _eight_digits(np.int64(rest // EIGHT)) >> 8 * (at - stop + 16))
        at, rest = stop - 8, rest % EIGHT
    put_word(out, at, _eight_digits(np.int64(rest)) >> 8 * (at - stop + 8))
    return stop


@inlined
def _put_bytes(out: Any, at: Any, data: Any, start: Any, stop: Any) -> Any:
    """Copy bytes; return the place after them."""
    for place in range(start, stop, 8):
        put_word(out, at + place - start, word_at(data, place))
    return at + stop - start


@inlined
def _put_whole(out: Any, at: Any, number: Any) -> Any:
    """Write a whole number; return the place after it."""
    if number < 0:
        put_word(out, at, 45)  # -
        at += 1
        last = -(number % -10)  # of -2^63 too, which has no positive counterpart
        number = -((number + last) // 10)
        if number:
            at = _put_digits(out, at, number, _length(number))
        put_word(out, at, 48 + last)
        return at + 1
    return _put_digits(out, at, number, _length(number))


@inlined
def _put_float(out: Any, at: Any, decimal: Any) -> Any:
    """Write a float32, given as a number of `decimals`; return the place after it."""
    digits, length = decimal >> DIGITS, decimal >> LENGTH & 0xFF
    if digits > INFINITE:
        put_word(out, at, NAN)
        return at + 3
    put_word(out, at, 45)  # -
    at += decimal & 1
    if length == 0:
        put_word(out, at, INF if digits else 48)
        return at + (3 if digits else 1)
    power = (decimal >> POWER & 0xFF) - POWER_OF_ONE
    tenth = np.int64(np.uint64(digits) // TEN)
    while digits == 10 * tenth:
        digits, power, length = tenth, power + 1, length - 1
        tenth = np.int64(np.uint64(digits) // TEN)
    first = power + length - 1
    if power >= 0 and first < PLAIN_BELOW:
        return _put_digits(out, at, digits * TENS[power], first + 1)
    if PLAIN_FROM <= first < 0:
        put_word(out, at, FRACTION)
        return _put_point(out, at + 1 - first, digits, length, length)
    if 0 <= first < PLAIN_BELOW:
        return _put_point(out, at, digits, length, first + 1)
    at = _put_point(out, at, digits, length, 1)
    put_word(out, at, BELOW if first < 0 else ABOVE)
    return _put_digits(out, at + 2, abs(first), _length(abs(first)))


@inlined
def _put_point(out: Any, at: Any, digits: Any, length: Any, before: Any) -> Any:
    """Write a number of `length` ≤ 9 digits with a point after the first `before`; return the place after it."""
    digits *= TENS[9 - length]
    first = np.int64(np.uint64(digits) // EIGHT)
    others = _eight_digits(digits - first * 100_000_000)
    put_word(out, at, 48 + first)
    put_word(out, at + 1, others)
    if before == length:
        return at + length
    put_word(out, at + before, 46)  # .
    put_word(out, at + before + 1, others >> 8 * (before - 1))
    return at + length + 1


@inlined
def _character(data: Any, at: Any, stop: Any) -> Any:
    """Return the code point at a place of UTF-8 and its number of bytes; 0xDC80 to 0xDCFF for a byte that is none."""
    first = int(data[np.uint64(at)])
    if first < 0x80:
        return first, 1
    size = 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 0
    if size == 0 or at + size > stop:
        return 0xDC00 + first, 1
    code = first & (0x7F >> size)
    for place in range(at + 1, at + size):
        byte = int(data[np.uint64(place)])
        if byte & 0xC0 != 0x80:
            return 0xDC00 + first, 1
        code = code << 6 | byte & 0x3F
    short = (size == 3 and code < 0x800) or (size == 4 and code < 0x10000)
    if short or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        return 0xDC00 + first, 1
    return code, size


@inlined
def _put_escape(out: Any, at: Any, code: Any) -> Any:
    r"""Write a 16-bit code as JSON does, such as \u00e9 or \n; return the place after it."""
    put_word(out, at, 92)  # \\
    for place in range(SHORT.size // 2):
        if code == SHORT[2 * place]:
            put_word(out, at + 1, SHORT[2 * place + 1])
            return at + 2
    put_word(out, at + 1, 117)  # u
    for place in range(4):
        put_word(out, at + 2 + place, HEX[code >> (12 - 4 * place) & 15])
    return at + 6


@inlined
def _put_text(out: Any, at: Any, data: Any, start: Any, stop: Any) -> Any:
    """Write bytes of a text as a JSON string literal in the quotes of CSV, in which each quote is doubled."""
    put_word(out, at, LITERAL)
    at += 3
    while start < stop:
        code, size = _character(data, start, stop)
        start += size
        if code == 34:
            put_word(out, at, QUOTE)
            at += 3
        elif code == 92:
            put_word(out, at, 92 | 92 << 8)
            at += 2
        elif 32 <= code < 127:
            put_word(out, at, code)
            at += 1
        elif code < 0x10000:
            at = _put_escape(out, at, code)
        else:
            at = _put_escape(out, at, 0xD800 + (code - 0x10000 >> 10))
            at = _put_escape(out, at, 0xDC00 + (code - 0x10000 & 0x3FF))
    put_word(out, at, LITERAL)
    return at + 3


# Nothing is allocated, so the references to arrays need no count, whose atomic additions take a fifth of the time.
@kept
@numba.njit(nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload, untyped-decorator]
def write_rows(kinds: Any, present: Any, values: Any, data: Any, out: Any) -> Any:
    """Write rows as CSV, and return the number of bytes.

    Args:
        kinds: int64 [columns], of the kinds above.
        present: bool [columns, rows]; a cell is empty where it is false.
        values: int64 [columns, rows]: whole numbers, floats of `to_decimals`, or spans of texts and words in `data`.
        data: uint8, bytes of texts and words, and `SLACK`.
        out: uint8, as long as the rows can become, and `SLACK`.
    """
    at = 0
    for row in range(values.shape[1]):
        for column in range(kinds.size):
            if column:
                put_word(out, at, 44)  # ,
                at += 1
            if not present[column, row]:
                continue
            kind, value = kinds[column], values[column, row]
            if kind == WHOLE:
                at = _put_whole(out, at, value)
            elif kind == FLOAT:
                at = _put_float(out, at, value)
            elif kind == TEXT:
                at = _put_text(out, at, data, value >> 32, value & 0xFFFFFFFF)
            else:
                at = _put_bytes(out, at, data, value >> 32, value & 0xFFFFFFFF)
        put_word(out, at, 10)  # the line ends
        at += 1
    return at


def compile_rows() -> None:
    """Compile both loops for the arrays that they get, or load its compiled code."""
    none, nowhere = np.zeros((1, 0), np.int64), np.zeros(SLACK, np.uint8)
    to_decimals(none[0])
    write_rows(np.zeros(1, np.int64), none == 0, none, nowhere, nowhere)


def compile_rows_apart() -> None:
    """Compile both loops in another process if that was never done: compiling takes 100 MB."""
    compile_apart(write_rows, "from lossprobe.report.formats.cell_bytes import compile_rows; compile_rows()")
