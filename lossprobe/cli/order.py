"""Refuses sources that are swapped, missing or of the wrong kind, before a text is read or a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lossprobe.errors import UsageError
from lossprobe.passes.order import ORDER, refuse_checkpoints_as_texts, refuse_swapped, refuse_text_as_checkpoint
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.cli.options import Scoring


def check_order(checkpoints: Sequence[Path], texts: Sequence[Path], scoring: Scoring) -> None:
    """Refuse sources in the wrong order, and a checkpoint that does not exist.

    Nothing but names of files is looked at. A folder of texts may hold a file with the name of weights where the text
    options say which files are read.

    Raises:
        UsageError: checkpoint and text are swapped; a text is a run or looks like a checkpoint; no checkpoint is given;
            or one does not exist.
    """
    from lossprobe.checkpoint.detect import refuse_missing

    refuse_swapped(checkpoints, texts)
    chosen = scoring.text.skip_bad or scoring.text.include or scoring.text.exclude
    refuse_checkpoints_as_texts([text for text in texts if not (chosen and text.is_dir())])
    if not checkpoints:
        raise UsageError(
            "sources.no_checkpoint",
            f"{visible(str(texts[-1]), 200)}: no checkpoint to score on this text",
            hint=f"runs alone, or {ORDER}",
        )
    for path in checkpoints:
        refuse_missing(path)
        refuse_text_as_checkpoint(path)
