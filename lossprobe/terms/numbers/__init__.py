"""Every number that a view shows, one module a group of views."""

from __future__ import annotations

from lossprobe.terms.numbers import calibration, checks, compare, gap, loss, objectives

NUMBERS = (
    *loss.NUMBERS,
    *calibration.NUMBERS,
    *objectives.NUMBERS,
    *compare.NUMBERS,
    *gap.NUMBERS,
    *checks.NUMBERS,
)
