"""A fixture that writes fake runs."""

import itertools

import pytest
from fake_runs import write_run


@pytest.fixture
def make_run(tmp_path):
    """Return a function that writes a complete run from documents; see `fake_runs.write_run`."""
    numbers = itertools.count()
    return lambda docs, **choices: write_run(tmp_path / f"run-{next(numbers)}", docs, **choices)
