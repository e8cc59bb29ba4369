"""Files are absent, old or new, never half; devices and links are treated as what they are."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lossprobe.errors import OutputError
from lossprobe.report.formats import output
from lossprobe.report.formats.output import write_bytes, write_figure, write_text
from lossprobe.report.talk import say

OLD = b"the old result"
SUFFIXES = (".svg", ".pdf", ".PDF")


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "result.csv"
    path.write_bytes(OLD)
    return path


def failed(destination, pieces, core):
    with pytest.raises(OutputError) as caught:
        write_bytes(str(destination), pieces)
    assert caught.value.exit_code == 6
    assert core in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def test_a_file_is_replaced_and_said(target, capsys):
    write_bytes(str(target), iter([b"new ", b"result"]))
    assert target.read_bytes() == b"new result"
    assert list(target.parent.iterdir()) == [target]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"lossprobe: wrote {target}\n")


def test_text_is_utf8(target):
    write_text(str(target), "é\n")
    assert target.read_bytes() == b"\xc3\xa9\n"


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_failing_system_call_keeps_the_old_file(target, monkeypatch, capsys, name):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, name, fail)
    failed(target, [b"new"], "No space left on device")
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]  # no temporary file
    assert capsys.readouterr().err == ""


def test_a_result_that_fails_midway_keeps_the_old_file(target):
    def pieces():
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_bytes(str(target), pieces())
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


FULL_DISK = """
import resource, sys
from lossprobe.errors import OutputError
from lossprobe.report.formats.output import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes(sys.argv[1], (b"x" * 1000 for _ in range(10)))
except OutputError as error:
    print(error.message)
"""


def test_a_full_disk_keeps_the_old_file(target):
    result = subprocess.run([sys.executable, "-c", FULL_DISK, target], capture_output=True, text=True, check=True)
    assert result.stdout == f"{target}: cannot be written: File too large\n"
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("name", "core"),
    [("no/such/folder.csv", "No such file or directory"), ("", "Is a directory"), ("x" * 300, "File name too long")],
)
def test_places_that_cannot_hold_a_file(tmp_path, name, core):
    failed(tmp_path / name, [b"new"], core)


def test_a_link_is_never_followed(target, tmp_path):
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    assert failed(link, [b"new"], "is a symbolic link").id == "output.link"
    assert link.is_symlink()
    assert target.read_bytes() == OLD


def test_a_pipe_is_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_bytes(str(pipe), [b"a" * 100_000, b"b"])
    reader.join(timeout=10)
    assert got == [b"a" * 100_000 + b"b"]
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_is_never_replaced():
    write_bytes("/dev/null", [b"gone"])
    failed("/dev/full", [b"new"], "No space left on device")
    assert all(Path(device).is_char_device() for device in ("/dev/null", "/dev/full"))


class Trickle(io.RawIOBase):
    """Standard output without a buffer: takes a few bytes at a time."""

    def __init__(self):
        self.got = b""

    def writable(self):
        return True

    def write(self, data):
        self.got += bytes(data[:3])
        return min(3, len(data))


class Stdout:
    def __init__(self, buffer):
        self.buffer = buffer


def test_standard_output_gets_everything(monkeypatch, capsys):
    stream = Trickle()
    monkeypatch.setattr("sys.stdout", Stdout(stream))
    write_bytes("-", [b"0123456789", b"", b"abc"])
    assert stream.got == b"0123456789abc"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "expected"), [(OSError(28, "No space left"), OutputError), (BrokenPipeError(), BrokenPipeError)]
)
def test_standard_output_that_fails(monkeypatch, error, expected):
    class Broken(io.BytesIO):
        def write(self, data):
            raise error

    monkeypatch.setattr("sys.stdout", Stdout(Broken()))
    with pytest.raises(expected):
        write_bytes("-", [b"a"])


def test_a_figure_has_no_date_and_no_version(tmp_path):
    paths = [tmp_path / "1.png", tmp_path / "2.png"]
    for path in paths:
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2])
        write_figure(str(path), figure)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"atplotlib" not in first
    assert int.from_bytes(first[16:20], "big") == 2 * output.DPI


@pytest.fixture(scope="module")
def written_twice(tmp_path_factory):
    """Return two folders, into which this process and another one wrote the same figure in every format."""
    code = """
from matplotlib.figure import Figure
from lossprobe.report.formats.output import write_figure
for file in files:
    axes = Figure(figsize=(3, 2)).subplots()
    axes.fill_between([1, 2], [0, 0], [1, 3], label="a")
    axes.set_title("é αβ")
    write_figure(file, axes.figure)
"""
    folders = [tmp_path_factory.mktemp("written") for _ in range(2)]
    here, there = ([str(folder / f"figure{suffix}") for suffix in SUFFIXES] for folder in folders)
    exec(code, {"files": here})
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", f"files = {there!r}{code}"], check=True, env=environment)
    return folders


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_is_the_format_and_the_bytes_are_always_the_same(written_twice, suffix):
    written = [(folder / f"figure{suffix}").read_bytes() for folder in written_twice]
    assert written[0] == written[1]
    assert written[0].startswith(b"<?xml" if suffix == ".svg" else b"%PDF-")
    for trace in (bytes(written_twice[0].parent), sys.prefix.encode(), b"CreationDate", b"dc:date", b"Matplotlib v"):
        assert trace not in written[0]
    fonts = b"<text" not in written[0] if suffix == ".svg" else b"/FontFile2" in written[0]
    assert fonts, "drawn as shapes, or embedded"


def test_talk_is_one_line_on_standard_error(capsys):
    say("a\n::error::b\x1b[2J")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "lossprobe: a\\n::error::b\\x1b[2J\n")
