"""Opens each checkpoint once for many tests, because opening the bundled one takes longer than scoring a short text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lossprobe.checkpoint import detect

KEPT = 6
_opened: dict[tuple[Any, ...], Any] = {}


@contextmanager
def opened_once() -> Iterator[None]:
    """Give, inside the block, a checkpoint that was opened before where path, content and options are the same."""
    real = detect.open_checkpoint

    def opened(path, options=None, bases=None):
        if not Path(path).is_dir() or (options and (options.tokenizer or options.base)) or bases is not None:
            return real(path, options, bases)
        key = (str(path), Path(path).resolve(), str(options), content(Path(path)))
        if key not in _opened:
            made = real(path, options)
            while len(_opened) >= KEPT:
                del _opened[next(iter(_opened))]
            _opened[key] = made
        return _opened[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "open_checkpoint", opened)
        yield


def content(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return the name and the sha256 of every file of a folder."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return tuple((file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files)
