"""Call llama.cpp's own functions in the shared library of the package xllamacpp; only for the child process.

The package has no function that returns logits of every position, but its library exports llama.cpp's C functions.
Two structures are passed by value. Only their first fields are set here, and the defaults that llama.cpp itself fills
in show that they are laid out as expected; the rest is passed on as it came.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACKAGE = "xllamacpp"
KEPT_LINES = 4
ERROR_LEVEL, CONTINUED = 4, 5
TILE = 32  # tokens that llama.cpp's kernels take at once; the rest of a window is rounded otherwise
BATCH = 512  # tokens of one call, llama.cpp's own default for a physical batch
UNKNOWN, CONTROL = 1, 8  # attributes of tokens
MODEL_DEFAULTS = (-1, 1, -1, 1)  # layers on a GPU, split mode, way to load, lazy reading
CONTEXT_NAMES = ("context", "batch", "physical_batch", "sequences", "snapshots", "outputs", "outputs_each")
CONTEXT_DEFAULTS = (512, 2048, 512, 1, 0, 0, 1)


class _ModelParameters(ctypes.Structure):
    _fields_ = [
        ("devices", ctypes.c_void_p), ("overrides", ctypes.c_void_p), ("gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int32), ("load_mode", ctypes.c_int32), ("lazy_mode", ctypes.c_int32),
        ("main_gpu", ctypes.c_int32), ("tensor_split", ctypes.c_void_p), ("progress", ctypes.c_void_p),
        ("progress_data", ctypes.c_void_p), ("key_overrides", ctypes.c_void_p), ("vocabulary_alone", ctypes.c_bool),
        ("rest", ctypes.c_uint8 * 512),
    ]  # fmt: skip


class _ContextParameters(ctypes.Structure):
    _fields_ = [
        ("context", ctypes.c_uint32), ("batch", ctypes.c_uint32), ("physical_batch", ctypes.c_uint32),
        ("sequences", ctypes.c_uint32), ("snapshots", ctypes.c_uint32), ("outputs", ctypes.c_uint32),
        ("outputs_each", ctypes.c_uint32), ("threads", ctypes.c_int32), ("threads_batch", ctypes.c_int32),
        ("rest", ctypes.c_uint8 * 512),
    ]  # fmt: skip


class _Batch(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_int32), ("tokens", ctypes.c_void_p), ("embeddings", ctypes.c_void_p),
        ("positions", ctypes.c_void_p), ("sequence_counts", ctypes.c_void_p), ("sequences", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
    ]  # fmt: skip


# Result and arguments of the functions that are called: p a pointer, i and u numbers of 32 bits, q one of 64, s text,
# b true or false, f a float; M, C and B the structures above.
SIGNATURES = {
    "llama_version": "s", "llama_model_default_params": "M", "llama_context_default_params": "C",
    "llama_backend_init": "", "llama_log_set": "-pp", "llama_model_load_from_file": "psM",
    "llama_model_get_vocab": "pp", "llama_model_n_ctx_train": "ip", "llama_model_n_params": "qp",
    "llama_model_is_diffusion": "bp",
    "llama_model_has_encoder": "bp", "llama_model_has_decoder": "bp", "llama_init_from_model": "ppC",
    "llama_free": "-p", "llama_get_memory": "pp", "llama_get_causal_attn": "bp", "llama_memory_clear": "-pb",
    "llama_decode": "ipB", "llama_get_logits": "pp", "llama_vocab_n_tokens": "ip", "llama_vocab_type": "ip",
    "llama_vocab_bos": "ip", "llama_vocab_eos": "ip", "llama_vocab_get_add_bos": "bp", "llama_vocab_get_add_eos": "bp",
    "llama_vocab_get_attr": "ipi", "llama_token_to_piece": "ipipiib", "llama_tokenize": "ipsipibb",
}  # fmt: skip
KINDS: dict[str, Any] = {
    "p": ctypes.c_void_p, "i": ctypes.c_int32, "u": ctypes.c_uint32, "q": ctypes.c_uint64, "s": ctypes.c_char_p,
    "b": ctypes.c_bool, "f": ctypes.c_float, "M": _ModelParameters, "C": _ContextParameters, "B": _Batch, "-": None,
}  # fmt: skip
LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class LlamaModel:
    """A model that llama.cpp has loaded, on the CPU.

    Args:
        path: the GGUF file, the first one of a model in several.
        threads: number of threads.
        weights: whether to load the weights, too, and not the vocabulary alone.

    Raises:
        RuntimeError: the library is another one than was expected, or refuses the file, with its own last words.
    """

    def __init__(self, path: Path, threads: int, *, weights: bool = True) -> None:
        self._c, self._threads, self._longest = _library(), threads, 0
        self._context: Any = None
        self._words: list[str] = []
        self._log = LOG(self._hear)  # kept, since llama.cpp goes on calling it
        self._c.llama_log_set(self._log, None)
        self._c.llama_backend_init()
        parameters = self._c.llama_model_default_params()
        found = (parameters.gpu_layers, parameters.split_mode, parameters.load_mode, parameters.lazy_mode)
        self._defaults = self._c.llama_context_default_params()
        context = tuple(getattr(self._defaults, name) for name in CONTEXT_NAMES)
        if found != MODEL_DEFAULTS or context != CONTEXT_DEFAULTS:
            raise RuntimeError(f"{PACKAGE} has another llama.cpp than lossprobe knows: its defaults are others")
        parameters.gpu_layers, parameters.vocabulary_alone = 0, not weights
        self._model = self._c.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise RuntimeError(self._said() or "llama.cpp cannot load the model")
        self._vocab = self._c.llama_model_get_vocab(self._model)
        self.vocab_size: int = self._c.llama_vocab_n_tokens(self._vocab)
        if weights:
            self._refuse_other_models()
        self._ids = np.zeros(0, np.int32)
        self._logits = np.zeros((0, self.vocab_size), np.float32)
        self._start = self._stop = 0

    def facts(self) -> dict[str, Any]:
        """Return what the parent wants to know of model and vocabulary, as JSON data."""
        vocab = self._vocab
        attributes = [self._c.llama_vocab_get_attr(vocab, index) for index in range(self.vocab_size)]
        probe = b"".join(self.piece(index) for index in self.encode(b"a", special=False))
        return {
            "llama": self._c.llama_version().decode(),
            "parameters": self._c.llama_model_n_params(self._model),
            "vocab_size": self.vocab_size,
            "vocab_type": self._c.llama_vocab_type(vocab),
            "bos_id": self._c.llama_vocab_bos(vocab),
            "eos_id": self._c.llama_vocab_eos(vocab),
            "adds_bos": self._c.llama_vocab_get_add_bos(vocab),
            "adds_eos": self._c.llama_vocab_get_add_eos(vocab),
            "special_ids": [index for index, attribute in enumerate(attributes) if attribute & CONTROL],
            "unknown_ids": [index for index, attribute in enumerate(attributes) if attribute & UNKNOWN],
            "adds_blank": probe[:1] == b" ",
        }

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for, for a control token its name."""
        buffer = ctypes.create_string_buffer(256)
        length = self._c.llama_token_to_piece(self._vocab, token, ctypes.addressof(buffer), 256, 0, True)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = self._c.llama_token_to_piece(self._vocab, token, ctypes.addressof(buffer), -length, 0, True)
        return buffer.raw[:length]

    def encode(self, text: bytes, *, special: bool) -> npt.NDArray[np.int32]:
        """Return the ids of a text, int32 [N], without BOS; `special`: whether names of special tokens are these."""
        ids = np.zeros(len(text) + 16, np.int32)
        count = self._c.llama_tokenize(self._vocab, text, len(text), ids.ctypes.data, len(ids), False, special)
        if count < 0:
            ids = np.zeros(-count, np.int32)
            count = self._c.llama_tokenize(self._vocab, text, len(text), ids.ctypes.data, len(ids), False, special)
        if count < 0:
            raise RuntimeError("llama.cpp cannot tokenize the text")
        return ids[:count]

    def begin(self, ids: npt.NDArray[np.int32]) -> None:
        """Take the ids of a window, int32 [T]; nothing is computed before its rows are asked for.

        Up to 31 tokens are added behind it, which change nothing before them: llama-perplexity also runs the token that
        is only predicted, and its numbers come out to the last digit where both run whole tiles.

        Raises:
            RuntimeError: there is no memory for a context of that length.
        """
        room = max(len(ids), self._c.llama_model_n_ctx_train(self._model))
        ids = np.pad(ids, (0, min(-len(ids) % TILE, room - len(ids))))
        if len(ids) > self._longest:
            if self._context:
                self._c.llama_free(self._context)
            parameters = self._defaults.__class__.from_buffer_copy(self._defaults)
            parameters.context, parameters.batch, parameters.physical_batch = len(ids), BATCH, BATCH
            parameters.outputs = parameters.outputs_each = 0  # as many as there are tokens
            parameters.threads = parameters.threads_batch = self._threads
            self._context = self._c.llama_init_from_model(self._model, parameters)
            if not self._context:
                raise RuntimeError(self._said() or f"llama.cpp makes no context of {len(ids)} tokens")
            self._longest = len(ids)
            if not self._c.llama_get_causal_attn(self._context):
                raise RuntimeError("the model is no next-token predictor: its attention is not causal")
        self._ids, self._start, self._stop = ids, 0, 0

    def rows(self, start: int, stop: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the logits [N, V] of the positions from `start` to `stop` of the window, in pieces.

        At most `BATCH` rows are held, so going back starts the window anew.
        """
        if start < self._start:
            self._start = self._stop = 0
        while start < stop:
            while start >= self._stop:
                self._decode()
            until = min(stop, self._stop)
            yield self._logits[start - self._start : until - self._start]
            start = until

    def _decode(self) -> None:
        """Compute the logits of the next positions."""
        if self._stop == 0:
            self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)
        ids = np.ascontiguousarray(self._ids[self._stop : self._stop + BATCH], np.int32)
        outputs = np.ones(len(ids), np.int8)
        batch = _Batch(len(ids), ids.ctypes.data, None, None, None, None, outputs.ctypes.data)
        code = self._c.llama_decode(self._context, batch) if len(ids) else 1
        if code:
            raise RuntimeError(self._said() or f"llama_decode failed with code {code}")
        found = ctypes.cast(self._c.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float))
        self._logits = np.ctypeslib.as_array(found, (len(ids), self.vocab_size))
        self._start, self._stop = self._stop, self._stop + len(ids)

    def _refuse_other_models(self) -> None:
        decodes = self._c.llama_model_has_decoder(self._model) and not self._c.llama_model_has_encoder(self._model)
        if not decodes or self._c.llama_model_is_diffusion(self._model):
            raise RuntimeError("the model is no decoder-only next-token predictor")

    def _hear(self, level: int, text: bytes | None, _data: Any) -> None:
        """Keep the last error lines of llama.cpp's log."""
        if level in (ERROR_LEVEL, CONTINUED) and text:
            line = text.decode("utf-8", "replace").strip()
            self._words = [*self._words, line][-KEPT_LINES:] if len(line) > 1 else self._words

    def _said(self) -> str:
        """Return the first of the last error lines, which names the cause."""
        words, self._words = self._words, []
        return words[0] if words else ""


def library_file() -> Path | None:
    """Return the shared library of the package, or None where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    for place in (found.submodule_search_locations or []) if found else []:
        for pattern in ("xllamacpp*.so", "xllamacpp*.pyd"):
            yielded = sorted(Path(place).glob(pattern))
            if yielded:
                return yielded[0]
    return None


def _library() -> Any:
    """Return the loaded library with the signatures of the functions that are called."""
    file = library_file()
    if file is None:
        raise RuntimeError(f"{PACKAGE} is not installed")
    os.environ["GGML_NO_BACKTRACE"] = "1"  # else a failed assertion starts a debugger, whose words hide the reason
    library = ctypes.CDLL(str(file))
    for name, signature in SIGNATURES.items():
        function = getattr(library, name, None)
        if function is None:
            raise RuntimeError(f"{PACKAGE} has another llama.cpp than lossprobe knows: {name} is missing")
        kinds = [KINDS[letter] for letter in signature]
        function.restype, function.argtypes = (kinds or [None])[0], kinds[1:]
    library.llama_log_set.argtypes = [LOG, ctypes.c_void_p]
    return library
