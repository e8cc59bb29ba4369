"""Decide what of a model stays in memory, what is read by rows, and what layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.checkpoint.files.stored_tensors import StoredTensors
from lossprobe.checkpoint.model.streamed.layer_list import LayerList
from lossprobe.checkpoint.model.streamed.skeleton import Places

MOST_EMBEDDING_BYTES = 1 << 25  # a larger embedding is read by rows
COMPARED_BYTES = 1 << 26  # of two tensors, compared at once


class StreamableWeights(Protocol):
    """The stored tensors of a folder, quantised weights already as plain ones."""

    @property
    def files(self) -> Mapping[Path, Mapping[str, TensorEntry]]:
        """Safetensors file → the tensors that it declares."""
        ...

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Dtype and shape of every tensor by its name."""
        ...

    @property
    def unquantized(self) -> Mapping[str, TensorEntry]:
        """The tensors that are stored plain."""
        ...

    @property
    def found_finite(self) -> Collection[str]:
        """Names of the tensors that the reader refuses where they are not finite in the dtype of the pass."""
        ...

    def reader(self, dtype: torch.dtype) -> AbstractContextManager[Callable[[str], torch.Tensor]]:
        """Open the files; yield what reads a tensor by its name, also from several threads."""
        ...


@dataclass(frozen=True)
class WeightPlan:
    """Where the stored tensors of a model go, by their plain names.

    Attributes:
        of_layer: those of each layer.
        rest: those that stay in memory.
        embedding: the embedding, if it is read by rows.
        head: the head, if it is a plain matrix, which may also be the embedding; None where it is part of the rest.
    """

    of_layer: Mapping[int, list[str]]
    rest: list[str]
    embedding: str | None
    head: str | None


def plan_weights(
    model: Any, layers: LayerList, places: Places, stored: Mapping[str, str], unquantized: Mapping[str, TensorEntry]
) -> WeightPlan:
    """Return where the stored tensors of a model go.

    Args:
        model: the model, without values.
        layers: its layers.
        places: where its loader puts stored tensors.
        stored: plain name → stored name.
        unquantized: the tensors that are stored plain, by their stored names.
    """
    aliases = aliases_of(model)
    of_layer: dict[int, list[str]] = {}
    rest: list[str] = []
    for plain, target in places.targets.items():
        if plain in stored and target in aliases:
            number = layers.number_of(target)
            (rest if number is None else of_layer.setdefault(number, [])).append(plain)
    whole = [plain for plain in rest if plain not in places.converted and stored[plain] in unquantized]

    def matrix(module: Any) -> str | None:
        weight = getattr(module, "weight", None)
        same = (plain for plain in whole if model.get_parameter_or_buffer(places.targets[plain]) is weight)
        return next(same, None)

    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    by_rows = isinstance(words, torch.nn.Embedding) and words.max_norm is None
    embedding = matrix(words) if by_rows and words.weight.nbytes > MOST_EMBEDDING_BYTES else None
    alone = matrix(head) if type(head) is torch.nn.Linear else None
    if embedding is None and alone is not None and head.weight is words.weight:
        alone = None  # one small matrix for both
    return WeightPlan(of_layer, [plain for plain in rest if plain not in (embedding, alone)], embedding, alone)


def tie_equal(
    model: Any, places: Places, stored: Mapping[str, str], unquantized: Mapping[str, TensorEntry], rows: StoredTensors
) -> None:
    """Tie weights where the files hold both of a pair with the same values, as transformers does when it has them."""
    home = {target: stored[plain] for plain, target in places.targets.items() if plain not in places.converted}
    for target, source in list(model.all_tied_weights_keys.items()):
        one, other = (unquantized.get(home.get(name, "")) for name in (target, source))
        if one is None or other is None or home[target] == home[source]:
            continue
        if one.shape == other.shape and one.dtype == other.dtype and _are_equal(home[target], home[source], one, rows):
            set_tensor(model, [target], model.get_parameter_or_buffer(source))


def _are_equal(one: str, other: str, entry: TensorEntry, rows: StoredTensors) -> bool:
    """Return whether two stored tensors of one shape and dtype, that of `entry`, have the same values."""
    count = entry.shape[0] if entry.shape else 0
    step = max(1, COMPARED_BYTES * count // (entry.stop - entry.start))
    spans = [(start, min(start + step, count)) for start in range(0, count, step)]
    return count > 0 and all(torch.equal(rows.block(one, *span), rows.block(other, *span)) for span in spans)


def aliases_of(model: Any) -> dict[str, list[str]]:
    """Return all names of each parameter and buffer in a model, under each of its names."""
    names: dict[int, list[str]] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        names.setdefault(id(tensor), []).append(name)
    return {name: names[id(tensor)] for name, tensor in state.items()}


def set_tensor(model: Any, names: Iterable[str], tensor: torch.Tensor) -> None:
    """Give parameters or buffers of a model one tensor."""
    for name in names:
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        held = module._parameters if last in module._parameters else module._buffers
        held[last] = tensor
