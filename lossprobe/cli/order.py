"""Refuses sources that are swapped, missing or of the wrong kind, before a text is read or a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lossprobe.errors import UsageError
from lossprobe.passes.order import (
    ORDER,
    WEIGHT_SUFFIXES,
    refuse_checkpoints_as_texts,
    refuse_swapped,
    refuse_text_as_checkpoint,
)
from lossprobe.units import visible

LOG_NAMES = re.compile(r"trainer_state\.json|trainer_log\.jsonl|metrics\.csv|events\.out\.tfevents.*")
IN_LOG = re.compile(rb"\"log_history\"|[\"']?\b(?:\w+[ _])?loss[\"']?\s*[:=]?\s*[\"']?-?(?:\d+\.\d|nan)", re.IGNORECASE)
IN_HEADER = re.compile(rb"(?:[\w./-]+,)*[\w./-]*loss[\w./-]*(?:,[\w./-]+)*\r?\n", re.IGNORECASE)  # of a CSV
LOG_START = 64 << 10  # bytes that are looked at

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
    from lossprobe.checkpoint.detect import refuse_address, refuse_missing

    for path in checkpoints:
        refuse_address(path)
        refuse_log(path)
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


def refuse_log(path: Path) -> None:
    """Refuse a training log in the place of a checkpoint or a run, by its name and its first lines.

    Raises:
        UsageError: it looks like one.
    """
    if path.suffix.lower() in WEIGHT_SUFFIXES or not path.is_file() or not _looks_like_log(path):
        return
    shown = visible(str(path), 200)
    raise UsageError(
        "curve.log_as_checkpoint", f"{shown}: looks like a training log, where a checkpoint or a run belongs",
        hint=f"lossprobe curve {shown}",
    )  # fmt: skip


def _looks_like_log(path: Path) -> bool:
    if LOG_NAMES.fullmatch(path.name):
        return True
    try:
        with path.open("rb") as stream:
            start = stream.read(LOG_START)
    except OSError:
        return False
    return len(IN_LOG.findall(start)) > 1 or IN_HEADER.match(start) is not None
