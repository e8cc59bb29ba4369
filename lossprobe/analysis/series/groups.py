"""The slices of a series: their loss at each checkpoint, and what became of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.paired import Ints
from lossprobe.analysis.rows.token_classes import FORMS
from lossprobe.analysis.rows.token_slices import OCCURRENCES
from lossprobe.analysis.series.slices import SeriesSlices
from lossprobe.analysis.series.states import STATES, median_place
from lossprobe.analysis.series.sums import SeriesSums
from lossprobe.analysis.stats.group_means import GroupMeans

CLASS_KINDS = {"occurrence": OCCURRENCES, "form": FORMS}
BESIDE = ("kind", "token_id", "source", "line", "record_id", "record_source", "begins")


def group_tables(slices: SeriesSlices, sums: SeriesSums, steps: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what became of each slice's tokens, and each slice's loss by step.

    Args:
        slices: the slices.
        sums: the sums over them.
        steps: step of each checkpoint.

    Returns:
        a table with one row per slice, and one with a row per slice and step; see `series.CheckpointSeries`.
    """
    groups, curves = [], []
    for names, row_of in partitions(slices):
        table = _states(names, row_of, sums, steps)
        curve = _curves(row_of[slices.group_of], slices.cluster_of, sums, steps)
        kept = curve.merge(table[[*(name for name in ("kind",) if name in table), "group", "row"]], on="row")
        curves.append(kept)
        ends = curve.groupby("row")["mean_loss_nats"].agg(["first", "last"])
        table["first_loss_nats"], table["last_loss_nats"] = (table["row"].map(ends[end]) for end in ("first", "last"))
        groups.append(table)
    found, curve = (pd.concat(tables, ignore_index=True).drop(columns="row") for tables in (groups, curves))
    shown = ["group", *(name for name in BESIDE if name in found), "tokens", *_shares(), "forgettings",
             "median_step_learned", "first_loss_nats", "last_loss_nats"]  # fmt: skip
    leading = [name for name in ("kind",) if name in curve]
    return found[shown], curve[[*leading, "group", "step", "tokens", "mean_loss_nats", "low", "high", "clusters"]]


def _shares() -> list[str]:
    return [f"{state}_share" for state in STATES]


def partitions(slices: SeriesSlices) -> Iterator[tuple[pd.DataFrame, Ints]]:
    """Yield partitions of the tokens: the names of its rows, and the row of each slice.

    By class the slices are combinations of two partitions; else they are one.
    """
    if "form" not in slices.names:
        yield slices.names, np.arange(len(slices.names))
        return
    for kind, names in CLASS_KINDS.items():
        row_of = np.array([names.index(name) for name in slices.names[kind]])
        yield pd.DataFrame({"kind": kind, "group": names}), row_of


def _states(names: pd.DataFrame, row_of: Ints, sums: SeriesSums, steps: Sequence[int]) -> pd.DataFrame:
    """Return one row for each slice with tokens: their states as shares, and when half of them were learned."""
    states = np.zeros((len(names), len(STATES)), np.int64)
    learned_at = np.zeros((len(names), len(steps)), np.int64)
    forgettings = np.zeros(len(names), np.int64)
    for total, added in (
        (states, sums.group_states), (learned_at, sums.group_learned_at), (forgettings, sums.group_forgettings)
    ):  # fmt: skip
        np.add.at(total, row_of, added)
    tokens = states.sum(axis=1)
    table = names.assign(row=np.arange(len(names)), tokens=tokens, forgettings=forgettings)
    for name, column in zip(_shares(), states.T, strict=True):
        table[name] = column / np.maximum(tokens, 1)
    places = [median_place(own, count) for own, count in zip(learned_at, tokens.tolist(), strict=True)]
    table["median_step_learned"] = pd.array([None if place is None else steps[place] for place in places], "Int64")
    return table[table["tokens"] > 0].reset_index(drop=True)


def _curves(row_of_cell: Ints, cluster_of: Ints, sums: SeriesSums, steps: Sequence[int]) -> pd.DataFrame:
    """Return the mean loss of each row with its jackknife-t interval at each step, rows in order."""
    means = GroupMeans(row_of_cell, cluster_of, sums.cell_tokens)
    tables = [
        means.table(nats, "mean_loss_nats").assign(step=step) for step, nats in zip(steps, sums.cell_nats, strict=True)
    ]
    whole = pd.concat(tables, ignore_index=True)[["row", "step", "tokens", "mean_loss_nats", "low", "high", "clusters"]]
    return whole.sort_values(["row", "step"], kind="stable", ignore_index=True)
