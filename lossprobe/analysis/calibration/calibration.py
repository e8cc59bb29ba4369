"""How far a model's probabilities can be trusted: its first choice, its whole distribution, and after temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from lossprobe.analysis.calibration.effective_smoothing import EffectiveSmoothing, effective_smoothing
from lossprobe.analysis.calibration.measures import MEASURES, measure_all
from lossprobe.analysis.calibration.slices import calibrate_slices
from lossprobe.analysis.calibration.smoothing import MeasuredModel, SmoothingPanel, compare_models
from lossprobe.analysis.calibration.sums import read_sums
from lossprobe.analysis.calibration.temperature import Temperature, fit_temperature, tempered_rows
from lossprobe.analysis.calibration.temperature_fit import Sample, read_sample
from lossprobe.analysis.calibration.verdict import calibration_finding
from lossprobe.analysis.once import Once
from lossprobe.analysis.options import CalibrationOptions
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.same_tokens import differing, refuse_different, same_tokens, tokenizer_note
from lossprobe.analysis.shown import Shown
from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.resampling import RESAMPLES, SEED, CalibrationMeasure, at_most
from lossprobe.options.given import check_options
from lossprobe.run.argument import check_runs
from lossprobe.run.names import distinct_names
from lossprobe.run.reader import Run


@dataclass(frozen=True)
class ModelCalibration:
    """The calibration of one run.

    Attributes:
        name: the checkpoint's name, with its folder or a number where several have one name.
        run: its directory.
        tokens_scored: tokens with a loss.
        clusters: documents (or blocks of 4,096 tokens) that intervals resample, merged into at most 1,000 groups.
        interval_unit: "document" or "block".
        measures: the numbers by their names, such as "ece".
        bins: one row per bin of `binning` "equal width", "equal mass" (by the confidence of the first choice) and
            "log10 p" (all pairs of token and vocabulary entry): low, high, count, mean_probability, hit_rate, gap
            (probability − hit rate) with gap_low, gap_high; NaN in empty bins.
        temperature: the best single temperature and what it changes.
        effective_smoothing: the label smoothing that the predictions look like.
        notes: what a reader must know, one line each.
    """

    name: str
    run: str
    tokens_scored: int
    clusters: int
    interval_unit: str
    measures: dict[str, CalibrationMeasure]
    bins: pd.DataFrame = field(repr=False)
    temperature: Temperature
    effective_smoothing: EffectiveSmoothing
    notes: list[str]

    @property
    def finding(self) -> str:
        """The result in one line."""
        return f"{self.name}: {calibration_finding(self.measures, self.temperature)}"


@dataclass(frozen=True)
class Calibration(Shown):
    """The calibration of one or several runs.

    Attributes:
        models: one entry per run, in the order given.
        table: one row per model and measure: model, measure, value, low, high, noise_floor, z, design_effect, unit.
        smoothing: models against the first one, on the same tokens; None for one model or different tokens.
        by: name of the slices, or None.
        slices: one row per model and slice: model, group (context in octaves, a document's number, a field's text, a
            class, or how often the first choice occurs), conditioned_on (what chose the slice), count, clusters,
            mean_loss_nats, accuracy, mean_confidence, confidence_gap, low, high, gap_z, nll_minus_entropy_nats,
            excess_z, ece, ece_noise_floor, brier.
        seed: seed of the bootstrap and of simulated noise floors.
        resamples: how often the bootstrap resampled (100 times for smooth ECE).
        notes: what a reader must know, one line each.
    """

    models: list[ModelCalibration]
    table: pd.DataFrame = field(repr=False)
    smoothing: SmoothingPanel | None
    by: str | None
    slices: pd.DataFrame | None = field(repr=False)
    seed: int
    resamples: int
    notes: list[str]

    @property
    def finding(self) -> str:
        """The result in one line."""
        return "; ".join(self.findings)

    @property
    def findings(self) -> list[str]:
        """The parts of the finding: one a model, and how the others differ from the first."""
        lines = [model.finding for model in self.models]
        return [*lines, self.smoothing.finding] if self.smoothing else lines

    @property
    def bins(self) -> pd.DataFrame:
        """The bins of all models, with the model's name in front."""
        return pd.concat([_named(model.name, model.bins) for model in self.models], ignore_index=True)


def measure_calibration(
    runs: Sequence[Run] | Run,
    by: str | None = CalibrationOptions.by,
    *,
    smoothing: float | None = CalibrationOptions.smoothing,
    allow_different: bool = CalibrationOptions.allow_different,
    once: Once | None = None,
) -> Calibration:
    """Return the calibration of one or several runs of the same text.

    Args:
        runs: a run or several; the first one is what the others are compared with.
        by: "document", "context", "class", "frequency" or a field of the JSONL records, for slices.
        smoothing: ε that the models after the first were trained with, for the bound on their perplexity; None to go by
            what their predictions show.
        allow_different: put runs side by side although text, tokenizer, windows or BOS differ.
        once: keeps what is measured of each run, for a caller that needs it again; None keeps nothing.

    Raises:
        NotComparableError: the runs differ in one of these.
        UsageError: no document has the field.
    """
    runs = [runs] if isinstance(runs, Run) else runs
    check_runs(runs=runs)
    check_options(CalibrationOptions, by=by, smoothing=smoothing, allow_different=allow_different)
    if not allow_different:
        refuse_different(runs)
    names = distinct_names(runs)
    parts = [] if by is None else [calibrate_slices(run, by) for run in runs]  # first: it refuses unknown fields
    paired = len(runs) > 1 and same_tokens(runs)
    models, measured = [], []
    for run, name in zip(runs, names, strict=True):
        model, sample = (once or Once())(calibrate_model, run)
        models.append(replace(model, name=name))
        if paired:
            measured.append(MeasuredModel(name, run, tempered_rows(run, sample), models[-1].effective_smoothing))
    notes = [f"{model.name}: {note}" if len(runs) > 1 else note for model in models for note in model.notes]
    notes += [f"{names[0]} and {name} differ in {', '.join(found)}"
              for run, name in zip(runs, names, strict=True) if (found := differing(runs[0], run))]  # fmt: skip
    panel = None
    if paired:
        notes += [told for run in runs[1:] if (told := tokenizer_note(runs[0], run))]
        panel = compare_models(measured, smoothing)
        notes += panel.notes
    elif len(runs) > 1:
        notes.append("no paired comparison: the runs did not score the same tokens")
    slices = None
    if parts:
        slices = pd.concat([_named(n, part.table) for n, part in zip(names, parts, strict=True)], ignore_index=True)
        notes += list(dict.fromkeys(note for part in parts for note in part.notes))
    return Calibration(
        models=models,
        table=pd.concat([_measure_table(model) for model in models], ignore_index=True),
        smoothing=panel,
        by=by,
        slices=slices,
        seed=SEED,
        resamples=RESAMPLES,
        notes=list(dict.fromkeys(notes)),
    )


def calibrate_model(run: Run) -> tuple[ModelCalibration, Sample]:
    """Return the calibration of one run, and the sample that its temperature was fitted to."""
    clusters = at_most(find_clusters(run))
    sums = read_sums(run, clusters)
    outcomes, binned = sums.outcomes, sums.binned
    sample = read_sample(run, sums.sampled)
    temperature = fit_temperature(run, sample)
    model = ModelCalibration(
        name=run.name,
        run=str(run.path),
        tokens_scored=int(run.counts["scored_tokens"]),
        clusters=clusters.count,
        interval_unit=clusters.unit,
        measures=measure_all(outcomes, binned),
        bins=binned.table(),
        temperature=temperature,
        effective_smoothing=effective_smoothing(run, outcomes, binned.vocabulary),
        notes=[*([clusters.note] if clusters.note else []), *temperature.notes],
    )
    return model, sample


def _named(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    frame.insert(0, "model", name)
    return frame


def _measure_table(model: ModelCalibration) -> pd.DataFrame:
    rows = [
        {
            "model": model.name,
            "measure": name,
            "value": measure.value,
            **measure.interval._asdict(),
            "noise_floor": measure.noise_floor,
            "z": measure.z,
            "design_effect": measure.design_effect,
            "unit": MEASURES[name],
        }
        for name, measure in model.measures.items()
    ]
    numbers = ("value", *Interval._fields, "noise_floor", "z", "design_effect")
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))
