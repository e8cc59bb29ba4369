"""Exchange messages between a process and its sandboxed child.

A message is a frame: the number of its parts, the length of each in bytes (all int64), then the parts.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ALLOWANCE = struct.Struct("<qd")  # first part of a request: address space in bytes, CPU time in seconds
OK, FAILED, OUT_OF_MEMORY = b"ok", b"failed", b"memory"  # first part of an answer
THREADS = "RAYON_NUM_THREADS"  # environment variable with the child's number of threads; the parent always sets it
PLAIN = b"plain"  # third part of the first request: names of special tokens in a text are text
WHOLE = b"whole"  # second part of a request: tokenize the document in one piece
MANY = b"many"  # second part of a request: several documents, joined; their lengths, int64, come after it
COUNTS = struct.Struct("<q?")  # after ids and widths: bytes dropped or rewritten, whether spans tile the document
# After COUNTS, where either is not zero: bytes without a token, whether cutting into pieces can change tokens.
MORE_COUNTS = struct.Struct("<q?")


@dataclass(frozen=True)
class Limits:
    """Memory and time that one request may take.

    Real tokenizers take up to 5 microseconds per byte of text. They take 10 bytes of memory per byte of a document that
    is tokenized in pieces, and up to 300 where that is impossible (a text that is one endless word, see `pieces`). The
    defaults are larger, because the kernel limits address space, of which a process reserves more than it uses.

    Attributes:
        memory: address space of the child, in bytes.
        memory_per_byte: additional bytes for each byte of the request.
        seconds: CPU time in seconds; time in which the machine is busy with other work or asleep does not count.
        seconds_per_byte: additional seconds for each byte of the request.
    """

    memory: int = 4 << 30
    memory_per_byte: int = 512
    seconds: float = 60.0
    seconds_per_byte: float = 1e-4

    def of(self, size: int) -> tuple[int, float]:
        """Return the address space in bytes and the CPU time in seconds for a request of `size` bytes."""
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
