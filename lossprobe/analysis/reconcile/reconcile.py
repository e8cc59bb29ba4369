"""Says which recipe gives the number in a training log, or which come nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.logged.recipe import Integers, Recipe, mean_of_rows
from lossprobe.analysis.reconcile.candidates import Candidates, enumerate_recipes
from lossprobe.analysis.reconcile.feed import Feed
from lossprobe.analysis.reconcile.logged_value import LoggedValue
from lossprobe.analysis.reconcile.match import Match, Values, different_values, expected_by_chance
from lossprobe.analysis.reconcile.programs import USUAL_BATCH
from lossprobe.analysis.shown import Shown
from lossprobe.units import format_count, plural

SHOWN = 10  # rows of the table
LIKELY = 0.1  # expected chance agreements among recipes as plausible, below which an agreement is no chance
NEAR_COST = 2  # of the nearest recipes, where none agrees
SETTLED_COST = 2
MOST_SMOOTHING = 0.5  # of a fit
HALF_PRECISION = 1e-3  # what bfloat16 moves a mean loss by, in parts
MORE_DIGITS = "more digits would tell these recipes apart: trainer_state.json has all of them, see `log`"
DRAWN = 2_000  # values of a picture
SHUFFLES = 200  # orders of rows that are drawn for the range of their values


@dataclass(frozen=True)
class Reconciliation(Shown):
    """Where a logged number may come from.

    Attributes:
        logged: the number as logged or typed.
        value: the same as a number.
        smallest, largest: between them every number is printed so.
        source: the log's name of the number and its step; empty for a typed number.
        tried: different values that the recipes tried give.
        recipes: recipes tried; many give the same value.
        agreeing: values of those that agree.
        chance: how many of the values tried would agree by chance, from their density near the number.
        verdict: "explained" (one recipe agrees, and not by chance), "several" (as plausible ones agree, and not by
            chance), "by chance" (the agreements may be chance) or "unexplained" (none agrees).
        near: the recipe nearest to the number of those that are at most one step from a program's defaults.
        near_difference: its number less the logged one.
        passes: passes over the text that were used.
        notes: what a reader must know, one line each.
        nearby: values near the number: of each the number, its departures and whether it agrees; for the picture.
        table: the recipes that agree, the most plausible first, or else the nearest: rank, recipe, value, difference,
            agrees, departures, by_chance, same_number.
    """

    logged: str
    value: float
    smallest: float
    largest: float
    source: str
    tried: int
    recipes: int
    agreeing: int
    chance: float
    verdict: str
    near: str
    near_difference: float
    passes: int
    notes: list[str]
    nearby: pd.DataFrame = field(repr=False)
    table: pd.DataFrame = field(repr=False)

    @property
    def settled(self) -> bool:
        """Whether further passes are needless: one recipe near a program's defaults agrees, and not by chance."""
        return self.verdict == "explained" and int(self.table["departures"].iloc[0]) <= SETTLED_COST

    @property
    def near_rounding(self) -> bool:
        """Whether the nearest recipe does not agree, but is no further off than half precision may move a loss."""
        agrees = self.smallest <= self.value + self.near_difference <= self.largest
        return not agrees and abs(self.near_difference) < HALF_PRECISION * self.value

    @property
    def finding(self) -> str:
        """The result in one line."""
        shown = f"{self.source} {self.logged}" if self.source else self.logged
        first = self.table.iloc[0]
        if self.verdict in ("unexplained", "by chance") and self.near_rounding:
            return (
                f"{shown} is near {self.near}: off by {self.near_difference:+.2g}, no more than half precision may "
                "move it; nothing agrees beyond chance"
            )
        if self.verdict == "unexplained":
            return (
                f"{shown} is not explained: none of {plural(self.tried, 'value')} tried agrees; the nearest plausible "
                f"is off by {abs(first['difference']):.2g} ({first['recipe']})"
            )
        verb = "agrees" if self.agreeing == 1 else "agree"
        among = (
            f"{format_count(self.agreeing)} of {plural(self.tried, 'value')} tried {verb}, {_count(self.chance)} would "
            f"by chance, {_count(float(first['by_chance']))} of those as plausible"
        )
        if self.verdict == "explained":
            return f"{shown} is most likely: {first['recipe']}; {among}"
        if self.verdict == "several":
            return f"{shown} has several explanations, the most plausible: {first['recipe']}; {among}"
        return f"{shown} agrees with recipes, but that may be chance, the most plausible: {first['recipe']}; {among}"


def reconcile_number(
    feeds: Sequence[Feed],
    logged: LoggedValue,
    *,
    before_shift: bool = False,
    passes: int = 1,
    candidates: Candidates | None = None,
) -> Reconciliation:
    """Return which recipes give a logged number.

    Args:
        feeds: the ways in which the text may have been fed to the model.
        logged: the number.
        before_shift: as in `enumerate_recipes`.
        passes: passes that the feeds took.
        candidates: the recipes of the feeds, where they are known already.
    """
    if candidates is None:
        candidates = enumerate_recipes(feeds, before_shift=before_shift, evidence=logged.evidence)
    found = different_values(candidates)
    inside = np.flatnonzero((found.values >= logged.smallest) & (found.values <= logged.largest))
    known = candidates.orders[found.best[inside]]
    ordered = inside[np.lexsort((np.abs(found.values[inside] - logged.value), known, found.costs[inside]))]
    verdict = _verdict(ordered, found, logged)
    near = _near(found, logged)
    off = float(found.values[near] - logged.value)
    shown = ordered if len(ordered) else _nearest(found, logged)
    if verdict == "by chance" and abs(off) < HALF_PRECISION * logged.value and near not in ordered:
        shown = np.concatenate([[near], ordered])
    table = _table([found.match(int(number), candidates) for number in shown[:SHOWN]], candidates, found, logged)
    notes = _evidence_notes(feeds, logged)
    if verdict == "by chance" and near in ordered:
        notes.append(MORE_DIGITS)
    elif verdict in ("by chance", "unexplained"):
        notes += _why_not(feeds, logged)
    if len(shown) > SHOWN:
        notes.append(f"{plural(len(shown) - SHOWN, 'less plausible value')} agree too and are not shown")
    chance = expected_by_chance(np.delete(found.values, ordered[:1]), logged)
    return Reconciliation(
        logged=logged.text, value=logged.value, smallest=logged.smallest, largest=logged.largest, source=logged.source,
        tried=len(found.values), recipes=len(candidates.values), agreeing=len(ordered), chance=chance,
        verdict=verdict, near=_words(candidates, int(found.best[near])), near_difference=off, passes=passes,
        notes=notes, nearby=_nearby(found, logged), table=table,
    )  # fmt: skip


def _words(candidates: Candidates, index: int) -> str:
    block, number = candidates.block_of(index)
    return block.words(number)


def _nearest(found: Values, logged: LoggedValue) -> Integers:
    """Return the values of plausible recipes, the nearest first: of the others some always are near."""
    plausible = np.flatnonzero(found.costs <= NEAR_COST)
    pool = plausible if len(plausible) else np.arange(len(found.values))
    return pool[np.argsort(np.abs(found.values[pool] - logged.value), kind="stable")][: SHOWN // 2]


def _table(matches: Sequence[Match], candidates: Candidates, found: Values, logged: LoggedValue) -> pd.DataFrame:
    rows = []
    for rank, match in enumerate(matches, start=1):
        block, index = candidates.block_of(match.index)
        same = [other.words(number) for other, number in map(candidates.block_of, match.others)]
        rows.append({
            "rank": rank, "recipe": block.words(index), "value": match.value,
            "difference": match.value - logged.value, "agrees": bool(logged.smallest <= match.value <= logged.largest),
            "departures": match.cost, "by_chance": _by_chance(match.number, found, logged),
            "same_number": " | ".join(same),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _verdict(ordered: Integers, found: Values, logged: LoggedValue) -> str:
    """Return what the agreements are worth; see `Reconciliation.verdict`."""
    if not len(ordered):
        return "unexplained"
    if _by_chance(int(ordered[0]), found, logged) >= LIKELY:
        return "by chance"
    as_plausible = int((found.costs[ordered] == found.costs[ordered[0]]).sum())
    return "explained" if as_plausible == 1 else "several"


def _by_chance(number: int, found: Values, logged: LoggedValue) -> float:
    """Return how many other values of recipes as plausible as one would agree by chance."""
    peers = found.costs <= found.costs[number]
    peers[number] = False
    return expected_by_chance(found.values[peers], logged)


def _evidence_notes(feeds: Sequence[Feed], logged: LoggedValue) -> list[str]:
    """Return what the log says beside its loss: who wrote it, and whether it was of as many rows."""
    evidence, sizes = logged.evidence, sorted({len(feed.rows) for feed in feeds})
    notes = ["the log was written by TRL: it has entropy and accuracy"] if evidence.writer == "trl" else []
    if evidence.rows is not None and not any(evidence.rows[0] <= size <= evidence.rows[1] for size in sizes):
        low, high = (format_count(round(end)) for end in evidence.rows)
        said = low if low == high else f"{low} to {high}"
        rows = format_count(len(feeds[0].rows))
        notes.append(f"the log's evaluation was of {said} rows, by its speed and time; this text has {rows}")
    return notes


def _near(found: Values, logged: LoggedValue) -> int:
    """Return the number of the nearest value that is at most one step from the defaults of a program."""
    pool = np.flatnonzero(found.costs <= max(1, int(found.costs.min())))
    return int(pool[np.argmin(np.abs(found.values[pool] - logged.value))])


def _why_not(feeds: Sequence[Feed], logged: LoggedValue) -> list[str]:
    """Return what may be the reason where no recipe agrees, or only by chance."""
    notes = []
    if logged.evidence.best_step is not None:
        notes.append(
            f"the log's best model is that of step {logged.evidence.best_step}, which load_best_model_at_end puts "
            "back: `step` takes it"
        )
    if feeds[-1].dtype == "float32":
        notes.append("half precision was not tried: `deep` tries autocast, TRL's default, bfloat16 and float16")
    fit = _fitted_smoothing(feeds[0], logged)
    if fit is not None:
        notes.append(
            f"a label smoothing of {fit:.4g} would give it with batches of {USUAL_BATCH}, if all else is as in the "
            "first recipe: a fit, no agreement"
        )
    notes += _order_note(feeds[0], logged)
    moe = ", the MoE loss of rows that are cut or packed" if feeds[0].balancing else ""
    notes.append(f"not tried: another text or part of it, rows shuffled, padding on the left, masks of one's own{moe}")
    return notes


def _order_note(feed: Feed, logged: LoggedValue) -> list[str]:
    """Return whether another order of the rows may give the number with batches of the usual size, as one line."""
    if len(feed.rows) <= USUAL_BATCH:
        return []
    draw = np.random.default_rng(0)
    recipe = Recipe(USUAL_BATCH)
    orders = (feed.rows.take(draw.permutation(len(feed.rows))) for _ in range(SHUFFLES))
    values = [mean_of_rows(rows.loss_nats, rows.tokens, recipe) for rows in orders]
    if not min(values) <= logged.value <= max(values):
        return []
    return [
        f"another order of the rows may give it: batches of {USUAL_BATCH} give {min(values):.6g} to {max(values):.6g} "
        f"in {SHUFFLES} orders drawn at random; `order` takes that of the run"
    ]


def _fitted_smoothing(feed: Feed, logged: LoggedValue) -> float | None:
    """Return the label smoothing with which the default recipe gives the number; None if none does."""
    rows = feed.rows
    recipe = Recipe(min(USUAL_BATCH, len(rows)))
    plain, uniform = (mean_of_rows(each, rows.tokens, recipe) for each in (rows.loss_nats, rows.uniform_loss_nats))
    if not np.isfinite(uniform) or uniform == plain:
        return None
    smoothing = (logged.value - plain) / (uniform - plain)
    return float(smoothing) if 0 < smoothing <= MOST_SMOOTHING else None


def _nearby(found: Values, logged: LoggedValue) -> pd.DataFrame:
    near = np.argsort(np.abs(found.values - logged.value), kind="stable")[:DRAWN]
    agrees = (found.values >= logged.smallest) & (found.values <= logged.largest)
    frame = pd.DataFrame({"value": found.values, "departures": found.costs, "agrees": agrees})
    return frame.iloc[near].reset_index(drop=True)


def _count(expected: float) -> str:
    """Return an expected number in words."""
    return "fewer than 0.01" if expected < 0.01 else f"{expected:.2g}"
