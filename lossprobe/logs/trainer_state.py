"""Reads the trainer_state.json of transformers' Trainer, which also TRL and others write."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from lossprobe.errors import UsageError
from lossprobe.units import format_count, visible

MAX_BYTES = 256 << 20
FILE = "trainer_state.json"
EVAL_LOSS = "eval_loss"
PRINTED = re.compile(r"\d+(\.\d*)?|nan", re.IGNORECASE)
MAX_RESULTS = 1 << 20  # bytes of an eval_results.json
STEP_FOLDER = re.compile(r"checkpoint-(\d+)")
SHOWN = 8  # steps or names of a message


@dataclass(frozen=True)
class LoggedLoss:
    """One loss of a log.

    Attributes:
        value: the number; it may be not a number, or infinite.
        name: its key, such as "eval_loss" or "eval_test_loss".
        step: the step that it was logged at; None where the log does not say.
        by_trl: whether TRL wrote it, which alone logs entropy and accuracy beside it.
        rows: fewest and most rows that were evaluated, from their speed and the time; None where it does not say.
        batches: fewest and most batches that it took, over all processes at once.
        decimals: to how many it is printed, where it stands as text or in a log of printed numbers; else None.
        best_step: the step of the best model, which a trainer may have put back at the end; None where it is not said.
    """

    value: float
    name: str
    step: int | None
    by_trl: bool = False
    rows: tuple[float, float] | None = None
    batches: tuple[float, float] | None = None
    decimals: int | None = None
    best_step: int | None = None


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
    state = _read(path, shown)
    entries = _entries(state, shown)
    names = list(dict.fromkeys(key for entry in entries for key in entry))
    losses = [key for key in names if key.startswith("eval_") and key.endswith("loss")]
    chosen = named_loss(names, losses, name, shown)
    return at_step([_loss_of(entry, chosen, shown) for entry in entries if chosen in entry], step, shown, _best(state))


def named_loss(names: Sequence[str], losses: Sequence[str], name: str, shown: str) -> str:
    """Return the name of the loss that is meant: where nothing else was asked for, the only one of an evaluation.

    Args:
        names: all names of the log.
        losses: those of losses of evaluations, such as "eval_test_loss".
        name: the one that is asked for; `EVAL_LOSS` where the user did not choose.
        shown: the log, for messages.

    Raises:
        UsageError: the log has no such name, or several losses.
    """
    if name in names:
        return name
    if name == EVAL_LOSS and len(losses) == 1:
        return losses[0]
    if losses:
        hint = f"`metric` takes another name; the log has {', '.join(sorted(losses)[:SHOWN])}"
    elif "loss" in names:
        hint = "it has losses of training alone, each a mean over the steps since the last: no checkpoint gives them"
    else:
        hint = None
    raise UsageError("log.no_evaluation", f"{shown}: no entry with {visible(name, 60)}", hint=hint)


def at_step(found: Sequence[LoggedLoss], step: int | None, shown: str, best: int | None = None) -> LoggedLoss:
    """Return the loss of a step; of several at one step, the last, which a restart wrote.

    Args:
        found: the losses of one name.
        step: the step; None is allowed where there is only one.
        shown: the log, for messages.
        best: the step of the best model; None where the log does not say.

    Raises:
        UsageError: there is none at this step, or no step was given and there are several.
    """
    name, steps = visible(found[0].name, 60), sorted({each.step for each in found if each.step is not None})
    if step is None and len(steps) > 1:
        loaded = "" if best is None else f"; load_best_model_at_end puts back that of {best}"
        raise UsageError(
            "log.step", f"{shown}: {format_count(len(steps))} steps with {name}",
            hint=f"`step` names the one of the checkpoint: {_listed(steps)}{loaded}",
        )  # fmt: skip
    there = [each for each in found if step is None or each.step == step]
    if not there:
        raise UsageError(
            "log.step", f"{shown}: no {name} at step {step}",
            hint=f"it has {_listed(steps)}; a loss of another step is that of another model",
        )  # fmt: skip
    return replace(there[-1], best_step=best)


def single_evaluation(path: Path, name: str = EVAL_LOSS) -> LoggedLoss | None:
    """Return the loss of an eval_results.json, which holds one evaluation without its step; None of another file.

    Raises:
        UsageError: the loss is no number.
    """
    shown = visible(str(path), 200)
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_RESULTS else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "step" in content or isinstance(content.get(name), list):
        return None
    return _loss_of({**content, "step": None}, name, shown) if name in content else None


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


def _loss_of(entry: dict[str, Any], name: str, shown: str) -> LoggedLoss:
    """Return the loss of an entry, with what stands beside it under the same prefix.

    Raises:
        UsageError: it is no number, nor the text of one.
    """
    value: Any = entry[name]
    decimals = None
    if isinstance(value, str) and PRINTED.fullmatch(value.strip()):
        value, decimals = float(value), len(value.strip().partition(".")[2])
    if not _is_number(value):
        what = f"{visible(name, 60)} at step {entry['step']} is no number: {visible(json.dumps(value), 40)}"
        raise UsageError("log.no_evaluation", f"{shown}: {what}")
    prefix = name.removesuffix("loss")
    by_trl = any(f"{prefix}{each}" in entry for each in ("entropy", "mean_token_accuracy"))
    rows, batches = (_counted(entry, prefix, speed) for speed in ("samples_per_second", "steps_per_second"))
    return LoggedLoss(value, name, entry["step"], by_trl, rows, batches, decimals)


def _best(state: dict[str, Any]) -> int | None:
    """Return the step of the best model, where a state says it by number or by the name of its checkpoint."""
    step = state.get("best_global_step")
    named = STEP_FOLDER.fullmatch(Path(str(state.get("best_model_checkpoint"))).name)
    return step if isinstance(step, int) else int(named[1]) if named else None


def _counted(entry: dict[str, Any], prefix: str, speed: str) -> tuple[float, float] | None:
    """Return the fewest and most that a speed, rounded to 3 decimals, makes in a time, rounded to 4; None without."""
    time, rate = entry.get(f"{prefix}runtime"), entry.get(f"{prefix}{speed}")
    if not (_is_number(time) and _is_number(rate)) or not math.isfinite(time * rate) or time <= 0 or rate <= 0:
        return None
    return (time - 0.5e-4) * (rate - 0.5e-3), (time + 0.5e-4) * (rate + 0.5e-3)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _entries(state: dict[str, Any], shown: str) -> list[dict[str, Any]]:
    """Return the entries of the log that have a step."""
    history = history_of(state)
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
