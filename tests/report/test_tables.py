"""Results as CSV, JSON and terminal text."""

import csv
import io
import json
import math
import re
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import pyarrow.csv
import pytest
from fake_runs import BOS, Doc, words
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.options import HARDEST_BY
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.tokens import measure_tokens, token_batches
from lossprobe.report.formats.cells import format_cell
from lossprobe.report.formats.csv import batches_to_csv, to_csv, view_to_csv
from lossprobe.report.formats.json import JSON_SCHEMA, view_to_json
from lossprobe.report.formats.terminal import to_terminal
from lossprobe.report.views.view import View

LANG = {"lang": "e\x1b\nn"}


@pytest.fixture
def run(make_run):
    hostile = [BOS, b"=cmd()", b"NA", b"001", b"\r\n", b"\x1b[2J", "\u202e".encode(), "漢".encode()[:1]]
    docs = [
        Doc(
            [*hostile, "漢".encode()[1:], b' "q",'], ["special", 3, 1, 2, 4, 5, 6, "masked", 2, 1], {"lang": "e\x1b\nn"}
        ),
        words(*["first_token", *[1.25] * 40], fields={"lang": "de"}),
        words("first_token", 2, 700),
    ]
    return make_run(docs, name="mo\x1b[31mdel", text_name="te\nxt")


def results(run):
    yield "tokens", measure_tokens(run)
    yield "positions", measure_positions(run)
    yield "perplexity", measure_perplexity(run, "lang")
    for by in HARDEST_BY:
        yield "hardest", find_hardest(run, by, min_count=1)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6), st.data())
def test_text_columns_come_back_from_three_readers(texts, data):
    texts = [None if data.draw(st.integers(0, 5)) == 0 else text for text in texts]
    losses = np.array([data.draw(st.floats(0, 99, width=32)) for _ in texts], np.float32)
    written = to_csv(pd.DataFrame({"text": pd.Series(texts, dtype=object), "loss_nats": losses}))
    readers = (
        [row["text"] for row in csv.DictReader(io.StringIO(written))],
        pd.read_csv(io.StringIO(written))["text"].tolist(),
        pyarrow.csv.read_csv(io.BytesIO(written.encode()))["text"].to_pylist(),
    )
    for cells in readers:
        assert [json.loads(cell) if isinstance(cell, str) and cell else None for cell in cells] == texts
    back = [np.float32(row["loss_nats"]) for row in csv.DictReader(io.StringIO(written))]
    assert back == losses.tolist()  # full precision


def test_missing_values_are_empty_cells(run):
    rows = list(csv.DictReader(io.StringIO(to_csv(measure_tokens(run).table))))
    assert (rows[0]["text"], rows[0]["top_text"], rows[0]["loss_nats"], rows[0]["rank"]) == ('"<bos>"', "", "", "")
    assert rows[1]["rank"] == "3"


def test_the_streamed_csv_is_the_same_csv(run):
    written = b"".join(batches_to_csv(token_batches(run))).decode()
    rows = list(csv.DictReader(io.StringIO(written)))
    assert len(rows) == 10 + 41 + 3
    assert written.count("\n") == 1 + len(rows)  # no row is split by a token
    assert "\r" not in written
    assert [json.loads(row["text"]) for row in rows[:3]] == ["<bos>", "=cmd()", "NA"]
    assert json.loads(rows[7]["text"]).encode("utf-8", "surrogateescape") == "漢".encode()[:1]
    assert (rows[7]["unscored"], rows[7]["loss_nats"], rows[1]["unscored"]) == ("masked", "", "")
    frame = pd.read_csv(io.StringIO(written))
    stored = run.query("SELECT loss_nats, document, top_id FROM tokens")
    assert np.array_equal(frame["loss_nats"].astype(np.float32), stored["loss_nats"], equal_nan=True)
    arrow = pyarrow.csv.read_csv(io.BytesIO(written.encode()))
    assert arrow["text"].to_pylist() == frame["text"].tolist()
    short = to_csv(measure_tokens(run, rows=99).table.loc[:, ["document", "token", "loss_nats"]]).splitlines()
    chosen = [f"{row['document']},{row['token']},{row['loss_nats']}" for row in rows]
    assert short[1:] == chosen  # both write the same digits


def test_json_is_strict_and_complete(run):
    for command, result in results(run):
        written = b"".join(view_to_json(View(command, "", result, (run,))))
        assert written.isascii()
        content = json.loads(written, parse_constant=pytest.fail)  # NaN or Infinity
        assert (content["schema"], content["command"], content["run"]["checkpoint"]) == (JSON_SCHEMA, command, run.name)
        names = {"rows" if field.name == "table" else field.name for field in fields(result)}
        assert content.keys() == {"schema", "command", "run", "finding", "findings"} | names
        assert len(content["rows"]) == len(result.table)
        assert list(content["rows"][0]) == list(result.table.columns)


def test_json_numbers_have_the_digits_of_the_csv(run):
    for command, result in results(run):
        rows = json.loads(b"".join(view_to_json(View(command, "", result, (run,)))))["rows"]
        lines = csv.DictReader(io.StringIO(to_csv(result.table)))
        for row, line in zip(rows, lines, strict=True):
            for name, value in row.items():
                if isinstance(value, float):
                    assert value == float(line[name])
                elif value is None:
                    assert line[name] in ("", "inf", "-inf")


@dataclass(frozen=True)
class Odd:
    table: pd.DataFrame
    values: dict
    finding: str = "odd"


def test_json_has_null_for_what_it_cannot_hold(run):
    table = pd.DataFrame({"a": pd.Series([1, pd.NA], dtype="Int64"), "b": np.array([np.inf, 0.1], np.float32)})
    values = {"n": np.int64(3), "f": np.float64("nan"), "t": (1, None), 5: [math.inf], "flag": np.bool_(True)}
    content = json.loads(b"".join(view_to_json(View("odd", "", Odd(table, values), (run,)))))
    assert content["rows"] == [{"a": 1, "b": None}, {"a": None, "b": 0.1}]
    assert content["values"] == {"n": 3, "f": None, "t": [1, None], "5": [None], "flag": True}


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5])
def test_a_table_written_some_rows_at_a_time_is_the_same(rows, run, monkeypatch):
    table = pd.DataFrame({"text": [None, "=a", "b\n", "c", "d"], "n": np.array([0.5, 1e-9, np.nan, 3, 4])}).head(rows)
    view = View("odd", "", Odd(table, {}), (run,))
    csv_whole, json_whole = to_csv(table).encode(), b"".join(view_to_json(view))
    for module in ("csv", "json"):
        monkeypatch.setattr(f"lossprobe.report.formats.{module}.ROWS_AT_A_TIME", 2)
    pieces = list(view_to_csv(view))
    assert len(pieces) == max(1, -(-rows // 2))
    assert b"".join(pieces) == csv_whole
    assert b"".join(view_to_json(view)) == json_whole
    content = json.loads(json_whole)
    assert json_whole.decode() == json.dumps(content, indent=1) + "\n"
    assert [row["text"] for row in content["rows"]] == [None, "=a", "b\n", "c", "d"][:rows]


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_number_is_cut_whatever_the_width(run, width):
    for command, result in results(run):
        table = result.table
        shown = to_terminal(table, command, [result.finding], width)
        numeric = [name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])]
        for row in table.head(40).to_dict("records"):
            assert {format_cell(name, row[name]) for name in numeric} <= set(shown.split())


def test_a_narrow_terminal_breaks_headers_and_folds_texts():
    table = pd.DataFrame({"mean_loss_nats": [1.5], "why": ["one two three four"], "count": [1234567]})
    assert to_terminal(table, "title", ["finding", "note"], 35).splitlines() == [
        "title",
        "",
        "   mean_",
        "   loss_",
        "    nats  why                 count",
        "───────────────────────────────────",
        "1.500000  one two three   1,234,567",
        "          four",
        "",
        "finding",
        "note",
    ]
    wide = to_terminal(table, "title", [], 80).splitlines()
    assert wide[2] == "mean_loss_nats  why                     count"


def test_only_the_first_rows_are_shown():
    table = pd.DataFrame({"n": range(45)})
    shown = to_terminal(table, "t", [], 80)
    assert "(5 more rows)" in shown
    assert "(5 more rows; all are in x.csv)" in to_terminal(table, "t", [], 80, "all are in x.csv")
    assert shown.split().count("39") == 1
    assert "44" not in shown


def test_nothing_unsafe_reaches_the_terminal(run):
    for command, result in results(run):
        title = f"{command}: {run.name} on {run.text_name}"
        for table in (result.table, getattr(result, "groups", None)):
            if table is not None:
                shown = to_terminal(table, title, [result.finding, "a\x1b[2J\nb"], 100)
                assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
                assert "mo\\x1b[31mdel on te\\nxt" in shown


def test_wide_characters_take_two_columns():
    shown = to_terminal(pd.DataFrame({"text": ["漢字漢字", "ab"], "n": [1, 2]}), "t", [], 80).splitlines()
    assert shown[4:6] == ["漢字漢字  1", "ab        2"]


@pytest.mark.parametrize(
    ("column", "value", "cell"),
    [
        ("loss_nats", 0.1234567, "0.123457"),
        ("loss_nats", np.float32(1.5), "1.500000"),
        ("perplexity", 3.14159, "3.1416"),
        ("value", 12345.678, "12,345.6780"),
        ("value", math.inf, "inf"),
        ("share_of_loss", 0.12345, "12.35%"),
        ("count", np.int64(12345), "12,345"),
        ("tiles", True, "yes"),
        ("tiles", np.bool_(False), "no"),
        ("rank", pd.NA, "n/a"),
        ("low", math.nan, "n/a"),
        ("top_text", None, "n/a"),
        ("text", "a\x1b\n", "a\\x1b\\n"),
        ("text", "nan", "nan"),
    ],
)
def test_cells(column, value, cell):
    assert format_cell(column, value) == cell


def test_names_of_models_are_plain_unless_a_spreadsheet_would_run_them():
    table = pd.DataFrame({"model": ["plain", "\x1b[31mred", "=1+1", "@x"], "value": [1, 2, 3, 4]})
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert [row[0] for row in rows] == ["model", "plain", "\\x1b[31mred", '"=1+1"', '"@x"']


def test_names_of_files_and_groups_are_plain_and_never_a_formula():
    table = pd.DataFrame({"source": ["a b.txt", "=x", '"q"', "＝1"], "group": ["end of text", "-1", "a\nb", None]})
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [row["source"] for row in rows] == ["a b.txt", '"=x"', '"\\"q\\""', '"\\uff1d1"']
    assert [row["group"] for row in rows] == ["end of text", '"-1"', "a\\nb", ""]
    entries = to_csv(pd.DataFrame({"group": [" the", "=x"], "token_id": [1, 2]}))
    assert [json.loads(row["group"]) for row in csv.DictReader(io.StringIO(entries))] == [" the", "=x"]
