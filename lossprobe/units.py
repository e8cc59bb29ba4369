"""Conversion of nats to bits and perplexity, formatting of numbers, and escaping of text from files.

Every string that came from a file (a text, a token, a tensor or file name) goes through `visible`, `visible_bytes` or
`token_literal` before it reaches a terminal, a table or a plot.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence

NATS_PER_BIT = math.log(2.0)
MOST_DECIMALS = 12
LARGE = 1e12  # from here on float64 cannot hold the decimals that a fixed format would print
MAX_EXPONENT = 709.78  # exp() of more than this overflows float64


def perplexity(nats_per_unit: float) -> float:
    """Return exp(`nats_per_unit`), or infinity above 709.78 nats, where exp overflows float64.

    >>> round(perplexity(1.835494), 4)
    6.2682
    """
    return math.inf if nats_per_unit > MAX_EXPONENT else math.exp(nats_per_unit)


def bits(nats: float) -> float:
    """Return `nats` in bits.

    >>> round(bits(math.log(8.0)), 12)
    3.0
    """
    return nats / NATS_PER_BIT


def format_count(count: int) -> str:
    """Return an integer with commas between thousands, in every locale: 1234567 becomes "1,234,567"."""
    return f"{count:,}"


def format_loss(nats: float | None) -> str:
    """Return a loss in nats with 6 decimals, or "n/a" for None and NaN."""
    return "n/a" if nats is None or math.isnan(nats) else f"{nats:.6f}"


def format_small(value: float) -> str:
    """Return a number with 6 decimals, or with 4 digits and a power of ten where it is below 0.001.

    >>> format_small(0.401811), format_small(2.1345678e-05), format_small(0.0)
    ('0.401811', '2.135e-05', '0.000000')
    """
    return f"{value:.3e}" if 0 < abs(value) < 1e-3 else f"{value:.6f}"


def format_perplexity(value: float | None) -> str:
    """Return a perplexity with 4 decimals (6 significant digits from 10^12 on), or "n/a" for None and NaN."""
    if value is None or math.isnan(value):
        return "n/a"
    return f"{value:,.4f}" if abs(value) < LARGE else f"{value:.6g}"


def format_together(
    values: Sequence[float | None], *, decimals: int = 4, signed: bool = False, suffix: str = ""
) -> list[str]:
    """Return numbers as text with one number of decimals, large enough that different numbers look different.

    A number other than zero never looks like zero. Numbers that 12 decimals cannot tell apart are written in full.

    Args:
        values: numbers shown together, such as an estimate, its interval and the limit; None and NaN give "n/a".
        decimals: the least number of decimals.
        signed: write a plus before positive numbers, for changes.
        suffix: text after each finite or infinite number, such as "%".

    >>> format_together([0.0125, 0.00999999, 0.01], signed=True)
    ['+0.01250000', '+0.00999999', '+0.01000000']
    >>> format_together([12.5, None, math.inf, 0.0], suffix="%")
    ['12.5000%', 'n/a', 'inf%', '0.0000%']
    """
    finite = {0.0, *(value for value in values if value is not None and math.isfinite(value))}
    shown = None
    if max(map(abs, finite)) < LARGE:
        shown = next((count for count in range(decimals, MOST_DECIMALS + 1) if _told_apart(finite, count)), None)
    return [
        "n/a" if value is None or math.isnan(value) else _written(value, shown, signed) + suffix for value in values
    ]


def _told_apart(values: set[float], decimals: int) -> bool:
    return len({float(f"{value:.{decimals}f}") for value in values}) == len(values)


def _written(value: float, decimals: int | None, signed: bool) -> str:
    value = float(value) + 0.0  # turns -0.0 into 0.0
    sign = "+" if signed and value > 0 else ""
    if decimals is None or math.isinf(value):
        return sign + repr(value)
    return f"{sign}{value:,.{decimals}f}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless the count is 1.

    >>> plural(1, "token"), plural(2048, "token"), plural(2, "entry")
    ('1 token', '2,048 tokens', '2 entries')
    """
    if count != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{format_count(count)} {noun}"


def token_literal(data: bytes) -> str:
    r"""Return bytes of a text as a JSON string literal in ASCII.

    A token of a byte-level tokenizer can end inside a character; bytes that are not UTF-8 appear as `\udc80`..`\udcff`
    (Python's surrogateescape), so `json.loads(literal).encode("utf-8", "surrogateescape")` gives `data` back.
    The literal starts with a quote, so no spreadsheet reads it as a formula, and it has no line break.

    >>> token_literal(b'a "b"\n'), token_literal(b"\xe2\x80")
    ('"a \\"b\\"\\n"', '"\\udce2\\udc80"')
    """
    return json.dumps(data.decode("utf-8", "surrogateescape"), ensure_ascii=True)


def visible(text: str, limit: int | None = None) -> str:
    r"""Return `text` with every unprintable character escaped, cut to at most `limit` characters with the ellipsis.

    Control characters, bidirectional marks and lone surrogates become escapes such as `\n`, `\x1b` and `\u202e`; a byte
    that is not UTF-8 becomes `\xe2`. So no text from a file can steer a terminal. A cut never splits an escape.

    >>> visible("a\x1b[2J\n"), visible("abcdef", 4)
    ('a\\x1b[2J\\n', 'abc…')
    """
    if limit is None:
        return "".join(map(_visible_character, text))
    pieces: list[str] = []
    size = 0
    for character in text:
        piece = _visible_character(character)
        if size + len(piece) > limit:
            while size >= limit:
                size -= len(pieces.pop())
            return "".join(pieces) + "…"
        pieces.append(piece)
        size += len(piece)
    return "".join(pieces)


def _visible_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def visible_bytes(data: bytes, limit: int | None = None) -> str:
    r"""Return bytes of a text for display: decoded where they are valid UTF-8, escaped elsewhere.

    >>> visible_bytes(b"caf\xc3\xa9 \xe2")
    'café \\xe2'
    """
    return visible(data.decode("utf-8", "surrogateescape"), limit)


def mistyped_path(path: str) -> str | None:
    r"""Return what to do about a path that does not exist, by how it is written; None where nothing stands out.

    >>> mistyped_path("'a.txt'"), mistyped_path("https:/huggingface.co/gpt2"), mistyped_path("a.txt")
    ('leave out the quotes: they are part of the name here', 'an address is never opened: download it first', None)
    """
    if path.lower().startswith(("http:/", "https:/", "hf:/", "s3:/")):
        return "an address is never opened: download it first"
    if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":
        return "leave out the quotes: they are part of the name here"
    if "\\" in path and os.sep == "/":
        return "write / between folders, not \\"
    return None
