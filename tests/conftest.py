"""Settings of all tests that make the suite faster, and steady on a busy machine.

Every test and every process that it starts uses one thread, because tiny models are slower with two. `os.fsync` does
nothing, because tests need not survive a power failure. Pictures use the fonts of matplotlib alone, as those of a
system differ. Objects that imports have left in memory are frozen, so that garbage collection does not search them
again and again. Hypothesis sets no time for an example, because a busy machine takes longer than its 200 ms now and
then, and tries 40 of them, or as many as LOSSPROBE_EXAMPLES says: .ci/run asks for 100. The children of tokenizers are
forked, where the system can, since to start one takes 0.15 s. Runs share an instance of DuckDB, since to make one takes
25 ms.
"""

from __future__ import annotations

import contextlib
import gc
import os

import hypothesis
import pytest
from forked_children import forked_children
from shared_database import shared_database

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPL_IGNORE_SYSTEM_FONTS"] = "1"
for name in ("COLUMNS", "LINES"):  # test runners set them, and they change the width of tables
    os.environ.pop(name, None)
gc.set_threshold(50_000, 20, 50)
hypothesis.settings.register_profile(
    "tests", deadline=None, max_examples=int(os.environ.get("LOSSPROBE_EXAMPLES", "40"))
)
hypothesis.settings.load_profile("tests")


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Extension modules count their remaining objects at exit. What is added first is called last: after pytest has
    # collected garbage five times, which takes seconds where nothing is frozen.
    config.add_cleanup(gc.unfreeze)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _forked_children():
    with forked_children() if hasattr(os, "fork") else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session", autouse=True)
def _shared_database():
    with shared_database():
        yield
