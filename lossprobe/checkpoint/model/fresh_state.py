"""Restore a model's state before each forward pass, so that its results do not depend on earlier inputs.

Some models keep state between passes: transformers' dynamic NTK keeps the frequencies of the longest input so far, its
LongRoPE those of the last input, Reformer the number of buckets of the first. The state is everything but the weights:
attributes, buffers, submodules, configurations. Only parts that were seen to change are restored, for most models none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

LARGEST_COPY = 1 << 20  # most elements of a tensor that is copied; position tables that change are far smaller


class FreshState:
    """A copy of the state of a model's modules: attributes, buffers, submodules and configurations.

    Weights and large tensors are not copied. If a pass changes one of them in place, as RWKV does when it scales its
    layers in its first pass, the state after that pass becomes the one to restore.

    Args:
        model: the model, just loaded.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._watched: list[_Home] = []
        self._changed: set[int] = set()
        self._take()

    def restore(self) -> None:
        """Restore everything that has changed."""
        changed = [home for home in self._watched if home.changed()]
        self._changed.update(home.owner for home in changed)
        if any(home.lost() for home in changed):
            self._take()
            return
        for home in changed:
            home.restore()

    def narrow(self, keep: Callable[[torch.nn.Module], bool]) -> None:
        """Check from now on only modules that have changed so far, and those for which `keep` is true.

        This saves the time of comparing the state of all modules before each pass.
        """
        kept = {id(module) for module in self._model.modules() if keep(module)}
        self._watched = [home for home in self._watched if home.owner in self._changed | kept]

    def watches(self, part: torch.nn.Module) -> bool:
        """Return whether the state of a module, or of one inside it, is restored where it has changed."""
        inside = set(map(id, part.modules()))
        return any(home.owner in inside for home in self._watched)

    def _take(self) -> None:
        """Copy the present state of all modules."""
        spaces = {id(space): (module, space) for module in self._model.modules() for space in _spaces(module)}
        self._watched = [_Home(id(module), space) for module, space in spaces.values()]
        self._changed = set()


class _Home:
    """A copy of one namespace: the attributes of an object, or the entries of a dictionary.

    Args:
        owner: `id` of the module that it belongs to.
        space: the namespace; its present values are the ones to restore.
    """

    def __init__(self, owner: int, space: dict[Any, Any]) -> None:
        self.owner = owner
        self._space = space
        self._saved = dict(space)
        tensors = [value for value in space.values() if isinstance(value, torch.Tensor) and not value.is_inference()]
        self._tensors = [(tensor, tensor._version, _copy(tensor)) for tensor in tensors]

    def changed(self) -> bool:
        """Return whether a name has another value or a tensor was changed in place."""
        space, saved = self._space, self._saved
        if len(space) != len(saved) or any(space.get(name, self) is not value for name, value in saved.items()):
            return True
        return any(tensor._version != version for tensor, version, _ in self._tensors)

    def lost(self) -> bool:
        """Return whether a tensor without a copy was changed in place."""
        return any(tensor._version != version and copy is None for tensor, version, copy in self._tensors)

    def restore(self) -> None:
        """Give every name its former value, and every copied tensor its former content."""
        self._space.clear()
        self._space.update(self._saved)
        with torch.inference_mode():
            for tensor, version, copy in self._tensors:
                if copy is not None and tensor._version != version:
                    tensor.copy_(copy)
        self._tensors = [(tensor, tensor._version, copy) for tensor, _, copy in self._tensors]


def _spaces(module: torch.nn.Module) -> Iterator[dict[Any, Any]]:
    """Yield the namespaces of a module: its attributes, dictionaries among them, and its configuration's attributes."""
    attributes = vars(module)
    yield attributes
    yield from (value for value in attributes.values() if isinstance(value, dict))
    if hasattr(attributes.get("config"), "__dict__"):
        yield vars(attributes["config"])


def _copy(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return a copy of a small tensor, or None for a weight or a large one."""
    small = not isinstance(tensor, torch.nn.Parameter) and tensor.numel() <= LARGEST_COPY
    return tensor.detach().clone() if small else None
