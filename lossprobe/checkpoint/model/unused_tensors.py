"""Tell the stored tensors that a model does not use: constants, and what its family's class ignores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from lossprobe.checkpoint.files.constants import CONSTANT_NAME, constants_of
from lossprobe.checkpoint.files.refusals import listed
from lossprobe.checkpoint.model.streamed.layer_list import NotStreamableError
from lossprobe.units import plural, visible

# Names that transformers ignores silently in every family; some families have more.
PASSED_OVER: Final = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")


class UnusedTensors:
    """The stored tensors that the loaded model did not use; its weights may be without values, on the meta device.

    Args:
        model: the loaded model.
        tensors: every stored tensor by its plain name.
        reported: the names that transformers reports as unexpected.

    Attributes:
        constant: names of tensors that are not weights but constants, see `Constants`.
        wrong: names of tensors that look like constants but have other values, sorted.
        left: names of other tensors that the family's class ignores.
        passed_over: `constant` and `left` together.
        unexpected: names that transformers reports as unexpected and that are not constants, sorted.
    """

    def __init__(self, model: Any, tensors: Mapping[str, torch.Tensor], reported: set[str]) -> None:
        self._state: dict[str, torch.Tensor] = model.state_dict()
        self._parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self._base = f"{model.base_model_prefix}."
        patterns = re.compile("|".join([*PASSED_OVER, *(model._keys_to_ignore_on_load_unexpected or ())]))
        silent = {name for name in tensors if patterns.search(name) and self._taken(name) is None}
        constants = constants_of(model)
        named = silent | {name for name in tensors if self._forms(name) & reported}
        # A bias of zeros changes nothing: old GPTQ exports have one beside each weight.
        zeros = {name for name in named if name.endswith(".bias") and not tensors[name].any()}
        self.constant = zeros | {name for name in named if constants.holds(name, tensors[name])}
        self.wrong = sorted(name for name in silent - self.constant if CONSTANT_NAME.fullmatch(name))
        self.left = silent - self.constant - set(self.wrong)
        self.passed_over = self.constant | self.left
        self.unexpected = sorted(reported - {form for name in self.constant for form in self._forms(name)})

    def _forms(self, name: str) -> set[str]:
        """Return the names that a tensor can have in the model: with and without the prefix of the body."""
        return {name, name.removeprefix(self._base), self._base + name}

    def _taken(self, name: str) -> torch.Tensor | None:
        """Return the model's tensor of this name, or None."""
        return next((self._state[form] for form in self._forms(name) if form in self._state), None)

    def is_packed(self, name: str, kind: str, tensor: torch.Tensor) -> bool:
        """Return whether a stored tensor of integers holds packed (quantised) weights.

        It does if the model has a floating-point weight of this name. A tensor that the model does not know does too,
        unless it is boolean, has the name of a constant, or equals a table of integers that the model holds under
        another name (DeepSeek-V4's table of experts by token).

        Args:
            name: its plain name.
            kind: its dtype code in safetensors.
            tensor: its values.
        """
        taken = self._taken(name)
        if name in self.passed_over or taken is not None:
            return name not in self.passed_over and taken is not None and taken.is_floating_point()
        alike = [held for held in self._state.values() if held.dtype == tensor.dtype and held.shape == tensor.shape]
        if any(held.device.type == "meta" for held in alike):
            raise NotStreamableError(f"{visible(name, 80)} may be a table that a layer holds under another name")
        return kind != "BOOL" and CONSTANT_NAME.fullmatch(name) is None and not any(map(tensor.equal, alike))

    def is_bound(self, name: str, tensor: torch.Tensor) -> bool:
        """Return whether a stored tensor is a buffer that may be infinite, such as Gemma 4's clipping bounds."""
        return not self._parameters & self._forms(name) and self._taken(name) is not None and not tensor.isnan().any()

    def notices(self) -> tuple[str, ...]:
        """Return a notice for the constants, and one for tensors that the family's class ignores."""
        lines = []
        for names, what in ((self.constant, "no weight but a constant"), (self.left, "left out by the family's model")):
            if names:
                count = plural(len(names), "stored tensor")
                lines.append(f"{count} not used ({what}): {listed(sorted(names))}")
        return tuple(lines)
