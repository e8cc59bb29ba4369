"""Messages name a run on object storage by its address, although what they read is its copy here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb
import pytest
from bundled import CHECKPOINT
from source_code import PACKAGE

from lossprobe.analysis.rows.outcomes import not_finite
from lossprobe.cli.main import run as command
from lossprobe.errors import OutputError, ResourceError
from lossprobe.objects.folder import COPIES, RUNS
from lossprobe.passes.divergence import pair_path
from lossprobe.run.database import reading
from lossprobe.run.locked import LockedFolder
from lossprobe.run.part_records import lock_own
from lossprobe.run.reader import open_run
from lossprobe.run.shown import shown_run

ADDRESS = "s3://bucket/runs/x"
COPY = COPIES / RUNS / "bucket" / "runs" / "x"


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """Return the copy of a run on object storage, opened."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, COPY, ignore=shutil.ignore_patterns(".lock"))
    Path("text.txt").write_text("It shows.", "utf-8")
    return open_run(COPY)


def test_a_notebook_shows_the_address(copied):
    assert f"stored in {ADDRESS}" in copied._repr_html_()
    assert str(COPIES) not in copied._repr_html_()


def test_errors_of_a_run_name_the_address(copied):
    with pytest.raises(ResourceError, match=f"^{ADDRESS}: a query needs over ") as caught, reading(COPY):
        raise duckdb.OutOfMemoryException("no room")
    assert caught.value.id == "run.memory"
    assert str(not_finite(copied, "a number")).startswith(f"{ADDRESS}: a number ")


def test_a_lock_names_the_address(copied):
    first = LockedFolder(COPY)
    try:
        with pytest.raises(OutputError, match=f"^{ADDRESS}: locked by pid") as caught:
            LockedFolder(COPY)
    finally:
        first.unlock(remove=False)
    assert caught.value.id == "output.locked"


def test_what_is_wrong_with_the_copy_itself_names_both(copied):
    both = re.escape(f"{COPY} (copy of {ADDRESS}): ")
    (COPY / "run.json").unlink()
    with pytest.raises(OutputError, match=f"^{both}exists and is no run") as caught:
        lock_own(COPY, ("run.json",), (), "run")
    assert caught.value.id == "output.foreign"
    COPY.rename("moved")
    COPY.symlink_to(Path("moved").absolute())
    with pytest.raises(OutputError, match=f"^{both}is a symbolic link") as caught:
        LockedFolder(COPY)
    assert caught.value.id == "output.link"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs", "latest", str(COPY)], f"latest: {ADDRESS}\n"),
        (["compare", str(COPY), str(COPY), "--kl"], f"{ADDRESS} and {ADDRESS}: not compared with --kl yet"),
        (["curve", str(COPY)], f"error[curve.run]: {ADDRESS}: is a stored run"),
        (["selfcheck", "model", "text.txt", "-o", ADDRESS], f"-o {ADDRESS}: "),
        (["perplexity", "model", "text.txt", "--protocol", "all", "-o", ADDRESS], f"-o {ADDRESS}: "),
        (["gap", "model", "text.txt", "other.txt", "-o", ADDRESS], f"-o {ADDRESS}: "),
        (["compare", str(CHECKPOINT), str(CHECKPOINT), "text.txt", "-o", ADDRESS], f"-o {ADDRESS}: "),
    ],
)
@pytest.mark.usefixtures("copied")
def test_commands_name_the_address(capsys, words, told):
    command(words)
    said = capsys.readouterr().err
    assert told in said
    assert str(COPIES) not in said


def test_a_pair_lies_here_alone(copied):
    """Beside the copy of its first run; nothing of it is in the bucket."""
    pair = pair_path(copied, copied)
    pair.mkdir()
    (pair / "pair.json").write_text("{}")
    assert pair.is_relative_to(COPIES)
    assert shown_run(pair) == str(pair)


def test_no_message_is_made_of_the_path_of_a_run():
    made = re.compile(r"visible\(str\((?:run|rows|opened|first|second|other|scored\.run|scoring\.output)(?:\.path)?\)")
    found = [file.name for file in PACKAGE.rglob("*.py") if made.search(file.read_text("utf-8"))]
    assert found == []
