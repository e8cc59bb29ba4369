"""Refuses results that would overwrite the files of checkpoints, tokenizers and texts, also through links."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from lossprobe.cli.result_files import DEFAULT_FILE, SUFFIXES
from lossprobe.errors import OutputError, UsageError
from lossprobe.units import visible

# Suffixes and names of files that no result may replace, of any model: a stored run does not know copies of its model.
PROTECTED_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".gguf", ".pkl"})
PROTECTED_NAMES = frozenset(
    {"config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "model.safetensors.index.json"}
)


def named_files(context: click.Context) -> list[Path]:
    """Return the files that `--csv` and `--plot` of the command line name, and the page of a report."""
    names = [context.params.get(option.removeprefix("--")) for option in (*SUFFIXES, "page")]
    return [Path(name) for name in names if isinstance(name, str) and name not in ("", "-", DEFAULT_FILE)]


def protect_files(destinations: Iterable[Path], files: Sequence[str]) -> None:
    """Refuse to write a result over a file of a checkpoint, or into a checkpoint, run or baseline.

    Args:
        destinations: files that will be written.
        files: files that were read.

    Raises:
        UsageError: a destination is one of the files (also by a symbolic or hard link), or lies in such a folder.
    """
    for destination in destinations:
        shown = visible(str(destination), 200)
        found = next((file for file in files if is_same(destination, Path(file))), None)
        if found is not None:
            other = "" if Path(found) == destination.absolute() else f", by the name of {visible(found, 200)}"
            raise UsageError(
                "output.is_input", f"{shown}: is a file that the checkpoint was read from{other}: never changed"
            )
        target = destination.resolve()
        stored = next((home for home in list(target.parents)[:2] if _is_stored(home)), None)
        if stored is not None:
            kept = visible(str(stored), 200)
            raise UsageError(
                "output.inside_run", f"{shown}: lies inside {kept}, a run or baseline, which is never changed"
            )
        homes = [Path(file).parent.resolve() for file in files if Path(file).name == "config.json"]
        inside = any(map(_is_checkpoint_folder, target.parents if not target.parent.is_dir() else [target.parent]))
        if inside or any(home in target.parents for home in homes):
            raise UsageError("output.inside_checkpoint", f"{shown}: lies inside a checkpoint, which is never changed")
        weights = target.suffix.lower() in PROTECTED_SUFFIXES or target.name in PROTECTED_NAMES
        if weights and target.is_file():
            raise UsageError(
                "output.is_input", f"{shown}: is there, and by its name part of a checkpoint, which is never changed",
                hint="remove it first, or choose another name",
            )  # fmt: skip


def refuse_place(file: str) -> None:
    """Refuse a file for a result that cannot be written, by what is known before a checkpoint is opened.

    Raises:
        UsageError: it would lie in the folder of a checkpoint that is not the one to be scored, or in a run.
        OutputError: it cannot be written.
    """
    from lossprobe.report.formats.output import refuse_unwritable

    if file != "-" and not Path(file).parent.is_dir():
        protect_files([Path(file)], [])
    refuse_unwritable(file, links=False)


def refuse_unwritable_folder(folder: Path) -> None:
    """Refuse, before anything is scored, a folder that cannot be made, or takes no new file.

    Raises:
        OutputError: it, or the nearest folder above it that exists, cannot be written.
    """
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        shown = visible(str(folder), 200)
        raise OutputError("output.write", f"{shown}: cannot be written: {error.strerror}") from None


def protect_folder(folder: Path | None, files: Sequence[str]) -> None:
    """Refuse to write a run into a checkpoint, or into a folder that contains a file of the checkpoint.

    Raises:
        UsageError: the folder is one of these, also through links.
    """
    if folder is None:
        return
    shown, target = visible(str(folder), 200), folder.resolve()
    protect_files([folder], files)
    held = next((file for file in files if target in Path(file).resolve().parents), None)
    if held is not None:
        raise UsageError(
            "output.inside_checkpoint",
            f"{shown}: holds {visible(Path(held).name, 80)}, which the checkpoint was read from",
            hint="choose a folder of its own",
        )


def protect_texts(destinations: Iterable[Path], texts: Iterable[Path]) -> None:
    """Refuse to write a result over a text.

    Raises:
        UsageError: a destination is one of the texts, also by a symbolic or hard link.
    """
    for destination in destinations:
        if any(is_same(destination, text) for text in texts):
            shown = visible(str(destination), 200)
            raise UsageError("output.is_input", f"{shown}: is a text that was scored, which is never changed")


def is_same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to the same file, also by symbolic or hard links."""
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist, so only their places can be compared
        return one.resolve() == other.resolve()
    except ValueError:  # a name with a NUL
        return False


def _is_checkpoint_folder(folder: Path) -> bool:
    weights = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
    return (folder / "config.json").is_file() and any(True for name in weights for _ in folder.glob(name))


def _is_stored(folder: Path) -> bool:
    """Return whether a folder is a run (finished or not) or a baseline.

    It must have two of their entries, because other folders have a plan.json too.
    """
    run = (folder / "tokens").is_dir() and any((folder / name).is_file() for name in ("run.json", "plan.json"))
    return run or all((folder / name).is_file() for name in ("baseline.json", "tokens.parquet"))
