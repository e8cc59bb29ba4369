"""Find the safetensors files that hold the weights of a directory: one file, or the shards that an index names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from lossprobe.checkpoint.files.foreign import missing_weights
from lossprobe.checkpoint.files.json_file import read_json
from lossprobe.checkpoint.files.plain_files import stands, unreadable
from lossprobe.checkpoint.files.refusals import listed
from lossprobe.checkpoint.files.safetensors_file import TensorEntry, scan_header
from lossprobe.checkpoint.files.stored_tensors import StoredTensors
from lossprobe.errors import CheckpointError
from lossprobe.units import plural, visible

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Weights beside those of the model, which somebody may take for a part of it.
UNREAD = re.compile(r"(?:adapter_model|value_head)\.(?:safetensors|bin)|model-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True)
class Weights:
    """The safetensors files of a directory.

    Attributes:
        files: path → tensors that the file declares, by name; sorted by file name.
        index: path of the index, if there is one.
        notices: what a user should know about the files, one line each.
    """

    files: dict[Path, dict[str, TensorEntry]]
    index: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()

    # What `quantized.weights.QuantizedWeights` knows beyond this.
    dtype: ClassVar[str | None] = None
    quantization: ClassVar[str | None] = None
    said_by: ClassVar[tuple[Path, ...]] = ()
    found_finite: ClassVar[Collection[str]] = ()

    @property
    def unquantized(self) -> dict[str, TensorEntry]:
        """The tensors that are stored plain: all."""
        return self.entries

    @property
    def entries(self) -> dict[str, TensorEntry]:
        """Every stored tensor by its name."""
        return {name: entry for declared in self.files.values() for name, entry in declared.items()}

    def read(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:  # noqa: ARG002 - others compute weights in it
        """Return every stored tensor by its name, as it is stored, whatever `dtype` the model will have.

        Raises:
            CheckpointError: a file changed since its header was read.
        """
        with StoredTensors(self.files) as stored:
            return {name: stored.tensor(name) for name in self.entries}

    @contextlib.contextmanager
    def reader(self, dtype: torch.dtype) -> Iterator[Callable[[str], torch.Tensor]]:  # noqa: ARG002 - as in `read`
        """Open the files; yield what reads a tensor by its name, also from several threads.

        Raises:
            CheckpointError: a file changed since its header was read.
        """
        with StoredTensors(self.files) as stored:
            yield stored.tensor


def find_weights(path: Path) -> Weights:
    """Return the safetensors files of a Hugging Face directory.

    Symbolic links are followed, also out of the directory, because the user chose the directory that holds them.

    Raises:
        CheckpointError: there are no weights; a single file lies beside an index that names other files; or a shard is
            missing or holds other tensors than the index says.
    """
    single, index = path / SINGLE, path / INDEX
    if stands(index):
        weight_map = _read_index(index)
        if stands(single) and set(weight_map.values()) != {SINGLE}:
            raise CheckpointError(
                "checkpoint.two_weight_sets",
                f"{visible(str(path), 200)}: holds both {SINGLE} and {INDEX}, which names other files",
                hint="remove the stale one",
            )
        return _shards(path, index, weight_map)
    if stands(single):
        return Weights({single: scan_header(single)}, notices=_unread(path, {SINGLE}))
    raise _no_weights(path)


def _no_weights(path: Path) -> CheckpointError:
    """Return the error for a directory without safetensors weights, with a hint that depends on what it does hold."""
    found = list_names(path)
    listing = visible(", ".join(found), 160) or "nothing"
    what = f"{visible(str(path), 200)}: no {SINGLE} and no {INDEX} (found: {listing})"
    return CheckpointError("checkpoint.no_weights", what, hint=missing_weights(path, found))


def _read_index(index: Path) -> dict[str, str]:
    weight_map = read_json(index, 16 << 20).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        shown = visible(str(index), 200)
        raise CheckpointError("checkpoint.bad_index", f"{shown}: weight_map must map tensor names to file names")
    return weight_map


def _shards(path: Path, index: Path, weight_map: dict[str, str]) -> Weights:
    """Return the shards that an index names, after checking that they hold exactly the tensors it assigns to them."""
    shown = visible(str(index), 200)
    names = sorted(set(weight_map.values()))
    files = []
    for number, name in enumerate(names, start=1):
        file = _inside(path, name, shown)
        if not stands(file):
            raise CheckpointError(
                "checkpoint.missing_shard", f"{shown}: shard {number} of {len(names)} missing: {visible(name, 80)}"
            )
        files.append(file)
    declared = {file: scan_header(file) for file in files}
    stored: dict[str, str] = {}
    for file, tensors in declared.items():
        for tensor in tensors:
            if tensor in stored:
                raise CheckpointError(
                    "checkpoint.duplicate_tensor",
                    f"{shown}: tensor {visible(tensor, 80)} is in {visible(stored[tensor], 80)} "
                    f"and {visible(file.name, 80)}",
                )
            stored[tensor] = file.name
    wrong = sorted(name for name in stored if stored[name] != weight_map.get(name))
    if wrong:
        raise CheckpointError(
            "checkpoint.bad_index",
            f"{shown}: index and shards disagree on {plural(len(wrong), 'tensor')}, first {visible(wrong[0], 80)}",
        )
    absent = sorted(weight_map.keys() - stored.keys())  # a tied head, for example; a needed one is refused at load
    notices = (f"{INDEX} lists tensors that no file holds and the model does not need: {listed(absent)}",)
    return Weights(declared, (index,), (*(notices if absent else ()), *_unread(path, set(names))))


def _unread(path: Path, read: Collection[str]) -> tuple[str, ...]:
    """Return a notice of weights beside those that are read, such as an adapter without its configuration."""
    left = [name for name in list_names(path) if UNREAD.fullmatch(name) and name not in read]
    if not left:
        return ()
    return (f"{visible(str(path), 200)}: {listed(left)}: not read, the loss is that of the weights beside it",)


def _inside(path: Path, name: str, shown: str) -> Path:
    """Return the path of a shard, refusing names that lead out of the directory and names that no file can have."""
    if Path(name).name != name or name in {"", ".", ".."}:
        raise CheckpointError("checkpoint.shard_path", f"{shown}: shard path {visible(name, 80)} leaves the directory")
    file = path / name
    try:
        file.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise unreadable(f"{shown}: {visible(name, 80)}", error) from None
    return file


def list_names(path: Path) -> list[str]:
    """Return the names in a directory, sorted.

    Raises:
        CheckpointError: the directory cannot be read.
    """
    try:
        return sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise unreadable(visible(str(path), 200), error) from None
