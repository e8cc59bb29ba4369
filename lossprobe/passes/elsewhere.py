"""Checkpoints whose models other processes hold, as the process that plans sees them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from lossprobe.checkpoint.interface import Tokenizer
from lossprobe.checkpoint.spec import CheckpointSpec
from lossprobe.errors import UsageError
from lossprobe.passes.worker import Opened


class ElsewhereCheckpoint:
    """A checkpoint that another process has opened.

    Args:
        opened: what that process found.
        refusal: the error where the model is asked for in this process.

    Attributes:
        facts: what that process found.
        tokenizer: the tokenizer, which runs in this process.
    """

    def __init__(self, opened: Opened, refusal: UsageError) -> None:
        self.facts = opened.facts
        self.tokenizer: Tokenizer = pickle.loads(opened.tokenizer)
        self._refusal = refusal

    def hidden(self, ids: Any) -> NoReturn:
        """Refuse to compute in this process."""
        del ids
        raise self._refusal

    def logits(self, hidden: Any) -> NoReturn:
        """Refuse to compute in this process."""
        del hidden
        raise self._refusal


def absolute(spec: CheckpointSpec) -> CheckpointSpec:
    """Return a checkpoint with absolute paths, as other processes have another working folder."""
    options = spec.options
    paths = {name: getattr(options, name) for name in ("tokenizer", "chat_template", "base")}
    placed: dict[str, Any] = {name: Path(path).absolute() for name, path in paths.items() if path is not None}
    return replace(spec, path=spec.path.absolute(), options=replace(options, **placed))
