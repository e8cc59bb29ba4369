"""The numbers that views print, in groups: one module a group."""

from __future__ import annotations

from lossprobe.terms.numbers import (
    calibration,
    compare,
    context,
    gap,
    intervals,
    loss,
    objectives,
    prediction,
    preferences,
    protocols,
    reconcile,
    selfcheck,
    series,
    smoothing,
)

NUMBERS_BY_GROUP = {
    "loss": loss.NUMBERS,
    "context": context.NUMBERS,
    "prediction": prediction.NUMBERS,
    "intervals": intervals.NUMBERS,
    "calibration": calibration.NUMBERS,
    "smoothing": smoothing.NUMBERS,
    "compare": compare.NUMBERS,
    "gap": gap.NUMBERS,
    "preferences": preferences.NUMBERS,
    "objectives": objectives.NUMBERS,
    "protocols": protocols.NUMBERS,
    "reconcile": reconcile.NUMBERS,
    "series": series.NUMBERS,
    "selfcheck": selfcheck.NUMBERS,
}
NUMBERS = tuple(number for group in NUMBERS_BY_GROUP.values() for number in group)
