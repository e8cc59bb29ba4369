"""The best single temperature of a model, and what it mends, from the sampled rows of a run.

T minimises the mean loss of all tokens; `temperature_fit` says how. What it mends is held out: T is fitted on every
other cluster and applied to the rest, and the other way round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.calibration.bins import BINS, equal_width_edges, expected_calibration_error
from lossprobe.analysis.calibration.ladder import COLDEST_BRIER, Integers, LadderScores, tempered
from lossprobe.analysis.calibration.temperature_fit import ENDS, Fit, Sample, fit_sample, read_sample
from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.resampling import Floats, bootstrap
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural

CURVE_STEPS = 16  # per octave of T
MEASURES = ("nll_nats", "brier", "confidence_gap", "ece")


@dataclass(frozen=True)
class Temperature:
    """The temperature T for which softmax(z / T) has the least mean loss; above 1 for an over-confident model.

    A number that cannot be given is None (NaN in the table); `notes` says why.

    Attributes:
        temperature: fitted on all clusters, within [1/4, 4].
        temperature_interval: its 95 % jackknife-t interval, over at most 200 groups of clusters.
        half_temperatures: fitted on the first, third, … cluster, and on the second, fourth, …
        held_out: whether the table scores each half with the temperature of the other half.
        tokens: sampled rows.
        table: one row per measure (nll_nats, brier, confidence_gap, ece): measure, before, after, change, low, high
            (95 % interval of the change, the temperatures taken as given), all over the sampled rows.
        curve: temperature, nll_nats: mean loss of all tokens at 65 temperatures, 16 per octave.
        notes: what a reader must know, one line each.
    """

    temperature: float | None
    temperature_interval: Interval
    half_temperatures: list[float | None]
    held_out: bool
    tokens: int
    table: pd.DataFrame = field(repr=False)
    curve: pd.DataFrame = field(repr=False)
    notes: list[str]


@dataclass(frozen=True)
class TemperedRows:
    """The sampled rows before and after temperature, in text order; S rows.

    Attributes:
        document, token: int64 [S], which token a row is.
        cluster: int64 [S], its cluster, of at most 200 groups of them.
        loss_nats: float64 [S], as scored.
        tempered_loss_nats: float64 [S], at the temperature that was fitted on the other half of the clusters.
        held_out: False where there is no other half: the temperature is then that of all rows.
    """

    document: Integers
    token: Integers
    cluster: Integers
    loss_nats: Floats
    tempered_loss_nats: Floats
    held_out: bool


def fit_temperature(run: Run, sample: Sample | None = None) -> Temperature:
    """Return the best temperature of a run, with its interval, and calibration before and after.

    Args:
        run: the run.
        sample: what `read_sample` returns for it, where it was read already.

    Raises:
        OutputError: a stored number is NaN or infinite, which scoring never writes.
    """
    sample = sample or read_sample(run)
    fit = fit_sample(sample)
    octaves = np.arange(-2 * CURVE_STEPS, 2 * CURVE_STEPS + 1) / CURVE_STEPS
    nll = math.nan if fit is None else fit.curve.at(-math.log(2.0) * octaves)[0]
    halves = None if fit is None else fit.halves
    return Temperature(
        temperature=None if fit is None else fit.temperature,
        temperature_interval=NO_INTERVAL if fit is None else fit.temperature_interval,
        half_temperatures=[None, None] if halves is None else [math.exp(-half) for half in halves],
        held_out=halves is not None,
        tokens=len(sample.rows),
        table=_table(sample, fit),
        curve=pd.DataFrame({"temperature": 2.0**octaves, "nll_nats": nll}),
        notes=_notes(sample, fit),
    )


def tempered_rows(run: Run, sample: Sample | None = None) -> TemperedRows:
    """Return the loss of every sampled row before and after temperature; no row where the run holds no ladder.

    Args:
        run: the run.
        sample: what `read_sample` returns for it, where it was read already.

    Raises:
        OutputError: a stored number is NaN or infinite, which scoring never writes.
    """
    sample = sample or read_sample(run)
    rows, fit = sample.rows, fit_sample(sample)
    after = rows.loss_nats if fit is None else tempered(rows, fit.of_rows(sample)).loss_nats
    held_out = fit is not None and fit.halves is not None
    return TemperedRows(rows.document, rows.token, rows.cluster, rows.loss_nats, after, held_out)


def _notes(sample: Sample, fit: Fit | None) -> list[str]:
    if fit is None:
        return ["temperature: n/a, the run keeps no temperature ladder of any scored token"]
    notes = []
    unit, tokens, scored = sample.clusters.unit, len(sample.rows), round(sample.sums[:, -1].sum())
    if tokens < scored:
        notes.append(f"temperature: from a sample of {format_count(tokens)} of {plural(scored, 'scored token')}")
    if bool(fit.curve.flat()[0]):
        notes.append("temperature: the loss is the same at every one, 1 is given")
    elif np.isin(fit.all, ENDS).any():
        where = "" if fit.log_beta in ENDS else "in one half "
        notes.append(f"temperature: {where}the loss still falls at the end of the range that a run stores, 1/4 to 4")
    elif fit.temperature_interval.low is None and fit.halves is not None:
        notes.append(f"temperature: no interval, without one of the {unit}s there is no minimum")
    if fit.halves is None:
        notes.append(f"temperature: judged on the tokens that it was fitted to; held out, it needs a second {unit}")
    if (fit.of_rows(sample) > COLDEST_BRIER).any():
        notes.append("Brier score after temperature: n/a below T = 1/2, the run does not store what it needs")
    return notes


def _table(sample: Sample, fit: Fit | None) -> pd.DataFrame:
    """Return the table of `Temperature`; NaN without a fit."""
    records = [(measure, math.nan, math.nan, Estimate(math.nan)) for measure in MEASURES]
    if fit is not None:
        records = _before_and_after(sample, tempered(sample.rows, fit.of_rows(sample)))
    table = pd.DataFrame(
        [(name, old, new, change.value, *change.interval) for name, old, new, change in records],
        columns=["measure", "before", "after", "change", "low", "high"],
    )
    return table.astype(dict.fromkeys(table.columns[1:], float))


def _before_and_after(sample: Sample, after: LadderScores) -> list[tuple[str, float, float, Estimate]]:
    rows = sample.rows
    measures = {
        "nll_nats": (rows.loss_nats, after.loss_nats),
        "brier": (rows.brier, after.brier),
        "confidence_gap": (rows.confidence - rows.correct, after.confidence - rows.correct),
    }
    counts = sample.of(np.ones(len(rows)))
    held = counts > 0
    means = [
        (measure, float(old.mean()), float(new.mean()), jackknife_ratio(sample.of(new - old)[held], counts[held]))
        for measure, (old, new) in measures.items()
    ]
    return [*means, ("ece", *_ece(sample, held, (rows.confidence, after.confidence)))]


def _ece(
    sample: Sample, held: npt.NDArray[np.bool_], confidences: tuple[Floats, Floats]
) -> tuple[float, float, Estimate]:
    """Return the expected calibration error of two confidences of each row, and their difference with its interval."""
    cells = len(sample.sums) * BINS
    tables = []
    for confidence in confidences:
        cell = sample.group * BINS + np.searchsorted(equal_width_edges(), confidence, side="right")
        sums = [np.bincount(cell, values, cells) for values in (np.ones(len(cell)), confidence, sample.rows.correct)]
        tables.append(np.stack(sums, axis=-1).astype(np.float64).reshape(-1, BINS, len(sums)))
    stacked = np.stack(tables, axis=1)[held]
    before, after = expected_calibration_error(stacked.sum(axis=0)).tolist()
    return before, after, bootstrap(stacked, lambda sums: np.diff(expected_calibration_error(sums))[..., 0], -1.0, 1.0)
