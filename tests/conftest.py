"""What every test has in common, so that the suite waits for nothing that no test is about.

One thread for every test and every process it starts: tiny models gain nothing from two, and wait for both. No waiting
for the disk: power does not fail during a test. And what the libraries left in memory is not searched for garbage again
and again.
"""

from __future__ import annotations

import gc
import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
for name in ("COLUMNS", "LINES"):  # tables are as wide as these say, and test runners set them
    os.environ.pop(name, None)
gc.set_threshold(50_000, 20, 50)


def pytest_collection_finish() -> None:
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # at exit, extension modules count what is left


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield
