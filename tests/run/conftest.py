"""One finished run of several parts, made once."""

from __future__ import annotations

import shutil

import pytest
from stored_runs import score_texts


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run; never changed."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return score_texts(folder / "run").run.path


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """A copy of the finished run that nobody has read yet."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns(".checked"))
    return tmp_path / "run"
