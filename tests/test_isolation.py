"""What is hidden from a library while it is imported, and which folders are trusted."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lossprobe import isolation
from lossprobe.isolation import private_folder, unconfigured

POSIX = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners and modes")


def test_variables_and_the_file_are_hidden_and_come_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rc").touch()
    monkeypatch.setenv("LIB_A", "1")
    monkeypatch.setenv("OTHER", "2")
    with unconfigured("LIB_", file="rc", LIB_B="ours"):
        assert not os.path.exists("rc")  # noqa: PTH110 - as libraries ask
        assert os.path.exists(tmp_path / "rc")  # noqa: PTH110 - only the name that the library asks for
        assert ("LIB_A" in os.environ, os.environ["OTHER"], os.environ["LIB_B"]) == (False, "2", "ours")
    assert os.path.exists("rc")  # noqa: PTH110
    assert (os.environ["LIB_A"], "LIB_B" in os.environ) == ("1", False)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A cache folder and a folder for temporary files; the first choice and the second."""
    tmp_path.chmod(0o700)
    for name in ("cache", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.setattr(isolation, "_keeps_what_it_holds", lambda folder: True)
    return tmp_path / "cache" / "lossprobe", tmp_path / "temporary" / f"lossprobe-{os.geteuid()}"


@POSIX
def test_a_private_folder_is_made_for_this_user_alone(places):
    assert private_folder("x") == places[0] / "x"
    assert places[0].stat().st_mode & 0o777 == 0o700
    assert private_folder("x") == places[0] / "x"


@POSIX
@pytest.mark.parametrize("damage", ["link", "group", "others", "file", "owner"])
def test_a_folder_that_others_could_have_filled_is_passed_over(places, tmp_path, monkeypatch, damage):
    first, second = places
    if damage == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        first.symlink_to(tmp_path / "elsewhere")
    elif damage == "file":
        first.touch()
    else:
        first.mkdir(mode=0o700)
        first.chmod({"group": 0o770, "others": 0o702, "owner": 0o700}[damage])
    if damage == "owner":
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
        assert private_folder("x") is None  # the second choice would be made by the same owner
    else:
        assert private_folder("x") == second / "x"
        second.chmod(0o777)
        assert private_folder("x") is None


@POSIX
def test_a_folder_that_others_can_replace_is_passed_over(places, monkeypatch):
    monkeypatch.undo()
    parent = places[0].parent
    monkeypatch.setenv("XDG_CACHE_HOME", str(parent))
    monkeypatch.setattr(isolation, "temporary_folder", lambda: None)
    parent.parent.chmod(0o777)
    assert private_folder("x") is None
    parent.parent.chmod(0o1777)  # as /tmp: only owners rename
    assert (private_folder("x") is None) == any(
        not isolation._keeps_what_it_holds(folder) for folder in parent.resolve().parents
    )


@POSIX
def test_nothing_of_the_working_folder_is_trusted(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "temporary")  # where Python looks last for a place
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert private_folder("x") is None
    assert list(Path().iterdir()) == []


@POSIX
def test_a_user_without_a_home(places, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where HOME is not set and the user has no name
    places[1].parent.mkdir(exist_ok=True)
    assert private_folder("x") == places[1] / "x"


def test_no_home_and_no_temporary_folder(monkeypatch):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    assert private_folder("x") is None
    assert isolation.temporary_folder() is None


def test_loops_are_kept_in_the_private_folder_alone_and_damage_is_no_harm(tmp_path, monkeypatch):
    import numpy as np

    from lossprobe import compiler

    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.setattr(compiler, "private_folder", lambda name: folder)
    monkeypatch.setattr(compiler.config, "CACHE_DIR", str(tmp_path / "taken"))

    def loop():
        return compiler.kept(compiler.numba.njit(_total))

    assert loop()(np.ones(3)) == 3.0
    (code,), (index,) = folder.rglob("*.nbc"), folder.rglob("*.nbi")
    assert not (tmp_path / "taken").exists()
    index.write_bytes(index.read_bytes()[:-7])
    code.write_bytes(b"not a pickle")
    assert loop()(np.ones(3)) == 3.0
    monkeypatch.setattr(compiler, "private_folder", lambda name: None)
    uncached = loop()
    assert uncached(np.ones(4)) == 4.0
    assert uncached.stats.cache_path is None


HELPER = "from lossprobe.compiler import numba\n@numba.njit(inline='always')\ndef number():\n    return {}\n"
LOOP = """
from pathlib import Path
from helper import number
from lossprobe import compiler
compiler.private_folder = lambda name: Path("kept")
@compiler.kept
@compiler.numba.njit
def loop():
    return number()
print(loop(), sum(loop.stats.cache_hits.values()))
"""


def test_a_loop_is_compiled_anew_when_a_function_of_another_file_changes(tmp_path):
    def printed(number):
        (tmp_path / "helper.py").write_text(HELPER.format(number))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        command = [sys.executable, "-B", "loop.py"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True).stdout.split()

    (tmp_path / "kept").mkdir()
    (tmp_path / "loop.py").write_text(LOOP)
    assert printed(1) == [b"1", b"0"]
    assert printed(200) == [b"200", b"0"]


def test_each_kind_of_processor_has_loops_of_its_own(tmp_path, monkeypatch):
    """Code for another one would count as compiled, and this process would then compile anew: other last bits."""
    from lossprobe import compiler

    monkeypatch.setattr(compiler, "private_folder", lambda name: tmp_path)
    paths = set()
    for name in ("znver3", "sapphirerapids", "znver3"):
        monkeypatch.setattr(compiler.llvmlite.binding, "get_host_cpu_name", lambda name=name: name)
        paths.add(compiler.kept(compiler.numba.njit(_total)).stats.cache_path)
    assert len(paths) == 2


def _total(values):
    return values.sum()
