"""Refuses checkpoints and texts in each other's place, by the names of their files, before anything is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lossprobe.errors import UsageError
from lossprobe.units import plural, visible

WEIGHT_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".gguf", ".nemo"})
TEXT_SUFFIXES = frozenset({".txt", ".md", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".gz", ".parquet"})
STATES = re.compile(r"(optim(izer)?|(lr_)?scheduler|scaler|rng_states?|training_args)(?![a-z])|.*optim_states\.", re.I)
ORDER = "checkpoints first, the text last"


def refuse_text_as_checkpoint(path: Path) -> None:
    """Refuse, in the place of a checkpoint, a folder of runs, and a file named as a text or as one beside the weights.

    Raises:
        UsageError: it is one; of a folder, the runs are listed.
    """
    if path.is_dir() and not looks_like_checkpoint(path):
        from lossprobe.run.run_folders import run_folders

        runs = run_folders(path)
        if runs:
            held = f"{plural(len(runs), 'run')}: {visible(', '.join(run.name for run in runs), 400)}"
            what = f"{_shown(path)}: holds {held}, where a checkpoint belongs"
            raise UsageError("run.several", what, hint="name one of them without a text, or a checkpoint")
    if looks_like_text(path):
        what, hint = "looks like a text, where a checkpoint belongs", ORDER
    elif path.suffix == ".json" and not path.is_dir():
        what, hint = "is one file of a checkpoint", f"give its folder: {_shown(path.parent)}"
    else:
        return
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
    from lossprobe.run.run_folders import is_run

    for text in texts:
        if is_run(text):
            raise UsageError("sources.no_text", f"{_shown(text)}: is a run, where a text belongs", hint=ORDER)
        weights = _weights(text)
        if weights is not None:
            name = visible(weights.name, 60)
            why = f" (it holds {name})" if text.is_dir() else ""
            left_out = f"; in a folder of texts, `exclude` {name} leaves that file out" if text.is_dir() else ""
            raise UsageError(
                "sources.no_text", f"{_shown(text)}: looks like a checkpoint{why}, where a text belongs",
                hint=ORDER + left_out,
            )  # fmt: skip


def looks_like_checkpoint(path: Path) -> bool:
    """Return whether a path is a weights file or a folder with one, by the names of files only."""
    return _weights(path) is not None


def looks_like_adapter(path: Path) -> bool:
    """Return whether a path is the folder of an adapter, by the names of files only."""
    return (path / "adapter_config.json").is_file()


def has_adapter(paths: Iterable[Path]) -> bool:
    """Return whether the folder of an adapter is among some paths."""
    return any(map(looks_like_adapter, paths))


def _weights(path: Path) -> Path | None:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return next((file for file in files if holds_weights(file)), None)


def looks_like_text(path: Path) -> bool:
    """Return whether a path is a file that is named as texts are, and not one beside the weights of a checkpoint."""
    named = path.suffix.lower() in TEXT_SUFFIXES and not path.is_dir()
    return named and not (path.suffix == ".json" and looks_like_checkpoint(path.parent))


def holds_weights(file: Path) -> bool:
    """Return whether a file is named as weights are, and not as what trainers keep beside them to go on from.

    >>> [holds_weights(Path(name)) for name in ("model.safetensors", "ckpt.pt", "optimizer.pt", "rng_state_0.pth")]
    [True, True, False, False]
    """
    return file.suffix in WEIGHT_SUFFIXES and not STATES.match(file.name)


def _shown(path: Path) -> str:
    from lossprobe.run.shown import shown_run

    return shown_run(path)
