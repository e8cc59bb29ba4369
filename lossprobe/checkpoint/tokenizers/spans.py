"""Find the span of bytes of the text that each token covers, so that the spans tile the document.

The vocabulary says which bytes a token stands for. Where these bytes joined are the document, the spans are exact, also
for tokens that end inside a character (`ExactSpans`). Where a tokenizer rewrites text (lower case, dropped blanks), its
character offsets are used, and a gap between tokens goes to the token after it (`AlignedSpans`, `spelling`). Tokens
are added in runs, in order, and only the width of each is kept: 4 bytes per token for documents of any length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SPACE_MARK = "\u2581"  # "▁", which sentencepiece writes for a blank
Integers = npt.NDArray[np.int64]
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_level_alphabet() -> dict[str, int]:
    """Return the character → byte table of byte-level BPE (Radford et al. 2019, GPT-2).

    Printable Latin-1 bytes stand for themselves; the other 68, in order, for the characters from U+0100.

    >>> byte_level_alphabet()["Ġ"], byte_level_alphabet()["A"], len(byte_level_alphabet())
    (32, 65, 256)
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(printable))
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


def component_types(node: Any) -> set[str]:
    """Return every "type" in a part of a tokenizer.json, at any depth."""
    if isinstance(node, dict):
        below = set().union(*(component_types(value) for value in node.values()))
        return below | ({node["type"]} if isinstance(node.get("type"), str) else set())
    if isinstance(node, list):
        return set().union(*(component_types(value) for value in node))
    return set()


def added_tokens(definition: dict[str, Any], vocabulary: dict[str, int]) -> dict[int, dict[str, Any]]:
    """Return the added tokens of a tokenizer.json by the ids that the `tokenizers` library gave them.

    Args:
        definition: the parsed tokenizer.json.
        vocabulary: token → id by the library, added tokens included.
    """
    entries = definition.get("added_tokens") or []
    return {vocabulary.get(entry["content"], entry["id"]): entry for entry in entries}


def vocabulary_bytes(definition: dict[str, Any], vocabulary: dict[str, int]) -> tuple[str, dict[int, bytes]]:
    """Return the kind of tokenizer that a tokenizer.json defines, and the bytes that each id stands for in a text.

    Args:
        definition: the parsed tokenizer.json.
        vocabulary: token → id, added tokens included.

    Returns:
        Kind ("byte-level BPE", "BPE with byte fallback", "WordPiece", ...) and id → bytes.
    """
    kind, spell = _speller(definition)
    added = {index: entry["content"].encode() for index, entry in added_tokens(definition, vocabulary).items()}
    return kind, {index: spell(token) for token, index in vocabulary.items()} | added


def other_bytes(definition: dict[str, Any], vocabulary: dict[str, int]) -> dict[int, bytes]:
    """Return the second spelling of added tokens that are also in the model's vocabulary, by id.

    An added token "Ġthe" stands for the text "Ġthe"; as an entry of a byte-level vocabulary it stands for " the".
    """
    own = (definition.get("model") or {}).get("vocab")
    _, spell = _speller(definition)
    added = {index: entry["content"] for index, entry in added_tokens(definition, vocabulary).items()}
    doubled = {index: spell(name) for index, name in added.items() if isinstance(own, dict) and name in own}
    return {index: piece for index, piece in doubled.items() if piece != added[index].encode()}


def _speller(definition: dict[str, Any]) -> tuple[str, Callable[[str], bytes]]:
    """Return the kind of a tokenizer, and a function from a token of its model to the bytes it stands for."""
    parts = component_types([definition.get(key) for key in ("decoder", "pre_tokenizer", "normalizer")])
    model = definition.get("model") or {}
    name = str(model.get("type", "tokenizer"))
    if "ByteLevel" in parts:
        return f"byte-level {name}", _byte_level_speller(model)
    fallback = bool(model.get("byte_fallback")) or "ByteFallback" in parts
    marks_space = SPACE_MARK in str(definition.get("decoder")) or "Metaspace" in parts
    mark = _space_mark([definition.get("pre_tokenizer"), definition.get("decoder")]) if marks_space else None
    return f"{name} with byte fallback" if fallback else name, _piece_speller(mark, fallback, _bare(model))


def _byte_level_speller(model: dict[str, Any]) -> Callable[[str], bytes]:
    """Return a function from a token of byte-level BPE to its bytes."""
    table = byte_level_alphabet()
    bare = _bare(model)

    def spell(token: str) -> bytes:
        token = bare(token)
        return bytes(table[c] for c in token) if all(c in table for c in token) else token.encode()

    return spell


def _piece_speller(mark: str | None, fallback: bool, bare: Callable[[str], str]) -> Callable[[str], bytes]:
    """Return a function from a token of other models to its bytes.

    Args:
        mark: the character that stands for a blank, or None.
        fallback: whether "<0x0A>" stands for a byte.
        bare: takes marks of the place in a word off a token.
    """

    def spell(token: str) -> bytes:
        byte = BYTE_TOKEN.fullmatch(token) if fallback else None
        if byte:
            return bytes([int(byte[1], 16)])
        return token.replace(mark, " ").encode() if mark else bare(token).encode()

    return spell


def _bare(model: dict[str, Any]) -> Callable[[str], str]:
    """Return a function that removes the marks of a token's place in a word: "##" of WordPiece, "</w>" of some BPE."""
    prefix, suffix = (str(model.get(key) or "") for key in ("continuing_subword_prefix", "end_of_word_suffix"))
    return lambda token: token.removeprefix(prefix).removesuffix(suffix) if prefix or suffix else token


def _space_mark(node: Any) -> str:
    """Return the character that a Metaspace component, at any depth of a definition's part, writes for a blank."""
    below = node if isinstance(node, list) else list(node.values()) if isinstance(node, dict) else []
    if isinstance(node, dict) and node.get("type") == "Metaspace":
        return str(node.get("replacement") or SPACE_MARK)
    return next((mark for mark in map(_space_mark, below) if mark != SPACE_MARK), SPACE_MARK)


class ExactSpans:
    r"""Computes span widths of tokens whose bytes joined are the document, or finds out that they are not.

    The tokenizer may have put one blank before the text (sentencepiece's dummy prefix). It is no part of the document,
    so the first token then covers one byte less.

    Args:
        data: the document, UTF-8.
        pieces: the bytes that each id stands for.

    Attributes:
        widths: uint32 [N], number of bytes that each token covers; final after `finish`.

    >>> spans = ExactSpans(" One —".encode(), {0: b" One", 1: b" \xe2\x80", 2: b"\x94"})
    >>> spans.add([0, 1]), spans.add([2]), spans.finish(), np.frombuffer(spans.widths, np.uint32).tolist()
    (True, True, True, [4, 3, 1])
    """

    def __init__(self, data: bytes | bytearray, pieces: Mapping[int, bytes]) -> None:
        self.widths = bytearray()
        self._data = data
        self._pieces = pieces
        self._length = 0
        self._first = 0  # index of the first token that stands for any byte
        self._prefixes = {0, 1}  # numbers of blanks before the text that are possible by the tokens so far

    def add(self, ids: Sequence[int]) -> bool:
        """Add the next tokens, and return False once the tokens so far cannot be the start of the document."""
        pieces = [self._pieces.get(index, b"") for index in ids]
        joined = b"".join(pieces)
        widths = np.fromiter(map(len, pieces), dtype=np.uint32, count=len(pieces))
        if self._length == 0:
            self._first += int((widths > 0).argmax()) if joined else len(ids)
        self._prefixes = {prefix for prefix in self._prefixes if self._fits(joined, prefix)}
        self._length += len(joined)
        self.widths += widths.tobytes()
        return bool(self._prefixes)

    def finish(self) -> bool:
        """Return whether the bytes of all tokens are exactly the document; call it after the last token."""
        prefix = self._length - len(self._data)
        if prefix not in self._prefixes:
            return False
        if prefix:
            np.frombuffer(self.widths, dtype=np.uint32)[self._first] -= 1
        return True

    def _fits(self, joined: bytes, prefix: int) -> bool:
        """Return whether the next bytes fit the document with `prefix` blanks before it."""
        start = self._length - prefix
        if start < 0:  # the next byte must be the blank itself
            return not joined or (joined[:1] == b" " and self._data.startswith(joined[1:]))
        return self._data.startswith(joined, start)


class AlignedSpans:
    """Computes span widths from the offsets of each token, for tokenizers that rewrite text.

    A gap between tokens belongs to the token after it, and a gap at the end to the last token, so that the spans tile
    the document. Tokens with the same offsets share the bytes equally, in order.

    Attributes:
        widths: uint32, number of bytes that each token covers; complete after `finish`.

    >>> spans = AlignedSpans()
    >>> spans.add(np.array([0, 3]), np.array([2, 5]))  # "ab cd"
    >>> spans.finish(5), np.frombuffer(spans.widths, np.uint32).tolist()
    ((1, True), [2, 3])
    """

    def __init__(self) -> None:
        self.widths = bytearray()
        self._covered = 0
        self._tiles = True
        self._last = np.zeros(2, np.int64)  # start and stop of the last token
        self._settled = 0  # where the spans in `widths` end
        self._starts = self._ends = np.empty(0, np.int64)  # last tokens, whose bytes later tokens may share

    def add(self, starts: Integers, stops: Integers) -> None:
        """Add the next tokens by their offsets in the document: int64 [N] first byte, and byte after the last."""
        if not len(starts):
            return
        self._tiles &= all(
            (np.diff(at, prepend=last) >= 0).all() for at, last in zip((starts, stops), self._last, strict=True)
        )
        self._last = np.array([starts[-1], stops[-1]])
        reached = self._ends[-1] if len(self._ends) else 0
        ends = np.maximum.accumulate(np.maximum(stops, reached))
        self._covered += int(np.maximum(ends - np.maximum(starts, np.append(reached, ends[:-1])), 0).sum())
        self._starts, self._ends = np.append(self._starts, starts), np.append(self._ends, ends)
        other = np.flatnonzero((self._starts != starts[-1]) | (self._ends != ends[-1]))
        self._settle(int(other[-1]) + 1 if len(other) else 0)

    def finish(self, size: int) -> tuple[int, bool]:
        """Return how many bytes no token covers, and whether offsets never run backwards.

        Where they do, the spans are a guess.

        Args:
            size: the document's length in bytes.
        """
        if len(self._ends):
            self._settle(len(self._ends))
            np.frombuffer(self.widths, dtype=np.uint32)[-1] += size - self._settled
        return size - self._covered, self._tiles

    def _settle(self, count: int) -> None:
        """Append the widths of the first `count` pending tokens, which share no bytes with later ones."""
        starts, ends = self._starts[:count], self._ends[:count]
        self._starts, self._ends = self._starts[count:], self._ends[count:]
        if count:
            shared = _shared_ends(starts, ends, self._settled)
            self.widths += np.diff(shared, prepend=self._settled).astype(np.uint32).tobytes()
            self._settled = int(ends[-1])


def _shared_ends(starts: Integers, ends: Integers, before: int) -> Integers:
    """Return the ends of spans, int64 [N], with stretches that several tokens share divided equally among them.

    Args:
        starts: int64 [N], start of each token.
        ends: int64 [N], end of each token, never decreasing.
        before: end of the token before the first one.
    """
    first = np.flatnonzero(np.append(True, (np.diff(starts) != 0) | (np.diff(ends) != 0)))  # of each group
    count = np.diff(np.append(first, len(ends)))
    begin = np.maximum(starts[first], np.append(before, ends[first[1:] - 1]))
    begin, width, size, origin = (np.repeat(values, count) for values in (begin, ends[first] - begin, count, first))
    shared: Integers = begin + (np.arange(len(ends)) - origin + 1) * width // size
    return shared


def byte_offsets(text: str) -> Integers:
    """Return the UTF-8 byte offset of each character, and the length in bytes last: int64 [len(text) + 1]."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    starts = np.flatnonzero((data & 0xC0) != 0x80)
    return np.append(starts, len(data)).astype(np.int64)
