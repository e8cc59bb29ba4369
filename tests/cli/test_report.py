"""The command `report`: where the page goes, and what is refused before anything is scored."""

from __future__ import annotations

import shutil

import pytest
from bundled import CHECKPOINT

from lossprobe.cli.main import run
from lossprobe.run.reader import latest_run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a text, and a report that takes no time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("A hacker is a person who enjoys exploring.\n" * 4)
    monkeypatch.setattr("lossprobe.report.page.page.page_to_html", lambda page: [page.title.encode()])
    return tmp_path


def test_a_checkpoint_and_a_text_are_scored_and_written_to_report_html(folder, capsys):
    assert run(["report", str(CHECKPOINT), "text.txt"]) == 0
    assert (folder / "report.html").read_text() == "jargon-plain on text (context 256)"
    assert "wrote report.html" in capsys.readouterr().err
    assert run(["report", "-o", "-"]) == 0, "the latest run, to standard output"
    assert capsys.readouterr().out == "jargon-plain on text (context 256)"
    stored = latest_run(folder).path
    assert run(["report", str(stored), "-o", str(stored / "report.html")]) == 2
    assert "lies inside" in capsys.readouterr().err
    assert run(["report", str(stored), "--context", "8"]) == 2
    assert "error[options.scored_already]" in capsys.readouterr().err


def test_a_text_or_a_checkpoint_is_never_written_over(folder, capsys):
    copy = folder / "model"
    shutil.copytree(CHECKPOINT, copy)
    for place, expected in (("text.txt", "output."), ("model/page.html", "output.inside_checkpoint")):
        assert run(["report", str(copy), "text.txt", "-o", place]) == 2
        error = capsys.readouterr().err
        assert f"error[{expected}" in error, error
    assert "hacker" in (folder / "text.txt").read_text()


def test_a_place_that_cannot_be_written_is_refused_before_scoring(folder, capsys):
    assert run(["report", str(CHECKPOINT), "text.txt", "-o", "nowhere/page.html"]) == 6
    assert "No such file" in capsys.readouterr().err
    assert not (folder / ".lossprobe").exists()
