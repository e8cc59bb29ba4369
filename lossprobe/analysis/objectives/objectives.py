"""The same tokens under the other losses that people train with, from the stored columns alone.

exp() of the mean hard loss is a perplexity; exp() of a smoothed loss is none, since its uniform part is no loss of the
text, and its floor is not 0. Names of objectives are those of columns everywhere; see `objective_formulas`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

from lossprobe.analysis.logged.routing import coefficient_of, experts_per_token, is_routed, measure_load_balancing
from lossprobe.analysis.objectives.formulas import (
    Objective,
    ObjectiveOptions,
    objectives_of,
    scored_source,
    smoothed_floors,
)
from lossprobe.analysis.objectives.half_precision import HalfPrecision, measure_half_precision
from lossprobe.analysis.objectives.micro_batches import measure_micro_batches
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.fields import why_none
from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.shown import Shown
from lossprobe.analysis.stats.jackknife import Clusters, jackknife_ratio
from lossprobe.errors import NothingToScoreError
from lossprobe.run.argument import check_runs
from lossprobe.run.filters import where_sql
from lossprobe.run.reader import Run
from lossprobe.units import format_loss, format_perplexity, perplexity, plural

BIN_NATS = 0.5
LAST_BIN = 40  # everything from 20 nats on: a loss that few tokens have
# A margin may be infinite (no other entry), but not NaN. DuckDB's isnan trusts a file's least and largest values.
FINITE = "coalesce(isfinite(n + u + log_z + s2 + top + tanh(margin)), FALSE)"
KEYS = ("document", "token", "token_id", "window", "context")


@dataclass(frozen=True)
class Objectives(Shown):
    """A run's tokens under every objective.

    Every interval is a 95 % delete-one jackknife-t interval over documents (blocks of 4,096 tokens in a single
    document). A number is None, or NaN in a table, where it cannot be given; `notes` says why.

    Attributes:
        parameters: the options.
        vocab_size: V, the width of the logits.
        tokens_scored: tokens that the means are over.
        smoothed_torch_floor_nats, smoothed_fairseq_floor_nats: entropy of the smoothed target, the least that the loss
            can be; reached only where the text is deterministic and the model knows it.
        mean_log_z2, max_abs_log_z: of the log-sum-exp of the logits, in nats² and nats.
        table: one row per objective: objective, convention, mean, low, high, sum, mean_of_means_N (for each micro-batch
            of N windows), unit (of mean; sum is in the same without "per token").
        micro_batches: one row per size of a micro-batch and objective: windows (per micro-batch), batches, objective,
            mean, mean_of_means, covariance_term.
        half_precision: what float16 loses of the gradient, one row per loss scale: scale, entries_lost_share,
            l1_lost_share, l2_lost; None for a selection.
        recommended_loss_scale: the least scale that keeps the gradient; a lower bound.
        weights: which tokens an objective weights, by their loss: objective, loss_low_nats, loss_high_nats (infinite in
            the last bin), count, share_of_tokens, mean, share_of_objective.
        load_balancing: of a mixture of experts, whose routers a trainer's loss can include: over (all windows as one
            batch, batches of N windows, or one layer), batches, load_balancing_loss, weighted_nats (times the
            coefficient). None for other models, and for a selection.
        load_balancing_coefficient: its weight beside the token loss, by the configuration; None without one.
        experts_per_token: experts that each token is sent to, the load-balancing loss of even use; None likewise.
        interval_unit: "document" or "block".
        notes: what a reader must know, one line each.
    """

    parameters: ObjectiveOptions
    vocab_size: int
    tokens_scored: int
    smoothed_torch_floor_nats: float
    smoothed_fairseq_floor_nats: float
    mean_log_z2: float
    max_abs_log_z: float
    table: pd.DataFrame = field(repr=False)
    micro_batches: pd.DataFrame = field(repr=False)
    half_precision: pd.DataFrame | None = field(repr=False)
    recommended_loss_scale: int | None
    weights: pd.DataFrame = field(repr=False)
    load_balancing: pd.DataFrame | None = field(repr=False)
    load_balancing_coefficient: float | None
    experts_per_token: int | None
    interval_unit: str
    notes: list[str]

    @property
    def finding(self) -> str:
        """The result in one line."""
        mean = self.table.set_index("objective")["mean"]
        smoothed, hard = float(mean["smoothed_torch_nats"]), float(mean["nll_nats"])
        if self.parameters.smoothing == 0:
            return f"no smoothing (eps 0): the loss is the hard loss, {format_loss(hard)} nats"
        return (
            f"smoothed loss (torch, eps {self.parameters.smoothing:.12g}) {format_loss(smoothed)} nats = hard part "
            f"{mean['smoothed_hard_part_nats']:.6f} + uniform part {mean['smoothed_torch_uniform_part_nats']:.6f}, "
            f"floor {self.smoothed_torch_floor_nats:.6f}; its exp() is no perplexity, "
            f"that is {format_perplexity(perplexity(hard))} (hard loss {format_loss(hard)})"
        )


def measure_objectives(run: Run, options: ObjectiveOptions | None = None) -> Objectives:
    """Return a run's tokens under every objective.

    Raises:
        NothingToScoreError: no scored token is selected.
        OutputError: a stored number is NaN or infinite.
    """
    check_runs(run=run)
    options = options or ObjectiveOptions()
    source = scored_source(options.condition(run.context))
    if not run.scalar(f"SELECT count(*) FROM {source}"):
        among = f" in a full window of {plural(run.context, 'input token')}" if options.full_windows else ""
        condition = where_sql(options.where)
        hint = why_none(run, condition) if run.labelled else None
        raise NothingToScoreError("objectives.none", f"no scored token meets {condition}{among}", hint=hint)
    objectives = objectives_of(options, run.vocab_size)
    values = {objective.name: objective.sql for objective in objectives}
    clusters = find_clusters(run)
    sums = _cluster_sums(run, source, clusters, values)
    micro_batches = measure_micro_batches(run, source, values, options.micro_batch)
    fp16 = None if options.selects else measure_half_precision(run, source, options.batch_tokens)
    routed = is_routed(run) and not options.selects
    torch_floor, fairseq_floor = smoothed_floors(options.smoothing, run.vocab_size)
    return Objectives(
        parameters=options,
        vocab_size=run.vocab_size,
        tokens_scored=int(sums["tokens"].sum()),
        smoothed_torch_floor_nats=torch_floor,
        smoothed_fairseq_floor_nats=fairseq_floor,
        mean_log_z2=float(sums["log_z2"].sum() / sums["tokens"].sum()),
        max_abs_log_z=float(sums["max_abs_log_z"].max()),
        table=_table(objectives, sums, micro_batches),
        micro_batches=micro_batches,
        half_precision=None if fp16 is None else fp16.table,
        recommended_loss_scale=None if fp16 is None else fp16.recommended_scale,
        weights=measure_weights(run, source, values),
        load_balancing=measure_load_balancing(run, options.micro_batch) if routed else None,
        load_balancing_coefficient=coefficient_of(run) if routed else None,
        experts_per_token=experts_per_token(run) if routed else None,
        interval_unit=clusters.unit,
        notes=_notes(run, options, clusters, len(sums), fp16),
    )


def _cluster_sums(run: Run, source: str, clusters: Clusters, values: dict[str, str]) -> pd.DataFrame:
    """Return the number of tokens and the sum of every objective of each cluster.

    Raises:
        OutputError: a stored number is missing, NaN or infinite; the message names the first token that has one.
    """
    sums = ", ".join(f"sum({sql}) AS {name}" for name, sql in values.items())
    frame = run.query(f"""
        SELECT {clusters.sql} AS cluster, count(*) AS tokens, bool_and({FINITE}) AS finite, {sums},
               sum(log_z * log_z) AS log_z2, max(abs(log_z)) AS max_abs_log_z
        FROM {source} GROUP BY 1 ORDER BY 1""")
    if not frame["finite"].all():
        refuse_not_finite(run, source, FINITE)
    return frame


def _table(objectives: Sequence[Objective], sums: pd.DataFrame, micro_batches: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for objective in objectives:
        mean = jackknife_ratio(sums[objective.name], sums["tokens"])
        unit = f"{objective.unit} per token".strip()
        total = float(sums[objective.name].sum())
        rows.append((objective.name, objective.convention, mean.value, *mean.interval, total, unit))
    columns = ["objective", "convention", "mean", "low", "high", "sum", "unit"]
    table = pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})
    for size, batches in micro_batches.groupby("windows", sort=False):
        table.insert(len(table.columns) - 1, f"mean_of_means_{size}", batches["mean_of_means"].to_numpy())
    return table


def measure_weights(run: Run, source: str, values: dict[str, str]) -> pd.DataFrame:
    """Return how much of every objective comes from tokens of which loss; see `Objectives.weights`."""
    sums = ", ".join(f"sum({sql}) AS {name}" for name, sql in values.items())
    bins = run.query(f"""
        SELECT least({LAST_BIN}, floor(n / {BIN_NATS}))::INTEGER AS bin, count(*) AS count, {sums}
        FROM {source} GROUP BY 1 ORDER BY 1""").set_index("bin")
    bins = bins.reindex(range(int(bins.index.max()) + 1), fill_value=0).reset_index()
    low = bins["bin"] * BIN_NATS
    frames = [
        pd.DataFrame(
            {
                "objective": name,
                "loss_low_nats": low,
                "loss_high_nats": np.where(bins["bin"] < LAST_BIN, low + BIN_NATS, np.inf),
                "count": bins["count"],
                "share_of_tokens": bins["count"] / bins["count"].sum(),
                "mean": bins[name] / bins["count"],  # 0 / 0 is NaN where a bin is empty
                "share_of_objective": bins[name] / (bins[name].sum() or np.nan),
            }
        )
        for name in values
    ]
    return pd.concat(frames, ignore_index=True)


def _notes(
    run: Run, options: ObjectiveOptions, clusters: Clusters, reached: int, fp16: HalfPrecision | None
) -> list[str]:
    notes = []
    if run.settings.checkpoint.router and not is_routed(run):
        notes.append("load-balancing loss: n/a, the run has no sums of the model's routers")
    if is_routed(run) and options.selects:
        notes.append("load-balancing loss: n/a for a selection, every token of a window counts in it")
    if reached < 2 and clusters.count > 1:
        notes.append(f"the selection lies in one {clusters.unit}: no interval can be given")
    elif reached < clusters.count:
        notes.append(f"intervals: over the {plural(reached, clusters.unit)} with selected tokens")
    if clusters.note and reached == clusters.count:
        notes.append(clusters.note)
    if options.selects:
        notes.append("fp16: n/a for a selection, the run's histogram of probabilities knows documents only")
    elif fp16 is None:
        notes.append("fp16: n/a, the run has no histogram of probabilities")
    else:
        notes.append(fp16.note)
    return notes


def objective_batches(run: Run, options: ObjectiveOptions | None = None) -> Iterator[pa.RecordBatch]:
    """Yield one row per selected scored token, with every objective in a column of its own.

    Columns: document, token, token_id, window, context, then `Objective.column` of each (float64). Memory does not grow
    with the run; rows are in the order of the run.
    """
    check_runs(run=run)
    options = options or ObjectiveOptions()
    keys = ", ".join(f'"{key}"' for key in KEYS)
    values = ", ".join(f'{value.sql} AS "{value.column}"' for value in objectives_of(options, run.vocab_size))
    yield from run.batches(f"SELECT {keys}, {values} FROM {scored_source(options.condition(run.context))}")
