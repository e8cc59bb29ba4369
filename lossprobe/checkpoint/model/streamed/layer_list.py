"""Find the list of layers of a model's body, and tell whether they can be run one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lossprobe.checkpoint.model.stand_in import body_name
from lossprobe.errors import CheckpointError


class NotStreamableError(CheckpointError):
    """A model cannot be run layer by layer; the message only says why, and is part of a sentence."""

    def __init__(self, why: str) -> None:
        super().__init__("checkpoint.not_streamed", why)


@dataclass(frozen=True)
class LayerList:
    """The layers of a model.

    Attributes:
        path: name of their list in the model, such as "model.layers".
        layers: the layers, in the order in which they run.
    """

    path: str
    layers: tuple[torch.nn.Module, ...]

    def number_of(self, name: str) -> int | None:
        """Return the number of the layer to which a tensor of the model belongs; None for one of no layer."""
        if not name.startswith(f"{self.path}."):
            return None
        return int(name.removeprefix(f"{self.path}.").partition(".")[0])

    def alike(self) -> list[int]:
        """Return for each layer the number of the first one of its kind, by class, settings and weights."""
        first: dict[Any, int] = {}
        return [first.setdefault(_kind(layer), number) for number, layer in enumerate(self.layers)]

    def kinds(self) -> list[int]:
        """Return the numbers of some layers: at least two, and one of every kind."""
        return sorted({*self.alike(), *range(min(2, len(self.layers)))})


def find_layers(model: Any) -> LayerList:
    """Return the layers of a model that is on the meta device.

    Raises:
        NotStreamableError: it has no body with one list of as many layers as its configuration says, or two layers
            share weights.
    """
    body = body_name(model)
    if not body:
        raise NotStreamableError("its body is no module of its own")
    count = int(getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    lists = [
        (name, part)
        for name, part in model.get_submodule(body).named_modules()
        if isinstance(part, torch.nn.ModuleList) and len(part) == count > 0
    ]
    if not lists:
        raise NotStreamableError(f"its body holds no list of {count} layers")
    name, found = max(lists, key=lambda item: sum(weight.numel() for weight in item[1].parameters()))
    layers = tuple(found)
    if not any(True for layer in layers for _ in layer.parameters()):
        raise NotStreamableError("its layers hold no weights")
    held = [id(weight) for layer in layers for weight in dict.fromkeys(layer.parameters())]
    if len(held) != len(set(held)) or len(set(map(id, layers))) != len(layers):
        raise NotStreamableError("its layers share weights")
    inside = set(held)
    rest = [weight for part in model.modules() if part not in _all_of(layers) for weight in part._parameters.values()]
    if any(id(weight) in inside for weight in rest):
        raise NotStreamableError("other parts of it share weights with its layers")
    return LayerList(f"{body}.{name}", layers)


def _all_of(layers: tuple[torch.nn.Module, ...]) -> set[torch.nn.Module]:
    return {part for layer in layers for part in layer.modules()}


def _kind(layer: torch.nn.Module) -> Any:
    """Return what distinguishes kinds of layers: their classes, plain settings, and the names and shapes of weights."""
    settings = [
        (name, type(part).__name__, sorted(item for item in vars(part).items() if _is_setting(*item)))
        for name, part in layer.named_modules()
    ]
    shapes = [(name, tuple(weight.shape)) for name, weight in layer.named_parameters()]
    return repr((settings, shapes))


def _is_setting(key: str, value: object) -> bool:
    numbered = key in ("layer_idx", "layer_id", "layer_number", "idx")
    return isinstance(value, bool | int | float | str) and not numbered
