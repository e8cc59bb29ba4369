"""Which checkpoint, opened how, as plain data; and the opener, which loads each of them once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lossprobe.checkpoint.interface import Checkpoint, LoadOptions


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


class Opener:
    """Opens checkpoints, and keeps the last of them open for the passes to come.

    Args:
        keep: most models in memory at once.
    """

    def __init__(self, keep: int = 1) -> None:
        self._keep = keep
        self._models: dict[tuple[Path, LoadOptions], Checkpoint] = {}

    def open(self, spec: CheckpointSpec) -> Checkpoint:
        """Return the checkpoint; the model is loaded unless it is still open, and others are let go before that.

        Raises:
            LossprobeError: as in `open_checkpoint`.
        """
        from lossprobe.checkpoint.desmoothed import DesmoothedCheckpoint  # with torch, which no view of a run needs
        from lossprobe.checkpoint.detect import open_checkpoint

        key = (spec.path, spec.options)
        if key not in self._models:
            while len(self._models) >= self._keep:
                del self._models[next(iter(self._models))]
            self._models[key] = open_checkpoint(spec.path, spec.options)
        model = self._models[key]
        return model if spec.desmooth is None else DesmoothedCheckpoint(model, spec.desmooth)
