"""Measures a `Divergence` from a stored pair: sums by cluster, quantiles, slices, and the tokens that differ most.

Rows are read in batches, so that memory grows with the documents and the slices, not with the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from lossprobe.analysis.compare.changes import UNRANKED
from lossprobe.analysis.compare.divergence import Divergence
from lossprobe.analysis.options import CompareOptions
from lossprobe.analysis.rows.clusters import find_clusters, numbering, present_clusters
from lossprobe.analysis.rows.paired import Ints, PairedRows, paired_batches
from lossprobe.analysis.rows.same_tokens import tokenizer_note
from lossprobe.analysis.rows.texts import texts_of
from lossprobe.analysis.series.groups import BESIDE, partitions
from lossprobe.analysis.series.slices import SeriesSlices, find_slices
from lossprobe.analysis.stats.group_means import GroupMeans
from lossprobe.analysis.stats.interval import Estimate
from lossprobe.analysis.stats.jackknife import Clusters, around, jackknife_ratio
from lossprobe.analysis.stats.quantile_sketch import EXACT, QuantileSketch
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.errors import OutputError
from lossprobe.run.names import distinct_names
from lossprobe.run.pair import Pair
from lossprobe.run.reader import Run
from lossprobe.run.shown import shown_run
from lossprobe.units import format_count, plural, visible, visible_bytes

PERCENTILES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
MEASURED = {
    "kl": "kl_nats", "same_top": "same_top::DOUBLE", "change": "target_prob_change", "first_loss": "first_loss_nats",
    "second_loss": "second_loss_nats",
}  # fmt: skip
ROUNDING = 1e-5  # of a probability that is found from two float32 losses
PLACES = {"pair_document": "pair_document", "pair_token": "pair_token"}


def measure_pair(pair: Pair, by: str = CompareOptions.by, top: int = CompareOptions.top) -> Divergence:
    """Return how far the predictions of a pair are apart, over all its tokens.

    Args:
        pair: the pair; texts, contexts, classes and clusters are those of the run whose windows it used.
        by: slices of the tokens: "token" for none, else as in `changes.find_changes`.
        top: how many of the tokens with the largest divergence, and of slices by type, document or field.

    Raises:
        OutputError: the pair's rows are not those of its runs.
        UsageError: no document has the field of `by`.
    """
    rows = pair.rows
    clusters = find_clusters(rows)  # it also lets SQL on these rows tell copies of documents
    sums, divergences, changes = _whole(rows, clusters)
    names = distinct_names([pair.first, pair.second])
    count, infinite = int(sums["tokens"].sum()), int(sums["infinite"].sum())
    finite = jackknife_ratio(sums["kl"], sums["tokens"]).within(0.0, math.inf)
    kl = Estimate(math.inf) if infinite else finite
    same_top = jackknife_ratio(sums["same_top"], sums["tokens"]).within(0.0, 1.0)
    rms, change = _root_mean(sums["squared_change"], sums["tokens"]), jackknife_ratio(sums["change"], sums["tokens"])
    return Divergence(
        first=names[0],
        second=names[1],
        tokens=count,
        mean_kl_nats=kl.value,
        mean_kl_nats_interval=kl.interval,
        kl_percentiles=_percentiles(divergences),
        infinite_kl_tokens=infinite,
        same_top_share=same_top.value,
        same_top_share_interval=same_top.interval,
        rms_target_prob_change=rms.value,
        rms_target_prob_change_interval=rms.interval,
        mean_target_prob_change=change.value,
        mean_target_prob_change_interval=change.interval,
        target_prob_change_percentiles=_percentiles(changes),
        first_mean_loss=float(sums["first_loss"].sum()) / count,
        second_mean_loss=float(sums["second_loss"].sum()) / count,
        by=by,
        hardest=_hardest(pair, top),
        slices=None if by == "token" else _shown(_slices(pair, by), by, top),
        by_position=_slices(pair, "context"),
        notes=[*_notes(pair), *([clusters.note] if clusters.note else []), *_told(sums, count, infinite)],
    )


def _whole(rows: Run, clusters: Clusters) -> tuple[dict[str, Floats], QuantileSketch, QuantileSketch]:
    """Return sums by cluster [G], and the quantiles of the divergences and of the changes of probability."""
    present = present_clusters(rows, clusters)
    number = numbering(present)
    sums: dict[str, Floats] = {}
    divergences, changes = QuantileSketch(), QuantileSketch()
    for batch in _batches(rows, clusters):
        measured = {name: batch.values[name][0] for name in MEASURED}
        cluster = number(batch.cluster)
        finite = np.isfinite(measured["kl"])
        added = {
            "tokens": np.ones(len(cluster)), **measured, "kl": np.where(finite, measured["kl"], 0.0),
            "infinite": ~finite, "squared_change": measured["change"] ** 2,
        }  # fmt: skip
        for name, values in added.items():
            part: Floats = np.bincount(cluster, values, len(present)).astype(float)
            sums[name] = sums[name] + part if name in sums else part
        divergences.add(measured["kl"])
        changes.add(measured["change"])
    return sums, divergences, changes


def _batches(rows: Run, clusters: Clusters, columns: Mapping[str, str] | None = None) -> Iterator[PairedRows]:
    """Yield the scored rows of a pair with what was measured, and further columns.

    Raises:
        OutputError: the rows of the pair are not those of its runs, or a number is missing.
    """
    for batch in paired_batches([rows], {**MEASURED, **PLACES, **(columns or {})}, clusters):
        wrong = (batch.values["pair_document"][0] != batch.document) | (batch.values["pair_token"][0] != batch.token)
        wrong |= np.logical_or.reduce([np.isnan(batch.values[name][0]) for name in MEASURED])
        if wrong.any():
            at = int(wrong.argmax())
            place = f"document {batch.document[at]}, token {batch.token[at]}"
            raise OutputError(
                "run.damaged", f"{shown_run(rows.path)}: {place} has no divergence in its pair",
                hint="compare again with `overwrite`",
            )  # fmt: skip
        yield batch


def _slices(pair: Pair, by: str) -> pd.DataFrame:
    """Return the table of `Divergence.slices`, all of them in a fixed order."""
    slices = find_slices(pair.planned, by)
    cells = len(slices.group_of)
    sums = {name: np.zeros(cells) for name in ("tokens", "kl", "infinite", "same_top")}
    batches = _batches(pair.rows, slices.read, slices.columns)
    for batch, group in slices.keyed(batches):
        _, cell = slices.place(batch, group)
        kl = batch.values["kl"][0]
        finite = np.isfinite(kl)
        added = {"tokens": np.ones(len(kl)), "kl": np.where(finite, kl, 0.0), "infinite": ~finite,
                 "same_top": batch.values["same_top"][0]}  # fmt: skip
        for name, values in added.items():
            np.add.at(sums[name], cell, values)
    total = math.inf if sums["infinite"].any() else float(sums["kl"].sum())
    tables = [_group_table(names, row_of, slices, sums, total) for names, row_of in partitions(slices)]
    found = pd.concat(tables, ignore_index=True)
    beside = [name for name in BESIDE if name in found]
    shown = ["tokens", "clusters", "mean_kl_nats", "low", "high", "share_of_kl", "same_top_share"]
    return found[["group", *beside, *shown]]


def _group_table(
    names: pd.DataFrame, row_of: Ints, slices: SeriesSlices, sums: Mapping[str, Floats], total: float
) -> pd.DataFrame:
    """Return one row per slice of a partition that holds tokens."""
    means = GroupMeans(row_of[slices.group_of], slices.cluster_of, sums["tokens"])
    table = means.table(sums["kl"], "mean_kl_nats")
    kl = table["mean_kl_nats"] * table["tokens"]
    table["share_of_kl"] = kl / total if 0 < total < math.inf else math.nan
    table["low"] = table["low"].clip(lower=0.0)
    infinite = means.table(sums["infinite"], "share")["share"] > 0
    table.loc[infinite, "mean_kl_nats"] = math.inf
    table.loc[infinite, ["low", "high"]] = math.nan
    table["same_top_share"] = means.table(sums["same_top"], "share")["share"]
    return table.merge(names.assign(row=np.arange(len(names))), on="row", how="left", validate="one_to_one")


def _shown(table: pd.DataFrame, by: str, top: int) -> pd.DataFrame:
    """Return the slices to show: of many, those that hold most of the divergence."""
    if by in UNRANKED:
        return table
    share = (table["mean_kl_nats"] * table["tokens"]).to_numpy(float)
    return table.iloc[np.argsort(-share, kind="stable")[:top]].reset_index(drop=True)


def _hardest(pair: Pair, top: int) -> pd.DataFrame:
    """Return the tokens with the largest divergence, with their text and what both models expected."""
    table = pair.rows.query(
        "SELECT document, token, token_id, byte_start, byte_stop, context, kl_nats, first_loss_nats, second_loss_nats, "
        "first_top_id, second_top_id FROM tokens WHERE unscored IS NULL "
        f"ORDER BY kl_nats DESC, document, token LIMIT {int(top)}"
    )
    table["text"], around = texts_of(pair.planned, table, pair.planned.vocabulary)
    for name in ("before", "characters", "after"):
        table[name] = [getattr(place, name) for place in around]
    for name, run in (("first", pair.first), ("second", pair.second)):  # one may have ids that the other lacks
        choices = table[f"{name}_top_id"].tolist()
        table[f"{name}_top_text"] = [visible_bytes(run.vocabulary.entries[int(index)]) for index in choices]
    return table[[
        "document", "token", "text", "token_id", "kl_nats", "first_loss_nats", "second_loss_nats", "first_top_text",
        "second_top_text", "context", "before", "characters", "after",
    ]]  # fmt: skip


def _notes(pair: Pair) -> list[str]:
    """Return a note for each way in which the two models were treated differently, and if they are one."""
    notes = [] if (told := tokenizer_note(pair.first, pair.second)) is None else [told]
    contexts = [run.context for run in (pair.first, pair.second)]
    if contexts[0] != contexts[1]:
        notes.append(f"the models' contexts are {contexts[0]} and {contexts[1]} tokens: the smaller one for both")
    settings = [run.settings.checkpoint for run in (pair.first, pair.second)]
    if settings[0].compute_dtype != settings[1].compute_dtype:
        notes.append(f"computed in {settings[0].compute_dtype} and {settings[1].compute_dtype}")
    if settings[0].sha256 and settings[0].sha256 == settings[1].sha256:
        notes.append("both checkpoints hold the same files: only rounding and how they are computed can differ")
    if settings[0].vocab_size != settings[1].vocab_size:
        notes.append(_width_note(pair))
    return notes


def _width_note(pair: Pair) -> str:
    """Return what is left out where one model has more logits, such as padding, and what it gives them.

    The pass has the loss over the shared ids, the run that over all: their probabilities of the target differ by the
    factor 1 − m, where m is the probability of the other ids.
    """
    runs = (pair.first, pair.second)
    widths = [run.vocab_size for run in runs]
    name, wider = ("first", runs[0]) if widths[0] > widths[1] else ("second", runs[1])
    note = (
        f"{format_count(widths[0])} and {format_count(widths[1])} logits: distributions are over the "
        f"{format_count(min(widths))} ids that both have"
    )
    if len({(run.context, run.settings.windows.stride) for run in runs}) > 1:
        return note
    share = f"greatest(0, 1 - exp({name}_loss_nats - {name}_run_loss_nats::DOUBLE))"
    found = pair.rows.query(f"SELECT avg({share}) AS mean, max({share}) AS most FROM tokens WHERE unscored IS NULL")
    mean, most = (_little(float(found[column][0])) for column in ("mean", "most"))
    return f"{note}; {visible(wider.name, 80)} gives the others {mean} of probability on average, at most {most}"


def _little(share: float) -> str:
    """Return a share in percent; what the float32 of stored losses cannot tell from 0 as a bound."""
    return f"{share:.4%}" if share > ROUNDING else f"under {ROUNDING:.4%}"


def _told(sums: Mapping[str, Floats], count: int, infinite: int) -> list[str]:
    """Return what a reader must know of infinite divergences, and of quantiles that are not exact."""
    notes = []
    if infinite:
        others = f"{float(sums['kl'].sum()) / (count - infinite):.6f} nats" if count > infinite else "n/a"
        notes.append(
            f"KL is infinite on {plural(infinite, 'token')}, where the second model excludes an entry that the "
            f"first does not; mean over the others: {others}"
        )
    if count > EXACT:
        notes.append(f"more than {plural(EXACT, 'token')}: percentiles are right to 0.025 % of themselves")
    return notes


def _percentiles(sketch: QuantileSketch) -> dict[str, float]:
    return {f"{share:g}": value for share, value in zip(PERCENTILES, sketch.quantiles(PERCENTILES), strict=True)}


def _root_mean(squares: Floats, tokens: Floats) -> Estimate:
    """Return √(Σ squares / Σ tokens) with its delete-one jackknife-t interval, cut at 0."""
    root = math.sqrt(squares.sum() / tokens.sum())
    if len(tokens) < 2:
        return Estimate(root)
    rest = np.maximum(squares.sum() - squares, 0.0) / (tokens.sum() - tokens)
    return around(root, np.sqrt(rest)).within(0.0, math.inf)
