"""The views end to end: table, CSV, PNG and JSON from one stored run, and what each of them holds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len

from lossprobe.cli.main import run
from lossprobe.run.reader import latest_run
from lossprobe.run.schema import TOKEN_COLUMNS

VIEWS = ("tokens", "positions", "hardest", "perplexity", "calibration", "objectives")
PNG = b"\x89PNG\r\n\x1a\n"


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("view", VIEWS)
def test_in_a_pipe_a_view_is_csv_and_the_finding_is_talk(work, capsysbinary, view):
    code = run([view])
    out, err = capsysbinary.readouterr()
    assert code == 0
    rows = list(csv.reader(io.StringIO(out.decode())))
    assert len(rows) > 2
    assert {len(row) for row in rows} == {len(rows[0])}
    finding, *notes = err.decode().splitlines()
    assert finding.startswith("lossprobe: ")
    assert all(note.startswith("lossprobe: note: ") for note in notes)
    assert run([view, "--quiet"]) == 0
    assert capsysbinary.readouterr() == (out, b"")


def files_of(capsys, view, *options):
    """Call a view in the working folder; return its exit code, what it says, and the bytes of each file it writes."""
    before = set(Path().iterdir())
    code, out, err = call(capsys, view, *options)
    return code, out, err, {file.name: file.read_bytes() for file in sorted(set(Path().iterdir()) - before)}


# What a picture shows is tested by report/; here it is written and read again, which is the same for every view.
@pytest.mark.parametrize(
    "view", [pytest.param(view, marks=[pytest.mark.thorough] * (view not in ("tokens", "positions"))) for view in VIEWS]
)
def test_files_are_named_after_the_command_and_their_bytes_are_always_the_same(work, capsys, view):
    code, _, err, first = files_of(capsys, view, "--csv", "--plot", "--table")
    assert code == 0
    assert f"wrote {view}.csv" in err
    assert f"wrote {view}.png" in err
    assert first[f"{view}.png"].startswith(PNG)
    assert len(pd.read_csv(work / f"{view}.csv")) > 1
    (work / f"{view}.png").unlink()
    # The run that stands after an option with an optional file is not that file.
    code, out, err, again = files_of(capsys, view, "--plot", latest_run(Path()).path, "--csv", "x.csv")
    assert (code, out) == (0, "")
    assert again == {"x.csv": first[f"{view}.csv"], f"{view}.png": first[f"{view}.png"]}
    assert "error" not in err


@pytest.mark.parametrize(
    ("options", "name", "start"),
    [
        (["--plot", "x.svg"], "x.svg", b"<?xml"),
        (["--plot=x.pdf"], "x.pdf", b"%PDF-"),
        (["--plot=y.SVG"], "y.SVG", b"<?xml"),
        (["--plot=x.png"], "x.png", PNG),
    ],
)
def test_a_picture_has_the_format_of_its_suffix(work, capsys, options, name, start):
    code, _, _, files = files_of(capsys, "positions", *options)
    assert code == 0
    assert list(files) == [name]
    assert files[name].startswith(start)


@pytest.mark.parametrize("options", [["--plot=x.gif"], ["--plot", "x.gif"], ["--plot=x"], ["--plot=x.txt"]])
def test_a_picture_in_an_unknown_format_is_refused(work, capsys, options):
    code, out, err, files = files_of(capsys, "positions", *options)
    assert (code, out, files) == (2, "", {})
    assert err.startswith("lossprobe: error[output.suffix]: --plot")
    assert ".png, .svg or .pdf" in err


def test_a_device_gets_a_png(work, capsys):
    assert call(capsys, "positions", "--plot=/dev/null")[0] == 0


@pytest.mark.parametrize("view", VIEWS)
def test_a_table_in_a_pipe_is_as_wide_as_columns_says(work, capsys, monkeypatch, view):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(capsys, view, "--table")
    assert code == 0
    assert max(map(cell_len, out.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "160")
    wide = call(capsys, view, "--table")[1]
    monkeypatch.delenv("COLUMNS")
    assert call(capsys, view, "--table")[1] == wide


def test_columns_that_are_no_number_are_passed_over(work, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "\u00b2")  # a digit to Unicode, and to rich
    assert call(capsys, "positions", "--table")[0] == 0


@pytest.mark.parametrize("view", VIEWS)
def test_json_is_one_object_with_a_schema_and_no_nan(work, capsysbinary, view):
    assert run([view, "--json"]) == 0
    out = capsysbinary.readouterr().out.decode()
    content = json.loads(out, parse_constant=pytest.fail)
    assert content["schema"] == 1
    assert content["command"] == view
    assert content["finding"]
    assert content["rows"]
    assert out.isascii()


def test_the_documented_json_keys(work, capsysbinary):
    def content(*arguments):
        assert run([*arguments, "--json"]) == 0
        return json.loads(capsysbinary.readouterr().out)

    headline = content("perplexity")
    per_token = headline["per_token"]
    assert set(per_token) == {
        "tokens_scored", "nll_nats_per_token", "nll_nats_per_token_interval", "token_perplexity",
        "token_perplexity_interval",
    }  # fmt: skip
    assert set(headline["per_word"]) == {"word_perplexity", "word_perplexity_interval"}
    assert {"bytes", "byte_perplexity", "bits_per_byte", "bits_per_byte_interval"} <= set(headline["per_byte"])
    assert set(headline["per_character"]) == {"bits_per_char", "bits_per_char_interval"}
    assert {"documents", "coverage"} <= set(headline)
    assert headline["documents"] == 8
    assert per_token["token_perplexity"] == pytest.approx(np.exp(per_token["nll_nats_per_token"]), rel=1e-12)
    assert {"context", "count", "mean_loss_nats", "low", "high"} <= set(content("positions")["rows"][0])
    assert {
        "document", "token", "text", "loss_nats", "rank", "top_text", "context", "before", "after",
    } <= set(content("hardest")["rows"][0])  # fmt: skip


def test_the_token_csv_is_the_stored_run_with_the_text(work, capsysbinary, text):
    assert run(["tokens", "--csv", "-"]) == 0
    out = capsysbinary.readouterr().out
    table = pd.read_csv(io.BytesIO(out), keep_default_na=False, na_values=[""])
    stored = latest_run(Path()).query("SELECT * FROM tokens ORDER BY document, token")
    names = [column.name for column in TOKEN_COLUMNS]
    assert [name for name in table.columns if name != "text"] == names
    for name in ("loss_nats", "entropy_nats", "sum_p2", "rank", "byte_stop"):
        np.testing.assert_array_equal(table[name].astype("float32"), stored[name].astype("float32"), err_msg=name)
    records = [json.loads(line)["text"] for line in text.read_text("utf-8").splitlines()]
    for number, expected in enumerate(records):
        pieces = [json.loads(literal) for literal in table[table["document"] == number]["text"]]
        joined = "".join(pieces[1:]).encode("utf-8", "surrogateescape")  # the first row is the BOS
        assert joined == expected.encode()


def test_where_keeps_only_what_it_says(work, capsysbinary):
    assert run(["tokens", "--where", "loss > 6 and context<=20", "--where", "document=1"]) == 0
    table = pd.read_csv(io.BytesIO(capsysbinary.readouterr().out))
    assert len(table) > 0
    assert (table["loss_nats"] > 6).all()
    assert (table["context"] <= 20).all()
    assert set(table["document"]) == {1}


def test_the_tables_show_no_raw_control_characters(work, capsys):
    for view in VIEWS:
        _, out, err = call(capsys, view, "--table", *(["--top", "200"] if view == "hardest" else []))
        assert "\x1b" not in out + err
        assert "\x9d" not in out + err


def test_hardest_finds_the_damaged_characters(work, capsys):
    _, out, _ = call(capsys, "hardest", "--table", "--top", "30")
    assert "â€" in out


@pytest.mark.parametrize("by", ["type", "document", "class"])
def test_hardest_by(work, capsys, by):
    code, out, _ = call(capsys, "hardest", "--by", by, "--table")
    assert code == 0
    assert "mean_loss_nats" in out


def test_perplexity_by_a_field_of_the_records(work, capsysbinary):
    assert run(["perplexity", "--by", "letter", "--csv", "-"]) == 0
    table = pd.read_csv(io.BytesIO(capsysbinary.readouterr().out))
    assert list(table.columns[:3]) == ["group", "documents", "tokens"]
    assert table["documents"].sum() == 8
    assert run(["perplexity", "--by", "nothing"]) == 2


def test_positions_by_document_position_and_every(work, capsysbinary):
    assert run(["positions", "--by", "document-position", "--bins", "every", "--csv", "-"]) == 0
    table = pd.read_csv(io.BytesIO(capsysbinary.readouterr().out))
    assert (table["position"] == table["position_last"]).all()
    assert table["count"].sum() == latest_run(Path()).counts["scored_tokens"]
