"""`lossprobe runs`, and short names of runs wherever a command takes one."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from bundled import CHECKPOINT
from rich.cells import cell_len

from lossprobe.cli.main import run
from lossprobe.cli.runs import print_runs, runs_table
from lossprobe.run.locked import LockedFolder
from lossprobe.run.stored import find_stored, stored_runs

RUNS = Path(".lossprobe")


@pytest.fixture
def three(scored, tmp_path, monkeypatch) -> list[Path]:
    """A working folder with three runs, the newest one first."""
    manifests = (scored / RUNS).glob("*/run.json")  # the first one is the fixture's; tests of other files add theirs
    source = min(manifests, key=lambda file: file.stat().st_mtime).parent
    monkeypatch.chdir(tmp_path)
    RUNS.mkdir()
    paths = []
    for place, name in enumerate(("plain-entries-aaaa1111", "plain-entries-aaaa2222", "other-valid-bbbb3333")):
        paths.append(RUNS / name)
        shutil.copytree(source, paths[-1])
        os.utime(paths[-1] / "run.json", (1e9 - place, 1e9 - place))
    return paths


def error_of(capsys, *arguments: str) -> str:
    """Return the id of the error of a command."""
    assert run(list(arguments)) != 0
    return capsys.readouterr().err.split("error[")[1].split("]")[0]


def test_runs_are_listed_newest_first_with_the_shortest_name_that_means_one(three, capsys):
    assert run(["runs", "latest", "bbbb"]) == 0
    assert RUNS.joinpath("latest").read_bytes() == os.fsencode(three[2]) + b"\n"
    capsys.readouterr()
    assert run(["runs"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["folder"] for row in rows] == [path.name for path in three]
    assert [row["name"] for row in rows] == ["aaaa1", "aaaa2", "bbbb"]
    assert [row["latest"] for row in rows] == ["False", "False", "True"]
    assert {(row["model"], row["text_name"], row["state"]) for row in rows} == {
        (CHECKPOINT.name, "entries", "complete")
    }
    assert run(["runs", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["tokens"] for row in content] == [int(row["tokens"]) for row in rows]
    for each in stored_runs(RUNS):
        assert find_stored(each.short) == each.path


def test_a_terminal_of_80_columns_is_enough(three, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (RUNS / "b" / "tokens").mkdir(parents=True)
    (RUNS / "b" / "plan.json").write_text("{}")
    print_runs(runs_table(RUNS))
    out = capsys.readouterr().out
    assert max(map(cell_len, out.splitlines())) <= 80
    assert "unfinished" in out
    assert three[0].name[-8:-3] in out


@pytest.mark.parametrize("name", ["aaaa1", "aaaa1111", "plain-entries-aaaa1", "plain-entries-aaaa1111"])
def test_a_short_name_is_enough_wherever_a_run_is_taken(three, capsys, name):
    assert run(["verify", name]) == 0
    assert str(three[0]) in capsys.readouterr().out
    assert run(["positions", name]) == 0
    assert run(["compare", name, "other"]) == 0


def test_a_path_wins_and_what_is_ambiguous_is_listed(three, capsys):
    assert error_of(capsys, "tokens", "aaaa") == "run.ambiguous"
    assert run(["tokens", "plain"]) == 2
    message = capsys.readouterr().err
    assert all(path.name in message for path in three[:2])
    Path("bbbb").mkdir()
    assert error_of(capsys, "tokens", "bbbb") == "run.missing", "a folder of this name that is no run"
    assert error_of(capsys, "tokens", "aa") == "run.missing", "too short for a hash, and no start of a name"
    assert error_of(capsys, "tokens", "nothing") == "run.missing"


def test_a_folder_of_runs_is_no_run_and_its_runs_are_named(three, capsys):
    assert run(["tokens", ".lossprobe"]) == 2
    error = capsys.readouterr().err
    assert "holds 3 runs: other-valid-bbbb3333, plain-entries-aaaa1111, plain-entries-aaaa2222" in error


def test_no_run_is_removed_where_one_name_is_mistyped(three, capsys):
    assert run(["runs", "remove", "aaaa1", "zzzz"]) == 2
    assert "hint: lossprobe runs lists the runs of this folder" in capsys.readouterr().err
    assert len(list(RUNS.iterdir())) == 3
    assert error_of(capsys, "runs", "latest", "zzzz") == "run.missing"
    assert error_of(capsys, "runs", "latest", str(RUNS)) == "run.several"


def test_a_run_is_removed_with_nothing_else(three, capsys):
    assert run(["runs", "remove", "aaaa1", str(three[2])]) == 0
    assert [path.name for path in RUNS.iterdir()] == [three[1].name]
    (three[1] / "notes.txt").write_text("mine")
    assert error_of(capsys, "runs", "remove", "aaaa2") == "output.write"
    assert [path.name for path in three[1].iterdir() if path.name != ".lock"] == ["notes.txt"]


def test_no_link_no_other_folder_and_no_run_that_is_written_is_removed(three, capsys, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(three[0], outside)
    (RUNS / "linked").symlink_to(outside)
    (three[0] / "tokens").rename(tmp_path / "kept")
    (three[0] / "tokens").symlink_to(tmp_path / "kept")
    assert error_of(capsys, "runs", "remove", str(RUNS / "linked")) == "output.link"
    assert run(["runs", "remove", "aaaa1"]) == 0
    assert len(list((tmp_path / "kept").iterdir())) == 1, "the link went, what it leads to stays"
    Path("mine").mkdir()
    Path("mine/run.json").write_text("{}")
    Path("mine/tokens").mkdir()
    assert error_of(capsys, "runs", "remove", "mine") == "run.missing"
    assert Path("mine/tokens").is_dir()
    held = LockedFolder(three[1])
    try:
        assert error_of(capsys, "runs", "remove", "aaaa2") == "output.locked"
    finally:
        held.unlock(remove=False)
    assert (three[1] / "run.json").is_file()
    assert [each.path.name for each in stored_runs(RUNS)] == [three[1].name, three[2].name], "links are not listed"


def test_compare_takes_the_last_pair_again(three, capsys):
    assert error_of(capsys, "compare") == "compare.sources"
    assert run(["compare", "aaaa1", "bbbb"]) == 0
    first = capsys.readouterr()
    assert run(["compare"]) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert f"the last pair again: {three[0]} and {three[2]}" in again.err
    three[2].rename("away")
    assert error_of(capsys, "compare") == "run.missing"
    RUNS.joinpath("pair").write_bytes(b"only one\n")
    assert error_of(capsys, "compare") == "run.damaged"
    RUNS.joinpath("pair").unlink()
    RUNS.joinpath("pair").symlink_to("latest")
    assert error_of(capsys, "compare") == "run.damaged"


def test_an_empty_folder_has_no_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["runs"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert not RUNS.exists()
