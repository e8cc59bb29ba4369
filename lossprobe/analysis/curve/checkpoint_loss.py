"""Whether the validation loss of a log is what a checkpoint of the run has on the text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.reconcile.logged_value import LoggedValue, typed_value, value_in_log, value_of_log
from lossprobe.analysis.reconcile.reconcile import Reconciliation
from lossprobe.errors import UsageError
from lossprobe.logs.log import LOSS, VALIDATION, Log, Series
from lossprobe.logs.trainer_state import EVAL_LOSS
from lossprobe.units import format_count, visible

MOST_DECIMALS = 6  # of a printed log; one with more holds all digits


@dataclass(frozen=True)
class CheckpointLoss:
    """What a checkpoint says of a log's validation loss.

    Attributes:
        checkpoint: its name.
        text: the name of the text that was scored.
        verdict: "explained", "several", "by chance" or "unexplained", as `lossprobe reconcile` says.
        recipe: the recipe that gives the number, or comes nearest.
        value: the number that it gives.
        logged: the number in the log.
        finding: the same in one line.
        notes: what a reader must know beside it, one line each; they are among those of the curve.
    """

    checkpoint: str
    text: str
    verdict: str
    recipe: str
    value: float
    logged: float
    finding: str
    notes: tuple[str, ...] = ()


def checkpoint_loss(checkpoint: str, text: str, found: Reconciliation) -> CheckpointLoss:
    """Return what the recipes that were tried say of the log's number."""
    first = found.table.iloc[0]
    return CheckpointLoss(
        checkpoint, text, found.verdict, str(first["recipe"]), float(first["value"]), found.value,
        f"{checkpoint} on {text}: {found.finding}", tuple(found.notes),
    )  # fmt: skip


def validation_loss_at(log: Log, step: int | None, metric: str = EVAL_LOSS) -> tuple[Series, int]:
    """Return the validation loss of a log, and the step whose value is that of a checkpoint.

    Args:
        log: the log.
        step: the checkpoint's own step; None takes the log's last.
        metric: the log's name of the loss; `EVAL_LOSS` also takes the only loss that was not of training.

    Raises:
        UsageError: the log has no validation loss, or none at this step.
    """
    named = [each for each in log.series if each.key.replace("/", "_") == metric]
    series, shown = named[0] if named else None, visible(str(log.path), 200)
    if series is None and metric == EVAL_LOSS:
        series = log.find(VALIDATION, LOSS)
    if series is None or not len(series.steps):
        raise UsageError("log.no_evaluation", f"{shown}: has no validation loss to compare with the checkpoint's")
    if step is None:
        return series, int(series.steps[-1])
    if step not in series.steps:
        near = series.steps[np.argsort(np.abs(series.steps - step), kind="stable")[:3]]
        listed = ", ".join(format_count(int(each)) for each in sorted(near))
        raise UsageError(
            "log.step", f"{shown}: no {visible(series.key, 60)} at step {format_count(step)}, that of the checkpoint",
            hint=f"near it are {listed}; a loss of another step is that of another model",
        )  # fmt: skip
    return series, step


def logged_value(log: Log, series: Series, step: int) -> LoggedValue:
    """Return the value of a series at a step, with what the log says beside it, as `reconcile` reads it.

    Where the log cannot be read again (standard input, columns of its own), the value is known to the printed digits.
    """
    try:
        return value_in_log(log.path, step, series.key.replace("/", "_"))
    except UsageError:
        return _value_alone(series, step)


def _value_alone(series: Series, step: int) -> LoggedValue:
    """Return the value of a series at a step, known to the digits that the log prints."""
    value = float(series.values[np.flatnonzero(series.steps == step)[0]])
    source = f"{series.key} at step {step}"
    decimals = max(len(repr(float(each)).partition(".")[2]) for each in series.values)
    exact = not np.isfinite(value) or value <= 0 or decimals > MOST_DECIMALS
    return value_of_log(value, source) if exact else typed_value(f"{value:.{decimals}f}", source)
