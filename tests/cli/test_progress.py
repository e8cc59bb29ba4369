"""What is said before the first pass of a machine, whose loops are compiled first."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from bundled import CHECKPOINT

from lossprobe.cli.main import run
from lossprobe.cli.progress import COMPILING
from lossprobe.scoring import kernels
from lossprobe.scoring.compiled import tell_of_compiling


@pytest.fixture
def uncompiled(monkeypatch):
    """Loops that are kept nowhere, as on a new machine; a short one is enough."""
    kept = kernels.measure_rows

    @numba.njit
    def first(found):
        return found.size

    @numba.njit
    def second(found):
        return found.size + 1

    def measure_rows(z, targets, per_nat, scratch, found, bins):
        assert (first(found), second(found)) == (found.size, found.size + 1)
        kept(z, targets, per_nat, scratch, found, bins)

    monkeypatch.setattr(kernels, "measure_rows", measure_rows)


def score(folder, text, *arguments: str) -> int:
    return run(["score", str(CHECKPOINT), str(text), "-o", str(folder / "run"), "--overwrite", *arguments])


def test_compiling_is_told_once_and_only_where_it_happens(tmp_path, text, capsys, uncompiled):
    assert score(tmp_path, text) == 0
    assert capsys.readouterr().err.splitlines().count(f"lossprobe: {COMPILING}") == 1, "of two loops"
    assert score(tmp_path, text, "--context", "32") == 0  # another pass
    assert COMPILING not in capsys.readouterr().err


def test_quiet_is_quiet_about_it(tmp_path, text, capsys, uncompiled):
    assert score(tmp_path, text, "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_what_is_compiled_after_the_block_is_not_told():
    told = []
    loop = numba.njit(lambda x: x.size)
    with tell_of_compiling(lambda: told.append("compiling")):
        pass
    assert loop(np.ones(3)) == 3
    assert told == []
