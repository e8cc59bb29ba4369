"""Hugging Face tokenizers (tokenizer.json), opened by the `tokenizers` library alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from lossprobe.checkpoint.interface import Tokenizer, Tokens
from lossprobe.checkpoint.json_file import read_json
from lossprobe.checkpoint.spans import aligned_stops, exact_stops, vocabulary_bytes
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

MAX_TOKENIZER_BYTES = 256 << 20


class BackendTokenizer:
    """A `Tokenizer` over a tokenizer.json.

    Args:
        definition: the parsed tokenizer.json.
        settings: the parsed tokenizer_config.json, or an empty dict.
        shown: how messages name it.

    Raises:
        CheckpointError: the library cannot build it.
    """

    def __init__(self, definition: dict[str, Any], settings: dict[str, Any], shown: str) -> None:
        self._shown = shown
        self.notices = tuple(
            f"{shown}: ignored embedded {key}" for key in ("truncation", "padding") if definition.get(key)
        )
        canonical = json.dumps({**definition, "truncation": None, "padding": None}, ensure_ascii=False)
        try:
            self._backend = tokenizers.Tokenizer.from_str(canonical)
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception
            raise CheckpointError("tokenizer.broken", f"{shown}: {visible(str(error), 160)}") from None
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self.kind, self._bytes = vocabulary_bytes(definition, vocabulary)
        self.special_ids = frozenset(e["id"] for e in definition.get("added_tokens") or [] if e.get("special"))
        self._unknown_id = vocabulary.get(_unknown_token(definition, settings), -1)
        self.bos_id = vocabulary.get(_content(settings.get("bos_token")))
        added = self._prefix_of_empty_text()
        if added is not None and self.bos_id is None:
            self.bos_id = added
        explicit = settings.get("add_bos_token")
        self.adds_bos = self.bos_id is not None and (explicit if isinstance(explicit, bool) else added == self.bos_id)
        identity = f"{canonical}|bos {self.bos_id} {self.adds_bos}"
        self.sha256 = hashlib.sha256(identity.encode()).hexdigest()

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, without BOS; special tokens in the text are recognised.

        Raises:
            CheckpointError: the tokenizer failed on this text.
        """
        try:
            encoding = self._backend.encode(text, add_special_tokens=False)
        except BaseException as error:
            # The Rust side panics (an exception of its own, below BaseException) on rules it cannot run.
            if type(error).__name__ != "PanicException" and not isinstance(error, Exception):
                raise
            raise CheckpointError(
                "tokenizer.failed", f"{self._shown}: tokenizer failed: {visible(str(error), 120)}"
            ) from None
        ids = np.array(encoding.ids, dtype=np.int32)
        unknown = ids == self._unknown_id
        stops = exact_stops([self._bytes.get(index, b"") for index in encoding.ids], text.encode())
        if stops is not None:
            return Tokens(ids, stops, unknown)
        aligned, normalized, tiles = aligned_stops(encoding.offsets, text)
        return Tokens(ids, aligned, unknown, normalized, tiles and (len(ids) > 0 or not text))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for in running text (a special id: its name), b"" for none."""
        return self._bytes.get(token_id, b"")

    def _prefix_of_empty_text(self) -> int | None:
        """Return the id that the tokenizer puts before a text by itself, or None."""
        plain = self._backend.encode("", add_special_tokens=False).ids
        full = self._backend.encode("", add_special_tokens=True)
        return int(full.ids[0]) if len(full.ids) > len(plain) and full.special_tokens_mask[0] else None


def open_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a directory that holds a tokenizer.json, or of such a file.

    Raises:
        CheckpointError: no tokenizer.json, not JSON, or not a tokenizer that the library can build.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            "tokenizer.missing",
            f"{visible(str(path), 200)}: no tokenizer.json found",
            hint="save the tokenizer with transformers' save_pretrained, or name one with --tokenizer",
        )
    settings_file = file.with_name("tokenizer_config.json")
    settings = read_json(settings_file) if settings_file.is_file() else {}
    return BackendTokenizer(read_json(file, MAX_TOKENIZER_BYTES), settings, visible(str(file), 200))


def _content(token: object) -> str:
    """Return the text of a special token, which tokenizer_config.json gives as a string or an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _unknown_token(definition: dict[str, Any], settings: dict[str, Any]) -> str:
    model = definition.get("model") or {}
    if isinstance(model.get("unk_id"), int) and isinstance(model.get("vocab"), list):  # Unigram
        return str(model["vocab"][model["unk_id"]][0])
    return _content(model.get("unk_token")) or _content(settings.get("unk_token"))
