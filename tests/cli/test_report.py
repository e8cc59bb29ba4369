"""The command `report`: where the page goes, and what is refused before anything is scored."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from bundled import CHECKPOINT

from lossprobe.cli.main import run
from lossprobe.passes import planning
from lossprobe.plan.rows import cut_parts
from lossprobe.run.reader import latest_run
from lossprobe.scoring import scorer
from lossprobe.scoring.scorer import queue_part


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


def test_a_folder_of_checkpoints_stands_for_those_in_it(folder):
    for step, bundled in ((20, "jargon-smoothed"), (3, "jargon-plain")):
        shutil.copytree(CHECKPOINT.with_name(bundled), folder / "training" / f"checkpoint-{step}")
    assert run(["report", "training", "text.txt"]) == 0
    assert (folder / "report.html").read_text() == "checkpoint-3, checkpoint-20 on text (context 256)"


def test_models_with_other_tokenizers_are_refused_before_scoring(folder, capsys):
    other = folder / "other"
    shutil.copytree(CHECKPOINT, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:50]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    assert run(["report", str(CHECKPOINT), "other", "text.txt"]) == 12
    assert "differ in tokenizer (" in capsys.readouterr().err
    assert not list((folder / ".lossprobe").glob("*/run.json"))
    assert not (folder / "report.html").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("where", ["scoring", "writing"])
def test_stopped_by_ctrl_c(folder, capsys, monkeypatch, where):
    (folder / "text.txt").write_text("A hacker is a person who enjoys exploring.\n" * 60)
    monkeypatch.setattr(planning, "cut_parts", lambda documents: cut_parts(documents, 256))
    (folder / "report.html").write_text("an older page")

    def stopped_after_the_first(checkpoint, rows, first_row, options):
        if first_row:
            os.kill(os.getpid(), signal.SIGINT)
        return queue_part(checkpoint, rows, first_row, options)

    def half_a_page(page):
        yield b"half"
        os.kill(os.getpid(), signal.SIGINT)
        yield b"the rest"

    with monkeypatch.context() as patch:
        if where == "scoring":
            patch.setattr(scorer, "queue_part", stopped_after_the_first)
        else:
            patch.setattr("lossprobe.report.page.page.page_to_html", half_a_page)
        assert run(["report", str(CHECKPOINT), "text.txt"]) == 130
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert ("repeat the command to resume" in said) == (where == "scoring"), said
    assert (folder / "report.html").read_text() == "an older page"
    assert sorted(path.name for path in folder.iterdir()) == [".lossprobe", "report.html", "text.txt"]
    kept = "plan/part*.json" if where == "scoring" else "run.json"
    assert list(folder.glob(f".lossprobe/*/{kept}")), "what was finished is kept"
    assert run(["report", str(CHECKPOINT), "text.txt"]) == 0
    assert (folder / "report.html").read_text() == "jargon-plain on text (context 256)"


def test_a_place_that_cannot_be_written_is_refused_before_scoring(folder, capsys):
    assert run(["report", str(CHECKPOINT), "text.txt", "-o", "nowhere/page.html"]) == 6
    assert "No such file" in capsys.readouterr().err
    assert not (folder / ".lossprobe").exists()
