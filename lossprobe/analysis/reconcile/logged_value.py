"""The number in a log, and which numbers agree with it: those that its printed digits stand for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path

from lossprobe.analysis.options import ReconcileOptions
from lossprobe.errors import UsageError
from lossprobe.logs.evaluation import find_logged_loss
from lossprobe.logs.trainer_state import FILE, step_of
from lossprobe.units import visible

# A trainer sums in float32, in another order: what a loss may differ by, in parts of it.
ROUNDING = 2.5e-7
LOG_ROUNDING = 1e-6  # of a value that a log holds in full, possibly from another processor
OLD_DECIMALS = 4  # transformers 4 rounds the losses of its log


@dataclass(frozen=True)
class LogEvidence:
    """What a log says of an evaluation beside its loss.

    Attributes:
        writer: who wrote it: "trainer" (transformers' Trainer, or what is made of it), "trl", or "" where it is not
            known.
        rows: fewest and most rows that were evaluated; None where it does not say.
        batches: fewest and most batches that it took, over all processes at once.
        best_step: the step of the best model, if that is another one; None where the log does not say.
    """

    writer: str = ""
    rows: tuple[float, float] | None = None
    batches: tuple[float, float] | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class LoggedValue:
    """A number that a trainer printed.

    Attributes:
        text: as printed.
        value: the number.
        smallest: smallest number that is printed so, rounding allowed for.
        largest: largest number that is printed so.
        source: where it stands, such as "eval_loss at step 30"; "" for a typed number.
        evidence: what the log says beside it.
    """

    text: str
    value: float
    smallest: float
    largest: float
    source: str = ""
    evidence: LogEvidence = LogEvidence()

    @property
    def width(self) -> float:
        """The width of the band of numbers that agree."""
        return self.largest - self.smallest


def find_logged(options: ReconcileOptions, checkpoint: Path) -> LoggedValue:
    """Return the number that was logged: the typed one, or that of the log at the checkpoint's step.

    Args:
        options: `logged`, or `log` with `step` and `metric`.
        checkpoint: the folder in which a log is looked for, and which says the step.

    Raises:
        UsageError: none or two are given, or it is no loss.
    """
    own = checkpoint / FILE
    log = options.log or (own if options.logged is None and own.is_file() else None)
    if (options.logged is None) == (log is None):
        what = "`logged` and `log`: only one of them" if log else "no number: which one did the trainer log?"
        raise UsageError("reconcile.number", what, hint="`logged` NUMBER, or `log` trainer_state.json")
    if log is None:
        return typed_value(options.logged or "")
    return value_in_log(log, step_of(checkpoint) if options.step is None else options.step, options.metric)


def value_in_log(log: Path, step: int | None, metric: str) -> LoggedValue:
    """Return the number of a log at a step, with what the log says beside it; arguments as in `find_logged_loss`.

    Raises:
        UsageError: there is none, or it is no loss.
    """
    found = find_logged_loss(log, step, metric)
    best = None if found.best_step == found.step else found.best_step
    evidence = LogEvidence("trl" if found.by_trl else "trainer", found.rows, found.batches, best)
    source = found.name if found.step is None else f"{found.name} at step {found.step}"
    if found.decimals is not None:
        return replace(typed_value(f"{found.value:.{found.decimals}f}", source), evidence=evidence)
    return value_of_log(found.value, source, evidence)


def typed_value(text: str, source: str = "") -> LoggedValue:
    """Return a number that stands as the log prints it: 3.768 is whatever is rounded to it.

    Args:
        text: the number, as a user typed it or a log printed it.
        source: where it stands; "" for one that was typed.

    Raises:
        UsageError: it is no number above 0.

    >>> found = typed_value("3.768")
    >>> round(found.smallest, 5), round(found.largest, 5)
    (3.7675, 3.7685)
    """
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        comma = re.fullmatch(r"\s*(\d+),(\d+)\s*", text)
        hint = f"with a decimal point: {comma[1]}.{comma[2]}" if comma else None
        raise UsageError("reconcile.logged", f"`logged` {visible(text, 40)}: is no number", hint=hint) from None
    _refuse_useless(float(number), f"`logged` {visible(text, 40)}")
    exponent = number.as_tuple().exponent
    half = 0.5 * 10.0 ** (exponent if isinstance(exponent, int) else 0)
    return _banded(text.strip(), float(number), half + ROUNDING * float(number), source)


def value_of_log(value: float, source: str, evidence: LogEvidence | None = None) -> LoggedValue:
    """Return a number of a log: agreement is that of float32 sums, or of 4 decimals where it has no more.

    Args:
        value: the number.
        source: where it stands, for messages.
        evidence: what the log says beside it.

    Raises:
        UsageError: it is not above 0, or not finite.
    """
    _refuse_useless(value, source)
    text = repr(value)
    decimals = len(text.partition(".")[2]) if "e" not in text else OLD_DECIMALS + 1
    half = 0.5 * 10.0**-OLD_DECIMALS + ROUNDING * value if decimals <= OLD_DECIMALS else LOG_ROUNDING * value
    return replace(_banded(text, value, half, source), evidence=evidence or LogEvidence())


def _banded(text: str, value: float, half: float, source: str) -> LoggedValue:
    return LoggedValue(text, value, value - half, value + half, source)


def _refuse_useless(value: float, shown: str) -> None:
    """Refuse a number that no loss can explain."""
    if math.isnan(value):
        why = "a batch without a scored token, or a loss that overflowed: lossprobe tokens names the first such token"
        raise UsageError("reconcile.logged", f"{shown}: is not a number (NaN)", hint=why)
    if not math.isfinite(value):
        raise UsageError("reconcile.logged", f"{shown}: is infinite")
    if value <= 0:
        zero = "Trainer logs 0.0 in place of a loss that is not a number (logging_nan_inf_filter)"
        hint = zero if value == 0 else None
        raise UsageError("reconcile.logged", f"{shown}: no loss, which is above 0", hint=hint)
