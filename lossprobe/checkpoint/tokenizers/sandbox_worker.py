"""Child process that runs a tokenizer.json and answers requests until its standard input ends.

A tokenizer.json is in effect a program (rewriting rules, regular expressions) that can ask for any amount of memory or
time, and the library may then end the process, which no code can catch. So it runs here, with limits, and with only
numpy and `tokenizers` loaded. The first request builds the tokenizer; every other request is a document, or
several.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from lossprobe.checkpoint.tokenizers.alphabet import Alphabet
from lossprobe.checkpoint.tokenizers.definition import is_unigram, unknown_token, without_specials
from lossprobe.checkpoint.tokenizers.frames import (
    ALLOWANCE,
    COUNTS,
    FAILED,
    MANY,
    MORE_COUNTS,
    OK,
    OUT_OF_MEMORY,
    PLAIN,
    THREADS,
    WHOLE,
    receive_frame,
    send_frame,
)
from lossprobe.checkpoint.tokenizers.pieces import EncodedPiece, NotLocal, Sizes, Splitter, TokenRun
from lossprobe.checkpoint.tokenizers.spans import ExactSpans, Integers, added_tokens, other_bytes, vocabulary_bytes
from lossprobe.checkpoint.tokenizers.spelling import SpelledSpans, Spelling, spans_of_the_rest
from lossprobe.checkpoint.tokenizers.unbounded_rules import unbounded_rules

try:
    import resource
except ImportError:  # Windows: no limits
    resource = None  # type: ignore[assignment]

MAX_ID = 2**31 - 1  # ids are sent and stored as int32
MAX_CHARACTER = 4  # bytes of UTF-8
MAX_CONTEXT = 1 << 20  # bytes that a token can depend on; trained tokenizers stay far below


class WorkerTokenizer:
    """The tokenizer in the child process.

    Args:
        definition: the content of a tokenizer.json, without truncation and padding.
        bos_token: the text of the BOS token, or "".
        sizes: how long documents are cut into pieces.
        plain: whether names of special tokens in a text are text, and not control tokens.

    Raises:
        Exception: anything that the library raises.
    """

    def __init__(self, definition: str, bos_token: str, sizes: Sizes, plain: bool = False) -> None:
        content = json.loads(definition)
        self._backend = tokenizers.Tokenizer.from_str(definition)
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        largest = max(vocabulary.values(), default=0)
        if largest > MAX_ID:
            raise ValueError(f"token id {largest} is above {MAX_ID}")
        kind, self._bytes = vocabulary_bytes(content, vocabulary)
        self._blanks = frozenset(index for index, piece in self._bytes.items() if piece == b" ")
        added = added_tokens(content, vocabulary)
        lengths = [len(entry["content"].encode()) for entry in added.values()]
        lengths.append(MAX_CHARACTER * (content["model"].get("max_input_chars_per_word") or 0))  # WordPiece
        self._sizes = sizes.with_context(min(max(lengths), MAX_CONTEXT))
        self._unbounded_rules = unbounded_rules(content)
        others = other_bytes(content, vocabulary)
        unknown_id = vocabulary.get(unknown_token(content), -1)
        self._spelling = self._spelled(content, Spelling(self._bytes, others, added.keys(), unknown_id))
        self._facts = {
            "kind": kind,
            "unknown_id": unknown_id,
            "bos_id": vocabulary.get(bos_token) if bos_token else None,
            **self._around(),
            "added_ids": {entry["content"]: index for index, entry in added.items()},
            "special_ids": [index for index, entry in added.items() if entry.get("special")],
        }
        if plain and is_unigram(content):
            self._backend = tokenizers.Tokenizer.from_str(without_specials(content))
        self._backend.encode_special_tokens = plain
        # The post-processor is not needed any more, and would shorten the offsets of tokens that hold blanks.
        self._backend.post_processor = None
        self._spells = True  # the tokens of most documents, joined, are the documents

    def describe(self) -> list[bytes]:
        """Return a description of the tokenizer for the parent process.

        Returns:
            Facts as JSON; ids, int64 [V]; lengths of the bytes they stand for, int64 [V]; these bytes, joined; and as
            JSON the list of unbounded rules and the length in bytes of the longest document that is not cut.
        """
        ids = np.array(list(self._bytes), dtype=np.int64)
        lengths = np.array([len(piece) for piece in self._bytes.values()], dtype=np.int64)
        cutting = (self._unbounded_rules, self._sizes.piece + self._sizes.overlap)
        facts, cut = (json.dumps(value).encode() for value in (self._facts, cutting))
        return [facts, ids.tobytes(), lengths.tobytes(), b"".join(self._bytes.values()), cut]

    def encode(self, data: bytes | bytearray) -> list[bytes | bytearray]:
        """Return ids, int32 [N]; widths of the spans in bytes, uint32 [N]; and `COUNTS`.

        A long document is tokenized in pieces, see `pieces`.
        """
        if len(self._sizes.starts(len(data))) > 1:
            with contextlib.suppress(NotLocal):
                answer = self._collect(data, Splitter(partial(self._pieces, data), data, self._sizes).runs)
                self._in_pieces = bool(self._unbounded_rules)
                return answer
        return self.encode_whole(data)

    def encode_whole(self, data: bytes | bytearray) -> list[bytes | bytearray]:
        """Return the same as `encode`, but tokenized in one piece, however long the document is."""
        (whole,) = self._pieces(data, [(0, len(data))])
        self._in_pieces = False
        return self._collect(data, lambda: iter([TokenRun(whole, 0, len(whole.ids))]))

    def encode_all(self, data: bytes | bytearray, sizes: Integers) -> list[bytes | bytearray]:
        """Return what `encode` does for several documents, joined.

        Args:
            data: the documents, one after the other.
            sizes: int64 [D], their lengths in bytes.

        Returns:
            ids, widths and int64 [D, 5]: of each document the number of its tokens, `COUNTS` and `MORE_COUNTS`.
        """
        ends = np.cumsum(sizes).tolist()
        documents = [data[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]
        exact = self._exact_of(documents) if self._spells else {}
        ids, widths, counts = bytearray(), bytearray(), np.zeros((len(documents), 5), np.int64)
        for number, document in enumerate(documents):
            if number in exact:
                own, spans = exact[number]
                stated: tuple[int, ...] = (0, True, 0, False)
            else:
                own, spans, told = self.encode(document)
                stated = (*COUNTS.unpack(told), self._vanished, self._in_pieces)
            counts[number] = len(own) // 4, *stated
            ids += own
            widths += spans
        return [ids, widths, counts.tobytes()]

    def _exact_of(self, documents: Sequence[bytes | bytearray]) -> dict[int, list[bytes | bytearray]]:
        """Return ids and widths of the documents, by number, that are short and that their tokens spell exactly.

        The library is faster where nobody asks for offsets, which only other documents need. Where most documents are
        others, this is not tried again.
        """
        whole = [number for number, each in enumerate(documents) if len(self._sizes.starts(len(each))) == 1]
        texts = [documents[number].decode() for number in whole]
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        found: dict[int, list[bytes | bytearray]] = {}
        for number, encoding in zip(whole, encodings, strict=True):
            exact, ids = ExactSpans(documents[number], self._bytes), encoding.ids
            if exact.add(ids) and exact.finish():
                found[number] = [np.array(ids, dtype=np.int32).tobytes(), exact.widths]
        self._spells = 2 * len(found) >= len(whole)
        return found

    def remarks(self) -> list[bytes]:
        """Return `MORE_COUNTS` of the last document in a list, or an empty list where both its values are zero."""
        return [MORE_COUNTS.pack(self._vanished, self._in_pieces)] if self._vanished or self._in_pieces else []

    def _collect(self, data: bytes | bytearray, runs: Callable[[], Iterator[TokenRun]]) -> list[bytes | bytearray]:
        """Return the answer for a document from runs of its tokens.

        The runs are read a second time where the bytes of the tokens do not spell the document.
        """
        ids, exact = bytearray(), ExactSpans(data, self._bytes)
        self._vanished = 0
        for run in runs():
            ids += np.array(run.ids, dtype=np.int32).tobytes()
            if not exact.add(run.ids):
                break
        if exact.finish():
            return [ids, exact.widths, COUNTS.pack(0, True)]
        ids, spelled = bytearray(), SpelledSpans(data, self._spelling)
        for run in runs():
            ids += np.array(run.ids, dtype=np.int32).tobytes()
            for part in run.parts():
                spelled.add(part.ids, *part.spans())
        kept = spelled.finish()
        self._vanished = kept.vanished
        if kept.vanished:
            rest = spans_of_the_rest(data, memoryview(ids).cast("i").tolist(), self._spelling)
            if rest is not None:
                return [ids, bytearray(rest[0].tobytes()), COUNTS.pack(rest[1], True)]
        return [ids, spelled.widths, COUNTS.pack(kept.normalized, kept.tiles and (len(ids) > 0 or not data))]

    def _spelled(self, content: dict[str, Any], spelling: Spelling) -> Spelling:
        """Return the spelling with the rules of text that has no token, where the vocabulary is incomplete."""
        alphabet = Alphabet(content, self._backend, self._backend.get_vocab(with_added_tokens=False))
        if alphabet.complete:
            return spelling
        return replace(spelling, lost=alphabet.lost, kept=alphabet.kept, vanishes=alphabet.vanishes)

    def _pieces(self, data: bytes | bytearray, ranges: Sequence[tuple[int, int]]) -> list[EncodedPiece]:
        """Return the tokens of some stretches of a document, which the library shares out among its threads."""
        texts = [data[start:stop].decode() for start, stop in ranges]
        if len(texts) == 1:
            encodings = [self._backend.encode(texts[0], add_special_tokens=False)]
        else:
            encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        return [
            EncodedPiece(encoding, text, start, self._blanks)
            for encoding, text, (start, _) in zip(encodings, texts, ranges, strict=True)
        ]

    def _around(self) -> dict[str, list[int]]:
        """Return the ids that the tokenizer puts before ("prefix") and after ("suffix") a text by itself."""
        for text in ("a", "1", "."):
            plain = self._backend.encode(text, add_special_tokens=False).ids
            if plain:  # without a token of the text, prefix and suffix could not be told apart
                full = self._backend.encode(text, add_special_tokens=True)
                start = [*full.special_tokens_mask, 0].index(0)
                return {"prefix": full.ids[:start], "suffix": full.ids[start + len(plain) :]}
        return {"prefix": [], "suffix": []}


def serve(requests: Any, answers: Any, sizes: Sizes) -> None:
    """Answer requests until the stream of requests ends.

    Args:
        requests: binary stream of frames.
        answers: binary stream for the answers.
        sizes: how long documents are cut into pieces.
    """
    tokenizer: WorkerTokenizer | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            allowance, *parts = receive_frame(requests)
            set_limits(*ALLOWANCE.unpack(allowance))
            answer: list[bytes | bytearray]
            try:
                if tokenizer is None:
                    tokenizer = WorkerTokenizer(parts[0].decode(), parts[1].decode(), sizes, parts[2:] == [PLAIN])
                    answer = [OK, *tokenizer.describe()]
                elif parts[1:2] == [MANY]:
                    answer = [OK, *tokenizer.encode_all(parts[0], np.frombuffer(parts[2], np.int64))]
                else:
                    encode = tokenizer.encode_whole if parts[1:] == [WHOLE] else tokenizer.encode
                    answer = [OK, *encode(parts[0]), *tokenizer.remarks()]
            except MemoryError:
                answer = [OUT_OF_MEMORY]
            except BaseException as error:  # noqa: BLE001 - the library raises bare Exception, its panics are not even that
                answer = [FAILED, str(error)[:1000].encode("utf-8", "replace")]
            send_frame(answers, answer)


def set_limits(memory: int, seconds: float) -> None:
    """Limit this process to `memory` bytes of address space, and end it after `seconds` more of CPU time."""
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS has the constant, but refuses the limit
            resource.setrlimit(resource.RLIMIT_AS, (memory if hard < 0 else min(memory, hard), hard))
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def prepare() -> Any:
    """Set up this process as a child, and return the stream for its answers.

    It ignores Ctrl-C, writes no core file, is killed first when memory runs out, and prints to standard error only.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too and ends this process
    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # this process may abort; its core file could have gigabytes
    with contextlib.suppress(OSError):  # Linux: when the machine runs out of memory, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # other output to stdout goes to stderr and not between the frames
    return answers


def main() -> None:
    """Answer requests on standard input until it ends, then end the process."""
    answers = prepare()
    serve(sys.stdin.buffer, answers, Sizes(batch=2 * int(os.environ[THREADS])))
    os._exit(0)  # skips freeing a large vocabulary, which takes time
