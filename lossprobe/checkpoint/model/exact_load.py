"""Load a transformers model with exactly the stored tensors, after checking each by its stored name and dtype.

transformers loads checkpoints with missing, surplus or integer tensors and only prints a report. It also renames and
joins tensors on the way, so the checks look at the tensors as they are in the files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from lossprobe.checkpoint.files.constants import CONSTANT_NAME, constants_of
from lossprobe.checkpoint.files.refusals import listed
from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.checkpoint.files.tensor_names import PlainNames, common_start, fitted_names, holders_of, plain_names
from lossprobe.checkpoint.files.tensors import check_finite
from lossprobe.checkpoint.model.model_config import building
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, plural, visible

STORED_DTYPES: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
PLAIN_INTEGERS: Final = re.compile(
    r"[UI]\d+|BOOL"
)  # dtypes that a model's tables of integers can have; others, such as float8, mean quantised weights
# Names that transformers ignores silently in every family; some families have more.
PASSED_OVER: Final = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode, on the CPU.

    Attributes:
        model: the model.
        notices: what a user should know about its stored tensors, one line each.
        names: the names of the stored tensors in the model.
    """

    model: Any
    notices: tuple[str, ...]
    names: PlainNames


class StoredWeights(Protocol):
    """The tensors of a folder, quantised weights already as plain ones."""

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Dtype and shape of every tensor by its name."""
        ...

    @property
    def found_finite(self) -> Collection[str]:
        """Names of the tensors that `read` refuses where they are not finite."""
        ...

    def read(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return every tensor by its name; those that are computed from others have the dtype of the forward pass."""
        ...


def load_exactly(path: Path, model_class: Any, config: Any, weights: StoredWeights, dtype: torch.dtype) -> LoadedModel:
    """Return the model with exactly the stored tensors.

    Args:
        path: the checkpoint, for messages.
        model_class: the transformers class.
        config: the configuration to build it from.
        weights: the stored tensors.
        dtype: dtype of the forward pass.

    Raises:
        CheckpointError: a tensor is missing, unexpected, of the wrong shape, not finite, or quantised although
            config.json says nothing of it.
    """
    kinds = {name: entry.dtype for name, entry in weights.entries.items()}
    narrow = [name for name, kind in kinds.items() if kind not in STORED_DTYPES and not PLAIN_INTEGERS.fullmatch(kind)]
    if narrow:
        raise _quantized(path, narrow[0], kinds)
    stored = weights.read(dtype)
    names = plain_names(path, stored)
    model, report = _load(path, model_class, config, stored, names, dtype)
    if _misfits(report):
        for other in holders_of(names):
            again, other_report = _load(path, model_class, config, stored, other, dtype)
            if not _misfits(other_report):
                names, model, report = other, again, other_report
                break
    names = fitted_names(names, model.state_dict())  # transformers also accepts names without the body's prefix
    tensors = {names.plain[name]: tensor for name, tensor in stored.items()}
    unused = _UnusedTensors(model, tensors, set(report["unexpected_keys"]))
    integers = [name for name, kind in kinds.items() if kind not in STORED_DTYPES]
    packed = [name for name in integers if unused.is_packed(names.plain[name], kinds[name], stored[name])]
    if packed:
        raise _quantized(path, packed[0], kinds)
    _refuse_misfit(path, model, report, unused, common_start(names.plain.values()))
    used = {name: stored[name] for name in stored if names.plain[name] not in unused.passed_over}
    known = set(weights.found_finite)
    finite = {name: tensor for name, tensor in used.items() if tensor.is_floating_point() and name not in known}
    check_finite(path, {name: each for name, each in finite.items() if not unused.is_bound(names.plain[name], each)})
    if any(torch.promote_types(tensor.dtype, dtype) != dtype for tensor in used.values()):
        check_finite(path, dict(model.named_parameters()))  # large values can overflow in a narrower dtype
    return LoadedModel(model.eval(), (*names.notices(), *unused.notices()), names)


class _UnusedTensors:
    """The stored tensors that the loaded model did not use.

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
        tables = (held for held in self._state.values() if held.dtype == tensor.dtype and held.shape == tensor.shape)
        return kind != "BOOL" and CONSTANT_NAME.fullmatch(name) is None and not any(map(tensor.equal, tables))

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


def _load(
    path: Path, model_class: Any, config: Any, stored: Mapping[str, torch.Tensor], names: PlainNames, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """Return the model as transformers loads it, and transformers' loading report."""
    with building(visible(str(path), 200)):
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict={names.plain[name]: tensor for name, tensor in stored.items()},
            dtype=dtype,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    return model, report


def _misfits(report: Mapping[str, Any]) -> bool:
    """Return whether transformers reports a missing, unexpected or mismatched tensor."""
    return any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def _refuse_misfit(path: Path, model: Any, report: Mapping[str, Any], unused: _UnusedTensors, start: str) -> None:
    """Refuse tensors that are missing, unexpected or of the wrong shape.

    Args:
        path: the checkpoint, for messages.
        model: the loaded model.
        report: transformers' loading report.
        unused: the tensors that the model did not use.
        start: what `common_start` says, added where no expected tensor is stored.
    """
    shown = visible(str(path), 200)
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, stored, wanted = mismatched[0]
        raise CheckpointError(
            "checkpoint.wrong_shape",
            f"{shown}: tensor {visible(name, 80)} has shape {list(stored)}, config.json wants {list(wanted)}"
            f"{_more(len(mismatched))}",
        )
    missing = sorted(report["missing_keys"])
    if missing:
        total = len({tensor.data_ptr() for tensor in model.state_dict().values()})
        present = max(total - len(missing), 0)
        raise CheckpointError(
            "checkpoint.missing_tensor",
            f"{shown}: tensor {visible(missing[0], 80)} is missing{_more(len(missing))} "
            f"({present} of {total} present{'' if present else start})",
        )
    if unused.wrong:
        raise CheckpointError(
            "checkpoint.unexpected_tensor",
            f"{shown}: tensor {visible(unused.wrong[0], 80)} has other values than config.json gives"
            f"{_more(len(unused.wrong))}: another configuration, or another model",
        )
    if unused.unexpected:
        raise CheckpointError(
            "checkpoint.unexpected_tensor",
            f"{shown}: unexpected tensor {visible(unused.unexpected[0], 80)}{_more(len(unused.unexpected))}",
        )


def _quantized(path: Path, name: str, kinds: Mapping[str, str]) -> CheckpointError:
    """Return the error for a quantised tensor; `kinds` maps every stored name to its dtype code."""
    alike = sum(kind == kinds[name] for kind in kinds.values())
    return CheckpointError(
        "checkpoint.quantized",
        f"{visible(str(path), 200)}: tensor {visible(name, 80)} is stored as {kinds[name]} "
        f"({format_count(alike)} of {format_count(len(kinds))} tensors are), as quantised weights are, but config.json "
        "has no quantization_config",
        hint="put the config.json beside the weights that the quantiser wrote",
    )


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
