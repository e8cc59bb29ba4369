"""Hugging Face tokenizers (tokenizer.json), run by the `tokenizers` library in a child process."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lossprobe.checkpoint.frames import COUNTS, DEFAULT_LIMITS, Limits
from lossprobe.checkpoint.interface import Tokenizer, Tokens
from lossprobe.checkpoint.json_file import read_json
from lossprobe.checkpoint.plain_files import stands
from lossprobe.checkpoint.sandbox import Sandbox
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

# What lies beside a tokenizer.json and belongs to it, read or not: no result is written over any of these.
BESIDE = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "tokenizer.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
MAX_TOKENIZER_BYTES = 256 << 20
MAX_SETTINGS_BYTES = 16 << 20  # tokenizer_config.json can describe every added token at length


class BackendTokenizer:
    """A `Tokenizer` over a tokenizer.json, which runs in a child process under limits of memory and time.

    Args:
        definition: the parsed tokenizer.json.
        settings: the parsed tokenizer_config.json, or an empty dict.
        shown: how messages name it.
        limits: what one document may take.

    Raises:
        CheckpointError: the library cannot build it, or not within its limits.
    """

    def __init__(
        self, definition: dict[str, Any], settings: dict[str, Any], shown: str, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._shown = shown
        self.files: tuple[Path, ...] = ()
        definition, ignored = _whole_and_repeatable(definition)
        self.notices = tuple(f"{shown}: ignored embedded {key}" for key in ignored)
        canonical = json.dumps(definition, ensure_ascii=False).encode("utf-8", "surrogatepass")
        bos_token = _content(settings.get("bos_token")).encode("utf-8", "surrogatepass")
        self._sandbox = Sandbox([canonical, bos_token], shown, limits)
        content, ids, lengths, data = self._sandbox.open()
        facts = json.loads(content)
        self.kind: str = facts["kind"]
        self._unknown_id: int = facts["unknown_id"]
        ends = np.cumsum(np.frombuffer(lengths, dtype=np.int64)).tolist()
        pieces = zip(np.frombuffer(ids, dtype=np.int64).tolist(), [0, *ends], ends, strict=False)
        self._bytes = {index: bytes(data[start:stop]) for index, start, stop in pieces}
        self.special_ids: frozenset[int] = frozenset(facts["special_ids"])
        eos_token = _content(settings.get("eos_token")).encode("utf-8", "surrogatepass")
        named = (index for index in sorted(self.special_ids) if self._bytes.get(index) == eos_token)
        self.eos_id: int | None = next(named, None) if eos_token else None
        prefix = facts["prefix"]
        added = prefix[0] if prefix else None
        if len(prefix) > 1:
            self.notices += (f"{shown}: puts {len(prefix)} tokens before a text, of which only the first is used",)
        self.bos_id: int | None = facts["bos_id"] if facts["bos_id"] is not None else added
        self.adds_bos = self.bos_id is not None and added == self.bos_id
        # transformers 5 follows tokenizer.json alone (transformers 4 followed the setting for most classes); so do we,
        # for numbers that agree with other tools, but a contradiction is worth a word.
        wanted = settings.get("add_bos_token")
        if isinstance(wanted, bool) and self.bos_id is not None and wanted != self.adds_bos:
            does = "adds one" if self.adds_bos else "adds none"
            self.notices += (f"{shown}: add_bos_token is {wanted}, but tokenizer.json {does}; choose with --bos",)
        identity = canonical + f"|bos {self.bos_id} {self.adds_bos}".encode()
        self.sha256 = hashlib.sha256(identity).hexdigest()

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, without BOS; special tokens in the text are recognised.

        Raises:
            CheckpointError: the tokenizer failed on this text, or exceeded its limits.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(
                "tokenizer.failed", f"{self._shown}: half a surrogate pair at character {error.start} of the text"
            ) from None
        ids_part, widths, counts = self._sandbox.ask(data)
        del data  # a document can be large, and what follows needs its place
        ids = np.frombuffer(ids_part, dtype=np.int32)
        stops = np.frombuffer(widths, dtype=np.uint32).astype(np.int64)
        del widths
        np.cumsum(stops, out=stops)
        normalized, tiles = COUNTS.unpack(counts)
        return Tokens(ids, stops, self._unknown(ids, stops, text), normalized, tiles)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for in running text (a special id: its name), b"" for none."""
        return self._bytes.get(token_id, b"")

    def _unknown(self, ids: npt.NDArray[np.int32], stops: npt.NDArray[np.int64], text: str) -> npt.NDArray[np.bool_]:
        """Return where an id stands for text outside the vocabulary, and not for its own name in the text."""
        unknown: npt.NDArray[np.bool_] = ids == self._unknown_id
        places = np.flatnonzero(unknown)
        if len(places):
            name, data = self.token_bytes(self._unknown_id), text.encode()
            starts = np.where(places, stops[places - 1], 0)
            for index, start in zip(places.tolist(), starts.tolist(), strict=True):
                unknown[index] = data[start : stops[index]].strip() != name
        return unknown


def open_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a directory that holds a tokenizer.json, or of such a file.

    Raises:
        CheckpointError: no tokenizer.json, not JSON, or not a tokenizer that the library can build.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not stands(file):
        raise CheckpointError(
            "tokenizer.missing",
            f"{visible(str(path), 200)}: no tokenizer.json found",
            hint="save the tokenizer with transformers' save_pretrained, or name one with --tokenizer",
        )
    settings_file = file.with_name("tokenizer_config.json")
    settings = read_json(settings_file, MAX_SETTINGS_BYTES) if stands(settings_file) else {}
    tokenizer = BackendTokenizer(read_json(file, MAX_TOKENIZER_BYTES), settings, visible(str(file), 200))
    tokenizer.files = (file, *(file.with_name(name) for name in BESIDE if stands(file.with_name(name))))
    return tokenizer


def _whole_and_repeatable(definition: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a definition that keeps all of a text and always splits it alike, and what was taken out for that."""
    model = definition.get("model")
    ignored = [key for key in ("truncation", "padding") if definition.get(key)]
    changed = definition | {"truncation": None, "padding": None}
    if isinstance(model, dict) and model.get("dropout"):  # BPE that splits at random, meant for training
        changed["model"] = model | {"dropout": None}
        ignored.append("dropout")
    return changed, ignored


def _content(token: object) -> str:
    """Return the text of a special token, which tokenizer_config.json gives as a string or an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""
