"""What passes between a process and its sandboxed child: frames (the number of parts, their lengths, and the parts)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ALLOWANCE = struct.Struct("<qd")  # first part of a request: address space in bytes, CPU time in seconds
OK, FAILED, OUT_OF_MEMORY = b"ok", b"failed", b"memory"  # first part of an answer
THREADS = "RAYON_NUM_THREADS"  # variable with the number of threads for the child, which is always set
PLAIN = b"plain"  # third part of the request that opens a tokenizer: special strings in a text are text
WHOLE = b"whole"  # second part of a request: tokenize in one piece
COUNTS = struct.Struct("<q?")  # last part of an encoding: bytes dropped or rewritten, whether the spans tile
MORE_COUNTS = struct.Struct("<q?")  # after it, where either is so: bytes that vanished, whether cutting can matter


@dataclass(frozen=True)
class Limits:
    """What one request may take. Real tokenizers take up to 5 microseconds for a byte of text.

    They take 10 bytes of memory for it in a long document that comes in pieces, but up to 300 in one that cannot (a
    text that is one endless word, see `pieces`), and all of that is address space, not yet memory.

    Attributes:
        memory: address space of the child, in bytes.
        memory_per_byte: more of it for each byte of the request.
        seconds: CPU time, so that a busy or sleeping machine does not count.
        seconds_per_byte: more of it for each byte of the request.
    """

    memory: int = 4 << 30
    memory_per_byte: int = 512
    seconds: float = 60.0
    seconds_per_byte: float = 1e-4

    def of(self, size: int) -> tuple[int, float]:
        """Return address space in bytes and CPU time in seconds for a request of `size` bytes."""
        return self.memory + self.memory_per_byte * size, self.seconds + self.seconds_per_byte * size


DEFAULT_LIMITS = Limits()


def send_frame(stream: Any, parts: Sequence[bytes | bytearray]) -> None:
    """Write one frame to a buffered binary stream."""
    stream.write(struct.pack(f"<{len(parts) + 1}q", len(parts), *map(len, parts)))
    for part in parts:
        stream.write(part)
    stream.flush()


def receive_frame(stream: Any) -> list[bytearray]:
    """Return the parts of the next frame of a buffered binary stream.

    Raises:
        EOFError: the stream ended.
    """
    (count,) = struct.unpack("<q", _read(stream, 8))
    lengths = struct.unpack(f"<{count}q", _read(stream, 8 * count))
    return [_read(stream, length) for length in lengths]


def _read(stream: Any, length: int) -> bytearray:
    data = bytearray(length)
    if stream.readinto(data) != length:  # a buffered stream fills all of it, unless it ends
        raise EOFError
    return data
