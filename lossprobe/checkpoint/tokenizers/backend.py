"""Run Hugging Face tokenizers (tokenizer.json) with the `tokenizers` library in a child process."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lossprobe.checkpoint.interface import Tokens
from lossprobe.checkpoint.templates.template import ChatTemplate
from lossprobe.checkpoint.tokenizers.begun import BegunBackend
from lossprobe.checkpoint.tokenizers.frames import COUNTS, DEFAULT_LIMITS, MANY, MORE_COUNTS, WHOLE, Limits
from lossprobe.checkpoint.tokenizers.tokenizer_settings import TokenSettings, read_settings
from lossprobe.errors import CheckpointError


class BackendTokenizer:
    """A `Tokenizer` for a tokenizer.json; it runs in a child process with limits on memory and time.

    Args:
        definition: the parsed tokenizer.json.
        settings: the parsed tokenizer_config.json, or an empty dict.
        shown: name of the tokenizer for messages.
        limits: memory and time that one document may take.
        tokens: tokens that the files beside the tokenizer.json define; None for those of `settings` alone.
        special_strings: how the name of a special token in a text is tokenized: as its "control" id, or as "text".
        begun: what `BegunBackend.of` made of these, whose child may work already; None if nothing did.

    Attributes:
        first_id: the id that the tokenizer puts before every text by itself, or None.
        last_ids: the ids that it puts after every text by itself; they are never scored here.
        canonical: the tokenizer.json that is run, as JSON, with the tokens of the other files added.
        added_ids: text → id of the added tokens.
        files: every file that it was read from.
        special_strings: as given.
        chat_template: see `interface.ChatTokenizer`; set when the checkpoint is opened.
        unbounded_rules, longest_whole_bytes: see `interface.PiecewiseTokenizer`.

    Raises:
        CheckpointError: the library cannot build the tokenizer, or not within the limits.
        UsageError: `special_strings` is another word.
    """

    def __init__(  # noqa: PLR0913 - the files of a tokenizer, and what runs them already
        self,
        definition: dict[str, Any],
        settings: dict[str, Any],
        shown: str,
        limits: Limits = DEFAULT_LIMITS,
        tokens: TokenSettings | None = None,
        special_strings: str = "control",
        begun: BegunBackend | None = None,
    ) -> None:
        self._shown = shown
        self.files: tuple[Path, ...] = ()
        self.chat_template: ChatTemplate | None = None
        self.special_strings = special_strings
        begun = begun or BegunBackend.of(definition, tokens or read_settings(settings), shown, limits, special_strings)
        tokens, self.canonical, self._sandbox = begun.tokens, begun.canonical, begun.sandbox
        content, ids, lengths, data, cutting = self._sandbox.open()
        facts = json.loads(content)
        self.kind: str = facts["kind"]
        self._unknown_id: int = facts["unknown_id"]
        ends = np.cumsum(np.frombuffer(lengths, dtype=np.int64)).tolist()
        pieces = zip(np.frombuffer(ids, dtype=np.int64).tolist(), [0, *ends], ends, strict=False)
        self._bytes = {index: bytes(data[start:stop]) for index, start, stop in pieces}
        self.special_ids: frozenset[int] = frozenset(facts["special_ids"])
        self._special = np.zeros(max(self._bytes, default=0) + 1, np.bool_)
        self._special[sorted(self.special_ids)] = True
        rules, self.longest_whole_bytes = json.loads(cutting)
        self.unbounded_rules: tuple[str, ...] = tuple(rules)
        self.added_ids: dict[str, int] = facts["added_ids"]
        tokens.note_ids(self.added_ids)
        notices = [*(f"ignored embedded {key}" for key in begun.ignored), *tokens.notices]
        prefix = facts["prefix"]
        if len(prefix) > 1:
            notices.append(f"puts {len(prefix)} tokens before a text, of which only the first is used")
        self.first_id: int | None = prefix[0] if prefix else None
        self.last_ids: list[int] = facts["suffix"]
        self.eos_id: int | None = self.added_ids.get(tokens.content("eos_token"))
        self.bos_id: int | None = facts["bos_id"] if facts["bos_id"] is not None else self.first_id
        self.adds_bos = self.bos_id is not None and self.first_id == self.bos_id
        # transformers 5 ignores add_bos_token and follows tokenizer.json (transformers 4 followed it for most classes).
        # Doing the same gives the numbers of other tools; a contradiction gets a notice.
        wanted = settings.get("add_bos_token")
        if isinstance(wanted, bool) and self.bos_id is not None and wanted != self.adds_bos:
            does = "adds one" if self.adds_bos else "adds none"
            notices.append(f"add_bos_token is {wanted}, but tokenizer.json {does}; choose with `bos`")
        self.notices = tuple(f"{shown}: {notice}" for notice in notices)
        if special_strings == "text":
            self.kind += ", special strings as text"
        self.sha256 = self._identity()

    def with_ends(self, bos_id: int | None, eos_id: int | None, first_id: int | None) -> BackendTokenizer:
        """Return this tokenizer, in the same child process, with another BOS, EOS and id before a text."""
        other = copy.copy(self)
        other.bos_id, other.eos_id, other.first_id = bos_id, eos_id, first_id
        other.adds_bos = bos_id is not None and first_id == bos_id
        other.sha256 = other._identity()
        return other

    def copies(self) -> list[BackendTokenizer]:
        """Return the same tokenizer in other child processes, as many as can work beside this one."""
        made = []
        for sandbox in self._sandbox.others():
            made.append(copy.copy(self))
            made[-1]._sandbox = sandbox
        return made

    def name_bos(self, bos_id: int | None) -> None:
        """Take an id as BOS that other files name; `sha256` changes with it."""
        self.bos_id = bos_id
        self.adds_bos = bos_id is not None and self.first_id == bos_id
        self.sha256 = self._identity()

    def _identity(self) -> str:
        """Return the sha256 of everything that decides the output."""
        identity = self.canonical + f"|bos {self.bos_id} {self.adds_bos}".encode()
        if self.special_strings == "text":
            identity += b"|special strings as text"
        return hashlib.sha256(identity).hexdigest()

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, without BOS; `special_strings` says how names of special tokens count.

        Raises:
            CheckpointError: the tokenizer failed on this text, or exceeded its limits.
        """
        return self._encode(text)

    def encode_whole(self, text: str) -> Tokens:
        """Return the same as `encode`, but never in pieces; this can take 300 bytes of memory per byte of text."""
        return self._encode(text, WHOLE)

    def encode_all(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of several documents, each as by `encode`; they are tokenized with one request.

        Raises:
            CheckpointError: as `encode`.
        """
        data = [self._bytes_of(text) for text in texts]
        sizes = np.array([len(each) for each in data], np.int64)
        ids_part, widths, counts_part = self._sandbox.ask(b"".join(data), MANY, sizes.tobytes())
        counts = np.frombuffer(counts_part, dtype=np.int64).reshape(-1, 5).tolist()
        ids, spans = np.frombuffer(ids_part, dtype=np.int32), np.frombuffer(widths, dtype=np.uint32)
        known = not (ids == self._unknown_id).any()
        none, special = np.zeros(len(ids), np.bool_), self._special[ids]
        made, start = [], 0
        for text, (number, normalized, tiles, vanished, in_pieces) in zip(texts, counts, strict=True):
            own = slice(start, start + number)
            stops = spans[own].cumsum(dtype=np.int64)
            unknown = none[own] if known else self._unknown(ids[own], stops, text)
            specials = int(np.count_nonzero(special[own] & ~unknown))
            made.append(Tokens(ids[own], stops, unknown, normalized, bool(tiles), vanished, specials, bool(in_pieces)))
            start += number
        return made

    def _encode(self, text: str, *how: bytes) -> Tokens:
        data = self._bytes_of(text)
        ids_part, widths, counts, *more = self._sandbox.ask(data, *how)
        del data  # frees memory for the arrays below: a document can be large
        ids = np.frombuffer(ids_part, dtype=np.int32)
        stops = np.frombuffer(widths, dtype=np.uint32).astype(np.int64)
        del widths
        np.cumsum(stops, out=stops)
        normalized, tiles = COUNTS.unpack(counts)
        vanished, in_pieces = MORE_COUNTS.unpack(more[0]) if more else (0, False)
        unknown = self._unknown(ids, stops, text)
        special = int((self._special[ids] & ~unknown).sum())
        return Tokens(ids, stops, unknown, normalized, tiles, vanished, special, in_pieces)

    def _bytes_of(self, text: str) -> bytes:
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(
                "tokenizer.failed", f"{self._shown}: half a surrogate pair at character {error.start} of the text"
            ) from None

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for in running text (for a special id its name), or b"" for none."""
        return self._bytes.get(token_id, b"")

    def _unknown(self, ids: npt.NDArray[np.int32], stops: npt.NDArray[np.int64], text: str) -> npt.NDArray[np.bool_]:
        """Return bool [N], True where a token stands for text outside the vocabulary.

        The unknown token's own name in the text has the same id but is not unknown text.
        """
        unknown: npt.NDArray[np.bool_] = ids == self._unknown_id
        places = np.flatnonzero(unknown)
        if len(places):
            name, data = self.token_bytes(self._unknown_id), text.encode()
            starts = np.where(places, stops[places - 1], 0)
            for index, start in zip(places.tolist(), starts.tolist(), strict=True):
                unknown[index] = data[start : stops[index]].strip() != name
        return unknown
