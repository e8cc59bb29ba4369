"""Standard error that is lost, standard output that is not UTF-8, and lines that a runner of jobs would carry out."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bundled import CHECKPOINT
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.cli import streams
from lossprobe.cli.main import run
from lossprobe.cli.streams import inert, prepared, say_to_runner
from lossprobe.report.talk import say

RUN = ".lossprobe"


def is_command(line: str) -> bool:
    """The rule of GitHub's runner, with every name known: "::" at the start, or "##[" anywhere and "]" after it."""
    if line.lstrip().startswith("::") and line.lstrip().find("::", 2) > 0:
        return True
    at = line.find("##[")
    return at >= 0 and line.find("]", at) > 0


PIECES = st.sampled_from(
    ["::", ":", "#", "##", "##[", "[", "]", " ", "\t", "\n", "\r", "error", "é", "\u200b", "a", '"']
)


@given(st.lists(PIECES).map("".join))
def test_no_line_is_a_command_and_nothing_else_changes(text):
    found = inert(text.encode()).decode()
    assert not any(map(is_command, re.split("[\r\n]", found)))
    assert found.replace(r"\u003a", ":").replace(r"\u0023", "#") == text
    if (
        not any(map(is_command, re.split("[\r\n]", text.replace("\u200b", ""))))
        and "::" not in text
        and "#" not in text
    ):
        assert found == text


@pytest.mark.parametrize(
    "line", ["##vso[task.setvariable]x", "a ##[add-mask]b", "\u200b::stop-commands::x", "#\u200b#[x]"]
)
def test_other_runners_and_invisible_characters(line):
    assert inert(line.encode()) != line.encode()
    assert not is_command(inert(line.encode()).decode().replace("\u200b", ""))


@pytest.fixture
def on_github(monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


HOSTILE = "::error::planted"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A working folder with a text and a checkpoint whose names and words are commands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / HOSTILE).symlink_to(CHECKPOINT)
    (tmp_path / f"{HOSTILE}.jsonl").write_text(json.dumps({"text": "::add-mask::a\n##[error]b " * 9}) + "\n", "utf-8")
    return tmp_path


def lines_of(capsys) -> list[str]:
    captured = capsys.readouterr()
    return re.split("[\r\n]", captured.out + captured.err)


def test_nothing_that_is_printed_is_a_command(hostile, on_github, capsys):
    shown = [
        ["score", HOSTILE, f"{HOSTILE}.jsonl", "-o", HOSTILE + "run"],
        *(["tokens", HOSTILE + "run", *options] for options in ([], ["--table"], ["--json"], ["--markdown"])),
        ["calibration", HOSTILE + "run", HOSTILE + "run", "--csv=-"],
        ["inspect", HOSTILE],
    ]
    for arguments in shown:
        assert run(arguments) == 0
    for arguments in (["tokens", "::warning::no"], ["::error::no"], ["score", "::error::no", "text"]):
        assert run(arguments) != 0
    lines = lines_of(capsys)
    assert [line for line in lines if is_command(line)] == []
    assert any("planted" in line for line in lines)


def test_text_columns_of_a_csv_still_mean_the_same(hostile, monkeypatch, capsys):
    assert run(["score", HOSTILE, f"{HOSTILE}.jsonl", "-o", "run", "-q"]) == 0
    capsys.readouterr()
    tables = []
    for value in ("", "true"):
        monkeypatch.setenv("GITHUB_ACTIONS", value)
        assert run(["hardest", "run", "--csv=-"]) == 0
        tables.append(capsys.readouterr().out)
    import csv

    def texts(table):
        return [
            [json.loads(cell) if cell[:1] == '"' else cell for cell in row] for row in csv.reader(io.StringIO(table))
        ]

    assert tables[0] != tables[1]
    assert texts(tables[0]) == texts(tables[1])


def test_files_are_written_as_always(hostile, on_github, capsys):
    assert run(["score", HOSTILE, f"{HOSTILE}.jsonl", "-o", "run", "-q"]) == 0
    assert run(["hardest", "run", "--csv=a.csv"]) == 0
    assert b"##[error]" in (hostile / "a.csv").read_bytes()


def test_our_own_commands_are_printed_as_they_are(on_github, capsys):
    with prepared():
        say_to_runner(["::error file=a::b"], err=False)
        say("::error::not ours")
    captured = capsys.readouterr()
    assert captured.out == "::error file=a::b\n"
    assert captured.err == "lossprobe: ::error::not ours\n"  # not at the start of the line


def test_half_a_line_waits_for_its_rest(on_github, capsys):
    with prepared():
        sys.stdout.write("a\n:")
        sys.stdout.write(":error::b\n")
        sys.stdout.flush()
    assert capsys.readouterr().out == "a\n\\u003a:error::b\n"


class Broken(io.RawIOBase):
    def writable(self):
        return True

    def write(self, data):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, io.TextIOWrapper(io.BufferedWriter(Broken()), write_through=True)])
def test_talk_that_is_lost_changes_nothing(scored, monkeypatch, capsys, stream):
    monkeypatch.chdir(scored)
    monkeypatch.setattr(sys, "stderr", stream)
    assert run(["perplexity", "--csv=-"]) == 0
    assert run(["perplexity", "no-such-run"]) == 2
    assert capsys.readouterr().out.startswith("measure,")
    say("outside of a command")


def command(arguments: str, folder, **variables: str) -> subprocess.CompletedProcess:
    code = "from lossprobe.cli.main import main; main()"
    shell = ["sh", "-c", f'exec "{sys.executable}" -c "{code}" {arguments}']
    return subprocess.run(shell, cwd=folder, capture_output=True, env=os.environ | variables, check=False, timeout=300)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "<&- 2>&-", pytest.param("2>&-", marks=pytest.mark.thorough)])
def test_the_result_comes_without_standard_error(scored, redirection):
    done = command(f"perplexity {redirection}", scored)
    assert done.returncode == 0
    assert done.stdout.startswith(b"measure,value")
    assert done.stderr == b""


def test_an_error_keeps_its_code_without_standard_error(tmp_path):
    assert command("perplexity nothing 2>&-", tmp_path).returncode == 2
    assert command("perplexity nothing >&- 2>&-", tmp_path).returncode == 6


def test_results_are_utf8_in_any_locale(tmp_path):
    place = tmp_path / "é"
    done = command(f"inspect '{place}'", tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 2
    assert b": does not exist" in done.stderr
    with prepared():
        assert (sys.stdout.encoding, sys.stdout.errors) == ("utf-8", "surrogateescape")


def test_closed_numbers_are_taken_so_that_no_file_gets_them():
    code = (
        "import os; os.close(2); os.close(0)\n"
        "from lossprobe.cli.streams import occupy_closed\noccupy_closed()\n"
        "print(os.open(os.devnull, os.O_RDONLY))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 2


def test_a_redirected_file_is_data_and_stays_as_it_is(on_github, monkeypatch, tmp_path):
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with prepared():
            sys.stdout.write("::error::x\n")
            sys.stdout.flush()
    assert (tmp_path / "out").read_bytes() == b"::error::x\n"
    assert streams.READ_BY_RUNNERS[0] == "GITHUB_ACTIONS"
