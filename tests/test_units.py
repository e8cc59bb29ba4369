"""Numbers and foreign text on their way out: nothing is lost in a file, nothing unsafe reaches a screen."""

import csv
import io
import json
import math
import unicodedata

import pandas as pd
import pyarrow.csv
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lossprobe.units import (
    MAX_EXPONENT,
    bits,
    format_count,
    format_loss,
    format_perplexity,
    perplexity,
    plural,
    token_literal,
    visible,
    visible_bytes,
)

HOSTILE = [
    b"", b"NA", b"null", b"None", b"nan", b"001", b"1e5", b"=cmd()", b"+1", b"@x", b"-", b"'", b'"', b'""', b",", b"\r",
    b"\n", b"\r\n", b"\t", b"\0", b"\x7f", b"\x1b[2J", b"\\", b"\\n", b"\\\x7f", b"\xff\xfe", b"\xed\xa0\x80",
    b"\xe2\x80", "\u202e\u2028\ufeff".encode(), "😀".encode(), b"true", b" a ", b"::error::x",
]  # fmt: skip


def restored(literal: str) -> bytes:
    return json.loads(literal).encode("utf-8", "surrogateescape")


@given(st.binary())
@example(b"\x7f\\\x7f")
@example(b"\xf0\x9f\x98\x80\xed\xa0\xbd")  # a character, then bytes that look like half of one
def test_a_literal_holds_any_bytes(data):
    literal = token_literal(data)
    assert restored(literal) == data
    assert (literal[0], literal[-1]) == ('"', '"')
    assert all(" " <= character <= "~" for character in literal)  # printable ASCII, one line


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=8))
@example(HOSTILE)
def test_literals_come_back_from_three_csv_readers(pieces):
    sink = io.StringIO()
    pd.DataFrame({"text": [token_literal(piece) for piece in pieces]}).to_csv(sink, index=False, lineterminator="\n")
    written = sink.getvalue()
    readers = (
        [row[0] for row in csv.reader(io.StringIO(written))][1:],
        list(pd.read_csv(io.StringIO(written))["text"]),
        pyarrow.csv.read_csv(io.BytesIO(written.encode())).column("text").to_pylist(),
    )
    for cells in readers:
        assert [restored(cell) for cell in cells] == pieces


UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@given(st.text(st.characters(exclude_categories=())), st.none() | st.integers(1, 30))
@example("\x1b[2J\r\n\x9b\u202e\u2066\u200b\ud800\udc80\ue000\u2028", None)
def test_nothing_unprintable_is_visible(text, limit):
    shown = visible(text, limit)
    assert not [character for character in shown if unicodedata.category(character) in UNSAFE]
    assert limit is None or len(shown) <= limit
    assert visible(shown) == shown  # safe to apply twice


@given(st.text())
def test_a_cut_shows_a_beginning_and_never_half_an_escape(text):
    whole = visible(text)
    for limit in range(1, 12):
        shown = visible(text, limit)
        if len(whole) <= limit:
            assert shown == whole
        else:
            kept = shown.removesuffix("…")
            assert shown == kept + "…"
            assert kept in [visible(text[:size]) for size in range(len(text) + 1)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é漢😀 \\", "plain é漢😀 \\"),
        ("a\tb\r\n\0", "a\\tb\\r\\n\\x00"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202eabc", "\\u202eabc"),
        ("\u00a0\u3000", "\\xa0\\u3000"),  # blanks that do not look like one
        ("\U000e0041", "\\U000e0041"),
        ("\udce2", "\\xe2"),  # a stray byte
        ("\ud83d", "\\ud83d"),  # half a pair that is no byte
    ],
)
def test_what_is_shown_instead(text, shown):
    assert visible(text) == shown


def test_bytes_are_shown_where_they_are_characters():
    assert visible_bytes("it’s".encode()) == "it’s"
    assert visible_bytes("it’s".encode()[:4]) == "it\\xe2\\x80"
    assert visible_bytes(b"abcdef", 4) == "abc…"


def test_perplexity_overflows_to_infinity_and_keeps_nan():
    assert perplexity(0.0) == 1.0
    assert perplexity(math.log(50257)) == pytest.approx(50257, rel=1e-12)  # log and exp round once each
    assert math.isfinite(perplexity(MAX_EXPONENT))
    assert perplexity(MAX_EXPONENT + 0.01) == math.inf
    assert perplexity(-1000.0) == 0.0
    assert math.isnan(perplexity(math.nan))


def test_bits():
    assert bits(math.log(2.0)) == 1.0
    assert bits(0.0) == 0.0
    assert bits(math.log(256.0)) == pytest.approx(8.0, rel=1e-15)


def test_formats():
    assert format_count(1234567) == "1,234,567"
    assert [format_loss(value) for value in (1.8354939, 0.0, None, math.nan)] == ["1.835494", "0.000000", "n/a", "n/a"]
    shown = {
        6.26823: "6.2682",
        12345.67891: "12,345.6789",
        1e300: "1e+300",
        math.inf: "inf",
        None: "n/a",
        math.nan: "n/a",
    }
    assert [format_perplexity(value) for value in shown] == list(shown.values())


def test_plurals():
    assert [plural(count, "byte") for count in (0, 1, 2)] == ["0 bytes", "1 byte", "2 bytes"]
    assert plural(2, "vocabulary entry") == "2 vocabulary entries"
