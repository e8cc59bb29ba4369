"""Refuses sources that are swapped, missing or of the wrong kind, before a text is read or a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lossprobe.errors import UsageError
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.cli.options import Scoring

WEIGHT_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".gguf", ".nemo"})
TEXT_SUFFIXES = frozenset({".txt", ".md", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".gz"})
ORDER = "checkpoints first, the text last"


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
            f"{_shown(texts[-1])}: no checkpoint to score on this text",
            hint=f"runs alone, or {ORDER}",
        )
    for path in checkpoints:
        refuse_missing(path)
        refuse_text_as_checkpoint(path)


def refuse_text_as_checkpoint(path: Path) -> None:
    """Refuse a file in the place of a checkpoint whose name is that of a text, or of a file beside the weights.

    Raises:
        UsageError: its name is one.
    """
    if path.suffix.lower() not in TEXT_SUFFIXES or path.is_dir():
        return
    if path.suffix == ".json" and looks_like_checkpoint(path.parent):
        what, hint = "is one file of a checkpoint", f"give its folder: {_shown(path.parent)}"
    else:
        what, hint = "looks like a text, where a checkpoint belongs", ORDER
    raise UsageError("sources.no_checkpoint", f"{_shown(path)}: {what}", hint=hint)


def refuse_swapped(checkpoints: Sequence[Path], texts: Sequence[Path]) -> None:
    """Refuse a text in the place of the checkpoint, with a checkpoint in the place of a text.

    Raises:
        UsageError: by the names of their files the two are swapped.
    """
    text = next((path for path in checkpoints if path.exists() and not looks_like_checkpoint(path)), None)
    checkpoint = next((path for path in texts if looks_like_checkpoint(path)), None)
    if text is not None and checkpoint is not None:
        raise UsageError(
            "sources.swapped",
            f"{_shown(text)} looks like a text and {_shown(checkpoint)} like a checkpoint: the checkpoint comes first",
        )


def refuse_checkpoints_as_texts(texts: Sequence[Path]) -> None:
    """Refuse runs and checkpoints in the place of texts.

    Raises:
        UsageError: a text is a run, or looks like a checkpoint.
    """
    from lossprobe.run.reader import is_run

    for text in texts:
        what = "is a run" if is_run(text) else "looks like a checkpoint" if looks_like_checkpoint(text) else None
        if what is not None:
            raise UsageError("sources.no_text", f"{_shown(text)}: {what}, where a text belongs", hint=ORDER)


def looks_like_checkpoint(path: Path) -> bool:
    """Return whether a path is a weights file or a folder with one, by the names of files only."""
    files = path.iterdir() if path.is_dir() else (path,)
    return any(file.suffix in WEIGHT_SUFFIXES for file in files)


def _shown(path: Path) -> str:
    return visible(str(path), 200)
