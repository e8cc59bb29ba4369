"""Fixtures for tests of checkpoints: small checkpoints and tokenizers, built once for all tests of this folder."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoint import builders

from lossprobe.checkpoint.tokenizers import sandbox
from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer


@pytest.fixture(scope="session")
def family_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a checkpoint folder of every family. Tests must not change them; `copy_of` makes a copy to change."""
    root = tmp_path_factory.mktemp("families")
    paths = {family: builders.save(builders.model(family), root / family) for family in builders.FAMILIES}
    for path in paths.values():
        builders.write_settings(path)  # names a class with which transformers reads tokenizer.json as it is
    return paths


@pytest.fixture
def copy_of(family_paths, tmp_path):
    """Return a function that copies a family's folder, so that a test can change the copy."""

    def copy(family: str, name: str = "copy") -> Path:
        target = tmp_path / name
        target.mkdir()
        for file in family_paths[family].iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        return target

    return copy


@pytest.fixture(scope="session")
def tokenizers_by_kind() -> Iterator[dict[str, BackendTokenizer]]:
    """Yield one tokenizer of every kind, each with its child process."""
    yield {
        name: BackendTokenizer(json.loads(build().to_str()), {}, name) for name, build in builders.TOKENIZERS.items()
    }
    gc.collect()  # ends the child processes now and not at the interpreter's exit


class Audit:
    """Records Python's audit events inside a `with` block, as (event, first argument)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.listening = False
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listening:
            self.events.append((event, arguments[0] if arguments else None))

    def __enter__(self) -> Audit:
        self.events.clear()
        self.listening = True
        return self

    def __exit__(self, *_: object) -> None:
        self.listening = False

    def named(self, *prefixes: str) -> list[tuple[str, Any]]:
        """Return the events whose names begin with one of the prefixes."""
        return [(event, argument) for event, argument in self.events if event.startswith(prefixes)]

    def opened(self) -> set[str]:
        """Return the names of the files that were opened."""
        return {Path(str(argument)).name for _, argument in self.named("open")}


@pytest.fixture(scope="session")
def recorder() -> Audit:
    """Return the recorder of audit events. There is one for all tests, because an audit hook cannot be removed."""
    return Audit()


@pytest.fixture
def audit(recorder, monkeypatch) -> Audit:
    """Return the recorder, for a test whose children are started as users' are: forks are asked for over a socket."""
    gc.collect()  # ends the forked children of earlier tests now: that goes over the socket too
    gc.freeze()  # what is left is not searched again for the next test, which would take 0.2 s
    monkeypatch.setattr(sandbox, "subprocess", subprocess)
    return recorder
