"""The weights of a folder that a quantiser wrote, read as if they were stored plain."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.checkpoint.files.stored_tensors import StoredTensors
from lossprobe.checkpoint.files.tensors import not_finite, refuse_non_finite
from lossprobe.checkpoint.files.threads import of_each
from lossprobe.checkpoint.files.weight_files import Weights
from lossprobe.checkpoint.quantized.codes import NotFiniteError
from lossprobe.checkpoint.quantized.names import LONGEST
from lossprobe.checkpoint.quantized.parts import Layout, Method, Parts
from lossprobe.units import plural, visible

NARROW = {"I8", "U8", "I32", "F4", "F8_E4M3", "F8_E5M2"}  # dtypes that a plain weight never has
INPUT_SCALE = re.compile(r"\.(input|activation)_\w+")  # belongs to one quantised weight; others to the key-value cache


@dataclass(frozen=True)
class QuantizedWeights:
    """Stored tensors of which some are read as plain weights.

    Attributes:
        path: the folder.
        weights: its files.
        method: what its configuration says.
        said_by: files beside config.json that say it.
        modules: name of a plain weight → the common start of the names of its parts, their ends, and their layout.
        entries: dtype and shape of every tensor by its name; quantised weights as plain ones in float32.
        not_applied: names of stored scales that only the deployed kernel uses, for its activations or its cache.
    """

    path: Path
    weights: Weights
    method: Method
    said_by: tuple[Path, ...]
    modules: Mapping[str, tuple[str, tuple[str, ...], Layout]]
    entries: Mapping[str, TensorEntry]
    not_applied: tuple[str, ...]

    @property
    def files(self) -> Mapping[Path, Mapping[str, TensorEntry]]:
        """Safetensors file → the tensors that it declares."""
        return self.weights.files

    @property
    def index(self) -> tuple[Path, ...]:
        """Path of the index, if there is one."""
        return self.weights.index

    @property
    def said_in(self) -> str:
        """Name of the file that says how weights are quantised, for messages."""
        return _said_in(self.said_by)

    @property
    def dtype(self) -> str:
        """Short name of what is stored, such as "int4 (GPTQ)"."""
        return self.method.dtype

    @property
    def quantization(self) -> str:
        """The format in plain words."""
        return self.method.words

    @property
    def unquantized(self) -> dict[str, TensorEntry]:
        """The tensors that are stored plain."""
        return {name: entry for name, entry in self.entries.items() if name not in self.modules}

    @property
    def found_finite(self) -> Collection[str]:
        """Names of the tensors that `read` refuses where they are not finite."""
        return self.modules

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user should know, one line each."""
        _, _, only = self.method.words.partition("; ")
        only = only and f"{only}, which no loss here includes"
        count = len(self.not_applied)
        left = f"{plural(count, 'stored scale')} of activations or of the key-value cache not applied"
        return (*self.weights.notices, *filter(None, [only, left if count else ""]))

    @contextlib.contextmanager
    def reader(self, dtype: torch.dtype) -> Iterator[Callable[[str], torch.Tensor]]:
        """Open the files; yield what reads a tensor by its name, also from several threads, quantised ones in `dtype`.

        Raises:
            CheckpointError: stored values contradict the configuration, a quantised weight is not finite, or a file
                changed.
        """
        stored = self.weights.entries
        with StoredTensors(self.weights.files) as files:

            def plain(name: str) -> torch.Tensor:
                if name not in self.modules:
                    return files.tensor(name)
                module, ends, layout = self.modules[name]
                try:
                    weight = layout.weight(_parts(self.path, module, ends, stored, files.tensor, self.said_in))
                except NotFiniteError as error:
                    raise not_finite(self.path, name, error.count) from None
                if dtype != weight.dtype:
                    weight = weight.to(dtype)
                    refuse_non_finite(self.path, name, weight)  # large values can overflow in a narrower dtype
                return weight

            yield plain

    def read(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return every tensor by its name, quantised weights in `dtype`; in float32 is only one in each thread.

        Raises:
            CheckpointError: stored values contradict the configuration, or a file changed.
        """
        with self.reader(dtype) as plain:
            return dict(zip(self.entries, of_each(plain, self.entries), strict=True))

    def refuse_plain(self, linear: Collection[str]) -> None:
        """Refuse weights that are stored plain although the configuration says that they are quantised.

        Args:
            linear: names of the stored weights that belong to linear layers of the model.

        Raises:
            CheckpointError: there is such a weight.
        """
        for name in self.unquantized if self.method.names_all else ():
            if name in linear and self.method.layout(name.removesuffix(".weight")) is not None:
                raise refusal("checkpoint.quantized_tensor", self.path, _plain(name, self.said_in))


def find_quantized(path: Path, weights: Weights, method: Method, said_by: tuple[Path, ...] = ()) -> QuantizedWeights:
    """Return the weights of a folder, after checking the names, dtypes and shapes of all their parts.

    Args:
        path: the folder.
        weights: its files.
        method: what its configuration says.
        said_by: files beside config.json that say it.

    Raises:
        CheckpointError: a part of a weight is missing or left over, or has another dtype or shape; a weight is
            quantised although the configuration says that it is plain, or the reverse; or nothing is quantised.
    """
    stored = weights.entries
    entries = dict(stored)
    modules: dict[str, tuple[str, tuple[str, ...], Layout]] = {}
    found = _modules(path, stored, method)
    with StoredTensors(weights.files) as files:
        for module, ends in found.items():
            parts = _parts(path, module, ends, stored, files.tensor, _said_in(said_by))
            layout = _layout(method, parts)
            shape = layout.shape(parts)
            for end in ends:
                del entries[module + end]
            modules[module + method.plain_end] = module, ends, layout
            entries[module + method.plain_end] = TensorEntry("F32", shape, 0, math.prod(shape) * 4)
    if not modules:
        what = f"{_said_in(said_by)} says {method.words}, but no tensor is quantised"
        raise refusal("checkpoint.quantized_tensor", path, what)
    _refuse_exceptions(path, found, entries.keys() - modules.keys(), method, _said_in(said_by))
    not_applied = _not_applied(path, found, entries, method)
    for name in not_applied:
        del entries[name]
    return QuantizedWeights(path, weights, method, said_by, modules, entries, not_applied)


def _modules(path: Path, stored: Mapping[str, TensorEntry], method: Method) -> dict[str, tuple[str, ...]]:
    """Return the common start of the names of each quantised weight's parts → their ends.

    A tensor with the name of a plain weight is a part if its dtype is narrow, or if there are other parts.
    """
    found: dict[str, list[str]] = {}
    plain: list[str] = []
    ends = sorted(method.ends, key=len, reverse=True)  # ".weight.absmax" before ".weight"
    for name, entry in stored.items():
        end = next((end for end in ends if name.endswith(end)), None)
        if end is None:
            continue
        module = name.removesuffix(end)
        if len(module) > LONGEST:  # patterns of the configuration could take long on it
            raise refusal("checkpoint.quantized_tensor", path, f"a tensor's name has {len(name)} characters")
        if end == method.plain_end and entry.dtype not in NARROW:
            plain.append(module)
        else:
            found.setdefault(module, []).append(end)
    for module in plain:
        if module in found:
            found[module].append(method.plain_end)
    return {module: tuple(ends) for module, ends in found.items()}


def _parts(
    path: Path,
    module: str,
    ends: tuple[str, ...],
    stored: Mapping[str, TensorEntry],
    read: Callable[[str], torch.Tensor],
    said_in: str,
) -> Parts:
    """Return the parts of one weight."""
    entries = {end: stored[module + end] for end in ends}
    return Parts(visible(str(path), 200), module, entries, lambda end: read(module + end), said_in)


def _layout(method: Method, parts: Parts) -> Layout:
    """Return how a weight is stored, after checking that its parts are those of the layout."""
    first = min(parts.entries)
    layout = method.layout(parts.module)
    if layout is None:
        what = f"belongs to a quantised weight, but {parts.said_in} says that the weight is plain"
        raise parts.refused(first, what)
    missing = sorted(layout.required - parts.entries.keys())
    if missing:
        raise parts.refused(missing[0], f"is missing, {parts.module.split('.')[-1]}{first} is there")
    left = sorted(parts.entries.keys() - layout.required - layout.optional)
    if left:
        raise parts.refused(left[0], f"is left over: {method.words.partition(';')[0]} has no such part")
    return layout


def _refuse_exceptions(
    path: Path, found: Collection[str], plain: Collection[str], method: Method, said_in: str
) -> None:
    """Refuse a weight that is plain in one layer and quantised in others, unless the configuration says so."""
    kinds = {re.sub(r"\d+", "N", module) for module in found}
    for name in sorted(plain):
        module = name.removesuffix(method.plain_end)
        alike = name.endswith(method.plain_end) and re.sub(r"\d+", "N", module) in kinds
        if alike and method.layout(module) is not None:
            raise refusal("checkpoint.quantized_tensor", path, _plain(name, said_in))


def _not_applied(path: Path, found: Collection[str], entries: Collection[str], method: Method) -> tuple[str, ...]:
    """Return the names of scales that only the deployed kernel uses; one of no quantised weight is refused."""
    if not method.activations:
        return ()
    names = sorted(name for name in entries if name.endswith(method.activations))
    for name in names:
        module, dot, end = name.rpartition(".")
        if INPUT_SCALE.fullmatch(dot + end) and module not in found:
            raise refusal(
                "checkpoint.quantized_tensor", path, f"tensor {visible(name, 120)} belongs to no quantised weight"
            )
    return tuple(names)


def _plain(name: str, said_in: str) -> str:
    return f"tensor {visible(name, 120)} is stored plain, but {said_in} says that it is quantised"


def _said_in(said_by: tuple[Path, ...]) -> str:
    return said_by[0].name if said_by else "config.json"
