"""Read llama2.c's tokenizer.bin and tokenize as its run.c does: characters, then the pair with the best score."""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lossprobe.checkpoint.files.plain_files import read_at_most
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.interface import Tokens
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, plural

MAX_BYTES = 64 << 20
BOS, EOS, FIRST_BYTE = 1, 2, 3  # ids; the 256 bytes follow the three special ones
SPACE = b" "
NEVER = -1e10  # run.c merges no pair with a score below this one


class ScoredPairTokenizer:
    """A `Tokenizer` as run.c of llama2.c: it always puts a BOS before a text, and a blank before its first character.

    Characters outside the vocabulary become their bytes. Then, again and again, the two neighbours are joined whose
    union has the highest score in the vocabulary, the first of them where several have it. The text of special tokens
    is ordinary text. A NUL, at which run.c stops, is a byte like any other here.

    Args:
        pieces: the text of every id.
        scores: its score, float32.
        files: the file that it was read from.
    """

    kind = "llama2.c, pairs by score"
    bos_id: int | None = BOS
    eos_id: int | None = EOS
    adds_bos = True
    special_ids = frozenset({0, BOS, EOS})

    def __init__(self, pieces: Sequence[bytes], scores: Sequence[float], files: tuple[Path, ...] = ()) -> None:
        self.files = files
        self._pieces, self._scores = pieces, scores
        self._ids = {piece: index for index, piece in reversed(list(enumerate(pieces)))}
        entries = zip(scores, pieces, strict=True)
        identity = b"".join(struct.pack("<fI", score, len(piece)) + piece for score, piece in entries)
        self.sha256 = hashlib.sha256(b"llama2.c|" + identity).hexdigest()

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, without BOS; the blank before it covers no bytes.

        Raises:
            CheckpointError: the text has half a surrogate pair.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            what = f"half a surrogate pair at character {error.start} of the text"
            raise CheckpointError("tokenizer.failed", what) from None
        ids, widths = _first_tokens(text, self._ids)
        ids, widths = self._joined(ids, widths)
        stops = np.cumsum(np.array(widths, np.int64), dtype=np.int64)
        assert not data or stops[-1] == len(data)
        return Tokens(np.array(ids, np.int32), stops, np.zeros(len(ids), np.bool_))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for: one byte for the ids of bytes, the name for special ids."""
        if FIRST_BYTE <= token_id < FIRST_BYTE + 256:
            return bytes([token_id - FIRST_BYTE])
        return self._pieces[token_id].strip(b"\n") if token_id in self.special_ids else self._pieces[token_id]

    def _joined(self, ids: list[int], widths: list[int]) -> tuple[list[int], list[int]]:
        """Return ids and widths after every union, by a heap of pairs in place of run.c's search through all."""
        after, before = list(range(1, len(ids) + 1)), list(range(-1, len(ids) - 1))
        heap: list[tuple[float, int, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            union = self._ids.get(self._pieces[ids[left]] + self._pieces[ids[right]])
            if union is not None and self._scores[union] > NEVER:
                heapq.heappush(heap, (-self._scores[union], left, ids[left], ids[right], union))

        for left in range(len(ids) - 1):
            offer(left, left + 1)
        while heap:
            _, left, one, other, union = heapq.heappop(heap)
            right = after[left]
            if ids[left] != one or right >= len(ids) or ids[right] != other:
                continue  # one of the two has been joined since
            ids[left], ids[right] = union, -1
            widths[left] += widths[right]
            after[left] = after[right]
            if after[left] < len(ids):
                before[after[left]] = left
                offer(left, after[left])
            if before[left] >= 0:
                offer(before[left], left)
        kept = [index for index, token in enumerate(ids) if token >= 0]
        return [ids[index] for index in kept], [widths[index] for index in kept]


def read_tokenizer_bin(path: Path, vocab_size: int) -> ScoredPairTokenizer:
    """Return the tokenizer of a tokenizer.bin.

    The file holds the length of the longest token (uint32); then for each id its score (float32), its length in bytes
    (uint32) and its bytes.

    Args:
        path: the file.
        vocab_size: number of ids of the model; the file does not state it.

    Raises:
        CheckpointError: the file is damaged, or has another number of tokens.
    """
    data = read_at_most(path, MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise refusal("tokenizer.too_large", path, f"more than {format_count(MAX_BYTES)} bytes: no tokenizer.bin")
    pieces, scores = _entries(path, data)
    if len(pieces) != vocab_size:
        what = f"the tokenizer has {plural(len(pieces), 'symbol')}, model has {format_count(vocab_size)}"
        raise refusal("tokenizer.vocab_size", path, what)
    wanted = {b"<0x%02X>" % value: FIRST_BYTE + value for value in range(256)}
    wrong = [name for name, index in wanted.items() if index >= len(pieces) or pieces[index] != name]
    if wrong or SPACE not in pieces:
        what = f"id {wanted[wrong[0]]} is not {wrong[0].decode()}" if wrong else "no token is a blank"
        raise refusal("tokenizer.inconsistent", path, f"{what}, as in every tokenizer that llama2.c writes")
    return ScoredPairTokenizer(pieces, scores, files=(path,))


def _entries(path: Path, data: bytes) -> tuple[list[bytes], list[float]]:
    """Return the tokens and scores of a tokenizer.bin."""
    pieces: list[bytes] = []
    scores: list[float] = []
    if len(data) < 4:
        raise refusal("tokenizer.format", path, f"{plural(len(data), 'byte')}: no tokenizer.bin")
    longest, place = struct.unpack_from("<I", data)[0], 4
    while place < len(data):
        if place + 8 > len(data):
            raise refusal("tokenizer.format", path, f"ends inside token {len(pieces)}")
        score, length = struct.unpack_from("<fI", data, place)
        place += 8
        if length > longest or place + length > len(data):
            what = f"token {len(pieces)} has {length} bytes, the longest has {longest}, {len(data) - place} are left"
            raise refusal("tokenizer.format", path, what)
        if score != score:
            raise refusal("tokenizer.format", path, f"the score of token {len(pieces)} is not a number")
        pieces.append(data[place : place + length])
        scores.append(score)
        place += length
    return pieces, scores


def _first_tokens(text: str, ids: Mapping[bytes, int]) -> tuple[list[int], list[int]]:
    """Return ids before any union, and the number of the text's bytes that each covers."""
    if not text:
        return [], []
    found, widths = [ids[SPACE]], [0]
    for character in text:
        data = character.encode()
        index = ids.get(data)
        found += [index] if index is not None else [FIRST_BYTE + value for value in data]
        widths += [len(data)] if index is not None else [1] * len(data)
    return found, widths
