"""Rows written by compiled loops: the bytes that Arrow, numpy and Python write."""

import json

import numpy as np
import pyarrow as pa
import pytest
from fake_runs import BOS, Doc, words
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.analysis.tokens import token_batches
from lossprobe.report.formats import csv_rows
from lossprobe.report.formats.csv import COMPILED_FROM, batches_to_csv

CELL = "a"


def compiled(*batches: pa.RecordBatch) -> bytes:
    assert csv_rows.are_written(batches[0].schema)
    return b"".join(batches_to_csv(batches, COMPILED_FROM))


def by_arrow(*batches: pa.RecordBatch) -> bytes:
    return b"".join(batches_to_csv(batches))


def column(values: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([values], [CELL])


def cells(values: pa.Array) -> list[str]:
    """Return the cells of a column as the loops write them, which must be as Arrow does."""
    written = compiled(column(values))
    assert written == by_arrow(column(values))
    return written.decode().split("\n")[1:-1]


def floats() -> np.ndarray:
    """Every power of two with its neighbours, every power of ten with its, whole numbers, and any bits."""
    powers = (np.arange(1 << 9, dtype=np.int64) << 23)[:, None] + np.arange(-3, 4)
    tens = (10.0 ** np.arange(-45, 39)).astype(np.float32).view(np.int32).astype(np.int64)[:, None] + np.arange(-3, 4)
    drawn = np.random.default_rng(5).integers(0, 1 << 32, 100_000)
    bits = np.concatenate([powers.ravel(), tens.ravel(), drawn]).astype(np.uint32)
    return np.concatenate([bits.view(np.float32), np.arange(-2000, 20_000, dtype=np.float32)])


@pytest.mark.thorough
def test_a_float_has_the_shortest_digits_that_give_it_back():
    values = floats()
    found = cells(pa.array(values))
    assert len(found) == len(values)
    assert np.array_equal(np.array(found, np.float64).astype(np.float32), values, equal_nan=True)
    finite = np.flatnonzero(np.isfinite(values))
    digits = [found[place].partition("e")[0].lstrip("-").replace(".", "").strip("0") for place in finite]
    # numpy's Dragon4 is another method for the shortest digits, and for the nearest of these
    shortest = [np.format_float_scientific(value, unique=True, trim="-") for value in values[finite]]
    assert digits == [text.partition("e")[0].lstrip("-").replace(".", "").strip("0") for text in shortest]


@pytest.mark.parametrize(
    ("value", "cell"),
    [(0.0, "0"), (-0.0, "-0"), (1.0, "1"), (0.1, "0.1"), (1e-6, "0.000001"), (9.5e-7, "9.5e-7"), (1e9, "1000000000"),
     (1e10, "1e+10"), (-1.25e12, "-1.25e+12"), (1e-45, "1e-45"), (3.4028235e38, "3.4028235e+38"), (123.5, "123.5"),
     (16777216.0, "16777216"), (np.nan, "nan"), (-np.inf, "-inf")],
)  # fmt: skip
def test_how_a_float_is_written(value, cell):
    assert cells(pa.array([value], pa.float32())) == [cell]


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64"])
def test_whole_numbers_are_written_as_python_writes_them(kind):
    limits = np.iinfo(kind)
    tens = [sign * (10**power + more) for power in range(19) for more in (-1, 0, 1) for sign in (1, -1)]
    numbers = [number for number in (*tens, limits.min, limits.max) if limits.min <= number <= limits.max]
    assert cells(pa.array(numbers, kind)) == list(map(str, numbers))


def test_every_step_of_eight_digits_is_exact():
    half = np.arange(10_000)
    numbers = np.concatenate([10_000 * half[1:] - 1, 10_000 * half, 10_001 * half, 10_000_000 * half])
    assert cells(pa.array(numbers)) == list(map(str, numbers.tolist()))


@given(st.lists(st.one_of(st.binary(max_size=6), st.text(max_size=4).map(str.encode)), min_size=1))
def test_bytes_become_json_literals(texts):
    rows = cells(pa.array(texts, pa.large_binary()))
    assert all(row.startswith('"""') and row.isascii() and row.isprintable() for row in rows)
    back = [json.loads(row[1:-1].replace('""', '"')).encode("utf-8", "surrogateescape") for row in rows]
    assert back == texts


def test_every_beginning_of_utf8_is_read_as_python_reads_it():
    seconds = (0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2)
    starts = [bytes([first, second]) for first in range(256) for second in seconds]
    texts = [start + rest for start in starts for rest in (b"", b"\x80", b"\x80\xbf", b"\xbf\xbf\x80a")]
    rows = cells(pa.array(texts, pa.large_binary()))
    assert [row[1:-1].replace('""', '"') for row in rows] == [
        json.dumps(text.decode("utf-8", "surrogateescape")) for text in texts
    ]


@pytest.mark.parametrize("coded", [False, True])
def test_words_are_quoted_and_missing_cells_are_empty(coded):
    words = pa.array(['a "b"', None, "c,d", "", "é", None, "more than twice eight bytes"])
    words = words.dictionary_encode() if coded else words
    assert cells(words) == ['"a ""b"""', "", '"c,d"', '""', '"é"', "", '"more than twice eight bytes"']
    nothing = pa.array([None, None], pa.string())
    assert cells(nothing.dictionary_encode() if coded else nothing) == ["", ""]
    for values in (pa.array([1, None, -7], pa.int32()), pa.array([None, 0.5], pa.float32())):
        assert "" in cells(values)


def test_a_word_that_is_missing_among_those_of_a_dictionary_is_an_empty_cell():
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None, 1]), pa.array(["a", None, ""]))
    assert cells(coded) == ['"a"', "", '""', "", ""]


@pytest.mark.parametrize("coded", [False, True])
def test_words_that_are_no_utf8_are_written_as_they_are(coded):
    ends = pa.py_buffer(np.array([0, 1, 4], np.int32))
    words = pa.Array.from_buffers(pa.string(), 2, [None, ends, pa.py_buffer(b'\xff"\xc3(')])
    words = words.dictionary_encode() if coded else words
    assert compiled(column(words)) == by_arrow(column(words)) == b'a\n"\xff"\n"""\xc3("\n'


def test_a_long_word_takes_memory_for_the_rows_that_have_it_alone(monkeypatch):
    """A conversation may give someone a role of any length."""
    asked, array = [], csv_rows._Room.array
    monkeypatch.setattr(csv_rows._Room, "array", lambda room, *given: asked.append(given[-1]) or array(room, *given))
    words = pa.array([*["user"] * 1000, "x" * 100_000])
    assert compiled(column(words)) == by_arrow(column(words))
    assert max(asked) < 200_000


def test_a_batch_without_rows_may_have_no_memory():
    """As Arrow allows; pyarrow itself cannot tell its size."""
    nothing = column(pa.Array.from_buffers(pa.int32(), 0, [None, None]))
    assert compiled(column(pa.array([1], pa.int32())), nothing) == b"a\n1\n"


def test_parts_of_batches_are_written_as_whole_ones():
    number = np.arange(20)
    batch = pa.RecordBatch.from_arrays(
        [pa.array(number), pa.array((number / 7).astype(np.float32), mask=number % 4 == 1),
         pa.array([b"x" * (place % 5) for place in number], pa.large_binary()), pa.array(list("abcab" * 4))],
        ["number", "share", "text", "word"],
    )  # fmt: skip
    # rows 2 to 4 miss nothing, in the memory of those that did
    assert compiled(batch, batch.slice(5, 7), batch.slice(2, 3), batch.slice(0, 0)) == by_arrow(
        batch, batch.slice(5, 7), batch.slice(2, 3)
    )


def test_a_batch_with_more_bytes_than_places_is_written_in_pieces(monkeypatch):
    """No place of a text may need more bits than the loops have for it."""
    batch = column(pa.array([b"0123456789"] * 50, pa.large_binary()))
    longest, write_rows = [], csv_rows.cell_bytes.write_rows

    def written(kinds, present, values, data, out):
        longest.append(len(data))
        return write_rows(kinds, present, values, data, out)

    monkeypatch.setattr(csv_rows.cell_bytes, "write_rows", written)
    monkeypatch.setattr(csv_rows, "MOST_BYTES", 100)
    assert compiled(batch) == by_arrow(batch)
    assert len(longest) > 4
    assert max(longest) <= 100 + csv_rows.cell_bytes.SLACK


def test_the_rows_of_a_run_are_those_that_arrow_writes(make_run):
    hostile = [
        BOS,
        b"=cmd()",
        b'"',
        b"\\",
        b"\r\n\t\b\f\0",
        b"\x7f",
        "\u202e\U0001f600".encode(),
        b"\xf0\x9f",
        b"\x98\x80",
    ]
    run = make_run([Doc(hostile, ["special", 3, 1, 2, "masked", 5, 6, 700, 1]), words("first_token", *[1.25] * 40)])
    assert compiled(*token_batches(run)) == by_arrow(*token_batches(run))


def test_other_columns_are_left_to_arrow():
    batch = column(pa.array([0.1, None]))
    assert not csv_rows.are_written(batch.schema)
    assert b"".join(batches_to_csv([batch], COMPILED_FROM)) == b"a\n0.1\n\n"
    assert b"".join(batches_to_csv([], COMPILED_FROM)) == b""
