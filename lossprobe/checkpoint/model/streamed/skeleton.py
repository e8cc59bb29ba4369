"""Build a model without weights, and give some of its modules their weights by transformers' own loader.

The loader renames, joins and splits stored tensors on their way into a model, for many families. So the model is loaded
once with tensors that have shapes but no values, on torch's meta device: the loader then says which stored tensor goes
where, and what is missing or left over, as for a whole model. Later it loads the tensors of one module at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from transformers import core_model_loading
from transformers.core_model_loading import WeightConverter, WeightRenaming, convert_and_load_state_dict_in_model

from lossprobe.errors import CheckpointError
from lossprobe.units import visible

META = torch.device("meta")


@dataclasses.dataclass(frozen=True)
class Places:
    """Where stored tensors go in a model.

    Attributes:
        targets: plain name of a stored tensor → the name in the model to which it belongs. A tensor that is joined with
            others has the name of the joined one.
        converted: the plain names of stored tensors that are not only renamed.
        config: how transformers loads them.
    """

    targets: dict[str, str]
    converted: set[str]
    config: Any


class Skeleton:
    """What loads the tensors of parts of models that were made by the class that `build_class` returns."""

    def __init__(self) -> None:
        self._places: dict[int, Places] = {}

    def places(self, model: Any) -> Places:
        """Return where stored tensors go in a model."""
        return self._places[id(model)]

    def build_class(self, model_class: Any) -> Any:
        """Return a subclass whose `from_pretrained` leaves the weights on the meta device, where they have no values.

        Buffers that are computed and not stored get their values.
        """
        members = {
            "_load_pretrained_model": staticmethod(self._place),
            "_finalize_model_loading": staticmethod(_finish),
            "__module__": model_class.__module__,
        }
        return type(model_class.__name__, (model_class,), members)

    def load(self, model: Any, stored: Iterable[str], read: Callable[[str], torch.Tensor], shown: str) -> set[str]:
        """Give a model the values of some stored tensors; return the names in the model that got them.

        Args:
            model: the model that was built.
            stored: plain names of the tensors: all that go into a joined one, or none of them.
            read: returns a tensor by its plain name; it is called from several threads.
            shown: name of the checkpoint, for messages.

        Raises:
            CheckpointError: `checkpoint.bad_config`: the loader could not convert them.
        """
        before = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
        lazy = {name: _Unread(read, name) for name in stored}
        config = self.places(model).config
        info, _ = convert_and_load_state_dict_in_model(model=model, state_dict=lazy, load_config=config)
        for name, error in info.conversion_errors.items():
            reason = visible(error.strip().rpartition("\n")[2], 160)
            what = f"{shown}: {visible(name, 80)} cannot be converted: {reason}"
            raise CheckpointError("checkpoint.bad_config", what)
        after = model.state_dict(keep_vars=True)
        return {name for name, tensor in after.items() if before[name] != id(tensor)}

    def _place(
        self,
        model: Any,
        state_dict: Mapping[str, torch.Tensor],
        checkpoint_files: Any,  # noqa: ARG002 - as transformers calls it
        load_config: Any,
        expected_keys: Any = None,  # noqa: ARG002
    ) -> tuple[Any, None]:
        """Take the place of transformers' method: find out where each tensor goes, without values."""
        mapping = load_config.weight_mapping or []
        renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
        converters = [each for each in mapping if isinstance(each, WeightConverter)]
        expected = model.state_dict()
        places = Places({}, set(), load_config)
        for name in state_dict:
            target, pattern = core_model_loading.rename_source_key(
                name, renamings, converters, model.base_model_prefix, expected
            )
            if target not in expected and name in expected:  # as the loader itself does
                target, pattern = name, None
            places.targets[name] = target
            if pattern is not None:
                places.converted.add(name)
        self._places[id(model)] = places
        on_meta = dataclasses.replace(load_config, device_map={"": "meta"})
        info, _ = convert_and_load_state_dict_in_model(model=model, state_dict=dict(state_dict), load_config=on_meta)
        return info, None


class _Unread:
    """A stored tensor that is read when the loader takes all of it, as it does with the library's own slices."""

    def __init__(self, read: Callable[[str], torch.Tensor], name: str) -> None:
        self._read = read
        self._name = name

    def __getitem__(self, index: object) -> torch.Tensor:
        return self._read(self._name)


def _finish(model: Any, load_config: Any, info: Any) -> Any:  # noqa: ARG001 - as transformers calls it
    """Take the place of transformers' method: tie weights, and compute buffers, but make no weights."""
    model.mark_tied_weights_as_initialized(info)
    names = dict(model.named_buffers())
    for weight in model.parameters():
        weight._is_hf_initialized = True
    model._move_missing_keys_from_meta_to_device(info.missing_and_mismatched() & names.keys(), None, None, None)
    model._initialize_missing_keys(False)
    model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
    model._adjust_missing_and_unexpected_keys(info)
    return info


def unload(model: Any, names: Collection[str]) -> None:
    """Take the values of some parameters and buffers away again; shapes and dtypes stay."""
    for name in names:
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        held = module._parameters if last in module._parameters else module._buffers
        tensor = held[last]
        empty = torch.empty_like(tensor, device=META)
        held[last] = torch.nn.Parameter(empty, requires_grad=False) if held is module._parameters else empty
