"""Open checkpoints in one of several processes that hold each model together."""

from __future__ import annotations

from lossprobe.checkpoint.adapters.folder import is_adapter
from lossprobe.checkpoint.chat import with_template
from lossprobe.checkpoint.detect import refuse_missing
from lossprobe.checkpoint.families.divided import load_divided
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.model.division import Division, refuse_divided
from lossprobe.checkpoint.model.process_group import join_group
from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.units import visible


class DividedOpener(Opener):
    """Opens checkpoints of which this process holds slices; all processes must open the same in the same order.

    Args:
        division: which of the processes this is.
        meeting_file: as in `join_group`, which is called when the first checkpoint is opened.
        keep: most models in memory at once.
    """

    def __init__(self, division: Division, meeting_file: str, keep: int = 1) -> None:
        super().__init__(keep)
        self._division, self._meeting_file = division, meeting_file
        self._joined = False

    def load(self, spec: CheckpointSpec) -> Checkpoint:
        """Return this process's part of a checkpoint.

        Raises:
            UsageError: there are fewer GPUs than processes; or as in `open_checkpoint`.
            CheckpointError: it cannot be divided; or as in `open_checkpoint`.
        """
        refuse_missing(spec.path)
        if is_adapter(spec.path):
            refuse_divided(visible(str(spec.path), 200), "an adapter's matrices have no plan")
        if not self._joined:
            join_group(self._division, spec.options.device, self._meeting_file)
            self._joined = True
        return with_template(load_divided(spec.path, spec.options, self._division), spec.path, spec.options)
