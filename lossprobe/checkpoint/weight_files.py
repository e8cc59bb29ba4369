"""Which safetensors files of a directory hold its weights: one file, or the shards that an index names."""

from __future__ import annotations

from pathlib import Path

from lossprobe.checkpoint.json_file import read_json, unreadable
from lossprobe.checkpoint.safetensors_file import scan_header
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def find_weights(path: Path) -> list[Path]:
    """Return the safetensors files of a Hugging Face directory, in name order.

    Raises:
        CheckpointError: none; a single file and an index at once; a shard that is missing, outside the
            directory, or holds other tensors than the index says.
    """
    shown = visible(str(path), 200)
    single, index = path / SINGLE, path / INDEX
    if single.is_file() and index.is_file():
        raise CheckpointError(
            "checkpoint.two_weight_sets", f"{shown}: holds both {SINGLE} and {INDEX}", hint="remove the stale one"
        )
    if index.is_file():
        return _shards(path, index)
    if single.is_file():
        return [_inside(path, SINGLE, shown)]
    found = list_names(path)
    pickled = [name for name in found if name.startswith("pytorch_model")]
    raise CheckpointError(
        "checkpoint.no_weights",
        f"{shown}: no {SINGLE} and no {INDEX} (found: {visible(', '.join(found), 160) or 'nothing'})",
        hint="convert pytorch_model.bin to safetensors first" if pickled else None,
    )


def _shards(path: Path, index: Path) -> list[Path]:
    shown = visible(str(index), 200)
    weight_map = read_json(index, 16 << 20).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError("checkpoint.bad_index", f"{shown}: weight_map must map tensor names to file names")
    names = sorted(set(weight_map.values()))
    files = []
    for number, name in enumerate(names, start=1):
        file = _inside(path, name, shown)
        if not file.is_file():
            raise CheckpointError(
                "checkpoint.missing_shard", f"{shown}: shard {number} of {len(names)} missing: {visible(name, 80)}"
            )
        files.append(file)
    stored: dict[str, str] = {}
    for file in files:
        for tensor in scan_header(file):
            if tensor in stored:
                raise CheckpointError(
                    "checkpoint.duplicate_tensor",
                    f"{shown}: tensor {visible(tensor, 80)} is in {visible(stored[tensor], 80)} "
                    f"and {visible(file.name, 80)}",
                )
            stored[tensor] = file.name
    wrong = sorted(name for name in stored.keys() | weight_map.keys() if stored.get(name) != weight_map.get(name))
    if wrong:
        raise CheckpointError(
            "checkpoint.bad_index",
            f"{shown}: index and shards disagree on {len(wrong)} tensors, first {visible(wrong[0], 80)}",
        )
    return files


def _inside(path: Path, name: str, shown: str) -> Path:
    """Return a file of the directory, refusing names and links that leave it.

    The Hugging Face cache keeps files as links into its own `blobs` folder; those are followed.
    """
    if Path(name).name != name or name in {"", ".", ".."}:
        raise CheckpointError("checkpoint.shard_path", f"{shown}: shard path {visible(name, 80)} leaves the directory")
    file = path / name
    try:
        target = file.resolve(strict=False)
        if not file.is_symlink() or target.parent == path.resolve() or target.parent.name == "blobs":
            return file
    except RuntimeError:
        raise CheckpointError("checkpoint.link_loop", f"{shown}: {visible(name, 80)} is a symbolic link loop") from None
    except (OSError, ValueError) as error:
        raise unreadable(f"{shown}: {visible(name, 80)}", error) from None
    raise CheckpointError("checkpoint.shard_path", f"{shown}: {visible(name, 80)} is a link out of the directory")


def list_names(path: Path) -> list[str]:
    """Return the names in a directory, sorted.

    Raises:
        CheckpointError: it may not be read.
    """
    try:
        return sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise unreadable(visible(str(path), 200), error) from None
