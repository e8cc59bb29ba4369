"""Finds one logged loss in a training log of any kind: the value of an evaluation at the step of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lossprobe.errors import UsageError
from lossprobe.logs.folder import find_in_folder
from lossprobe.logs.log import LOSS, TRAIN
from lossprobe.logs.read import read_log
from lossprobe.logs.trainer_state import FILE, LoggedLoss, at_step, named_loss, read_logged_loss, single_evaluation
from lossprobe.units import visible

FULL = 7  # decimals of a loss in float32
BEGINNING = 1 << 16  # bytes in which a trainer_state.json names its log_history


def find_logged_loss(path: Path, step: int | None, name: str) -> LoggedLoss:
    """Return the loss that a log has at a step.

    Args:
        path: the log, or a folder with one, such as a checkpoint's or a trainer's output folder; also the
            eval_results.json of a single evaluation, which names no step.
        step: the step; None is allowed where the log holds a single evaluation.
        name: the key of the loss; TensorBoard's eval/loss is eval_loss here.

    Raises:
        UsageError: it cannot be read, has no such loss, or not at this step.
    """
    file = find_in_folder(path).files[-1][0] if path.is_dir() else path
    if file.name == FILE or b'"log_history"' in _beginning(file):
        return read_logged_loss(file, step, name)
    return single_evaluation(file, name) or _of_series(path, step, name)


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(BEGINNING)
    except OSError as error:
        raise UsageError("log.unreadable", f"{visible(str(file), 200)}: {error.strerror}") from None


def _of_series(path: Path, step: int | None, name: str) -> LoggedLoss:
    """Return the loss at a step of a log that is read as series."""
    try:
        log = read_log(path)
    except UsageError as error:  # its hint may name an option that is not of `reconcile`
        raise UsageError(error.id, error.message, hint="`logged` takes the number itself") from None
    series = {each.key.replace("/", "_"): each for each in log.series}
    losses = [key for key, each in series.items() if each.name == LOSS and each.split != TRAIN]
    chosen = named_loss(list(series), losses, name, visible(str(path), 200))
    each = series[chosen]
    decimals = _decimals(each.values)
    by_trl = chosen.removesuffix("loss") + "entropy" in series
    found = [
        LoggedLoss(float(value), chosen, int(at), by_trl, decimals=decimals)
        for at, value in zip(each.steps, each.values, strict=True)
    ]
    return at_step(found, step, visible(str(path), 200))


def _decimals(values: NDArray[np.float64]) -> int | None:
    """Return the decimals to which a log prints a series: the most that any value has; None if it has them in full."""
    most = max(len(repr(float(value)).partition(".")[2]) for value in values)
    return most if most < FULL else None
