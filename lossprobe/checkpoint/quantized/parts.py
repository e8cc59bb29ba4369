"""The stored tensors that together make one weight, with checks of their dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Parts:
    """The stored tensors of one weight, by the ends of their names, such as ".qweight".

    Attributes:
        shown: the checkpoint, for messages.
        module: the common start of their names.
        entries: end of a name → dtype and shape.
        read: returns the tensor whose name has an end.
        said_in: name of the file that says how it is quantised, for messages.
    """

    shown: str
    module: str
    entries: Mapping[str, TensorEntry]
    read: Callable[[str], torch.Tensor]
    said_in: str = "config.json"

    def refused(self, end: str, what: str) -> CheckpointError:
        """Return the error that names one of the tensors and says what is wrong with it."""
        return CheckpointError(
            "checkpoint.quantized_tensor", f"{self.shown}: tensor {visible(self.module + end, 120)} {what}"
        )

    def shape(self, end: str, *dtypes: str, sides: int = 2) -> tuple[int, ...]:
        """Return the shape of a tensor.

        Raises:
            CheckpointError: it has another dtype, or another number of sides.
        """
        entry = self.entries[end]
        if entry.dtype not in dtypes:
            raise self.refused(end, f"is stored as {entry.dtype}, this format has {' or '.join(dtypes)}")
        if len(entry.shape) != sides:
            raise self.refused(end, f"has shape {list(entry.shape)}, this format has {sides} sides")
        return entry.shape

    def expect(self, end: str, *dtypes: str, shape: tuple[int, ...]) -> None:
        """Check that a tensor has one of some dtypes, and a shape."""
        if self.shape(end, *dtypes, sides=len(shape)) != shape:
            raise self.refused(end, f"has shape {list(self.entries[end].shape)}, it should be {list(shape)}")

    def codes_in(self, end: str, words: int, bits: int) -> int:
        """Return how many codes lie in some 32-bit words, which they must fill."""
        if words * 32 % bits:
            raise self.refused(end, f"has {words} words a line, which codes of {bits} bits do not fill")
        return words * 32 // bits

    def groups_of(self, end: str, inputs: int, size: int) -> int:
        """Return how many groups some inputs form, which must fill them."""
        if inputs % size:
            raise self.refused(end, f"has {inputs} inputs, which groups of {size} do not fill")
        return inputs // size


class Layout(Protocol):
    """How one weight is stored."""

    @property
    def required(self) -> frozenset[str]:
        """Ends of the names of the tensors that there must be."""
        ...

    @property
    def optional(self) -> frozenset[str]:
        """Ends of the names of tensors that there may be."""
        ...

    def shape(self, parts: Parts) -> tuple[int, ...]:
        """Return the shape of the plain weight, after checking dtypes and shapes of its parts.

        Raises:
            CheckpointError: a part has another dtype or shape than this layout.
        """
        ...

    def weight(self, parts: Parts) -> torch.Tensor:
        """Return the plain weight, float32, of parts that `shape` accepted.

        Raises:
            CheckpointError: a part holds values that contradict the configuration.
            NotFiniteError: a value of the weight is NaN or infinite.
        """
        ...


class Method(Protocol):
    """What config.json, or a file beside it, says about quantised weights.

    Attributes:
        ends: ends of the names of all tensors that belong to quantised weights.
        plain_end: end of the plain weight's name.
        activations: ends of the names of scales for activations, which only a deployed kernel uses.
        names_all: whether the configuration names every linear layer that stays plain.
    """

    ends: ClassVar[tuple[str, ...]]
    plain_end: ClassVar[str]
    activations: ClassVar[tuple[str, ...]]
    names_all: ClassVar[bool]

    @property
    def words(self) -> str:
        """The format in plain words, such as "GPTQ, int4 in groups of 128, symmetric"."""
        ...

    @property
    def dtype(self) -> str:
        """Short name of what is stored, such as "int4 (GPTQ)"."""
        ...

    def layout(self, module: str) -> Layout | None:
        """Return how the weight of a module is stored; None where the configuration says that it is plain."""
        ...


def weights_only(rounded: str, cache: str = "") -> str:
    """Return the words that say what a deployed kernel rounds besides the weights, which a loss here does not include.

    Args:
        rounded: to what it rounds activations; "" where it does not.
        cache: to what it rounds the keys and values of its cache; "" where it does not.

    >>> weights_only("int8", "FP8")
    '; weights only: the deployed kernel rounds activations to int8 and the key-value cache to FP8 as well'
    """
    named = {"activations": rounded, "the key-value cache": cache}
    told = " and ".join(f"{what} to {kind}" for what, kind in named.items() if kind)
    return f"; weights only: the deployed kernel rounds {told} as well" if told else ""


def stored_as(kind: str, by: str, rounded: str) -> str:
    """Return the short name of what is stored, such as "int8 (compressed-tensors, weights only)".

    Args:
        kind: the numbers, such as "int8".
        by: the format or the program.
        rounded: to what the deployed kernel rounds activations or its key-value cache; "" where it does neither.
    """
    return f"{kind} ({by}{', weights only' if rounded else ''})"
