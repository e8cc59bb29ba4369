"""Plain columns: everything that is shown of them is what is shown of the same frame of pandas."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from fake_runs import BOS, Doc, words
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.display import to_html
from lossprobe.plain_table import PlainTable, is_numeric
from lossprobe.report.formats.cells import NAME_COLUMNS
from lossprobe.report.formats.csv import TEXT_COLUMNS, table_to_csv, to_csv
from lossprobe.report.formats.html import tables_of
from lossprobe.report.formats.json import view_to_json
from lossprobe.report.formats.markdown import to_markdown
from lossprobe.report.formats.terminal import to_terminal
from lossprobe.report.views.perplexity import perplexity_view
from lossprobe.report.views.view import View

floats = st.floats(allow_nan=True, allow_infinity=True)
# Names that mean nothing to a format, so that pandas writes the same cells.
COLUMNS = {
    "a": (np.float64, floats),
    "b": (np.float32, st.floats(width=32, allow_nan=True, allow_infinity=True)),
    "c": (np.int64, st.integers(-(2**63), 2**63 - 1)),
    "d": (np.int32, st.integers(-(2**31), 2**31 - 1)),
    "e": (np.bool_, st.booleans()),
    "f": (
        object,
        st.none() | st.text(max_size=6) | st.sampled_from(['"', "a,b", "x\ny", "\r", "", " ", "nan"]),
    ),
    "g": (object, st.none() | st.integers(-5, 5) | floats),
}


@st.composite
def tables(draw) -> PlainTable:
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True))
    rows = draw(st.integers(0, 5))
    columns = {}
    for name in names:
        kind, values = COLUMNS[name]
        columns[name] = np.array(draw(st.lists(values, min_size=rows, max_size=rows)), kind)
    return PlainTable(columns)


def frame_of(table: PlainTable) -> pd.DataFrame:
    """Return the frame of a table with objects left as they are."""
    return pd.DataFrame({name: pd.Series(table[name], dtype=table[name].dtype) for name in table})


@given(table=tables())
def test_csv_is_that_of_pandas(table):
    assert not (TEXT_COLUMNS | NAME_COLUMNS) & set(COLUMNS)
    wanted = frame_of(table).to_csv(index=False, lineterminator="\n")
    assert to_csv(table) == wanted
    assert to_csv(frame_of(table)) == wanted
    assert to_csv(table, header=False) == frame_of(table).to_csv(index=False, header=False, lineterminator="\n")


@dataclass(frozen=True)
class Tabular:
    table: object
    finding: str = "found"
    notes: tuple[str, ...] = ()


@given(table=tables())
def test_each_format_shows_columns_as_it_shows_a_frame(table):
    frame = frame_of(table)
    assert to_markdown(table, "t", []) == to_markdown(frame, "t", [])
    assert to_terminal(table, "t", [], 80) == to_terminal(frame, "t", [], 80)
    plain, framed = View("odd", "", Tabular(table)), View("odd", "", Tabular(frame))
    assert tables_of(plain) == tables_of(framed)
    rows = json.loads(b"".join(view_to_json(plain)))["rows"]
    assert rows == json.loads(b"".join(view_to_json(framed)))["rows"]
    for row, cells in zip(rows, frame.astype(object).to_dict("records"), strict=True):
        for name, cell in cells.items():
            absent = cell is None or (isinstance(cell, float) and not np.isfinite(cell))
            assert row[name] == (None if absent else float(str(np.float32(cell))) if name == "b" else cell)


def test_types_are_numeric_as_pandas_says():
    for values in (*(np.zeros(1, kind) for kind, _ in COLUMNS.values()), np.zeros(1, complex), np.zeros(1, "M8[s]")):
        assert is_numeric(values) == pd.api.types.is_numeric_dtype(values)
    for kind in ("Int64", "Float64", "boolean", "str", "string", "category", "m8[s]", object):
        values = pd.Series([], dtype=kind)
        assert is_numeric(values) == pd.api.types.is_numeric_dtype(values), kind


@pytest.fixture
def run(make_run):
    docs = [
        Doc([BOS, b"=cmd()", b"a", b"b"], ["special", 3, 1, "masked"], {"lang": "en"}),
        words(*["first_token", *[1.25] * 40]),
        words("first_token", 2, 7),
    ]
    return make_run(docs)


def test_a_query_gives_columns_with_what_a_frame_of_it_holds(run):
    for sql in (
        "SELECT * EXCLUDE (unscored), unscored FROM tokens",
        "SELECT document, text, fields, source, line FROM documents",
        "SELECT token_id FROM tokens WHERE false",
        "SELECT 1::HUGEINT AS a, NULL::BIGINT AS b, sum(loss_nats::DOUBLE) AS c FROM tokens WHERE false",
        "SELECT ?::INTEGER AS a",
    ):
        parameters = (3,) if "?" in sql else ()
        columns, frame = run.columns(sql, parameters), run.query(sql, parameters)
        assert columns.columns == tuple(frame.columns)
        assert len(columns) == len(frame)
        for name in columns:
            assert is_numeric(columns[name]) == pd.api.types.is_numeric_dtype(frame[name]), name
            nothing = None if columns[name].dtype == object else math.nan
            wanted = [nothing if pd.isna(value) else value for value in frame[name]]
            pd.testing.assert_series_equal(
                pd.Series(columns[name].tolist(), dtype=object), pd.Series(wanted, dtype=object)
            )
            assert all(value is None or value == value for value in columns[name] if nothing is None), name


def test_python_gets_a_frame_and_notebooks_show_it(run):
    result = measure_perplexity(run)
    assert result.table is result.table
    assert result.table.columns.tolist() == ["measure", "value", "low", "high", "unit", "count"]
    assert [str(kind) for kind in result.table.dtypes.iloc[[1, 2, 3, 5]]] == ["float64", "float64", "float64", "int64"]
    assert result.table.to_dict("records") == result.rows.records()
    view = perplexity_view(run, result)
    assert view.result.table is result.table
    assert b"".join(table_to_csv(view.rows)) == b"".join(table_to_csv(result.table))
    assert to_html("", [("", result.rows)], []) == to_html("", [("", result.table)], [])
    assert result.table.to_html(index=False, na_rep="n/a", border=0, float_format=lambda value: f"{value:.6f}") in (
        view._repr_html_()
    )
