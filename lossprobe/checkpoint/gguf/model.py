"""Open GGUF files and score them with llama.cpp itself: the number of the program that people deploy."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lossprobe.checkpoint.files.hashes import combined_sha256, file_sha256
from lossprobe.checkpoint.files.plain_files import absolute, stands
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.gguf.header import GGUFHeader, described_type, read_header
from lossprobe.checkpoint.gguf.process import LlamaProcess
from lossprobe.checkpoint.gguf.tokenizer import LlamaTokenizer
from lossprobe.checkpoint.gguf.worker import ROWS, WINDOW
from lossprobe.checkpoint.interface import ONE_WINDOW, Checkpoint, CheckpointFacts, Tokenizer
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError, UsageError
from lossprobe.units import visible

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
MOST_PARTS = 9999
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


@dataclass(frozen=True)
class Opened:
    """A GGUF model whose header has been measured.

    Attributes:
        headers: of all its parts.
        process: llama.cpp with the model, or with its vocabulary alone.
        tokenizer: its tokenizer.
        hashes: the sha256 of each part.
    """

    headers: list[GGUFHeader]
    process: LlamaProcess
    tokenizer: LlamaTokenizer
    hashes: dict[Path, str]


def load_gguf(path: Path, options: LoadOptions) -> Checkpoint:
    """Return the model of a GGUF file, or of the first of several parts, run by llama.cpp.

    With `options.dequantize` its weights are run by transformers.

    Raises:
        CheckpointError: a header does not fit its file, a part is missing, or llama.cpp refuses the model.
        UsageError: the package with llama.cpp is not installed, or an option is for other checkpoints.
        ResourceError: no process can be started.
    """
    _refuse_options(options)
    headers = read_parts(path)
    process = LlamaProcess(headers, visible(str(path), 200), weights=not options.dequantize)
    tokenizer = LlamaTokenizer(process, headers[0], options.special_strings)
    hashes = {header.path: file_sha256(header.path) for header in headers}
    opened = Opened(headers, process, tokenizer, hashes)
    if options.dequantize:
        from lossprobe.checkpoint.gguf.weights import load_dequantized

        return load_dequantized(opened, options)
    return LlamaCheckpoint(process, facts_of(opened, options), tokenizer)


def facts_of(opened: Opened, options: LoadOptions) -> CheckpointFacts:
    """Return the facts of a model that llama.cpp runs."""
    headers, process, hashes = opened.headers, opened.process, opened.hashes
    architecture = headers[0].text("general.architecture")
    length = headers[0].keys.get(f"{architecture}.context_length")
    names = {name for header in headers for name in header.tensors}
    return CheckpointFacts(
        name=headers[0].path.name,
        family=f"{architecture} (GGUF)",
        sha256=combined_sha256({file.name: digest for file, digest in hashes.items()}),
        vocab_size=process.facts["vocab_size"],
        context_length=length if type(length) is int and length > 0 else None,
        hard_limit=False,
        parameters=process.facts["parameters"],
        stored_dtype=described_type(headers),
        compute_dtype="llama.cpp",
        device="cpu",
        tied="output.weight" not in names,
        head="streamed",
        kernels=f"llama.cpp's own ({process.package}, llama.cpp {process.facts['llama']}), keys and values in float16",
        batching=ONE_WINDOW,
        config_from="the file's header",
        notices=_notices(options, opened.tokenizer),
        files=absolute(hashes),
        hashes=tuple((str(file.absolute()), digest) for file, digest in hashes.items()),
    )


def read_parts(path: Path) -> list[GGUFHeader]:
    """Return the headers of all parts of a model; the one header of a file that stands alone.

    Raises:
        CheckpointError: a header does not fit its file, or a part is missing or belongs to another model.
    """
    first = read_header(path)
    if "split.count" not in first.keys:
        return [first]
    count, number = first.number("split.count"), first.number("split.no", 0)
    named = PART.fullmatch(path.name)
    if count <= 1:
        return [first]
    if number or (named and int(named["number"]) != 1):
        start = f"{named['stem']}-00001-of-{named['count']}.gguf" if named else "its first part"
        raise refusal("checkpoint.missing_shard", path, f"part {number + 1} of {count}", hint=f"give {start}")
    if named is None or int(named["count"]) != count or count > MOST_PARTS:
        what = f"the first of {count} parts, but its name does not end in -00001-of-{count:05}.gguf"
        raise refusal("checkpoint.missing_shard", path, what, hint="give the parts the names that they were made with")
    files = [path.with_name(f"{named['stem']}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1)]
    missing = [file.name for file in files if not stands(file)]
    if missing:
        what = f"{len(missing)} of its {count} parts are missing: {visible(missing[0], 120)}"
        raise refusal("checkpoint.missing_shard", path, what, hint="put all parts into one folder")
    headers = [first, *(read_header(file) for file in files[1:])]
    for place, header in enumerate(headers):
        stated = (header.keys.get("split.no"), header.keys.get("split.count"))
        if stated != (place, count):
            what = f"says that it is part {stated[0]} of {stated[1]}, not {place} of {count} (from 0)"
            raise refusal("checkpoint.bad_index", header.path, what)
    total, stated_total = sum(len(header.tensors) for header in headers), first.keys.get("split.tensors.count")
    if stated_total is not None and stated_total != total:
        raise refusal("checkpoint.bad_index", path, f"its parts hold {total} tensors, it says {stated_total}")
    return headers


def _refuse_options(options: LoadOptions) -> None:
    """Refuse options that do nothing for a GGUF file."""
    if options.dtype not in ("float32", "auto") and not options.dequantize:
        what = f"`dtype` {visible(options.dtype, 20)}: llama.cpp chooses the precision of a GGUF file itself"
        raise UsageError("checkpoint.dtype", what)
    if options.tokenizer is not None:
        raise UsageError("gguf.option", "`tokenizer`: a GGUF file is run with its own, by llama.cpp")


def _notices(options: LoadOptions, tokenizer: LlamaTokenizer) -> tuple[str, ...]:
    device = (
        ""
        if options.device == "cpu" or options.dequantize
        else f"`device` {options.device}: llama.cpp runs on the CPU here"
    )
    end = "llama.cpp puts an EOS after every text, which is not scored here" if tokenizer.last_ids else ""
    return tuple(filter(None, (device, end)))
