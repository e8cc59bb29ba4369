"""The load-balancing loss of a mixture of experts, for rows in any batches.

    loss of a batch = E · Σ_e (S_e / N) · (P_e / N)          (Fedus et al. 2021, equations 4 to 6)

S_e is the number of slots in which expert e was chosen, P_e the sum of its router probabilities, N the number of tokens
times layers: transformers takes all layers together. Every token of a row counts, masked or not, padding does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossprobe.analysis.logged.recipe import Floats, Integers, Ranks, Recipe
from lossprobe.plan.windows import Layout
from lossprobe.run.manifest import part_names
from lossprobe.run.reader import Run
from lossprobe.run.schema import ROUTING

# The row of a trainer that cuts rows: other windows of the document were run, but not seen by the trainer.
KEPT_WINDOW = {Layout.FIRST: "min", Layout.LAST: "max"}


@dataclass(frozen=True)
class RoutingRows:
    """The sums of the routers of R rows (documents), over all layers.

    Attributes:
        probability: float64 [R, E], sums of the probabilities of each expert.
        slots: int64 [R, E], tokens for which each expert was chosen.
        tokens: int64 [R], tokens times layers.
    """

    probability: Floats
    slots: Integers
    tokens: Integers

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, order: Integers) -> RoutingRows:
        """Return the rows with these numbers, in this order."""
        return RoutingRows(self.probability[order], self.slots[order], self.tokens[order])

    def losses(self, edges: Integers) -> Floats:
        """Return the load-balancing loss of batches that begin at these rows; 0 for one that holds no token.

        >>> rows = RoutingRows(np.array([[1.5, 0.5]]), np.array([[2, 0]]), np.array([2]))
        >>> rows.losses(np.array([0])).tolist()  # 2 experts, 1 slot: 2 · (2/2 · 1.5/2)
        [1.5]
        """
        tokens = np.maximum(np.add.reduceat(self.tokens, edges), 1)[:, None]
        shares, means = (np.add.reduceat(sums, edges) / tokens for sums in (self.slots, self.probability))
        losses: Floats = self.slots.shape[1] * (shares * means).sum(axis=1)
        return losses


def is_routed(run: Run) -> bool:
    """Return whether a run has the table `routing`: the sums of the routers of a mixture of experts."""
    return bool(part_names(run.manifest["files"], ROUTING))


def routing_rows(run: Run) -> RoutingRows:
    """Return the sums of each document of a run with the table `routing`, in their order; zeros of an empty one."""
    return _sums_of(run, "document", int(run.counts["documents"]))


def routing_windows(run: Run) -> RoutingRows:
    """Return the sums of each window of a run with the table `routing`, in their order."""
    return _sums_of(run, "window", int(run.query('SELECT max("window") + 1 AS size FROM routing')["size"][0]))


def _sums_of(run: Run, row: str, size: int) -> RoutingRows:
    frame = run.query(f"""
        SELECT "{row}" AS row, expert, sum(probability::DOUBLE) AS probability, sum(slots)::BIGINT AS slots,
               sum(tokens)::BIGINT AS tokens
        FROM {_source(run)} GROUP BY ALL ORDER BY ALL""")
    shape = size, int(frame["expert"].max()) + 1
    rows = RoutingRows(np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape[0], np.int64))
    at = frame["row"].to_numpy(), frame["expert"].to_numpy()
    rows.probability[at], rows.slots[at] = frame["probability"].to_numpy(), frame["slots"].to_numpy()
    rows.tokens[at[0]] = frame["tokens"].to_numpy()
    return rows


def batch_losses(rows: RoutingRows, recipe: Recipe) -> Floats:
    """Return the load-balancing loss of every batch of a recipe, [B], as it stands in the trainer's loss of the batch.

    Where ranks share the mean, transformers' Trainer multiplies the whole loss of a rank by their number.
    """
    edges = np.arange(0, len(rows), recipe.rows_per_batch)
    if recipe.ranks > 1:  # the last batch is filled up from the start
        rows = rows.take(np.arange(len(edges) * recipe.rows_per_batch) % len(rows))
    factor = recipe.ranks if recipe.sharing is Ranks.AVERAGED else 1
    return factor * rows.losses(edges)


def measure_load_balancing(run: Run, sizes: Sequence[int]) -> pd.DataFrame:
    """Return the load-balancing loss of a run with the table `routing`.

    Args:
        run: the run.
        sizes: windows per batch, each at least 1.

    Returns:
        One row for all windows as one batch, one for each size (the mean over batches of so many consecutive windows),
        and one for each layer alone (all windows): `over`, `batches`, `load_balancing_loss`, `weighted_nats` (times the
        coefficient of the configuration; NaN without one).
    """
    groups = [("all windows as one batch", "0"), *((f"batches of {size}", f'"window" // {size}') for size in sizes)]
    rows = [(over, *_losses(run, group)) for over, group in groups]
    layers = run.query(f"SELECT max(layer) AS last FROM {_source(run)}")["last"][0]
    rows += [(f"layer {layer}", *_losses(run, "0", f"WHERE layer = {layer}")) for layer in range(int(layers) + 1)]
    frame = pd.DataFrame(rows, columns=["over", "batches", "load_balancing_loss"])
    coefficient = coefficient_of(run)
    return frame.assign(weighted_nats=frame["load_balancing_loss"] * (np.nan if coefficient is None else coefficient))


def coefficient_of(run: Run) -> float | None:
    """Return the weight of the load-balancing loss beside the token loss, by the configuration; None without one."""
    router = run.settings.checkpoint.router or {}
    coefficient = router.get("coefficient")
    return None if coefficient is None else float(coefficient)


def experts_per_token(run: Run) -> int | None:
    """Return how many experts each token is sent to, by the configuration; None where it does not say."""
    chosen = (run.settings.checkpoint.router or {}).get("experts_per_token")
    return None if chosen is None else int(chosen)


def _losses(run: Run, group: str, where: str = "") -> tuple[int, float]:
    """Return the number of groups of windows and the mean of their load-balancing losses."""
    frame = run.query(f"""
        WITH sums AS (
            SELECT {group} AS batch, expert, sum(probability::DOUBLE) AS p, sum(slots)::DOUBLE AS s,
                   sum(tokens)::DOUBLE AS n
            FROM {_source(run)} {where} GROUP BY ALL),
        losses AS (SELECT batch, count(*) * sum(s * p / n / n) AS loss FROM sums GROUP BY batch)
        SELECT count(*) AS batches, avg(loss) AS loss FROM losses""")
    return int(frame["batches"][0]), float(frame["loss"][0])


def _source(run: Run) -> str:
    """Return the SQL relation of the windows that count."""
    kept = KEPT_WINDOW.get(Layout(run.settings.windows.layout))
    if kept is None:
        return "routing"
    chosen = f'{kept}("window") OVER (PARTITION BY document)'
    return f'(SELECT * FROM routing QUALIFY "window" = {chosen})'
