"""The server of object storage, for tests that name it."""

from __future__ import annotations

import pytest
from object_server import served


@pytest.fixture(scope="package")
def server():
    with served() as objects:
        yield objects


@pytest.fixture
def objects(server, tmp_path, monkeypatch):
    """Let commands reach the server, in a working folder of their own."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return server
