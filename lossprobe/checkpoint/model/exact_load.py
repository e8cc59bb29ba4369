"""A transformers model with exactly the stored tensors: every one checked by the name and dtype it is stored with.

transformers would load a checkpoint with missing, surplus or integer tensors and only print a report, and it
renames and joins tensors on the way: what is to be checked is looked at as it lies in the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from lossprobe.checkpoint.files.constants import CONSTANT_NAME, constants_of
from lossprobe.checkpoint.files.refusals import listed
from lossprobe.checkpoint.files.safetensors_file import TensorEntry, read_tensors
from lossprobe.checkpoint.files.tensor_names import PlainNames, common_start, fitted_names, holders_of, plain_names
from lossprobe.checkpoint.files.tensors import check_finite
from lossprobe.checkpoint.model.model_config import building
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, plural, visible

STORED_DTYPES: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
PLAIN_INTEGERS: Final = re.compile(r"[UI]\d+|BOOL")  # a model's own tables can be these; float8 and narrower cannot
# What transformers passes over without a word in every family; a family has more of its own.
PASSED_OVER: Final = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode, on the CPU, and what a user should know of how its tensors were stored."""

    model: Any
    notices: tuple[str, ...]


def load_exactly(
    path: Path, model_class: Any, config: Any, entries: Mapping[Path, Mapping[str, TensorEntry]], dtype: torch.dtype
) -> LoadedModel:
    """Return the model with exactly the stored tensors.

    Args:
        path: the checkpoint that messages name.
        model_class: the transformers class.
        config: its configuration.
        entries: what each safetensors file declares.
        dtype: of the forward pass.

    Raises:
        CheckpointError: a tensor that is missing, unexpected, of another shape, not finite, or made of numbers that
            mean nothing without their scales.
    """
    kinds = {name: entry.dtype for declared in entries.values() for name, entry in declared.items()}
    narrow = [name for name, kind in kinds.items() if kind not in STORED_DTYPES and not PLAIN_INTEGERS.fullmatch(kind)]
    if narrow:
        raise _quantized(path, narrow[0], kinds)
    stored = {name: tensor for file in entries for name, tensor in read_tensors(file).items()}
    names = plain_names(path, stored)
    model, report = _load(path, model_class, config, stored, names, dtype)
    if _misfits(report):
        for other in holders_of(names):
            again, other_report = _load(path, model_class, config, stored, other, dtype)
            if not _misfits(other_report):
                names, model, report = other, again, other_report
                break
    names = fitted_names(names, model.state_dict())  # transformers takes off the name of the body by itself
    tensors = {names.plain[name]: tensor for name, tensor in stored.items()}
    unused = _UnusedTensors(model, tensors, set(report["unexpected_keys"]))
    integers = [name for name, kind in kinds.items() if kind not in STORED_DTYPES]
    packed = [name for name in integers if unused.is_packed(names.plain[name], kinds[name], stored[name])]
    if packed:
        raise _quantized(path, packed[0], kinds)
    _refuse_misfit(path, model, report, unused, common_start(names.plain.values()))
    used = {name: stored[name] for name in stored if names.plain[name] not in unused.passed_over}
    finite = {name: tensor for name, tensor in used.items() if tensor.is_floating_point()}
    check_finite(path, {name: each for name, each in finite.items() if not unused.is_bound(names.plain[name], each)})
    if any(torch.promote_types(tensor.dtype, dtype) != dtype for tensor in used.values()):
        check_finite(path, dict(model.named_parameters()))  # the narrower dtype may have no such large numbers
    return LoadedModel(model.eval(), (*names.notices(), *unused.notices()))


class _UnusedTensors:
    """The stored tensors that no part of a model took over.

    Args:
        model: the loaded model.
        tensors: every stored tensor by its plain name.
        reported: the names that transformers calls unexpected.
    """

    def __init__(self, model: Any, tensors: Mapping[str, torch.Tensor], reported: set[str]) -> None:
        self._state: dict[str, torch.Tensor] = model.state_dict()
        self._parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self._base = f"{model.base_model_prefix}."
        patterns = re.compile("|".join([*PASSED_OVER, *(model._keys_to_ignore_on_load_unexpected or ())]))
        silent = {name for name in tensors if patterns.search(name) and self._taken(name) is None}
        constants = constants_of(model)
        named = silent | {name for name in tensors if self._forms(name) & reported}
        self.constant = {name for name in named if constants.holds(name, tensors[name])}
        self.wrong = sorted(name for name in silent - self.constant if CONSTANT_NAME.fullmatch(name))
        self.left = silent - self.constant - set(self.wrong)
        self.passed_over = self.constant | self.left
        self.unexpected = sorted(reported - {form for name in self.constant for form in self._forms(name)})

    def _forms(self, name: str) -> set[str]:
        """Return the names under which a model can know a tensor: with and without the name of its body."""
        return {name, name.removeprefix(self._base), self._base + name}

    def _taken(self, name: str) -> torch.Tensor | None:
        return next((self._state[form] for form in self._forms(name) if form in self._state), None)

    def is_packed(self, name: str, kind: str, tensor: torch.Tensor) -> bool:
        """Return whether a stored tensor of integers stands for weights.

        It does where the model has a weight of its name, and where it is unknown, unless it is a flag or has the name
        of a constant: such a one is just unexpected. A table of integers that the model holds under a name of its own,
        as DeepSeek-V4's of experts by token, is found by its values.
        """
        taken = self._taken(name)
        if name in self.passed_over or taken is not None:
            return name not in self.passed_over and taken is not None and taken.is_floating_point()
        tables = (held for held in self._state.values() if held.dtype == tensor.dtype and held.shape == tensor.shape)
        return kind != "BOOL" and CONSTANT_NAME.fullmatch(name) is None and not any(map(tensor.equal, tables))

    def is_bound(self, name: str, tensor: torch.Tensor) -> bool:
        """Return whether a stored tensor is no weight but a bound, as Gemma 4 has for clipping: it may be infinite."""
        return not self._parameters & self._forms(name) and self._taken(name) is not None and not tensor.isnan().any()

    def notices(self) -> tuple[str, ...]:
        """Return a line for the constants, and one for what transformers' own model leaves out."""
        lines = []
        for names, what in ((self.constant, "no weight but a constant"), (self.left, "left out by the family's model")):
            if names:
                count = plural(len(names), "stored tensor")
                lines.append(f"{count} not used ({what}): {listed(sorted(names))}")
        return tuple(lines)


def _load(
    path: Path, model_class: Any, config: Any, stored: Mapping[str, torch.Tensor], names: PlainNames, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """Return the model as transformers loads it, and its report."""
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
    return any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def _refuse_misfit(path: Path, model: Any, report: Mapping[str, Any], unused: _UnusedTensors, start: str) -> None:
    """Refuse tensors that are missing, unexpected, or of another shape; all named."""
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
    alike = sum(kind == kinds[name] for kind in kinds.values())
    return CheckpointError(
        "checkpoint.quantized",
        f"{visible(str(path), 200)}: tensor {visible(name, 80)} is stored as {kinds[name]} "
        f"({format_count(alike)} of {format_count(len(kinds))} tensors are): quantised weights are not supported",
    )


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
