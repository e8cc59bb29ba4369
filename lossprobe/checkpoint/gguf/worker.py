"""Child process that runs a GGUF file with llama.cpp and answers requests until its standard input ends.

A file that lies can make llama.cpp crash, hang or ask for any amount of memory, so it runs here, with limits, after the
header has been measured. The first request names the file; every other one a text, a window, or rows of its logits.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lossprobe.checkpoint.gguf.library import LlamaModel
from lossprobe.checkpoint.tokenizers.frames import ALLOWANCE, FAILED, OK, OUT_OF_MEMORY, receive_frame, send_frame
from lossprobe.checkpoint.tokenizers.sandbox_worker import prepare, set_limits

TEXT, NAMES, WINDOW, ROWS = b"text", b"names", b"window", b"rows"  # first part of a request


def serve(requests: Any, answers: Any) -> None:
    """Answer requests until the stream of requests ends.

    Args:
        requests: binary stream of frames.
        answers: binary stream for the answers.
    """
    model: LlamaModel | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            allowance, *parts = receive_frame(requests)
            set_limits(*ALLOWANCE.unpack(allowance))
            try:
                if model is None:
                    model = LlamaModel(Path(os.fsdecode(bytes(parts[0]))), int(parts[1]), weights=bool(parts[2]))
                    answer = [OK, *_description(model)]
                else:
                    answer = [OK, *_answer(model, *map(bytes, parts))]
            except MemoryError:
                answer = [OUT_OF_MEMORY]
            except (RuntimeError, OSError, ValueError) as error:
                answer = [FAILED, str(error)[:1000].encode("utf-8", "replace")]
            send_frame(answers, answer)


def _description(model: LlamaModel) -> list[bytes]:
    """Return the facts as JSON, the lengths of the tokens' bytes, int32 [V], and these bytes, joined."""
    pieces = [model.piece(index) for index in range(model.vocab_size)]
    lengths = np.array([len(piece) for piece in pieces], np.int32)
    return [json.dumps(model.facts()).encode(), lengths.tobytes(), b"".join(pieces)]


def _answer(model: LlamaModel, kind: bytes, data: bytes) -> list[bytes]:
    """Return the ids of a text (`NAMES`: names of special tokens count as these), or logits of rows as float32."""
    if kind in (TEXT, NAMES):
        return [model.encode(data, special=kind == NAMES).tobytes()]
    if kind == WINDOW:
        model.begin(np.frombuffer(data, np.int32).copy())
        return []
    start, stop = np.frombuffer(data, np.int64).tolist()
    return [rows.tobytes() for rows in model.rows(start, stop)]


def main() -> None:
    """Answer requests on standard input until it ends, then end the process."""
    answers = prepare()
    serve(sys.stdin.buffer, answers)
    os._exit(0)  # skips freeing the model
