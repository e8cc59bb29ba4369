"""Open GGUF files and score them with llama.cpp itself: the number of the program that people deploy."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import torch

from lossprobe.checkpoint.files.hashes import file_sha256
from lossprobe.checkpoint.gguf.finite import refuse_not_finite
from lossprobe.checkpoint.gguf.opened import Opened, facts_of, read_parts
from lossprobe.checkpoint.gguf.process import LlamaProcess
from lossprobe.checkpoint.gguf.stated import refuse_contradictions
from lossprobe.checkpoint.gguf.tokenizer import LlamaTokenizer
from lossprobe.checkpoint.gguf.worker import ROWS, WINDOW
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, Tokenizer
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError, UsageError
from lossprobe.units import visible

KEPT_WINDOWS = 8  # windows whose rows can still be asked for


class LlamaCheckpoint:
    """A `Checkpoint` that llama.cpp runs in its child process, a window at a time.

    `hidden` computes nothing: it returns which window and which position each row is, and `logits` asks for these rows.
    So no more than a chunk of rows is ever held, however long the window and however large the vocabulary.

    Args:
        process: llama.cpp with the model.
        facts: description of the checkpoint.
        tokenizer: its tokenizer.
    """

    def __init__(self, process: LlamaProcess, facts: CheckpointFacts, tokenizer: Tokenizer) -> None:
        self.facts, self.tokenizer = facts, tokenizer
        self._process = process
        self._windows: deque[tuple[int, bytes]] = deque(maxlen=KEPT_WINDOWS)
        self._count = 0
        self._current = -1

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return int64 [B, T, 2]: the number of each row's window, and its position, for int64 ids [B, T]."""
        rows = []
        for window in ids.cpu().numpy():
            self._count += 1
            self._windows.append((self._count, window.astype(np.int32).tobytes()))
            rows.append(np.stack([np.full(len(window), self._count), np.arange(len(window))], -1))
        return torch.from_numpy(np.stack(rows))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return float32 logits [N, V] of rows that `hidden` returned, int64 [N, 2].

        Raises:
            CheckpointError: llama.cpp failed, or a row's window was given too many windows ago.
        """
        rows = hidden.cpu().numpy()
        result = np.empty((len(rows), self.facts.vocab_size), np.float32)
        for number in dict.fromkeys(rows[:, 0].tolist()):
            own = np.flatnonzero(rows[:, 0] == number)
            self._turn_to(number)
            places = rows[own, 1]
            first = int(places.min())
            span = np.array([first, int(places.max()) + 1], np.int64)
            found = [np.frombuffer(part, np.float32) for part in self._process.ask(ROWS, span.tobytes())]
            result[own] = np.concatenate(found).reshape(-1, self.facts.vocab_size)[places - first]
        return torch.from_numpy(result)

    def _turn_to(self, number: int) -> None:
        """Make a window the one whose rows are asked for."""
        if number == self._current:
            return
        ids = dict(self._windows).get(number)
        if ids is None:
            raise CheckpointError("gguf.failed", f"{self.facts.name}: rows of a window that is not held any more")
        self._current = -1  # where llama.cpp fails, the next request begins the window again
        self._process.ask(WINDOW, ids)
        self._current = number


def load_gguf(path: Path, options: LoadOptions) -> Checkpoint:
    """Return the model of a GGUF file, or of the first of several parts, run by llama.cpp.

    With `options.dequantize` its weights are run by transformers.

    Raises:
        CheckpointError: a header does not fit its file, a part is missing, a weight is NaN or infinite, or llama.cpp
            refuses the model.
        UsageError: the package with llama.cpp is not installed, or an option is for other checkpoints.
        ResourceError: no process can be started.
    """
    _refuse_options(options)
    headers = read_parts(path)
    refuse_contradictions(headers)
    process = LlamaProcess(headers, visible(str(path), 200), weights=not options.dequantize)
    refuse_not_finite(headers)
    tokenizer = LlamaTokenizer(process, headers[0], options.special_strings)
    hashes = {header.path: file_sha256(header.path) for header in headers}
    opened = Opened(headers, process, tokenizer, hashes)
    if options.dequantize:
        from lossprobe.checkpoint.gguf.weights import load_dequantized

        return load_dequantized(opened, options)
    return LlamaCheckpoint(process, facts_of(opened, options), tokenizer)


def _refuse_options(options: LoadOptions) -> None:
    """Refuse options that do nothing for a GGUF file."""
    if options.dtype not in ("float32", "auto") and not options.dequantize:
        what = f"`dtype` {visible(options.dtype, 20)}: llama.cpp chooses the precision of a GGUF file itself"
        raise UsageError("checkpoint.dtype", what)
    if options.tokenizer is not None:
        raise UsageError("gguf.option", "`tokenizer`: a GGUF file is run with its own, by llama.cpp")
