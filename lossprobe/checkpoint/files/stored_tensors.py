"""Read tensors of safetensors files, or only some of their rows, while other threads compute.

The safetensors library holds Python's lock while it reads, and copies what it has read once more. This reads with
`pread` and does not map the file: if a mapped file shrinks, the process is killed.
"""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Final, Self

import torch

from lossprobe.checkpoint.files import fresh_memory
from lossprobe.checkpoint.files.plain_files import open_plain, unreadable
from lossprobe.checkpoint.files.safetensors_file import TensorEntry, scan_header
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

DTYPES: Final = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
    "C64": torch.complex64, "F4": torch.float4_e2m1fn_x2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip
PAIRS: Final = "F4"  # two numbers in a byte, for which torch halves the last side
LENGTH_BYTES = 8  # before the header stands its length
MOST_BYTES = 1 << 30  # a single call of the system reads at most 2 GiB


class StoredTensors:
    """The tensors of safetensors files whose headers `scan_header` accepted; several threads may read them at once.

    A file is opened when it is needed, and closed at the end of the `with` block.

    Args:
        files: path → the tensors that the file declares, by name.
    """

    def __init__(self, files: Mapping[Path, Mapping[str, TensorEntry]]) -> None:
        self._files = files
        self._homes = {name: (path, entry) for path, entries in files.items() for name, entry in entries.items()}
        self._opened: dict[Path, tuple[BufferedReader, int]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            for stream, _start in self._opened.values():
                stream.close()
            self._opened.clear()

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor in its stored dtype; of "F4", [..., N], as float4_e2m1fn_x2 [..., N / 2].

        Raises:
            CheckpointError: `checkpoint.changed`: the file has another header or is shorter than it was, or is gone;
                `checkpoint.quantized`: torch does not have the dtype.
        """
        path, entry = self._homes[name]
        if entry.dtype not in DTYPES:
            what = f"tensor {visible(name, 80)} is stored as {entry.dtype}, which torch does not have"
            raise CheckpointError("checkpoint.quantized", f"{visible(str(path), 200)}: {what}")
        octets = fresh_memory.empty(entry.stop - entry.start, dtype=torch.uint8)
        self._fill(path, octets, entry.start)
        sides = (*entry.shape[:-1], entry.shape[-1] // 2) if entry.dtype == PAIRS else entry.shape
        return octets.view(DTYPES[entry.dtype]).view(sides)

    def block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the rows from `start` to `stop` of a tensor, in its stored dtype; errors as for `tensor`."""
        path, entry = self._homes[name]
        rows = torch.empty((stop - start, *entry.shape[1:]), dtype=DTYPES[entry.dtype])
        self._fill(path, rows, entry.start + start * _row_bytes(entry))
        return rows

    def rows(self, name: str, index: torch.Tensor) -> torch.Tensor:
        """Return some rows of a tensor, in its stored dtype; errors as for `tensor`.

        Args:
            name: its name.
            index: int64 [N] on the CPU, which rows, in the order in which they are read.
        """
        path, entry = self._homes[name]
        rows = torch.empty((len(index), *entry.shape[1:]), dtype=DTYPES[entry.dtype])
        step = _row_bytes(entry)
        for place, row in enumerate(index.tolist()):
            self._fill(path, rows[place], entry.start + row * step)
        return rows

    def _fill(self, path: Path, tensor: torch.Tensor, offset: int) -> None:
        """Read the bytes of a tensor from a place behind the header of a file."""
        target = memoryview(tensor.view(-1).view(torch.uint8).numpy().data)
        try:
            stream, data = self._open(path)
            done = 0
            while done < len(target):
                read = os.preadv(stream.fileno(), [target[done : done + MOST_BYTES]], data + offset + done)
                if read == 0:
                    raise _changed(path, "it is shorter than before")
                done += read
        except FileNotFoundError:
            raise _changed(path, "it is gone") from None
        except OSError as error:
            raise unreadable(visible(str(path), 200), error) from None

    def _open(self, path: Path) -> tuple[BufferedReader, int]:
        """Return the open file, and where its data begins."""
        with self._lock:
            if self._closed:  # a thread whose result nobody waits for any more
                raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(path))
            if path not in self._opened:
                stream = open_plain(path)
                length = int.from_bytes(os.pread(stream.fileno(), LENGTH_BYTES, 0), "little")
                self._opened[path] = stream, LENGTH_BYTES + length
                self._refuse_another_header(path)
            return self._opened[path]

    def _refuse_another_header(self, path: Path) -> None:
        """Refuse a file that was written anew since its header was read."""
        try:
            found = scan_header(path)
        except CheckpointError as error:
            raise CheckpointError("checkpoint.changed", f"{error.message} (file changed during reading)") from None
        before = self._files[path]
        other = [name for name in {**before, **found} if before.get(name) != found.get(name)]
        if other:
            raise _changed(path, f"tensor {visible(other[0], 80)} is not as before")


def _changed(path: Path, what: str) -> CheckpointError:
    return CheckpointError("checkpoint.changed", f"{visible(str(path), 200)}: file changed during reading ({what})")


def _row_bytes(entry: TensorEntry) -> int:
    return math.prod(entry.shape[1:]) * DTYPES[entry.dtype].itemsize
