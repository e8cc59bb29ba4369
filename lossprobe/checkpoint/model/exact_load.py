"""Load a transformers model with exactly the stored tensors, after checking each by its stored name and dtype.

transformers loads checkpoints with missing, surplus or integer tensors and only prints a report. It also renames and
joins tensors on the way, so the checks look at the tensors as they are in the files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.checkpoint.files.tensor_names import PlainNames, common_start, fitted_names, holders_of, plain_names
from lossprobe.checkpoint.files.tensors import check_finite
from lossprobe.checkpoint.model.division import own_values
from lossprobe.checkpoint.model.model_config import building
from lossprobe.checkpoint.model.unused_tensors import UnusedTensors
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, visible

STORED_DTYPES: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
PLAIN_INTEGERS: Final = re.compile(
    r"[UI]\d+|BOOL"
)  # dtypes that a model's tables of integers can have; others, such as float8, mean quantised weights


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
    kinds = refuse_narrow(path, weights.entries)
    stored = weights.read(dtype)
    fitted = fit_tensors(path, model_class, config, kinds, stored, stored, dtype)
    model, names, unused = fitted.model, fitted.names, fitted.unused
    used = {name: stored[name] for name in stored if names.plain[name] not in unused.passed_over}
    known = set(weights.found_finite)
    finite = {name: tensor for name, tensor in used.items() if tensor.is_floating_point() and name not in known}
    check_finite(path, {name: each for name, each in finite.items() if not unused.is_bound(names.plain[name], each)})
    if any(torch.promote_types(tensor.dtype, dtype) != dtype for tensor in used.values()):
        check_finite(path, own_values(model))  # large values can overflow in a narrower dtype
    return LoadedModel(model.eval(), (*names.notices(), *unused.notices()), names)


@dataclass(frozen=True)
class FittedModel:
    """A model whose stored tensors are exactly those that it needs.

    Attributes:
        model: the model, as transformers loaded it.
        names: the names of the stored tensors in the model.
        unused: the stored tensors that it did not use.
    """

    model: Any
    names: PlainNames
    unused: UnusedTensors


def refuse_narrow(path: Path, entries: Mapping[str, TensorEntry]) -> dict[str, str]:
    """Return the dtype code of every stored tensor by its name.

    Raises:
        CheckpointError: `checkpoint.quantized`: one has a dtype that only quantised weights have.
    """
    kinds = {name: entry.dtype for name, entry in entries.items()}
    narrow = [name for name, kind in kinds.items() if kind not in STORED_DTYPES and not PLAIN_INTEGERS.fullmatch(kind)]
    if narrow:
        raise _quantized(path, narrow[0], kinds)
    return kinds


def fit_tensors(  # noqa: PLR0913 - a checkpoint, and its tensors twice
    path: Path,
    model_class: Any,
    config: Any,
    kinds: Mapping[str, str],
    given: Mapping[str, torch.Tensor],
    values: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
) -> FittedModel:
    """Return the model that transformers builds from tensors, after checking that they are exactly those it needs.

    Args:
        path: the checkpoint, for messages.
        model_class: the transformers class.
        config: the configuration to build it from.
        kinds: dtype code of every stored tensor by its name.
        given: what the model gets, by stored name.
        values: the stored tensors by the same names. Only those are asked for that the model has no place for.
        dtype: dtype of the forward pass.

    Raises:
        CheckpointError: as in `load_exactly`, but for values that are not finite.
    """
    names = plain_names(path, given)
    model, report = _load(path, model_class, config, given, names, dtype)
    if _misfits(report):
        for other in holders_of(names):
            again, other_report = _load(path, model_class, config, given, other, dtype)
            if not _misfits(other_report):
                names, model, report = other, again, other_report
                break
    names = fitted_names(names, model.state_dict())  # transformers also accepts names without the body's prefix
    unused = UnusedTensors(model, _ByPlainName(values, names), set(report["unexpected_keys"]))
    integers = [name for name, kind in kinds.items() if kind not in STORED_DTYPES]
    packed = [name for name in integers if unused.is_packed(names.plain[name], kinds[name], values[name])]
    if packed:
        raise _quantized(path, packed[0], kinds)
    _refuse_misfit(path, model, report, unused, common_start(names.plain.values()))
    return FittedModel(model, names, unused)


class _ByPlainName(Mapping[str, torch.Tensor]):
    """Stored tensors by their plain names, each looked up when it is asked for."""

    def __init__(self, values: Mapping[str, torch.Tensor], names: PlainNames) -> None:
        self._values = values
        self._stored = {plain: stored for stored, plain in names.plain.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._values[self._stored[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


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


def _refuse_misfit(path: Path, model: Any, report: Mapping[str, Any], unused: UnusedTensors, start: str) -> None:
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
        total = len({id(tensor) for tensor in model.state_dict(keep_vars=True).values()})  # a tied one once
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
