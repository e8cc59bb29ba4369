"""From token ids to the bytes of the text that each token covers. Spans tile a document exactly.

The bytes a token stands for are read off the tokenizer's own vocabulary. Where they concatenate to the
document, the spans are exact, also for tokens that end inside a character. Where a tokenizer rewrites text
(lower case, dropped blanks), its character offsets are used and the gaps go to the token that follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SPACE_MARK = "\u2581"  # "▁", the visible blank of sentencepiece
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
    """Return every "type" named anywhere in a part of a tokenizer.json."""
    if isinstance(node, dict):
        below = set().union(*(component_types(value) for value in node.values()))
        return below | ({node["type"]} if isinstance(node.get("type"), str) else set())
    if isinstance(node, list):
        return set().union(*(component_types(value) for value in node))
    return set()


def added_tokens(definition: dict[str, Any], vocabulary: dict[str, int]) -> dict[int, dict[str, Any]]:
    """Return the added tokens of a tokenizer.json by the id that the library gave them."""
    entries = definition.get("added_tokens") or []
    return {vocabulary.get(entry["content"], entry["id"]): entry for entry in entries}


def vocabulary_bytes(definition: dict[str, Any], vocabulary: dict[str, int]) -> tuple[str, dict[int, bytes]]:
    """Return what kind of tokenizer a tokenizer.json defines, and the bytes of each id in running text.

    Args:
        definition: the parsed tokenizer.json.
        vocabulary: token → id, added tokens included.

    Returns:
        Kind ("byte-level BPE", "BPE with byte fallback", "WordPiece", ...) and id → bytes.
    """
    parts = component_types(definition.get("decoder")) | component_types(definition.get("pre_tokenizer"))
    model = definition.get("model") or {}
    name = str(model.get("type", "tokenizer"))
    added = {index: entry["content"].encode() for index, entry in added_tokens(definition, vocabulary).items()}
    if "ByteLevel" in parts:
        table = byte_level_alphabet()
        pieces = {
            index: bytes(table[c] for c in token) if all(c in table for c in token) else token.encode()
            for token, index in vocabulary.items()
        }
        return f"byte-level {name}", pieces | added
    marks_space = SPACE_MARK in str(definition.get("decoder")) or "Metaspace" in parts
    fallback = bool(model.get("byte_fallback")) or "ByteFallback" in parts
    prefix = str(model.get("continuing_subword_prefix") or "")
    pieces = {index: _piece_bytes(token, marks_space, fallback, prefix) for token, index in vocabulary.items()}
    return f"{name} with byte fallback" if fallback else name, pieces | added


def _piece_bytes(token: str, marks_space: bool, fallback: bool, prefix: str) -> bytes:
    byte = BYTE_TOKEN.fullmatch(token) if fallback else None
    if byte:
        return bytes([int(byte[1], 16)])
    if marks_space:
        return token.replace(SPACE_MARK, " ").encode()
    return token.removeprefix(prefix).encode() if prefix else token.encode()


def exact_stops(pieces: Sequence[bytes], text: bytes) -> npt.NDArray[np.int64] | None:
    r"""Return the end of each token's span when the pieces concatenate to the text, else None.

    One blank that the tokenizer put before the text (sentencepiece's dummy prefix) is no part of it: the
    first token then covers one byte less.

    >>> exact_stops([b" One", b" \xe2\x80", b"\x94"], "One —".encode()).tolist()
    [3, 6, 7]
    """
    joined = b"".join(pieces)
    prefix = 1 if len(joined) == len(text) + 1 and joined.startswith(b" ") else 0
    if joined[prefix:] != text:
        return None
    lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
    return np.maximum(np.cumsum(lengths) - prefix, 0)


def aligned_stops(offsets: Sequence[tuple[int, int]], text: str) -> tuple[npt.NDArray[np.int64], int, bool]:
    """Return span ends from character offsets, the bytes no token covers, and whether the offsets tile.

    A gap between tokens belongs to the token after it, a gap at the end to the last token, so the spans
    tile the document. Tokens that share one character get equal shares of its bytes, in order.

    Args:
        offsets: start and stop of each token in characters of `text`.
        text: the document.

    Returns:
        int64 [N] span ends in bytes; number of bytes outside every token; False where offsets run
        backwards, so that the spans are a guess.

    >>> aligned_stops([(0, 2), (3, 5)], "ab cd")[0].tolist(), aligned_stops([(0, 2), (3, 5)], "ab cd")[1]
    ([2, 5], 1)
    """
    byte_at = _byte_offsets(text)
    starts = byte_at[np.array([start for start, _ in offsets], dtype=np.int64)]
    stops = byte_at[np.array([stop for _, stop in offsets], dtype=np.int64)]
    tiles = bool((np.diff(starts) >= 0).all() and (np.diff(stops) >= 0).all())
    ends = np.maximum.accumulate(stops)
    previous = np.concatenate(([0], ends[:-1]))
    covered = int(np.maximum(ends - np.maximum(starts, previous), 0).sum())
    ends = _share_repeated(starts, ends)
    total = int(byte_at[-1])
    if len(ends):
        ends[-1] = total
    return ends, total - covered, tiles


def _share_repeated(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return `ends` with a span that several tokens in a row share divided among them."""
    shared = ends.copy()
    first = 0
    for index in range(1, len(ends) + 1):
        if index < len(ends) and ends[index] == ends[first] and starts[index] == starts[first]:
            continue
        count = index - first
        if count > 1:
            begin = max(int(starts[first]), int(ends[first - 1]) if first else 0)
            width = int(ends[first]) - begin
            shared[first:index] = begin + (np.arange(1, count + 1) * width) // count
        first = index
    return shared


def _byte_offsets(text: str) -> npt.NDArray[np.int64]:
    """Return int64 [len(text) + 1]: the byte offset of each character, and the total at the end."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    starts = np.flatnonzero((data & 0xC0) != 0x80)
    return np.append(starts, len(data)).astype(np.int64)
