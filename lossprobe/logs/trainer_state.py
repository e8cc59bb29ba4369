"""Reads the trainer_state.json of transformers' Trainer, which also TRL and others write."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from lossprobe.errors import UsageError
from lossprobe.units import format_count, visible

MAX_BYTES = 256 << 20
FILE = "trainer_state.json"
EVAL_LOSS = "eval_loss"
STEP_FOLDER = re.compile(r"checkpoint-(\d+)")
SHOWN = 8  # steps or names of a message


@dataclass(frozen=True)
class LoggedLoss:
    """One loss of a log.

    Attributes:
        value: the number; it may be not a number, or infinite.
        name: its key, such as "eval_loss" or "eval_test_loss".
        step: the step that it was logged at.
        by_trl: whether TRL wrote it, which alone logs entropy and accuracy beside it.
        rows: fewest and most rows that were evaluated, from their speed and the time; None where it does not say.
        batches: fewest and most batches that it took, over all processes at once.
    """

    value: float
    name: str
    step: int
    by_trl: bool = False
    rows: tuple[float, float] | None = None
    batches: tuple[float, float] | None = None


def read_logged_loss(path: Path, step: int | None, name: str = EVAL_LOSS) -> LoggedLoss:
    """Return the loss that a log has at a step; of several at one step, the last, which a restart wrote.

    Args:
        path: a trainer_state.json; it may hold a bare NaN, as Python writes it.
        step: the step; None is allowed where the log holds a single evaluation.
        name: the key of the loss.

    Raises:
        UsageError: the file cannot be read, has no such loss, or not at this step.
    """
    shown = visible(str(path), 200)
    entries = _entries(path, shown)
    found = [_loss_of(entry, name) for entry in entries if _is_number(entry.get(name))]
    if not found:
        _refuse_texts(entries, name, shown)
        others = sorted({key for entry in entries for key in entry if key.startswith("eval_") and key.endswith("loss")})
        hint = f"`metric` takes another name; the log has {', '.join(others[:SHOWN])}" if others else None
        raise UsageError("log.no_evaluation", f"{shown}: no entry with {visible(name, 60)}", hint=hint)
    steps = sorted({each.step for each in found})
    if step is None and len(steps) > 1:
        raise UsageError(
            "log.step", f"{shown}: {format_count(len(steps))} steps with {visible(name, 60)}",
            hint=f"`step` names the one of the checkpoint: {_listed(steps)}",
        )  # fmt: skip
    at_step = [each for each in found if step is None or each.step == step]
    if not at_step:
        raise UsageError(
            "log.step", f"{shown}: no {visible(name, 60)} at step {step}",
            hint=f"it has {_listed(steps)}; a loss of another step is that of another model",
        )  # fmt: skip
    return at_step[-1]


def _refuse_texts(entries: list[dict[str, Any]], name: str, shown: str) -> None:
    """Refuse a log whose loss is no number.

    Raises:
        UsageError: an entry has the key, with something else.
    """
    held = next((entry for entry in entries if name in entry), None)
    if held is not None:
        what = f"{visible(name, 60)} at step {held['step']} is no number: {visible(json.dumps(held[name]), 40)}"
        raise UsageError("log.no_evaluation", f"{shown}: {what}")


def step_of(checkpoint: Path) -> int | None:
    """Return the step of a checkpoint: its trainer_state.json says it, or its name, checkpoint-N; else None.

    Raises:
        UsageError: the file cannot be read.
    """
    state = checkpoint / FILE
    if state.is_file():
        step = _read(state, visible(str(state), 200)).get("global_step")
        if isinstance(step, int) and not isinstance(step, bool):
            return step
    named = STEP_FOLDER.fullmatch(checkpoint.absolute().name)
    return int(named[1]) if named else None


def vocabulary_beside(path: Path) -> int | None:
    """Return the entries of the vocabulary by the config.json beside a trainer_state.json; None where it says none.

    A checkpoint folder has both; an adapter's folder has no such file.
    """
    config = path.parent / "config.json"
    if path.name != FILE or not config.is_file():
        return None
    try:
        content = _read(config, visible(str(config), 200))
    except UsageError:
        return None  # it is no part of the log
    text = content.get("text_config")
    size = (text if isinstance(text, dict) else content).get("vocab_size")
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 1 else None


def _loss_of(entry: dict[str, Any], name: str) -> LoggedLoss:
    """Return the loss of an entry, with what stands beside it under the same prefix."""
    prefix = name.removesuffix("loss")
    by_trl = any(f"{prefix}{each}" in entry for each in ("entropy", "mean_token_accuracy"))
    rows, batches = (_counted(entry, prefix, speed) for speed in ("samples_per_second", "steps_per_second"))
    return LoggedLoss(entry[name], name, entry["step"], by_trl, rows, batches)


def _counted(entry: dict[str, Any], prefix: str, speed: str) -> tuple[float, float] | None:
    """Return the fewest and most that a speed, rounded to 3 decimals, makes in a time, rounded to 4; None without."""
    time, rate = entry.get(f"{prefix}runtime"), entry.get(f"{prefix}{speed}")
    if not (_is_number(time) and _is_number(rate)) or not math.isfinite(time * rate) or time <= 0 or rate <= 0:
        return None
    return (time - 0.5e-4) * (rate - 0.5e-3), (time + 0.5e-4) * (rate + 0.5e-3)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _entries(path: Path, shown: str) -> list[dict[str, Any]]:
    """Return the entries of the log that have a step."""
    history = history_of(_read(path, shown))
    if history is None:
        raise UsageError("log.unreadable", f"{shown}: has no log_history, so it is no trainer_state.json")
    return [each for each in history if isinstance(each.get("step"), int)]


def history_of(content: Any) -> list[dict[str, Any]] | None:
    """Return the entries of a trainer_state.json, in order; None where the content is of another file."""
    history = content.get("log_history") if isinstance(content, dict) else None
    return [each for each in history if isinstance(each, dict)] if isinstance(history, list) else None


def _read(path: Path, shown: str) -> dict[str, Any]:
    """Return the object that a JSON file holds; numbers may be NaN."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError("log.unreadable", f"{shown}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UsageError("log.unreadable", f"{shown}: larger than {format_count(MAX_BYTES)} bytes, the limit")
    content = parsed(data, shown)
    if not isinstance(content, dict):
        raise UsageError("log.unreadable", f"{shown}: holds a {type(content).__name__}, not an object")
    return content


def parsed(data: bytes, shown: str) -> Any:
    """Return what a JSON file holds; numbers may be NaN.

    Raises:
        UsageError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), parse_int=whole)
    except RecursionError:
        raise UsageError("log.unreadable", f"{shown}: nested too deeply") from None
    except ValueError as error:
        raise UsageError("log.unreadable", f"{shown}: is no JSON: {visible(str(error), 120)}") from None


def whole(digits: str) -> int | float:
    """Return a whole number; one with more digits than any step has is a float, since Python refuses the longest."""
    return int(digits) if len(digits) < 19 else math.inf if len(digits) > 308 else float(digits)


def _listed(steps: list[int]) -> str:
    more = f", … {steps[-1]}" if len(steps) > SHOWN else ""
    return ", ".join(map(str, steps[:SHOWN])) + more
