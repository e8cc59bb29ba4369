"""Run llama.cpp on a GGUF file in a child process, and turn its failures into errors of this package."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from lossprobe.checkpoint.gguf.header import GGUFHeader
from lossprobe.checkpoint.tokenizers.frames import Limits
from lossprobe.checkpoint.tokenizers.sandbox import Sandbox, usable_cores
from lossprobe.errors import CheckpointError, ResourceError, UsageError

PACKAGE = "xllamacpp"
HOW_TO_INSTALL = 'pip install "lossprobe[gguf]"'
WORDS = "llama.cpp"
BASE_MEMORY = 4 << 30
CHUNK = 512  # tokens that are computed at once
NOT_FOUND = re.compile(r"(_Map_base|unordered_map)::at.*")  # what C++ says of a word that a dictionary lacks
SLOWEST = 1e8  # operations a second of the slowest machine that is waited for; two for each weight and token


class LlamaProcess:
    """llama.cpp in a child process, which is started at once.

    Args:
        headers: the measured headers of all parts of the model, the first one first.
        shown: name of the model for messages.
        weights: whether it loads the weights, too, and not the vocabulary alone.

    Attributes:
        facts: what `library.LlamaModel.facts` says.
        pieces: the bytes of every token.
        package: "xllamacpp" with its version.

    Raises:
        UsageError: the package is not installed.
        CheckpointError: llama.cpp refuses the file, or it exceeds its limits.
        ResourceError: no process can be started.
    """

    def __init__(self, headers: Sequence[GGUFHeader], shown: str, *, weights: bool = True) -> None:
        try:
            self.package = f"{PACKAGE} {version(PACKAGE)}"
        except PackageNotFoundError:
            what = f"{shown}: a GGUF file needs llama.cpp, which the package {PACKAGE} holds"
            raise UsageError("gguf.package", what, hint=HOW_TO_INSTALL) from None
        self._shown = shown
        opening = [os.fsencode(headers[0].path.resolve()), str(_threads()).encode(), b"weights" if weights else b""]
        self._opening, self._allowed = opening, _limits(headers)
        self._box = Sandbox(opening, shown, self._allowed, "gguf.worker", WORDS)
        content, lengths, data = self._guarded(self._box.open)
        self.facts: dict[str, Any] = json.loads(content)
        stops = np.cumsum(np.frombuffer(lengths, np.int32), dtype=np.int64).tolist()
        joined = bytes(data)
        self.pieces = [joined[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to tokenize; llama.cpp loads the vocabulary alone there."""
        box = Sandbox([*self._opening[:2], b""], self._shown, self._allowed, "gguf.worker", WORDS)
        return {**vars(self), "_box": box}

    def ask(self, kind: bytes, data: bytes) -> list[bytearray]:
        """Return the parts of the child's answer to a request, see `worker`.

        Raises:
            CheckpointError: llama.cpp failed or exceeded its limits.
            ResourceError: no process can be started.
        """
        return self._guarded(self._box.ask, kind, data)

    def ids(self, kind: bytes, text: bytes) -> npt.NDArray[np.int32]:
        """Return the ids of a text, int32 [N]; `kind` is `worker.TEXT` or `worker.NAMES`."""
        return np.frombuffer(self.ask(kind, text)[0], np.int32)

    def _guarded(self, call: Any, *parts: bytes) -> list[bytearray]:
        try:
            found: list[bytearray] = call(*parts)
        except CheckpointError as error:
            reason = error.told_of(self._shown)
            if error.id == "tokenizer.memory":
                raise ResourceError("gguf.memory", reason, subject=self._shown) from None
            if error.id == "tokenizer.time":
                raise CheckpointError("gguf.time", reason, subject=self._shown) from None
            raise CheckpointError("gguf.failed", _in_clear_words(error.message)) from None
        return found


def _in_clear_words(message: str) -> str:
    """Return a message without what C++ puts before the words of an exception, or with the cause where it has none."""
    start, thrown, words = message.partition("what():")
    if thrown and NOT_FOUND.fullmatch(words.strip()):
        words = "its vocabulary has no token for a byte of the text, such as <0x41>"
    return start.rstrip() + " " + words.strip() if thrown else message


def _limits(headers: Sequence[GGUFHeader]) -> Limits:
    """Return the limits of the child: room for the weights, packed once more, and for the longest context."""
    size = sum(tensor.size for header in headers for tensor in header.tensors.values())
    values = sum(tensor.values for header in headers for tensor in header.tensors.values())
    keys = headers[0].keys
    states = [_stated(keys, name) for name in ("context_length", "block_count", "embedding_length")]
    cache = 2 * 2 * int(np.prod(states, dtype=np.float64))  # keys and values of every layer in float16
    vocabulary = len(keys["tokenizer.ggml.tokens"]) if isinstance(keys.get("tokenizer.ggml.tokens"), list) else 0
    memory = BASE_MEMORY + 3 * size + cache + 4 * CHUNK * vocabulary * 4
    return Limits(min(memory, 1 << 46), 512, 120.0 + 2 * values * CHUNK / SLOWEST, 1e-3)


def _stated(keys: Mapping[str, Any], name: str) -> int:
    """Return a size of the model that the header states; 0 where it states none."""
    value = keys.get(f"{keys.get('general.architecture')}.{name}", 0)
    return value if type(value) is int and 0 <= value < 1 << 32 else 0


def _threads() -> int:
    """Return the number of threads: as OMP_NUM_THREADS asks, or else the cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(asked)) if asked.isdecimal() else usable_cores()
