"""Describe a checkpoint as plain data, open each checkpoint once, and record the files it was read from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossprobe.checkpoint.files.hashes import file_sha256
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

if TYPE_CHECKING:
    from lossprobe.checkpoint.adapters.sharing import SharedBases


@dataclass(frozen=True)
class CheckpointSpec:
    """A checkpoint that is not opened yet; it can be pickled and opened in another process.

    Attributes:
        path: the directory or file.
        options: device, dtype, tokenizer and the like.
        desmooth: label smoothing to remove from the predictions, or None.
    """

    path: Path
    options: LoadOptions
    desmooth: float | None = None

    def on_this_machine(self) -> CheckpointSpec:
        """Return this with "auto" replaced by the device that torch finds; only then torch is imported."""
        if self.options.device != "auto":
            return self
        from lossprobe.checkpoint.detect import resolve_device

        return replace(self, options=replace(self.options, device=resolve_device("auto")))

    def as_json(self) -> dict[str, Any]:
        """Return the specification as JSON data, with the type of the device only: its index changes no number."""
        options = asdict(self.options)
        tokenizer = self.options.tokenizer
        options["tokenizer"] = None if tokenizer is None else str(tokenizer.absolute())
        template = self.options.chat_template
        options["chat_template"] = None if template is None else str(template.absolute())
        base = options.pop("base")
        if base is not None:
            options["base"] = [str(base.absolute()), str(base.resolve())]
        if not options["merge"]:
            del options["merge"]  # notes of an older lossprobe do not have it
        if options["stream_weights"] == LoadOptions.stream_weights:
            del options["stream_weights"]
        options["device"] = self.options.device.partition(":")[0]
        places = [str(self.path.absolute()), str(self.path.resolve())]
        return {"places": places, "options": options, "desmooth": self.desmooth}


class Opener:
    """Opens checkpoints, and keeps the most recent ones in memory for later passes.

    Args:
        keep: most models in memory at once.
        share_base: whether the checkpoints to come have a base in common, which is then loaded once.
    """

    def __init__(self, keep: int = 1, *, share_base: bool = False) -> None:
        self.keep = keep
        self.share_base = share_base
        self._bases: SharedBases | None = None
        self._models: dict[tuple[Path, LoadOptions], Checkpoint] = {}

    def placed(self, spec: CheckpointSpec) -> CheckpointSpec:
        """Return a checkpoint with "auto" replaced by the device on which this would open it."""
        return spec.on_this_machine()

    def has_open(self, spec: CheckpointSpec) -> bool:
        """Return whether the model is in memory."""
        return (spec.path, spec.options) in self._models

    def open(self, spec: CheckpointSpec) -> Checkpoint:
        """Return a checkpoint, loading its model unless it is still in memory; older models are dropped first.

        Raises:
            LossprobeError: as in `open_checkpoint`.
        """
        key = (spec.path, spec.options)
        if key not in self._models:
            while len(self._models) >= self.keep:
                del self._models[next(iter(self._models))]
            self._models[key] = self.load(spec)
        model = self._models[key]
        if spec.desmooth is None:
            return model
        from lossprobe.checkpoint.desmoothed import DesmoothedCheckpoint  # imports torch, which views do not need

        return DesmoothedCheckpoint(model, spec.desmooth)

    def load(self, spec: CheckpointSpec) -> Checkpoint:
        """Load a checkpoint, and return it as it is, without what `CheckpointSpec.desmooth` asks for.

        Raises:
            LossprobeError: as in `open_checkpoint`.
        """
        from lossprobe.checkpoint.detect import open_checkpoint

        return open_checkpoint(spec.path, spec.options, *self._shared())

    def _shared(self) -> tuple[SharedBases, ...]:
        """Return what keeps the base, if there is one to keep."""
        if not self.share_base:
            return ()
        from lossprobe.checkpoint.adapters.sharing import SharedBases

        self._bases = self._bases or SharedBases()
        return (self._bases,)


def files_read(facts: CheckpointFacts) -> dict[str, Any]:
    """Return the files that a checkpoint was read from, as JSON data: "hashes" (path → sha256) and "beside".

    "beside" maps each folder to the names of all its files, because a file that is added later may be read as well.

    Raises:
        CheckpointError: a file cannot be read.
    """
    known = dict(facts.hashes)
    hashes = {file: known.get(file) or file_sha256(Path(file)) for file in facts.files}
    return {"hashes": hashes, "beside": _beside(hashes)}


def changed_since(time_ns: int, files: Iterable[str]) -> bool:
    """Return whether a file may have changed at or after a time, in nanoseconds since the epoch, or cannot be read."""
    try:
        found = [Path(file).stat() for file in files]
    except OSError:
        return True
    return any(max(each.st_mtime_ns, each.st_ctime_ns) >= time_ns for each in found)


def still_as_read(read: dict[str, Any]) -> bool:
    """Return whether the files in a result of `files_read` have not changed since, and none was added or removed."""
    try:
        return _beside(read["hashes"]) == read["beside"] and all(
            file_sha256(Path(file)) == digest for file, digest in read["hashes"].items()
        )
    except (OSError, ValueError, CheckpointError):
        return False


def _beside(files: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of all files in the folders of some files, without hidden ones, by folder."""
    folders = dict.fromkeys(Path(file).parent for file in files)
    return {
        str(folder): sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        for folder in folders
    }
