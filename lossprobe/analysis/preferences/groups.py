"""Shares of pairs that are ranked right: of all pairs, by difference in length, and by a field of the records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.preferences.length import share
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval

# Tokens of the chosen answer minus those of the rejected one → name of the group; each goes up to its number.
LENGTHS = {
    -33: "chosen 33+ shorter", -9: "chosen 9-32 shorter", -1: "chosen 1-8 shorter", 0: "equally long",
    8: "chosen 1-8 longer", 32: "chosen 9-32 longer", np.inf: "chosen 33+ longer",
}  # fmt: skip


def group_rows(ranked: pd.DataFrame, by: str | None) -> pd.DataFrame:
    """Return one row a group of the pairs that are ranked.

    Args:
        ranked: the margins of `Preferences.table`, and the columns longer (tokens of the chosen answer minus those of
            the rejected one), distinct (equal for copies of a pair), and group where `by` names a field.
        by: name of that field; None for none.
    """
    rows = [_row("all", "all pairs", ranked)]
    bins = np.searchsorted(list(LENGTHS), ranked["longer"].to_numpy(float))
    rows += [
        _row("length", name, ranked[bins == number])
        for number, name in enumerate(LENGTHS.values())
        if (bins == number).any()
    ]
    if by is not None:
        groups = ranked.groupby("group", sort=False)
        rows += sorted((_row(by, str(name), part) for name, part in groups), key=lambda row: row["ranked_right"])
    return pd.DataFrame(rows)


def _row(kind: str, group: str, pairs: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": kind, "group": group, "pairs": len(pairs)}
    row["ties"] = int((pairs["logp_margin_nats"] == 0).sum())
    for column, (name, low, high) in COLUMNS.items():
        if column in pairs:
            found, interval = right_share(pairs, column)
            row |= {name: found, low: interval.low, high: interval.high}
    row["logp_margin_nats"] = pairs["logp_margin_nats"].mean()
    return row


COLUMNS = {
    "logp_margin_nats": ("ranked_right", "right_low", "right_high"),
    "logp_margin_per_token_nats": ("ranked_right_per_token", "per_token_low", "per_token_high"),
    "reward_margin_nats": ("reward_accuracy", "reward_low", "reward_high"),
}


def right_share(pairs: pd.DataFrame, column: str) -> tuple[float | None, Interval]:
    """Return the share of pairs whose margin is above 0, with its interval over distinct pairs."""
    every: npt.NDArray[np.bool_] = np.ones(len(pairs), bool)
    found = share(pairs[column].to_numpy() > 0, every, pairs["distinct"].to_numpy(np.int64))
    return (None, NO_INTERVAL) if found is None else (found.value, found.interval)


def loss_rows(ranked: pd.DataFrame, named: dict[str, tuple[str, str]]) -> Iterator[dict[str, object]]:
    """Yield one row a loss: its mean over the pairs, with the jackknife interval over distinct pairs.

    Args:
        ranked: the pairs that are ranked.
        named: column of the loss → its name and its formula.
    """
    from lossprobe.analysis.stats.jackknife import jackknife_ratio

    sizes = ranked.groupby("distinct").size().to_numpy(float)
    for column, (name, formula) in named.items():
        if column in ranked:
            mean = jackknife_ratio(ranked.groupby("distinct")[column].sum().to_numpy(float), sizes)
            mean = mean.within(0.0, math.inf)  # none of these losses is ever below 0
            yield {
                "objective": name, "convention": formula, "mean": mean.value, "low": mean.interval.low,
                "high": mean.interval.high,
            }  # fmt: skip
