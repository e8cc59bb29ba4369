"""The child process that runs a tokenizer.json: it answers requests until its standard input ends.

A tokenizer.json is a program (rewriting rules, regular expressions) that can ask for any amount of memory or
time, and what the library does then cannot be caught: it ends the process. So it runs here, under limits, with
nothing but numpy and `tokenizers` loaded. The first request builds the tokenizer, every other one is a document.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from lossprobe.checkpoint.frames import ALLOWANCE, COUNTS, FAILED, OK, OUT_OF_MEMORY, receive_frame, send_frame
from lossprobe.checkpoint.spans import added_tokens, aligned_stops, exact_stops, vocabulary_bytes

try:
    import resource
except ImportError:  # Windows: no limits
    resource = None  # type: ignore[assignment]

MAX_ID = 2**31 - 1  # ids travel and are stored as int32


class Opened:
    """A tokenizer, built.

    Args:
        definition: a tokenizer.json, without truncation and padding.
        bos_token: the text of the BOS token, or "".

    Raises:
        Exception: anything that the library raises.
    """

    def __init__(self, definition: str, bos_token: str) -> None:
        self._backend = tokenizers.Tokenizer.from_str(definition)
        content = json.loads(definition)
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        largest = max(vocabulary.values(), default=0)
        if largest > MAX_ID:
            raise ValueError(f"token id {largest} is above {MAX_ID}")
        kind, self._bytes = vocabulary_bytes(content, vocabulary)
        self._blanks = {index for index, piece in self._bytes.items() if piece == b" "}
        self._facts = {
            "kind": kind,
            "unknown_id": vocabulary.get(_unknown_token(content), -1),
            "bos_id": vocabulary.get(bos_token) if bos_token else None,
            "prefix": self._prefix(),
            "special_ids": [
                index for index, entry in added_tokens(content, vocabulary).items() if entry.get("special")
            ],
        }

    def describe(self) -> list[bytes]:
        """Return the facts as JSON; ids, int64 [V]; lengths of the bytes they stand for, int64 [V]; the bytes."""
        ids = np.array(list(self._bytes), dtype=np.int64)
        lengths = np.array([len(piece) for piece in self._bytes.values()], dtype=np.int64)
        return [json.dumps(self._facts).encode(), ids.tobytes(), lengths.tobytes(), b"".join(self._bytes.values())]

    def encode(self, data: bytes) -> list[bytes]:
        """Return ids, int32 [N]; span ends, int64 [N]; and `COUNTS`."""
        text = data.decode()
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids = encoding.ids
        stops = exact_stops([self._bytes.get(index, b"") for index in ids], data)
        normalized, tiles = 0, True
        if stops is None:
            # A blank that stands for no blank of the text was put there by the tokenizer, and covers nothing.
            offsets = [
                (start, start) if index in self._blanks and not text[start:stop].isspace() else (start, stop)
                for index, (start, stop) in zip(ids, encoding.offsets, strict=True)
            ]
            stops, normalized, tiles = aligned_stops(offsets, text)
            tiles = tiles and (len(ids) > 0 or not text)
        return [np.array(ids, dtype=np.int32).tobytes(), stops.tobytes(), COUNTS.pack(normalized, tiles)]

    def _prefix(self) -> list[int]:
        """Return the ids that the tokenizer puts before a text by itself."""
        for text in ("a", "1", "."):
            plain = self._backend.encode(text, add_special_tokens=False).ids
            if plain:  # without a token of its own, what comes before a text looks like what comes after it
                full = self._backend.encode(text, add_special_tokens=True)
                return [int(index) for index in full.ids[: [*full.special_tokens_mask, 0].index(0)]]
        return []


def _unknown_token(definition: dict[str, Any]) -> str:
    """Return the token that the model gives for text outside its vocabulary, or ""."""
    model = definition["model"]
    if isinstance(model.get("unk_id"), int) and isinstance(model.get("vocab"), list):  # Unigram
        return str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token") or ""


def serve(requests: Any, answers: Any) -> None:
    """Answer requests until the stream of requests ends."""
    opened: Opened | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            allowance, *parts = receive_frame(requests)
            set_limits(*ALLOWANCE.unpack(allowance))
            try:
                if opened is None:
                    opened = Opened(parts[0].decode(), parts[1].decode())
                    answer = [OK, *opened.describe()]
                else:
                    answer = [OK, *opened.encode(bytes(parts[0]))]
            except MemoryError:
                answer = [OUT_OF_MEMORY]
            except BaseException as error:  # noqa: BLE001 - the library raises bare Exception, its panics are not even that
                answer = [FAILED, str(error)[:1000].encode("utf-8", "replace")]
            send_frame(answers, answer)


def set_limits(memory: int, seconds: float) -> None:
    """Let the kernel refuse more address space, in bytes, and end this process after so much CPU time."""
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS has the constant, but refuses the limit
            resource.setrlimit(resource.RLIMIT_AS, (memory if hard < 0 else min(memory, hard), hard))
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Run in a child process: quiet, expendable, deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends this process
    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # to abort is foreseen: no core file of gigabytes
    with contextlib.suppress(OSError):  # Linux: when the machine runs out of memory, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints cannot get between the frames
    serve(sys.stdin.buffer, answers)
    os._exit(0)  # to free a large vocabulary takes time, and nobody needs it
