"""The settings of a stored run as typed values, under their names in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from lossprobe.plan.windows import Layout

Group = TypeVar("Group")


@dataclass(frozen=True)
class CheckpointSettings:
    """The model of a run.

    Attributes:
        sha256: sha256 of its weights; None if the run does not say.
        vocab_size: width of the logits.
        context_length: the model's own limit; None without one.
        compute_dtype: dtype of the forward pass.
        family: "llama", "gpt2", "nanogpt", …; None if the run does not say.
        stored_dtype: dtype of the stored weights, or what a quantiser wrote, such as "int4 (GPTQ)".
        quantization: how quantised weights are stored, in plain words; None for plain ones.
        router: the fields of a `checkpoint.interface.RouterFacts`; None for a model without experts.
    """

    sha256: str | None
    vocab_size: int
    context_length: int | None
    compute_dtype: str
    family: str | None
    stored_dtype: str | None = None
    quantization: str | None = None
    router: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TextSettings:
    """The text of a run.

    Attributes:
        sha256: sha256 of its documents; None if the run does not say.
        kept: whether the run has its text.
        kind: what its records hold, a `text.examples.DataKind`; None for plain text.
        sides: "both" where both sides of each pair are documents, one after the other; else None.
    """

    sha256: str | None
    kept: bool
    kind: str | None
    sides: str | None = None


@dataclass(frozen=True)
class WindowSettings:
    """The windows of a run; the fields are those of `plan.rows.WindowPolicy`."""

    context: int
    stride: int
    bos_id: int | None
    layout: str


@dataclass(frozen=True)
class RunSettings:
    """The settings that decide the numbers of a run: model, text and windows."""

    checkpoint: CheckpointSettings
    text: TextSettings
    windows: WindowSettings


def read_run_settings(settings: Mapping[str, Any]) -> RunSettings:
    """Return the `settings` of run.json, which `run_fault` has checked, as typed values."""
    windows = {"layout": Layout.ROLLING.value, **settings.get("windows", {})}  # old runs name no layout
    return RunSettings(
        _read(CheckpointSettings, settings.get("checkpoint", {})),
        _read(TextSettings, settings.get("text", {})),
        _read(WindowSettings, windows),
    )


def _read(kind: type[Group], values: Mapping[str, Any]) -> Group:
    """Return a group of settings; a field that an old run does not have is None."""
    return kind(**{each.name: values.get(each.name) for each in fields(kind)})  # type: ignore[arg-type]
