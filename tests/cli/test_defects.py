"""The finished command `defects` on a messy folder."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from bundled import CHECKPOINT, EXAMPLES

from lossprobe.cli.main import run

KEY = "AKIAIOSFODNN7EXAMPLQ"


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    """Return a folder of small files: several encodings, JSONL with bad lines, a page, empty documents, a key."""
    folder = tmp_path_factory.mktemp("messy")
    entries = [
        json.loads(line)["text"][:240] for line in (EXAMPLES / "jargon-valid.jsonl").read_text().splitlines()[:3]
    ]
    files = {
        "latin1.txt": "Le café de l'été".encode("latin-1"),
        "utf16.txt": "Hello wide world".encode("utf-16"),
        "mojibake.txt": "It’s “broken” — ".encode().decode("cp1252", "ignore").encode() + entries[0].encode(),
        "page.html": b"<!DOCTYPE html>\n<p>Fish &amp; chips</p>\n" + entries[1].encode(),
        "crlf.txt": b"one\r\ntwo\r\n",
        "empty.txt": b"",
        "copy.txt": entries[1].encode(),
        "other.txt": entries[1].encode(),
        "=key.txt": f"{entries[2]} the key {KEY} is \x1b[31mred\x00".encode(),
        "records.jsonl": b'{"text": "broken\nnot json\n{"no": 1}\n{"text": ""}\n'
        + json.dumps({"text": "<|im_start|> Hi there <|im_end|>"}).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def scored(messy):
    """Return the folder that holds the run of the messy one; it is scored once."""
    before = Path.cwd()
    os.chdir(messy.parent)
    try:
        assert run(["score", str(CHECKPOINT), str(messy), "--skip-bad", "--quiet"]) == 0
    finally:
        os.chdir(before)
    return messy.parent


@pytest.fixture
def call(scored, monkeypatch, capsys):
    """Return a function that calls `defects` on the latest run."""
    monkeypatch.chdir(scored)

    def called(*arguments: str) -> tuple[int, str, str]:
        code = run(["defects", *arguments])
        return code, *capsys.readouterr()

    return called


def test_bad_files_are_refused_by_name(call, messy):
    code, out, err = call(str(CHECKPOINT), str(messy))
    assert (code, out) == (4, "")
    assert "latin1.txt" in err
    assert "utf16.txt" in err


def test_every_file_of_a_messy_folder_gets_its_cause(call):
    code, out, err = call()
    places = pd.read_csv(io.StringIO(out))
    assert code == 0
    assert "places of" in err
    names = places["source"].str.extract(r"([^/\"]+)\"?$")[0]
    causes = {name: set(held) for name, held in places["cause"].groupby(names)}
    assert causes["mojibake.txt"] == {"mojibake"}
    assert causes["page.html"] == {"markup", "duplicate"}, "a copy of copy.txt with tags"
    assert causes["crlf.txt"] >= {"line-ends"}
    assert causes["empty.txt"] == {"tiny-document"}
    assert causes["other.txt"] == {"duplicate"}
    assert causes["=key.txt"] == {"secret", "control-characters"}
    assert causes["records.jsonl"] == {"template-string", "tiny-document"}
    assert KEY not in out + err


def test_the_views_of_a_messy_folder(call):
    table = call("--table")[1]
    assert "do: take it out of the text and have it revoked" in table
    assert "\x1b" not in table
    assert "\x00" not in table
    result = json.loads(call("--json")[1])
    assert {row["cause"] for row in result["rows"]} >= {"mojibake", "secret", "markup", "duplicate", "line-ends"}
    assert len(result["places"]) == result["places_found"]
    listed = call("--cause", "mojibake", "--top", "2", "--table")[1]
    assert listed.count("UTF-8 read as") + listed.count("Windows-1252") >= 3
    assert call("--markdown")[1].startswith("### defects")
    assert KEY not in json.dumps(result) + table


def test_people_see_where_the_dearest_place_is_and_the_line_of_each(call, monkeypatch):
    table = call("--table")[1]
    assert "such as: =key.txt, line 1: " in table
    assert re.search(r"of \d+ causes hold .* of the loss; the dearest is [a-z-]+ with [\d.]+% of the\s+loss: ", table)
    monkeypatch.setenv("COLUMNS", "80")
    listed = call("--cause", "mojibake", "--table")[1]
    head = next(line for line in listed.splitlines() if "excerpt" in line)
    assert {"source", "line"} <= set(head.split())
    assert re.search(r"^mojibake: \d+ places?, [\d.]+% of the tokens, ", listed, re.MULTILINE)
    assert "do: read the source again" in listed
    assert "mojibake.txt " in listed


def test_of_a_text_without_defects_one_line_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clean.txt").write_text("All is well here, as it should be.\n")
    assert run(["defects", str(CHECKPOINT), "clean.txt", "--table", "--quiet"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[2] == "no defect found in 1 document"
    assert not any("share_of" in line or "not shown" in line for line in lines)


def test_causes_of_fail_on_make_the_exit_code(call):
    assert call("--fail-on", "secret", "--quiet")[0] == 10
    assert call("--fail-on", "known-by-heart", "--quiet")[0] == 0
    code, _, err = call("--fail-on", "secrets")
    assert code == 2
    assert "did you mean secret?" in err


def test_the_picture_is_drawn(call, messy):
    assert call("--plot", "p.png", "--quiet")[0] == 0
    assert (messy.parent / "p.png").read_bytes().startswith(b"\x89PNG")
