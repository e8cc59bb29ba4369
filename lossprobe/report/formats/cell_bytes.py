"""Compiled loops that write rows of numbers and texts as CSV: the bytes of `csv.batches_to_csv` in a third of the time.

Compiling takes some seconds once; the code is cached on disk, see `compiler`. Whole numbers are int64 throughout:
numba would make a float of an int64 and a uint64.

A float32 gets the shortest decimal number that is read as the same float32, and of these the nearest, as Arrow writes
it. The method is that of Giulietti (2020), "The Schubfach way to render doubles": a float is c · 2^q, and decimal
numbers in 10^k with k = ⌊log10 2^q⌋ are at least as close together as floats there, those in 10^(k+1) are not. So at
most one number in 10^(k+1) is read as this float, and if none is, one of the two in 10^k around it. The ends of the
interval are compared exactly, as multiples of a quarter of 10^k rounded to odd.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from lossprobe.compiler import compile_apart, kept, numba

WHOLE, FLOAT, TEXT, WORDS = range(4)  # kinds of columns; words are copied, bytes of a text become a JSON literal
LONGEST_NUMBER = 24  # bytes, with the comma: -2^63 has 20, a float32 at most 17, and an empty text 6
LONGEST_ESCAPE = 6  # bytes for one byte of text, as in \u0000
LEAST_POWER, MOST_POWER = -31, 45  # of ten, by which a float32 is multiplied
# Exponents of ten of the first digit, between which a float is written without one.
PLAIN_FROM, PLAIN_BELOW = -6, 10
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
PAIRS = np.frombuffer(b"".join(b"%02d" % number for number in range(100)), np.uint8)
TEN, HUNDRED = np.uint64(10), np.uint64(100)  # unsigned, which divides faster
NAN, INF, BELOW, ABOVE, ZERO = (np.frombuffer(word, np.uint8) for word in (b"nan", b"inf", b"e-", b"e+", b"0."))
LITERAL, QUOTE = np.frombuffer(b'"""', np.uint8), np.frombuffer(b'\\""', np.uint8)
SHORT = np.frombuffer(b"\nn\rr\tt\bb\ff", np.uint8)  # a control character, and its letter in JSON
TENS = np.array([10**power for power in range(19)], np.int64)


def _power(exponent: int) -> int:
    """Return 10^exponent scaled by a power of two to 64 bits, rounded up."""
    value = Fraction(10) ** exponent
    shift = 63 - _floor_log2(exponent)
    scaled = value * Fraction(2) ** shift
    return -(-scaled.numerator // scaled.denominator)


def _floor_log2(exponent: int) -> int:
    """Return ⌊log2 10^exponent⌋."""
    value = Fraction(10) ** exponent
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


_POWERS = [_power(exponent) for exponent in range(LEAST_POWER, MOST_POWER + 1)]
UPPER = np.array([power >> 32 for power in _POWERS], np.int64)
LOWER = np.array([power & 0xFFFFFFFF for power in _POWERS], np.int64)
LOG2 = np.array([_floor_log2(exponent) for exponent in range(LEAST_POWER, MOST_POWER + 1)], np.int64)


def _inlined(function: Any) -> Any:
    """Return a function that becomes part of its caller: a call would count who refers to each array, atomically."""
    return numba.njit(nogil=True, error_model="numpy", inline="always")(function)


@_inlined
def _rounded_to_odd(power: Any, scaled: Any) -> Any:
    """Return ⌊power · scaled / 2^64⌋ for a power of the table, made odd if anything but the last bit is cut off."""
    high = UPPER[power] * scaled + ((LOWER[power] * scaled) >> 32)
    return (high >> 32) | (1 if (high & 0xFFFFFFFF) > 1 else 0)


@_inlined
def _shortest(bits: Any) -> Any:
    """Return digits and exponent of ten of a positive, finite float32, given as its bits."""
    fraction, exponent = bits & 0x7FFFFF, bits >> 23
    c = fraction | 0x800000 if exponent else fraction
    q = (exponent if exponent else 1) - 150
    if -24 < q <= 0 and c & ((1 << -q) - 1) == 0:
        return c >> -q, 0
    closer = fraction == 0 and exponent > 1  # the next smaller float is half as far away as the next greater one
    # ⌊log10 2^q⌋, or ⌊log10 (3/4 · 2^q)⌋; exact for all q of a float32
    k = (q * 1262611 - (524031 if closer else 0)) >> 22
    power = -k - LEAST_POWER
    shift = q + LOG2[power] + 1
    odd = c & 1
    low = _rounded_to_odd(power, (4 * c - (1 if closer else 2)) << shift) + odd
    value = _rounded_to_odd(power, (4 * c) << shift)
    high = _rounded_to_odd(power, (4 * c + 2) << shift) - odd
    whole = value >> 2
    if whole >= 10:
        tens = np.int64(np.uint64(whole) // TEN)
        below, above = low <= 40 * tens, 40 * tens + 40 <= high
        if below != above:
            return tens + (1 if above else 0), k + 1
    below, above = low <= 4 * whole, 4 * whole + 4 <= high
    if below != above:
        return whole + (1 if above else 0), k
    middle = 4 * whole + 2
    return whole + (1 if value > middle or (value == middle and whole & 1) else 0), k


@_inlined
def _length(number: Any) -> Any:
    """Return how many digits a number has that is not negative."""
    length = 1
    while length < 19 and number >= TENS[length]:
        length += 1
    return length


@_inlined
def _put_digits(out: Any, at: Any, number: Any, length: Any) -> Any:
    """Write a number that is not negative in `length` digits, with zeros before it; return the place after it."""
    rest, place = np.uint64(number), at + length
    while place > at + 1:
        hundredth = rest // HUNDRED
        pair = np.int64(rest - hundredth * HUNDRED)
        out[place - 2], out[place - 1] = PAIRS[2 * pair], PAIRS[2 * pair + 1]
        rest = hundredth
        place -= 2
    if place > at:
        out[at] = np.uint64(48) + rest
    return at + length


@_inlined
def _put_bytes(out: Any, at: Any, data: Any, start: Any, stop: Any) -> Any:
    """Copy bytes; return the place after them."""
    for place in range(start, stop):
        out[at] = data[place]
        at += 1
    return at


@_inlined
def _put_whole(out: Any, at: Any, number: Any) -> Any:
    """Write a whole number; return the place after it."""
    if number < 0:
        out[at] = 45  # -
        at += 1
        last = -(number % -10)  # of -2^63 too, which has no positive counterpart
        number = -((number + last) // 10)
        if number:
            at = _put_digits(out, at, number, _length(number))
        out[at] = 48 + last
        return at + 1
    return _put_digits(out, at, number, _length(number))


@_inlined
def _put_float(out: Any, at: Any, bits: Any) -> Any:
    """Write a float32, given as its 32 bits; return the place after it."""
    rest = bits & 0x7FFFFFFF
    if rest > 0x7F800000:
        return _put_bytes(out, at, NAN, 0, NAN.size)
    if bits != rest:
        out[at] = 45  # -
        at += 1
    if rest == 0x7F800000:
        return _put_bytes(out, at, INF, 0, INF.size)
    if rest == 0:
        return _put_digits(out, at, 0, 1)
    digits, power = _shortest(rest)
    tenth = np.int64(np.uint64(digits) // TEN)
    while digits == 10 * tenth:
        digits, power = tenth, power + 1
        tenth = np.int64(np.uint64(digits) // TEN)
    # Foreseen branches are faster than arithmetic: the next cell is begun before the length of this one is known.
    length = 9
    while digits < TENS[length - 1]:
        length -= 1
    first = power + length - 1
    if not PLAIN_FROM <= first < PLAIN_BELOW:
        at = _put_point(out, at, digits, length, 1)
        at = _put_bytes(out, at, BELOW if first < 0 else ABOVE, 0, 2)
        return _put_digits(out, at, abs(first), _length(abs(first)))
    if power >= 0:
        return _put_digits(out, at, digits * TENS[power], first + 1)
    if first >= 0:
        return _put_point(out, at, digits, length, first + 1)
    at = _put_bytes(out, at, ZERO, 0, ZERO.size)
    return _put_digits(out, at, digits, length - 1 - first)


@_inlined
def _put_point(out: Any, at: Any, digits: Any, length: Any, before: Any) -> Any:
    """Write a number of `length` digits with a point after the first `before`; return the place after it."""
    if before == length:
        return _put_digits(out, at, digits, length)
    stop = _put_digits(out, at + 1, digits, length)
    for place in range(at, at + before):
        out[place] = out[place + 1]
    out[at + before] = 46  # .
    return stop


@_inlined
def _character(data: Any, at: Any, stop: Any) -> Any:
    """Return the code point at a place of UTF-8 and its number of bytes; 0xDC80 to 0xDCFF for a byte that is none."""
    first = int(data[at])
    if first < 0x80:
        return first, 1
    size = 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 0
    if size == 0 or at + size > stop:
        return 0xDC00 + first, 1
    code = first & (0x7F >> size)
    for place in range(at + 1, at + size):
        byte = int(data[place])
        if byte & 0xC0 != 0x80:
            return 0xDC00 + first, 1
        code = code << 6 | byte & 0x3F
    short = (size == 3 and code < 0x800) or (size == 4 and code < 0x10000)
    if short or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        return 0xDC00 + first, 1
    return code, size


@_inlined
def _put_escape(out: Any, at: Any, code: Any) -> Any:
    r"""Write a 16-bit code as JSON does, such as \u00e9 or \n; return the place after it."""
    out[at] = 92  # \\
    for place in range(SHORT.size // 2):
        if code == SHORT[2 * place]:
            out[at + 1] = SHORT[2 * place + 1]
            return at + 2
    out[at + 1] = 117  # u
    for place in range(4):
        out[at + 2 + place] = DIGITS[code >> (12 - 4 * place) & 15]
    return at + 6


@_inlined
def _put_text(out: Any, at: Any, data: Any, start: Any, stop: Any) -> Any:
    """Write bytes of a text as a JSON string literal in the quotes of CSV, in which each quote is doubled."""
    at = _put_bytes(out, at, LITERAL, 0, LITERAL.size)
    while start < stop:
        code, size = _character(data, start, stop)
        start += size
        if code == 34:
            at = _put_bytes(out, at, QUOTE, 0, QUOTE.size)
        elif code == 92:
            out[at] = out[at + 1] = 92
            at += 2
        elif 32 <= code < 127:
            out[at] = code
            at += 1
        elif code < 0x10000:
            at = _put_escape(out, at, code)
        else:
            at = _put_escape(out, at, 0xD800 + (code - 0x10000 >> 10))
            at = _put_escape(out, at, 0xDC00 + (code - 0x10000 & 0x3FF))
    return _put_bytes(out, at, LITERAL, 0, LITERAL.size)


# Nothing is allocated, so the references to arrays need no count, whose atomic additions take a fifth of the time.
@kept
@numba.njit(nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload, untyped-decorator]
def write_rows(kinds: Any, present: Any, values: Any, stops: Any, data: Any, out: Any) -> Any:
    """Write rows as CSV, and return the number of bytes.

    Args:
        kinds: int64 [columns], of the kinds above.
        present: bool [columns, rows]; a cell is empty where it is false.
        values: int64 [columns, rows]: whole numbers, bits of floats, or places in `data` where texts and words start.
        stops: int64 [columns, rows]: places in `data` where texts and words end.
        data: uint8, bytes of texts and words.
        out: uint8, as long as the rows can become.
    """
    at = 0
    for row in range(values.shape[1]):
        for column in range(kinds.size):
            if column:
                out[at] = 44  # ,
                at += 1
            if not present[column, row]:
                continue
            kind, value = kinds[column], values[column, row]
            if kind == WHOLE:
                at = _put_whole(out, at, value)
            elif kind == FLOAT:
                at = _put_float(out, at, value)
            elif kind == TEXT:
                at = _put_text(out, at, data, value, stops[column, row])
            else:
                at = _put_bytes(out, at, data, value, stops[column, row])
        out[at] = 10  # the line ends
        at += 1
    return at


def compile_rows() -> None:
    """Compile `write_rows` for the arrays that it gets, or load its compiled code."""
    none = np.zeros((1, 0), np.int64)
    write_rows(np.zeros(1, np.int64), none == 0, none, none, DIGITS.copy(), DIGITS.copy())


def compile_rows_apart() -> None:
    """Compile `write_rows` in another process if that was never done: compiling takes 100 MB."""
    compile_apart(write_rows, "from lossprobe.report.formats.cell_bytes import compile_rows; compile_rows()")
