"""Which files a path stands for, and reading them within a limit."""

import bz2
import gzip
import io
import lzma
import os
import threading

import pyarrow as pa
import pytest

from lossprobe.errors import OutputError, TextError, UsageError
from lossprobe.text import files, folders
from lossprobe.text.documents import open_text
from lossprobe.text.files import Budget, TextFile, find_files
from lossprobe.text.options import TextOptions


def texts(paths, **options):
    return [document.text for document in open_text(paths, TextOptions(**options)).documents()]


def refused(error, id, call, *arguments):
    with pytest.raises(error) as caught:
        call(*arguments)
    assert caught.value.id == id
    return caught.value


def arrow(writer):
    table, sink = pa.table({"text": ["a"]}), io.BytesIO()
    with writer(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue()


class Terminal(io.BytesIO):
    def isatty(self):
        return True


class Stdin:
    closed = False

    def __init__(self, buffer):
        self.buffer = buffer


class Endless(io.RawIOBase):
    """Never ends, one byte more than asked for would be too much."""

    given = 0

    def readable(self):
        return True

    def read(self, size=-1):
        self.given += size
        return b"a" * size


def test_several_files_keep_their_order(tmp_path):
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(name)
    assert texts([tmp_path / "b.txt", tmp_path / "a.txt"]) == ["b.txt", "a.txt"]
    source = open_text([tmp_path / "b.txt", tmp_path / "a.txt"])
    assert source.name == "b.txt"  # the first one stands for all
    assert open_text(str(tmp_path / "b.txt")).name == "b"


def test_a_folder_is_every_visible_file_below_it_sorted(tmp_path):
    for name in ("z.txt", "a/2.txt", "a/10.txt", ".hidden", ".git/x.txt", "a/.h/y.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    assert texts(tmp_path) == ["a/10.txt", "a/2.txt", "z.txt"]
    assert open_text(tmp_path).name == tmp_path.name


def test_nothing_there(tmp_path):  # T11 is about what a folder is; an empty one is refused
    refused(UsageError, "text.empty_folder", find_files, tmp_path, 10)
    refused(UsageError, "text.missing", find_files, tmp_path / "no", 10)
    refused(UsageError, "text.none", open_text, [])
    refused(TextError, "text.unreadable", find_files, tmp_path / ("a text by mistake " * 20), 10)


def test_a_folder_that_cannot_be_listed_is_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")

    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied"))

    monkeypatch.setattr(folders.os, "walk", walk)
    assert "Permission denied" in refused(TextError, "text.unreadable", find_files, tmp_path, 10).message


@pytest.mark.parametrize(
    ("magic", "kind"),
    [
        (b"\x1f\x8b", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"PAR1", "Parquet"),
        (b"%PDF", "PDF"),
        (pa.compress(b"a text", codec="zstd", asbytes=True), "Zstandard"),
        (lzma.compress(b"a text"), "xz"),
        (bz2.compress(b"a text"), "bzip2"),
        (arrow(pa.ipc.new_file), "Arrow"),
        (arrow(pa.ipc.new_stream), "Arrow"),
    ],
)
@pytest.mark.parametrize("field", [None, "text"])
def test_other_formats_are_told_by_their_first_bytes(tmp_path, magic, kind, field):  # T10
    path = tmp_path / "a.txt"
    path.write_bytes(magic + b" rest\n")
    error = refused(TextError, "text.not_text", lambda: texts(path, text_field=field))
    assert f"looks like {kind}, not text" in error.message
    assert (error.hint is None) == (kind == "PDF")


def test_gzip_is_read_by_its_name(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("é\n".encode()) + gzip.compress(b"two members", mtime=0))
    assert texts(path) == ["é\ntwo members"]
    assert open_text(path).name == "a"


GOOD = gzip.compress(b"x" * 1000, mtime=0)


@pytest.mark.parametrize("data", [GOOD[:-9], GOOD[:12] + b"\xff" + GOOD[13:], GOOD + b"junk", b"plain text"])
@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz"])
def test_damaged_gzip(tmp_path, data, name):
    path = tmp_path / name
    path.write_bytes(data)
    error = refused(TextError, "text.unreadable", texts, path)
    assert str(path) in error.message
    assert error.exit_code == 4


def test_max_bytes_counts_all_files_and_what_gzip_expands_to(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a" * 6)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"b" * 4, mtime=0))
    assert texts(tmp_path, max_bytes=10) == ["aaaaaa", "bbbb"]
    error = refused(TextError, "text.too_large", lambda: texts(tmp_path, max_bytes=9))
    assert "b.txt.gz: the text has more than 9 bytes (`max_bytes`)" in error.message


def test_max_bytes_counts_separators_and_blank_lines_too(tmp_path):
    for name in ("1.txt", "2.txt", "3.jsonl"):
        (tmp_path / name).write_bytes(b"\n" * 4)
    assert texts(tmp_path, split_documents="line", max_bytes=12) == []
    refused(TextError, "text.too_large", lambda: texts(tmp_path, split_documents="line", max_bytes=11))


def test_a_long_line_of_a_jsonl_is_not_read_whole(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b"a" * 5_000_000, mtime=0))
    budget = Budget(1000)
    with pytest.raises(TextError):
        list(TextFile(path, path.name, "bomb").lines(budget))
    assert budget.used == 1001


def test_standard_input_is_copied_and_read_twice(monkeypatch):
    monkeypatch.setattr("sys.stdin", Stdin(io.BytesIO("é\n\nb".encode())))
    source = open_text("-", TextOptions(split_documents="blank-line"))
    copy = source.files[0].path
    assert source.name == "stdin"
    for _ in range(2):
        assert [(d.text, d.source) for d in source.documents()] == [("é", "-"), ("b", "-")]
    assert source.notices == ["stdin: 2 bytes of separators belong to no document"]
    assert copy.exists()
    del source
    assert not copy.exists()


def test_endless_input_is_refused_at_the_limit(monkeypatch):  # T13
    endless = Endless()
    monkeypatch.setattr("sys.stdin", Stdin(endless))
    refused(TextError, "text.too_large", find_files, files.Path("-"), 3 << 20)
    assert endless.given <= 5 << 20  # 3 MiB, and at most two more pieces of 1 MiB


def test_a_terminal_is_refused(monkeypatch):  # T12
    monkeypatch.setattr("sys.stdin", Stdin(Terminal()))
    assert refused(UsageError, "text.terminal", find_files, files.Path("-"), 10).exit_code == 2
    monkeypatch.setattr("sys.stdin", None)
    refused(UsageError, "text.no_input", find_files, files.Path("-"), 10)


@pytest.mark.parametrize("name", ["pipe", "pipe.jsonl"])
def test_a_named_pipe_is_read_once_and_noted(tmp_path, name):  # T12
    path = tmp_path / name
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b'{"text": "a"}\n',), daemon=True)
    writer.start()
    source = open_text(path)
    writer.join(timeout=10)
    expected = ["a"] if name.endswith("jsonl") else ['{"text": "a"}\n']
    for _ in range(2):
        assert [document.text for document in source.documents()] == expected
    plain = [f"{path}: begins with a JSON record, but is scored as plain text; `data_kind` reads its records"]
    told = [] if name.endswith("jsonl") else plain
    assert source.notices == [f"{path}: read once, into a temporary copy", *told]


def test_a_full_disk_while_copying(monkeypatch):
    class Full(io.BytesIO):
        name = "full"

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", lambda **_: Full())
    monkeypatch.setattr("sys.stdin", Stdin(io.BytesIO(b"a")))
    assert "No space left" in refused(OutputError, "output.write", find_files, files.Path("-"), 10).message


def test_names_are_safe_to_print(tmp_path):  # T16
    path = tmp_path / "a\x1b[2J\n::error::x"
    path.write_bytes(b"\xff")
    message = refused(TextError, "text.not_utf8", texts, path).message
    assert "\\x1b[2J\\n::error::x: byte 0xff" in message
    assert open_text(path).name == "a\\x1b[2J\\n::error::x"


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.jsonl.gz", "a.parquet"])
def test_a_pointer_of_git_lfs_is_no_text(tmp_path, name):
    (tmp_path / name).write_bytes(POINTER)
    error = refused(TextError, "text.not_text", lambda: texts(tmp_path / name))
    assert error.message == f"{tmp_path / name}: is a Git LFS pointer, not the text"
    assert error.hint.startswith("git lfs pull")
    (tmp_path / name).write_bytes(POINTER[:20])
    if name == "a.txt":
        assert texts(tmp_path / name) == [POINTER[:20].decode()]
