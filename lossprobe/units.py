"""Numbers and words: nats to bits and perplexity, how numbers are printed, how foreign text is shown.

The only place where the base of a logarithm is named, and the only door through which a string that came
from a file (a text, a token, a tensor or file name) reaches a terminal, a table or a plot.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

NATS_PER_BIT = math.log(2.0)
MOST_DECIMALS = 12
LARGE = 1e12  # from here on a fixed number of decimals says nothing
MAX_EXPONENT = 709.78  # exp() of more than this overflows float64


def perplexity(nats_per_unit: float) -> float:
    """Return exp(`nats_per_unit`), or infinity above 709.78 nats: exp overflows there, it must not crash.

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
    """Return an integer with thousands separators, the same in every locale."""
    return f"{count:,}"


def format_loss(nats: float | None) -> str:
    """Return a loss in nats with 6 decimals, or `n/a` when there is none."""
    return "n/a" if nats is None or math.isnan(nats) else f"{nats:.6f}"


def format_perplexity(value: float | None) -> str:
    """Return a perplexity with 4 decimals (6 digits from 10^12 on), or `n/a` when there is none."""
    if value is None or math.isnan(value):
        return "n/a"
    return f"{value:,.4f}" if abs(value) < 1e12 else f"{value:.6g}"


def format_together(
    values: Sequence[float | None], *, decimals: int = 4, signed: bool = False, suffix: str = ""
) -> list[str]:
    """Return numbers as text, all with the same decimals: so many that no two that differ look alike.

    A number that is not zero never looks like zero. What 12 decimals cannot tell apart is written in full.

    Args:
        values: what stands side by side, such as an estimate, its interval and the limit; None and NaN give "n/a".
        decimals: the fewest.
        signed: write the plus of positive numbers, for changes.
        suffix: what follows each number, such as "%".

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
    value = float(value) + 0.0  # no minus before zero
    sign = "+" if signed and value > 0 else ""
    if decimals is None or math.isinf(value):
        return sign + repr(value)
    return f"{sign}{value:,.{decimals}f}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "token"), plural(2048, "token"), plural(2, "entry")
    ('1 token', '2,048 tokens', '2 entries')
    """
    if count != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{format_count(count)} {noun}"


def token_literal(data: bytes) -> str:
    r"""Return bytes of a text as a JSON string literal in ASCII, from which they can be restored exactly.

    A token of a byte-level tokenizer can end inside a character; such bytes appear as `\udc80`..`\udcff`
    (Python's surrogateescape), so `json.loads(literal).encode("utf-8", "surrogateescape")` is `data`.
    A literal starts with a quote, stays on one line and is inert in spreadsheets, whatever the text.

    >>> token_literal(b'a "b"\n'), token_literal(b"\xe2\x80")
    ('"a \\"b\\"\\n"', '"\\udce2\\udc80"')
    """
    return json.dumps(data.decode("utf-8", "surrogateescape"), ensure_ascii=True)


def visible(text: str, limit: int | None = None) -> str:
    r"""Return `text` with everything unprintable escaped, cut to at most `limit` characters with an ellipsis.

    Control characters, escape sequences, bidirectional marks and lone surrogates cannot reach a terminal
    or a picture: each is shown as `\n`, `\x1b`, `\u202e` or, for a stray byte, `\xe2`; a cut never splits one.

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
    r"""Return bytes of a text for display: decoded where they are characters, escaped where not.

    >>> visible_bytes(b"caf\xc3\xa9 \xe2")
    'café \\xe2'
    """
    return visible(data.decode("utf-8", "surrogateescape"), limit)
