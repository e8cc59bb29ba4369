"""Only regular files are opened: a pipe, a socket or a device is refused at once, by its kind."""

import faulthandler
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from bundled import CHECKPOINT
from checkpoint.test_nanogpt import save as save_nanogpt

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.files.plain_files import absolute, followed_links, open_plain
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import LossprobeError

HUGGING_FACE = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
WAITS = 120  # seconds; opening a pipe that nobody writes to takes for ever


def opened(path: Path | str, tokenizer: Path | None = None) -> str:
    """Return what opening a checkpoint says; a library that waits for a pipe is ended with this process."""
    faulthandler.dump_traceback_later(WAITS, exit=True, file=sys.__stderr__)
    try:
        open_checkpoint(path, LoadOptions(tokenizer=tokenizer))
    except LossprobeError as error:
        return f"{error.id} {error.message}"
    finally:
        faulthandler.cancel_dump_traceback_later()
    return "opened"


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.bind(str(path))


def folders_with_pipes(folder: Path) -> list[Path]:
    """Hugging Face folders, each with a pipe in the place of another file."""
    paths = [folder / name for name in HUGGING_FACE]
    for path in paths:
        shutil.copytree(CHECKPOINT, path)
        (path / path.name).unlink(missing_ok=True)
        os.mkfifo(path / path.name)
    return paths


def pipes_beside_a_torch_file(folder: Path) -> list[tuple[Path, ...]]:
    """nanoGPT checkpoints, and tokenizers named for them, that are pipes."""
    found: list[tuple[Path, ...]] = []
    for name in ("ckpt.pt", "meta.pkl"):
        (folder / name).mkdir()
        save_nanogpt(folder / name)
        (folder / name / name).unlink()
        os.mkfifo(folder / name / name)
        found.append((folder / name / "ckpt.pt",))
    (folder / "good").mkdir()
    save_nanogpt(folder / "good")
    os.mkfifo(folder / "pipe.json")
    os.mkfifo(folder / "pipe.pkl")
    good = folder / "good/ckpt.pt"
    return [*found, (good, folder / "pipe.json"), (good, folder / "pipe.pkl"), (folder / "pipe.pkl",)]


def pipes_beside_a_fundamentallm_file(folder: Path) -> list[tuple[Path, ...]]:
    """FundamentaLLM checkpoints whose configuration is a pipe."""
    found = []
    for name in ("model.yaml", "config.yaml"):
        (folder / name).mkdir()
        torch.save({"model_state": {"token_embedding.weight": torch.ones(2, 2)}}, folder / name / "best.pt")
        os.mkfifo(folder / name / name)
        found.append((folder / name / "best.pt",))
    return found


def test_a_pipe_in_the_place_of_any_file_is_named(tmp_path):
    folders = folders_with_pipes(tmp_path / "folders")
    for name in ("torch", "fundamentallm"):
        (tmp_path / name).mkdir()
    others = [
        *pipes_beside_a_torch_file(tmp_path / "torch"),
        *pipes_beside_a_fundamentallm_file(tmp_path / "fundamentallm"),
    ]
    lines = [*map(opened, folders), *(opened(*each) for each in others)]
    assert len(lines) == len(folders) + len(others) == 12
    assert [line for line in lines if not line.endswith("cannot be read: is not a file but a named pipe (FIFO)")] == []
    for line, path in zip(lines, folders, strict=False):
        assert line.startswith("checkpoint.unreadable "), line
        assert f"{path.name}: cannot be read" in line


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: os.mkfifo(path), "a named pipe (FIFO)"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: bind(path), "a socket"),
    ],
)
def test_what_it_is_is_told(tmp_path, monkeypatch, make, says):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    make(Path("x"))
    with pytest.raises(OSError, match="is not a file but") as caught:
        open_plain(Path("x"))
    assert caught.value.strerror == f"is not a file but {says}"


def test_regular_files_are_opened_through_links(tmp_path):
    (tmp_path / "a").write_bytes(b"xyz")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("c")
    (tmp_path / "d").symlink_to("nothing")
    with open_plain(tmp_path / "b") as stream:
        assert stream.read() == b"xyz"
    for name, error in (("c", OSError), ("d", FileNotFoundError), ("x\0y", ValueError), (".", IsADirectoryError)):
        with pytest.raises(error):
            open_plain(tmp_path / name)


def test_links_out_of_the_folder_are_told(tmp_path):
    store = tmp_path / "store"
    for folder in (store, tmp_path / "m", tmp_path / "blobs"):
        folder.mkdir()
    for place in (store / "a", tmp_path / "m/b", tmp_path / "blobs/c"):
        place.write_text("x")
    for name, target in (("a", store / "a"), ("inside", "b"), ("hub", "../blobs/c")):
        (tmp_path / "m" / name).symlink_to(target)
    files = [tmp_path / "m" / name for name in ("a", "b", "inside", "hub")]
    assert followed_links(files) == (f"a is a link, read from {store / 'a'}",)


def test_files_are_named_once_and_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute([Path("a"), tmp_path / "a", Path("b")]) == (str(tmp_path / "a"), str(tmp_path / "b"))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
    path = Path(shutil.copytree(CHECKPOINT, tmp_path / "m"))
    (path / name).unlink()
    (path / name).write_bytes(POINTER)
    with pytest.raises(LossprobeError) as caught:
        open_checkpoint(path, LoadOptions())
    assert caught.value.id == "checkpoint.unreadable"
    assert caught.value.message.startswith(f"{path / name}: cannot be read: a Git LFS pointer; git lfs pull")


def test_a_file_that_is_shorter_than_a_pointer_is_read_from_its_start(tmp_path):
    (tmp_path / "a").write_bytes(POINTER[:20])
    with open_plain(tmp_path / "a") as stream:
        assert stream.read() == POINTER[:20]
