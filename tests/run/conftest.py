"""Fixtures for tests of runs: a finished run of several parts, made once, and copies of it."""

from __future__ import annotations

import shutil

import pytest
from stored_runs import score_texts


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Return the folder of a finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return score_texts(folder / "run").run.path


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """Return a copy of the finished run without the note that its files have been checked."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns(".checked"))
    return tmp_path / "run"
