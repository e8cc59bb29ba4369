"""Keeps the hidden states of many inputs between two layers, in a scratch file where they are many."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import IO, Self

import torch

MOST_HELD_BYTES = 1 << 30  # hidden states beyond this lie in a scratch file


@dataclass(frozen=True)
class _Spilled:
    offset: int
    empty: torch.Tensor  # shape and dtype, without values
    device: torch.device


class HiddenStore:
    """Hidden states by the number of their input, in memory up to `MOST_HELD_BYTES`, the others in a scratch file.

    The file has no name, and its space is free again at the end of the `with` block.
    """

    def __init__(self) -> None:
        self._held: dict[int, torch.Tensor] = {}
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._spilled: dict[int, _Spilled] = {}
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, number: int, hidden: torch.Tensor) -> None:
        """Keep the hidden states of an input, in place of earlier ones."""
        if self._bytes + hidden.nbytes <= MOST_HELD_BYTES:
            self._held[number] = hidden
            self._bytes += hidden.nbytes
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="lossprobe-hidden-")  # noqa: SIM115 - closed at the end of the block
        before = self._spilled.get(number)
        fits = before is not None and before.empty.nbytes >= hidden.nbytes
        offset = before.offset if before is not None and fits else self._end
        self._end = max(self._end, offset + hidden.nbytes)
        self._file.seek(offset)
        self._file.write(hidden.contiguous().cpu().view(-1).view(torch.uint8).numpy().data)
        self._spilled[number] = _Spilled(offset, torch.empty_like(hidden, device="meta"), hidden.device)

    def take(self, number: int) -> torch.Tensor:
        """Return the hidden states of an input; those in memory are kept no longer."""
        if number in self._held:
            hidden = self._held.pop(number)
            self._bytes -= hidden.nbytes
            return hidden
        kept = self._spilled[number]
        assert self._file is not None
        hidden = torch.empty_like(kept.empty, device="cpu")
        self._file.seek(kept.offset)
        self._file.readinto(hidden.view(-1).view(torch.uint8).numpy().data)  # type: ignore[attr-defined]
        return hidden.to(kept.device)
