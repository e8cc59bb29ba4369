"""Fixtures for tests of commands: a small text, a run of the bundled checkpoint on it, and checkpoints opened once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bundled import CHECKPOINT, EXAMPLES
from opened_once import opened_once

from lossprobe.cli.main import run


@pytest.fixture(scope="module", autouse=True)
def _checkpoints_are_opened_once():
    with opened_once():
        yield


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines[:8]]
    records[1]["text"] += " It â€œbrokeâ€\x9d, n'est-ce pas \x1b[31m? ☃"
    path = tmp_path_factory.mktemp("text") / "entries.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


@pytest.fixture(scope="session")
def scored(tmp_path_factory, text) -> Path:
    """Return a working folder with one finished run in it."""
    folder = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run(["score", str(CHECKPOINT), str(text), "--quiet"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def work(scored, monkeypatch) -> Path:
    """Enter the working folder and return it; files that a test makes there are removed afterwards."""
    monkeypatch.chdir(scored)
    before = set(scored.iterdir())
    yield scored
    for file in set(scored.iterdir()) - before:
        file.unlink()
