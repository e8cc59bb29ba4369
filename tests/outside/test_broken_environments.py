"""A deleted folder, no place for temporary files, names that are not UTF-8, little address space: told, with a code."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from bundled import CHECKPOINT, EXAMPLES
from fakes import SmallModel, checkpoint

from lossprobe.cli import imports
from lossprobe.cli.main import failure_of, run
from lossprobe.errors import OutputError, ResourceError, UsageError
from lossprobe.passes.score import score
from lossprobe.report.pictures import default_style
from lossprobe.text.documents import StringSource

TEXT = EXAMPLES / "jargon-valid.jsonl"
STRANGE = os.fsdecode(b"name\xff")
LIMITED = pytest.mark.skipif(imports.resource is None, reason="needs limits")


@pytest.fixture
def stored(tmp_path) -> Path:
    return score(checkpoint(SmallModel()), StringSource(["abc " * 30, "xyz"]), output=tmp_path / "run").run.path


def command(arguments: list[str], folder: Path, before: str = "") -> subprocess.CompletedProcess:
    """Run the command line in a fresh process."""
    code = f"import os, sys; {before}from lossprobe.cli.main import main; main(sys.argv[1:])"
    call = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be deleted there")
@pytest.mark.parametrize(
    "words", [["inspect", str(CHECKPOINT)], ["doctor"], ["audit", "init", str(CHECKPOINT), str(TEXT)]]
)
def test_a_deleted_working_folder_is_told(tmp_path, words):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = command(words, gone, before="os.rmdir(os.getcwd()); ")
    assert done.returncode == 2
    assert "error[folder.deleted]: the working folder has been deleted\n" in done.stderr
    assert "MKL" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be deleted there")
def test_a_view_by_its_whole_path_works_there_all_the_same(tmp_path, stored):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = command(["perplexity", str(stored), "--csv=-"], gone, before="os.rmdir(os.getcwd()); ")
    assert (done.returncode, done.stdout[:8]) == (0, "measure,")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8(tmp_path, monkeypatch, capsys, stored):
    monkeypatch.chdir(tmp_path)
    assert run(["score", str(CHECKPOINT), str(TEXT), "-o", STRANGE]) == 6
    assert "error[run.name]: name\\xff: a run's folder needs a name in UTF-8" in capsys.readouterr().err
    stored.rename(STRANGE)
    assert run(["perplexity", STRANGE]) == 6
    Path(STRANGE).rename("run")
    assert run(["perplexity", "run", f"--csv={STRANGE}.csv"]) == 0
    assert Path(f"{STRANGE}.csv").read_bytes().startswith(b"measure,")


def test_without_a_place_for_temporary_files_views_work(monkeypatch, capsys, stored):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert run(["perplexity", str(stored), "--csv=-"]) == 0
    try:
        tempfile.gettempdir()
    except OSError as error:
        failure = failure_of(error)
    assert (failure.code, failure.id) == (OutputError.exit_code, "output.no_folder")


@LIMITED
@pytest.mark.parametrize(("mebibytes", "library"), [(300, "numpy"), (600, "duckdb"), (1040, "scipy")])
def test_little_address_space_is_told_before_a_library_ends_the_process(stored, tmp_path, mebibytes, library):
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({mebibytes} << 20, {mebibytes} << 20)); "
    done = command(["perplexity", str(stored)], tmp_path, before=limit)
    assert done.returncode == 7
    assert f"error[memory.limit]: {library} needs" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
        ),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_what_libraries_say_when_memory_runs_out(error):
    assert failure_of(error).code == ResourceError.exit_code


@pytest.mark.parametrize(
    "error", [ImportError("no such name"), RuntimeError("shapes differ"), OSError(5, "x"), ValueError("out of memory")]
)
def test_other_failures_are_not_called_so(error):
    assert failure_of(error).code != ResourceError.exit_code


def test_folders_that_are_there_are_not_called_deleted():
    assert failure_of(FileNotFoundError(2, "No such file or directory")).code == 1
    assert UsageError.exit_code == 2


def test_a_picture_does_not_depend_on_the_style_of_the_program(tmp_path):
    import matplotlib
    from matplotlib.figure import Figure

    from lossprobe.report.formats.output import write_figure

    def drawn(name: str) -> bytes:
        with default_style():
            figure = Figure(figsize=(2, 2))
            figure.subplots().plot([1, 2])
        write_figure(str(tmp_path / name), figure)
        return (tmp_path / name).read_bytes()

    plain = drawn("a.png")
    with matplotlib.rc_context(
        {"font.size": 30, "axes.facecolor": "red", "savefig.facecolor": "blue", "figure.dpi": 50}
    ):
        assert drawn("b.png") == plain
        assert matplotlib.rcParams["font.size"] == 30


@LIMITED
def test_an_error_that_python_has_lost_is_of_the_limit(tmp_path):
    """Python 3.11 once ended a command so under a limit: nothing else makes it lose an error."""
    lost = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); "
        "import lossprobe.cli.main as main; "
        "main.call_with_room = lambda *_: (_ for _ in ()).throw(SystemError('error return without exception set')); "
    )
    done = command(["runs"], tmp_path, before=lost)
    expected = "lossprobe: error[memory.limit]: out of memory: 2048 MiB of address space are too few\n"
    assert (done.returncode, done.stderr) == (7, f"{expected}hint: raise the limit (ulimit -v)\n")
