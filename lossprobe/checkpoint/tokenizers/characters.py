"""Read character-level tokenizers (one id per Unicode code point) of FundamentaLLM and of nanoGPT's meta.pkl."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lossprobe.checkpoint.files.json_file import read_json
from lossprobe.checkpoint.files.pickle_outline import outline_pickle
from lossprobe.checkpoint.files.plain_files import open_plain
from lossprobe.checkpoint.files.refusals import listed, refusal
from lossprobe.checkpoint.interface import Tokens
from lossprobe.units import format_count, plural, visible

MAX_VOCABULARY_BYTES = 16 << 20  # all code points of Unicode as escaped JSON take about this much
MAX_META_BYTES = 1_000_000
SPECIALS = ("<PAD>", "<UNK>", "<BOS>", "<EOS>")
# The pickle instructions that dicts of text and whole numbers need, in any protocol. None of them imports or calls.
META_OPCODES = frozenset(
    [
        "PROTO",
        "FRAME",
        "MARK",
        "STOP",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "MEMOIZE",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
    ]
)


class CharacterTokenizer:
    """A `Tokenizer` with one id per Unicode code point; it never adds a BOS.

    Args:
        char_to_id: the id of every character and of every special token's name.
        unknown_id: id for characters outside the vocabulary, or None when there is none.
        special_ids: the ids of special tokens.
        kind: description for people.
        files: the files that it was read from.
    """

    bos_id: int | None = None
    eos_id: int | None = None
    adds_bos: bool = False

    def __init__(
        self,
        char_to_id: Mapping[str, int],
        unknown_id: int | None = None,
        special_ids: Collection[int] = (),
        kind: str = "characters",
        files: tuple[Path, ...] = (),
    ) -> None:
        self.kind = kind
        self.files = files
        self.special_ids = frozenset(special_ids)
        self.vocab_size = len(char_to_id)
        identity = {"char_to_id": dict(char_to_id), "unknown_id": unknown_id, "special_ids": sorted(self.special_ids)}
        self.sha256 = hashlib.sha256(json.dumps(identity, sort_keys=True).encode("ascii")).hexdigest()
        self._unknown_id = 0 if unknown_id is None else unknown_id
        self._bytes = {index: name.encode("utf-8", "surrogatepass") for name, index in char_to_id.items()}
        known = {ord(name): index for name, index in char_to_id.items() if index not in self.special_ids}
        # Code point → id, -1 for none; the last entry stands for all code points above the highest known one.
        self._id_of = np.full(max(known, default=0) + 2, -1, dtype=np.int32)
        self._id_of[list(known)] = list(known.values())

    def encode(self, text: str) -> Tokens:
        """Return one token per code point; an unknown character gets `unknown_id`, or id 0 where that is None."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        ids = self._id_of[np.minimum(codes, len(self._id_of) - 1)]
        unknown = ids < 0
        ids[unknown] = self._unknown_id
        widths = 1 + (codes >= 0x80).astype(np.int8) + (codes >= 0x800) + (codes >= 0x10000)  # bytes in UTF-8
        return Tokens(ids, np.cumsum(widths, dtype=np.int64), unknown)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 bytes of a character, the name of a special id, or b"" for an id that is neither."""
        return self._bytes.get(token_id, b"")


def read_fundamentallm_tokenizer(path: Path) -> CharacterTokenizer:
    """Return the tokenizer of a FundamentaLLM tokenizer.json (which is not the Hugging Face format).

    Raises:
        CheckpointError: the file is not strict JSON or another format, or the ids are not 0, 1, 2, ... without gaps.
    """
    content = read_json(path, MAX_VOCABULARY_BYTES)
    char_to_id = content.get("char_to_id")
    if not isinstance(char_to_id, dict):
        keys = listed(sorted(content)) or "none"
        what = f"no FundamentaLLM tokenizer: char_to_id is not among its keys ({keys})"
        raise refusal("tokenizer.format", path, what)
    if content.get("special_tokens") != list(SPECIALS):
        what = f"special_tokens is not {', '.join(SPECIALS)}, which is all that FundamentaLLM writes"
        raise refusal("tokenizer.specials", path, what)
    _check_ids(path, char_to_id)
    wrong = [name for number, name in enumerate(SPECIALS) if char_to_id.get(name) != number]
    if wrong:
        raise refusal(
            "tokenizer.specials", path, f"special token {wrong[0]} does not have id {SPECIALS.index(wrong[0])}"
        )
    _check_characters(path, [name for name in char_to_id if name not in SPECIALS])
    return CharacterTokenizer(char_to_id, SPECIALS.index("<UNK>"), range(len(SPECIALS)), files=(path,))


def read_meta_pkl(path: Path) -> CharacterTokenizer:
    """Return the tokenizer of a nanoGPT meta.pkl; nothing that the pickle names is imported or called.

    Raises:
        CheckpointError: the file is unreadable, too large or another kind of pickle, or its itos, stoi and vocab_size
            contradict each other.
    """
    meta = _plain_pickle(path)
    stoi, itos, size = (meta.get(key) for key in ("stoi", "itos", "vocab_size"))
    if not isinstance(stoi, dict) or not isinstance(itos, dict):
        raise refusal("tokenizer.format", path, "not a nanoGPT meta.pkl: stoi or itos is missing or not a dict")
    _check_ids(path, stoi)
    _check_characters(path, stoi)
    if itos != {index: character for character, index in stoi.items()}:
        raise refusal("tokenizer.inconsistent", path, f"itos ({len(itos)} entries) and stoi ({len(stoi)}) disagree")
    if type(size) is not int or size != len(stoi):
        stated = visible(str(size), 20) if type(size) is int else f"a {type(size).__name__}"
        raise refusal("tokenizer.inconsistent", path, f"vocab_size is {stated}, stoi has {len(stoi)} entries")
    return CharacterTokenizer(stoi, kind="characters (meta.pkl)", files=(path,))


def check_vocab_size(path: Path, tokenizer: CharacterTokenizer, vocab_size: int) -> None:
    """Check that a tokenizer has one symbol per row of the model's embedding.

    Raises:
        CheckpointError: `tokenizer.vocab_size`, where it has not.
    """
    if tokenizer.vocab_size != vocab_size:
        what = f"the tokenizer has {plural(tokenizer.vocab_size, 'symbol')}, model has {format_count(vocab_size)}"
        raise refusal("tokenizer.vocab_size", path, what)


class _DataUnpickler(pickle.Unpickler):
    """An unpickler that refuses to import anything or load persistent objects, as a second line of defence."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:  # noqa: ARG002 - the name is pickle's
        raise pickle.UnpicklingError("persistent id")


def _plain_pickle(path: Path) -> dict[Any, Any]:
    """Return the dict in a pickle, unpickled only if its instructions build nothing but text, numbers and dicts."""
    try:
        with open_plain(path) as stream:
            data = stream.read(MAX_META_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else visible(str(error), 80)
        raise refusal("tokenizer.unreadable", path, f"cannot be read: {reason}") from None
    if len(data) > MAX_META_BYTES:
        raise refusal("tokenizer.too_large", path, f"more than {format_count(MAX_META_BYTES)} bytes: no meta.pkl")
    try:
        outline = outline_pickle(data)
        if outline.globals:
            raise refusal("tokenizer.unsafe_pickle", path, f"contains {listed(sorted(outline.globals))}; not loaded")
        foreign = sorted(outline.opcodes - META_OPCODES)
        if foreign:
            what = f"holds more than text and whole numbers ({listed(foreign)}); not loaded"
            raise refusal("tokenizer.unsafe_pickle", path, what)
        content = _DataUnpickler(io.BytesIO(data)).load()
    except (ValueError, LookupError, TypeError, EOFError, OverflowError, MemoryError, pickle.UnpicklingError):
        what = f"not a meta.pkl: its {plural(len(data), 'byte')} are not a complete pickle of plain values"
        raise refusal("tokenizer.format", path, what) from None
    if not isinstance(content, dict):
        raise refusal(
            "tokenizer.format", path, f"not a nanoGPT meta.pkl: it holds {type(content).__name__}, not a dict"
        )
    return content


def _check_ids(path: Path, char_to_id: Mapping[str, object]) -> None:
    """Refuse ids that are not 0, 1, 2, ... once each; a gap may mean that every later symbol has a wrong id."""
    ids = [index for index in char_to_id.values() if type(index) is int]
    if not ids or len(ids) != len(char_to_id):
        raise refusal(
            "tokenizer.bad_id", path, f"{len(char_to_id) - len(ids)} of {len(char_to_id)} ids are no whole number"
        )
    gaps = sorted(set(range(len(ids))) - set(ids))
    if gaps:
        counts = f"{plural(len(ids), 'symbol')}, highest id {visible(str(max(ids)), 20)}"
        what = f"the ids have a gap: {gaps[0]} is missing ({counts})"
        raise refusal("tokenizer.id_gap", path, what)


def _check_characters(path: Path, names: Collection[object]) -> None:
    """Refuse names that are not single characters."""
    wrong = [name for name in names if not isinstance(name, str) or len(name) != 1]
    if wrong:
        what = f"{visible(str(wrong[0]), 40)} is not a single character ({len(wrong)} of {len(names)})"
        raise refusal("tokenizer.not_a_character", path, what)
