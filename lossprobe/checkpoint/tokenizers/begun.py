"""Start the child process of a tokenizer before its model is opened: it works while this process imports torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.tokenizers.frames import DEFAULT_LIMITS, PLAIN, Limits
from lossprobe.checkpoint.tokenizers.sandbox import Sandbox
from lossprobe.checkpoint.tokenizers.tokenizer_files import TokenizerFiles, read_tokenizer_files
from lossprobe.checkpoint.tokenizers.tokenizer_settings import TokenSettings, read_settings
from lossprobe.errors import CheckpointError, LossprobeError, UsageError
from lossprobe.units import visible


@dataclass(frozen=True)
class BegunBackend:
    """A tokenizer.json for a child process.

    Attributes:
        tokens: tokens that other files define.
        canonical: the tokenizer.json that is run, as JSON, with these tokens added.
        ignored: names of the parts that were taken out of it.
        sandbox: runs it.
    """

    tokens: TokenSettings
    canonical: bytes
    ignored: tuple[str, ...]
    sandbox: Sandbox

    @classmethod
    def of(
        cls,
        definition: dict[str, Any],
        tokens: TokenSettings,
        shown: str,
        limits: Limits = DEFAULT_LIMITS,
        special_strings: str = "control",
    ) -> BegunBackend:
        """Return what runs a tokenizer.json; its child is not started. Arguments as of `BackendTokenizer`.

        Raises:
            UsageError: `special_strings` is another word.
        """
        if special_strings not in ("control", "text"):
            raise UsageError(
                "options.special_strings", f"special_strings {visible(repr(special_strings), 40)}: is control or text"
            )
        definition, ignored = _whole_and_repeatable(tokens.add_to(definition))
        canonical = json.dumps(definition, ensure_ascii=False).encode("utf-8", "surrogatepass")
        bos_token = tokens.content("bos_token").encode("utf-8", "surrogatepass")
        plain = [PLAIN] if special_strings == "text" else []
        return cls(tokens, canonical, tuple(ignored), Sandbox([canonical, bos_token, *plain], shown, limits))


@dataclass(frozen=True)
class BegunTokenizer:
    """The files of a tokenizer, and what runs them.

    Attributes:
        files: the content of the files.
        special_strings: as in `LoadOptions`.
        backend: runs them.
    """

    files: TokenizerFiles
    special_strings: str
    backend: BegunBackend

    @classmethod
    def of(cls, path: Path, special_strings: str = "control") -> BegunTokenizer:
        """Return the tokenizer of a tokenizer.json, or of a directory that holds one; its child is not started.

        Raises:
            CheckpointError: there is no tokenizer.json, or it or a file beside it is not valid.
            UsageError: `special_strings` is another word.
        """
        files = read_tokenizer_files(path)
        try:
            tokens = read_settings(files.config, files.special_map, files.added)
        except CheckpointError as error:
            raise CheckpointError(error.id, f"{files.shown}: {error.message}") from None
        backend = BegunBackend.of(files.definition, tokens, files.shown, special_strings=special_strings)
        return cls(files, special_strings, backend)


def begin_tokenizer(path: Path, special_strings: str) -> BegunTokenizer | None:
    """Start the child of a tokenizer; None where that fails, since what is wrong with the model is told first.

    Args:
        path: the tokenizer.json, or a directory that holds one.
        special_strings: as in `LoadOptions`.
    """
    try:
        begun = BegunTokenizer.of(path, special_strings)
        begun.backend.sandbox.begin()
    except LossprobeError:
        return None
    return begun


def _whole_and_repeatable(definition: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the definition without truncation, padding and BPE dropout, and the names of those that it had.

    Truncation would lose text, and dropout splits at random (it is meant for training).
    """
    model = definition.get("model")
    ignored = [key for key in ("truncation", "padding") if definition.get(key)]
    changed = definition | {"truncation": None, "padding": None}
    if isinstance(model, dict) and model.get("dropout"):
        changed["model"] = model | {"dropout": None}
        ignored.append("dropout")
    return changed, ignored
