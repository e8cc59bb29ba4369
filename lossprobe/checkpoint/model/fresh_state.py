"""What a model holds beside its weights, as it was when it was loaded, to be put back before each forward pass.

Some models remember: transformers' dynamic NTK keeps the frequencies of the longest input so far, its LongRoPE those of
the last one, Reformer the number of buckets of the first. What they then give for a window depends on what they were
given before. Only what was seen to change is put back, which for most models is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

LARGEST_COPY = 1 << 20  # elements; position tables that change are far smaller


class FreshState:
    """The attributes, buffers, submodules and configurations of a model's modules.

    Weights are not copied. Where a pass changes these, or what is too large to copy, as RWKV does when it scales its
    layers at its first pass, the model is taken as it is after that pass.

    Args:
        model: a module, as it was loaded.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._watched: list[_Home] = []
        self._changed: set[int] = set()
        self._take()

    def restore(self) -> None:
        """Put back what has changed."""
        changed = [home for home in self._watched if home.changed()]
        self._changed.update(home.owner for home in changed)
        if any(home.lost() for home in changed):
            self._take()
            return
        for home in changed:
            home.restore()

    def narrow(self, keep: Callable[[torch.nn.Module], bool]) -> None:
        """Watch from now on only modules that have changed so far, and those that are to be kept."""
        kept = {id(module) for module in self._model.modules() if keep(module)}
        self._watched = [home for home in self._watched if home.owner in self._changed | kept]

    def _take(self) -> None:
        spaces = {id(space): (module, space) for module in self._model.modules() for space in _spaces(module)}
        self._watched = [_Home(id(module), space) for module, space in spaces.values()]
        self._changed = set()


class _Home:
    """Names and what they stand for: the attributes of one object, or the entries of a dictionary among them."""

    def __init__(self, owner: int, space: dict[Any, Any]) -> None:
        self.owner = owner
        self._space = space
        self._saved = dict(space)
        tensors = [value for value in space.values() if isinstance(value, torch.Tensor) and not value.is_inference()]
        self._tensors = [(tensor, tensor._version, _copy(tensor)) for tensor in tensors]

    def changed(self) -> bool:
        """Return whether a name stands for something else, or a tensor was changed in place."""
        space, saved = self._space, self._saved
        if len(space) != len(saved) or any(space.get(name, self) is not value for name, value in saved.items()):
            return True
        return any(tensor._version != version for tensor, version, _ in self._tensors)

    def lost(self) -> bool:
        """Return whether something changed in place of which there is no copy."""
        return any(tensor._version != version and copy is None for tensor, version, copy in self._tensors)

    def restore(self) -> None:
        """Let each name stand for what it did."""
        self._space.clear()
        self._space.update(self._saved)
        with torch.inference_mode():
            for tensor, version, copy in self._tensors:
                if copy is not None and tensor._version != version:
                    tensor.copy_(copy)
        self._tensors = [(tensor, tensor._version, copy) for tensor, _, copy in self._tensors]


def _spaces(module: torch.nn.Module) -> Iterator[dict[Any, Any]]:
    """Yield where a module keeps what it knows: its attributes, dictionaries among them, and its configuration."""
    attributes = vars(module)
    yield attributes
    yield from (value for value in attributes.values() if isinstance(value, dict))
    if hasattr(attributes.get("config"), "__dict__"):
        yield vars(attributes["config"])


def _copy(tensor: torch.Tensor) -> torch.Tensor | None:
    small = not isinstance(tensor, torch.nn.Parameter) and tensor.numel() <= LARGEST_COPY
    return tensor.detach().clone() if small else None
