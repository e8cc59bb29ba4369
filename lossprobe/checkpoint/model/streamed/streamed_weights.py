"""The weights of a model that is streamed: what stays in memory, what is read by rows, and what layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.checkpoint.files.stored_tensors import DTYPES, StoredTensors
from lossprobe.checkpoint.files.tensors import refuse_non_finite
from lossprobe.checkpoint.model.exact_load import FittedModel, LoadedModel, fit_tensors, refuse_narrow
from lossprobe.checkpoint.model.model_config import building
from lossprobe.checkpoint.model.packed import replace_layer
from lossprobe.checkpoint.model.streamed.by_rows import TILE_BYTES, TiledHead, embed_by_rows
from lossprobe.checkpoint.model.streamed.layer_list import LayerList, NotStreamableError, find_layers
from lossprobe.checkpoint.model.streamed.skeleton import Skeleton, unload
from lossprobe.checkpoint.model.streamed.weight_plan import (
    StreamableWeights,
    aliases_of,
    plan_weights,
    set_tensor,
    tie_equal,
)
from lossprobe.units import visible

MOST_HEAD_BYTES = 1 << 29  # a larger head is read in tiles


class StreamedWeights:
    """Gives the parts of a model their weights.

    Args:
        path: the checkpoint, for messages.
        fitted: the model without values, and the names of the stored tensors in it.
        skeleton: loads tensors into it.
        weights: the stored tensors.
        dtype: dtype of the weights in memory.

    Attributes:
        layers: the layers of the model.
        tied: whether head and embedding share their weights; None for a model without a matrix as its head.
        parameters: number of weights of the model, a tied head counted once.
        tiled: whether the head is read in tiles.

    Raises:
        NotStreamableError: the model cannot be run layer by layer.
    """

    def __init__(
        self, path: Path, fitted: FittedModel, skeleton: Skeleton, weights: StreamableWeights, dtype: torch.dtype
    ) -> None:
        self._path, self._model, self._skeleton = path, fitted.model, skeleton
        self._weights, self._dtype = weights, dtype
        self._unused, self._places = fitted.unused, skeleton.places(fitted.model)
        self._stored = {plain: stored for stored, plain in fitted.names.plain.items()}
        self._loaded: dict[int, set[str]] = {}
        self._seen = set(weights.found_finite)  # names whose values are known to be finite, in the dtype of the pass
        self._held: frozenset[int] = frozenset()
        self._device = torch.device("cpu")
        self.tiled = False
        self.layers: LayerList = find_layers(fitted.model)
        with StoredTensors(weights.files) as rows:
            tie_equal(fitted.model, self._places, self._stored, weights.unquantized, rows)
        weight = getattr(self._model.get_output_embeddings(), "weight", None)
        self.tied = None if weight is None else weight is self._model.get_input_embeddings().weight
        self.parameters = sum(each.numel() for each in self._model.parameters())
        self._plan = plan_weights(self._model, self.layers, self._places, self._stored, weights.unquantized)

    def place(self, device: str) -> None:
        """Read what stays in memory, and put it on a device.

        Raises:
            CheckpointError: a value is not finite.
            NotStreamableError: a weight is not among the stored tensors.
        """
        self._device = torch.device(device)
        model, plan = self._model, self._plan
        with building(visible(str(self._path), 200)):
            aliases = aliases_of(model)
            for name in self._load(plan.rest):
                set_tensor(model, aliases.get(name, [name]), self._placed(name))
            for name, buffer in model.named_buffers():
                if buffer.device.type != "meta":
                    set_tensor(model, [name], buffer.to(self._device))
            self._place_head()
            if plan.embedding is not None:
                name = self._stored[plan.embedding]
                for _ in self._blocks(name, model.get_input_embeddings().weight):
                    pass  # reads and checks all of it once
                embed_by_rows(model.get_input_embeddings(), partial(self._read_rows, name), self._cast)
        self._refuse_empty()

    def hold(self, numbers: Iterable[int]) -> None:
        """Read some layers, and keep them in memory until they are let go by another call."""
        wanted = frozenset(numbers)
        for number in wanted:
            self.load(number)
        before, self._held = self._held, wanted
        for number in before - wanted:
            self.unload(number)

    def load(self, number: int) -> None:
        """Read the weights of a layer, unless they are in memory."""
        if number not in self._loaded:
            with building(visible(str(self._path), 200)):
                names = self._load(self._plan.of_layer.get(number, []))
                if self._device.type != "cpu":
                    for name in names:
                        set_tensor(self._model, [name], self._placed(name))
            self._loaded[number] = names

    def unload(self, number: int) -> None:
        """Free the weights of a layer, unless it is held."""
        if number in self._loaded and number not in self._held:
            unload(self._model, self._loaded.pop(number))

    def largest_layer_bytes(self) -> int:
        """Return the size in bytes of the weights of the largest layer in memory."""
        return max(sum(weight.nbytes for weight in layer.parameters()) for layer in self.layers.layers)

    def _load(self, names: Iterable[str]) -> set[str]:
        """Read some stored tensors into the model; return the names in the model."""
        names = list(names)
        unseen = [name for name in names if self._stored[name] not in self._seen]
        with self._weights.reader(self._dtype) as read:

            def checked(plain: str) -> torch.Tensor:
                name = self._stored[plain]
                tensor = read(name)
                if name not in self._seen and tensor.is_floating_point():
                    if not self._unused.is_bound(plain, tensor):
                        refuse_non_finite(self._path, name, tensor)
                    self._seen.add(name)
                return tensor

            loaded = self._skeleton.load(self._model, names, checked, visible(str(self._path), 200))
        self._refuse_overflow(unseen, loaded)
        return loaded

    def _refuse_overflow(self, names: Iterable[str], loaded: set[str]) -> None:
        """Refuse weights that are finite as stored, and not in a narrower dtype."""
        stored = (DTYPES.get(self._weights.entries[self._stored[name]].dtype, self._dtype) for name in names)
        if any(torch.promote_types(each, self._dtype) != self._dtype for each in stored):
            for name in loaded:
                tensor = self._model.get_parameter_or_buffer(name)
                if isinstance(tensor, torch.nn.Parameter) and tensor.is_floating_point():
                    refuse_non_finite(self._path, name, tensor)

    def _place_head(self) -> None:
        """Read the head, or replace it by one that reads itself in tiles."""
        head, plain = self._model.get_output_embeddings(), self._plan.head
        if plain is None:
            return
        name = self._stored[plain]
        self.tiled = head.weight.nbytes > MOST_HEAD_BYTES
        whole = None if self.tiled else torch.empty_like(head.weight, device=self._device)
        for start, block in self._blocks(name, head.weight):
            if whole is not None:
                whole[start : start + len(block)] = block
        if whole is not None:
            head._parameters["weight"] = torch.nn.Parameter(whole, requires_grad=False)
        else:
            replace_layer(self._model, head, TiledHead(head, partial(self._read_block, name), self._cast))

    def _blocks(self, name: str, weight: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield blocks of rows of a stored matrix with the first row of each, after checking that they are finite."""
        step = max(1, TILE_BYTES // (weight.shape[1] * weight.dtype.itemsize))
        for start in range(0, len(weight), step):
            block = self._read_block(name, start, min(start + step, len(weight)))
            refuse_non_finite(self._path, name, block)
            cast = self._cast(block)
            if torch.promote_types(block.dtype, cast.dtype) != cast.dtype:
                refuse_non_finite(self._path, name, cast)
            yield start, cast

    def _read_block(self, name: str, start: int, stop: int) -> torch.Tensor:
        with StoredTensors(self._weights.files) as stored:
            return stored.block(name, start, stop)

    def _read_rows(self, name: str, ids: torch.Tensor) -> torch.Tensor:
        with StoredTensors(self._weights.files) as stored:
            return stored.rows(name, ids)

    def _refuse_empty(self) -> None:
        """Refuse a model that has weights beside its layers which no stored tensor gives."""
        parts = (self._model.get_input_embeddings(), self._model.get_output_embeddings())
        read_later = {id(weight) for part in parts if part is not None for weight in part.parameters()}
        for name, weight in self._model.named_parameters():
            if weight.is_meta and id(weight) not in read_later and self.layers.number_of(name) is None:
                raise NotStreamableError(f"{visible(name, 80)} is not stored by itself")

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device=self._device, dtype=self._dtype)

    def _placed(self, name: str) -> torch.Tensor:
        """Return a tensor of the model on the device."""
        tensor: torch.Tensor = self._model.get_parameter_or_buffer(name)
        moved = tensor.to(self._device)
        return torch.nn.Parameter(moved, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else moved


def load_streamed(
    path: Path, model_class: Any, config: Any, weights: StreamableWeights, dtype: torch.dtype
) -> tuple[LoadedModel, StreamedWeights]:
    """Return a model without values whose stored tensors are exactly those it needs, and what gives it values.

    Raises:
        CheckpointError: as in `exact_load.load_exactly`; values that are not finite are found when they are read.
        NotStreamableError: the model cannot be run layer by layer.
    """
    kinds = refuse_narrow(path, weights.entries)
    given = {
        name: torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device="meta")
        for name, entry in weights.entries.items()
    }
    skeleton = Skeleton()
    with weights.reader(dtype) as read:
        values = _Values(weights.entries, read)
        fitted = fit_tensors(path, skeleton.build_class(model_class), config, kinds, given, values, dtype)
        notices = (*fitted.names.notices(), *fitted.unused.notices())
    model = fitted.model.eval()
    streamed = StreamedWeights(path, fitted, skeleton, weights, dtype)
    return LoadedModel(model, notices, fitted.names), streamed


class _Values(Mapping[str, torch.Tensor]):
    """Stored tensors, each read when it is asked for."""

    def __init__(self, entries: Mapping[str, TensorEntry], read: Callable[[str], torch.Tensor]) -> None:
        self._entries, self._read = entries, read

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._read(name)

    def __iter__(self) -> Any:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
