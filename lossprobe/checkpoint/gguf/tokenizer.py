"""The tokenizer of a GGUF file, as llama.cpp runs it, with the bytes of the text that each token covers."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lossprobe.checkpoint.gguf.header import GGUFHeader
from lossprobe.checkpoint.gguf.process import LlamaProcess
from lossprobe.checkpoint.gguf.worker import NAMES, TEXT
from lossprobe.checkpoint.interface import Tokens
from lossprobe.checkpoint.templates.template import ChatTemplate
from lossprobe.errors import CheckpointError, UsageError
from lossprobe.units import visible

KINDS = {1: "sentencepiece BPE", 2: "byte-level BPE", 3: "WordPiece", 4: "Unigram", 5: "RWKV", 6: "PLaMo"}
SIGN = "\u2581".encode()  # sentencepiece's sign for a blank
DECIDING = "tokenizer."  # keys with this start decide the tokens
TEMPLATE = "tokenizer.chat_template"


class LlamaTokenizer:
    """A `Tokenizer` that llama.cpp runs in its child process.

    Args:
        process: llama.cpp with the model.
        header: the header of the file that holds the tokenizer.
        special_strings: how the name of a special token in a text is tokenized: as its "control" id, or as "text".

    Attributes:
        files: no files of its own: it is part of the model's.
        canonical: its keys as bytes; see `interface.MultiReaderTokenizer`.
        special_tokens: names that a chat template may use, and their texts.
        chat_template: that of the file, or None.
        last_ids: ids that llama.cpp puts after a text; they are never scored here.

    Raises:
        UsageError: `special_strings` is another word.
    """

    files: tuple[Path, ...] = ()

    def __init__(self, process: LlamaProcess, header: GGUFHeader, special_strings: str = "control") -> None:
        if special_strings not in ("control", "text"):
            what = f"special_strings {visible(repr(special_strings), 40)}: is control or text"
            raise UsageError("options.special_strings", what)
        facts = process.facts
        self._process, self._shown = process, visible(str(header.path), 200)
        self.special_strings = special_strings
        self.kind = f"{KINDS.get(facts['vocab_type'], 'vocabulary')}, by llama.cpp"
        if special_strings == "text":
            self.kind += ", special strings as text"
        self.bos_id: int | None = facts["bos_id"] if facts["bos_id"] >= 0 else None
        self.eos_id: int | None = facts["eos_id"] if facts["eos_id"] >= 0 else None
        self.adds_bos = bool(facts["adds_bos"]) and self.bos_id is not None
        self.last_ids = [self.eos_id] if facts["adds_eos"] and self.eos_id is not None else []
        self.special_ids = frozenset(facts["special_ids"])
        self._unknown_ids = frozenset(facts["unknown_ids"])
        self._special = np.zeros(max(1, facts["vocab_size"]), np.bool_)
        self._special[sorted(self.special_ids)] = True
        deciding = (key for key in header.keys if key.startswith(DECIDING) and not key.startswith(TEMPLATE))
        keys = {key: header.keys[key] for key in deciding}
        self.canonical = json.dumps(keys, sort_keys=True).encode()
        ends = (("bos_token", self.bos_id), ("eos_token", self.eos_id))
        names = {name: self.token_bytes(index) for name, index in ends if index is not None}
        self.special_tokens = {name: text.decode("utf-8", "replace") for name, text in names.items()}
        source, for_tools = header.text(TEMPLATE), header.text(f"{TEMPLATE}.tool_use")
        origin = f"{visible(header.path.name, 80)} ({TEMPLATE})"
        self.chat_template = ChatTemplate(source, origin, for_tools, self.special_tokens) if source else None
        identity = self.canonical + f"|llama.cpp {special_strings} {self.bos_id} {self.adds_bos}".encode()
        self.sha256 = hashlib.sha256(identity).hexdigest()

    def read_by(self, reader: str) -> LlamaTokenizer:
        """Return the tokenizer itself for every reader; see `interface.MultiReaderTokenizer`."""
        del reader  # llama.cpp's own rules are the truth for a GGUF file
        return copy.copy(self)

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, without BOS.

        Raises:
            CheckpointError: llama.cpp failed on this text, or exceeded its limits.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            what = f"{self._shown}: half a surrogate pair at character {error.start} of the text"
            raise CheckpointError("tokenizer.failed", what) from None
        ids = self._process.ids(NAMES if self.special_strings == "control" else TEXT, data)
        stops, unknown, changed, tiles = self._spans(data, ids.tolist())
        special = int((self._special[ids] & ~unknown).sum())
        return Tokens(ids, stops, unknown, changed, tiles, special_strings=special)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for in running text (for a special id its name), or b"" for none."""
        pieces = self._process.pieces
        return pieces[token_id] if 0 <= token_id < len(pieces) else b""

    def _spans(self, data: bytes, ids: list[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], int, bool]:
        """Return where each token's bytes end, int64 [N]; bool [N] which are unknown text; see `Tokens` for the rest.

        A blank that llama.cpp puts before the text, or after a special token, covers no bytes. A token for unknown text
        covers one character. Sentencepiece's own sign for a blank in the text is rewritten to a blank. Where the tokens
        do not spell the text (a normaliser changed it), the ends are guessed.
        """
        pieces = self._process.pieces
        stops, unknown = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
        place, rewritten, after_special, blank = 0, 0, True, self._process.facts["adds_blank"]
        for number, index in enumerate(ids):
            piece = pieces[index]
            if blank and after_special and index not in self.special_ids and piece[:1] == b" ":
                piece = piece[1:]
            after_special = index in self.special_ids
            width = -1 if index in self._unknown_ids else _matched(data, place, piece)
            if width < 0 and index in self._unknown_ids and place < len(data):
                unknown[number], width = True, _character(data, place)
            elif width < 0:
                return _guessed(data, [len(pieces[each]) for each in ids]), unknown, len(data), False
            rewritten += width - len(piece) if not unknown[number] else 0
            place += width
            stops[number] = place
        tiles = place == len(data)
        guess = stops if tiles else _guessed(data, np.diff(stops, prepend=0).tolist())
        return guess, unknown, rewritten if tiles else len(data), tiles


def _matched(data: bytes, place: int, piece: bytes) -> int:
    """Return how many bytes of the text at a place a token spells, a blank also `SIGN`; -1 where it does not."""
    if data.startswith(piece, place):
        return len(piece)
    start = place
    for number, part in enumerate(piece.split(b" ")):
        if number:
            width = next((len(sign) for sign in (b" ", SIGN) if data.startswith(sign, place)), -1)
            if width < 0:
                return -1
            place += width
        if not data.startswith(part, place):
            return -1
        place += len(part)
    return place - start


def _character(data: bytes, place: int) -> int:
    """Return the number of bytes of the UTF-8 character that begins at a place."""
    first = data[place]
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def _guessed(data: bytes, widths: list[int]) -> npt.NDArray[np.int64]:
    """Return ends of spans, int64 [N], in proportion to the bytes of the tokens; the last is the text's length."""
    if not widths:
        return np.zeros(0, np.int64)
    total = np.cumsum(np.array(widths, np.int64))
    stops = (total * len(data)) // max(1, int(total[-1]))
    stops[-1] = len(data)
    return stops
