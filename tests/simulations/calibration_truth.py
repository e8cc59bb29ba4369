"""Simulates how often the intervals of `calibration` contain the truth, with texts and models of known distributions.

    python tests/simulations/calibration_truth.py [SEEDS]

draws SEEDS (200) texts for each size, vocabulary and kind of document in `CELLS`, and prints: the share of 95 %
intervals that contain the truth, for every measure and every fault of the model; z-scores and noise floors of the model
without a fault; how often the best temperature is found; the estimates of label smoothing. `known_truth` computes the
true values. With 200 seeds, a share of .95 is measured within ± .03 (two standard errors).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import kstest

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script is started without pytest's path

from drawn_runs import document_numbers, draw_targets, smoothed_logits, tempered_logits, write_drawn
from simulations.known_truth import FAULTS, SPREAD, TOKENS, WIDE_SPREAD, Corpus, draw_corpus, known, peaked_logits

from lossprobe.analysis.calibration.bins import MCE_LEAST
from lossprobe.analysis.calibration.effective_smoothing import EffectiveSmoothing, effective_smoothing
from lossprobe.analysis.calibration.measures import MEASURES, ErrorSums, measure_all
from lossprobe.analysis.calibration.smoothing import after_temperature, compare_tokens
from lossprobe.analysis.calibration.temperature import fit_temperature, tempered_rows
from lossprobe.analysis.calibration.temperature_fit import Sample, read_sample
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.outcomes import outcome_sums
from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.resampling import CalibrationMeasure
from lossprobe.run.reader import Run

SEEDS = 200
PANEL = ("nll_difference_nats", "nll_difference_after_temperature_nats")
ROWS = (*MEASURES, "temperature", "ece_change", "slope_epsilon", *PANEL)
WITH_FLOOR = ("ece", "ece_equal_mass", "mce", "smooth_ece", "vocabulary_error")
ASKED = (0.90, 0.98)
SAME = 1e-6  # nats; no more is left of a model whose temperature undoes what was done to it


@dataclass(frozen=True)
class Cell:
    """Texts of one kind; `spread` is how far the temperatures of documents differ, as in `known_truth`."""

    documents: int
    vocab: int
    spread: float
    faults: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.documents} documents of {TOKENS} tokens, vocabulary {self.vocab}, "
            f"temperatures of documents spread by {self.spread:.0%}"
        )


CELLS = (
    Cell(30, 64, SPREAD, tuple(FAULTS)),
    Cell(30, 64, 0.0, ("calibrated", "T 0.7", "T 1.3", "ε 0.1")),
    Cell(30, 64, WIDE_SPREAD, ("calibrated", "T 0.7", "ε 0.05", "ε 0.1")),
    Cell(10, 64, SPREAD, ("calibrated", "T 0.7", "ε 0.1")),
    Cell(100, 64, SPREAD, ("calibrated", "ε 0.1")),
    Cell(30, 512, SPREAD, ("calibrated", "ε 0.1")),
)
COARSE = 256  # cells of the smooth ECE, four times as fast as in the program; its errors here are far wider than a cell


@dataclass(frozen=True)
class Seen:
    """What one run says, and the truth about it where that depends on the run."""

    measures: dict[str, CalibrationMeasure]
    largest_gap: float | None

    def holds(self, name: str, truth: float) -> bool:
        low, high = self.measures[name].interval
        assert low is not None
        assert high is not None
        return low - 1e-9 <= truth <= high + 1e-9  # the truth is rounded to 1e-9


def look(folder: Path, corpus: Corpus, faults: tuple[str, ...], gaps: dict[str, np.ndarray]) -> dict[str, Seen]:
    """Return what the runs of models with some faults say of one text; the first fault is what others are compared to.

    Args:
        folder: where to put the runs.
        corpus: the text.
        faults: names of `FAULTS`.
        gaps: fault → float64 [15], true gap of each bin of equal width.
    """
    runs = {name: _write(folder / name, corpus, name) for name in faults}
    samples = {name: read_sample(run) for name, run in runs.items()}
    first = faults[0]
    reference = tempered_rows(runs[first], samples[first])
    found = {}
    for name, run in runs.items():
        measures, large = _measure(run, samples[name])
        if name != first:
            before = compare_tokens(runs[first], run).sums
            plain = jackknife_ratio(before["nats"].sum(axis=1), before["tokens"].sum(axis=1))
            after, _ = after_temperature(reference, tempered_rows(run, samples[name]))
            for panel, difference in zip(PANEL, (plain, after), strict=True):
                measures[panel] = CalibrationMeasure(difference.value, difference.interval)
        found[name] = Seen(measures, float(np.abs(gaps[name][large]).max()) if large.any() else None)
    return found


def _write(folder: Path, corpus: Corpus, name: str) -> Run:
    logits = FAULTS[name].of(corpus.logits, corpus.own)
    return write_drawn(folder, logits, corpus.targets, corpus.documents, name=name).run


def _measure(run: Run, sample: Sample) -> tuple[dict[str, CalibrationMeasure], np.ndarray]:
    """Return the measures of one run, and which bins of equal width are large enough for the MCE."""
    clusters = find_clusters(run)
    binned = ErrorSums.read(run, clusters)
    cells = binned.residuals.reshape(clusters.count, COARSE, -1, binned.residuals.shape[-1])
    measures = measure_all(outcome_sums(run, clusters), replace(binned, residuals=cells.sum(axis=2)))
    fit, smoothing = fit_temperature(run, sample), effective_smoothing(run)
    change = fit.table.set_index("measure").loc["ece"]
    measures["temperature"] = CalibrationMeasure(fit.temperature, fit.temperature_interval)
    measures["ece_change"] = CalibrationMeasure(change["change"], Interval(change["low"], change["high"]))
    measures["slope_epsilon"] = CalibrationMeasure(smoothing.slope_epsilon, smoothing.slope_epsilon_interval)
    return measures, binned.equal_width[..., 0].sum(axis=0) >= MCE_LEAST


def truths(cell: Cell) -> dict[str, dict]:
    """Return fault → name of `ROWS` → what is true, and the gaps of the bins."""
    found = known(cell.vocab, cell.spread)
    base = found["calibrated"]
    for values in found.values():
        values["ece_change"] = values["ece_after_temperature"] - values["ece"]
        values[PANEL[0]] = values["nll_nats"] - base["nll_nats"]
        values[PANEL[1]] = values["nll_after_temperature"] - base["nll_after_temperature"]
    return found


def simulate(cell: Cell, seeds: int) -> tuple[dict[str, dict], dict[str, list[Seen]]]:
    """Return what is true of a cell's models and what the runs of so many seeds say."""
    true = truths(cell)
    gaps = {name: np.array(values["gaps"]) for name, values in true.items()}
    seen: dict[str, list[Seen]] = {name: [] for name in cell.faults}
    for seed in range(seeds):
        corpus = draw_corpus(seed, cell.documents, cell.vocab, cell.spread)
        with tempfile.TemporaryDirectory() as folder:
            for name, one in look(Path(folder), corpus, cell.faults, gaps).items():
                seen[name].append(one)
    return true, seen


def coverage(name: str, true: dict, seen: list[Seen]) -> float | None:
    """Return the share of intervals that hold the truth; None where temperature makes both models the same."""
    if name not in seen[0].measures or (name in PANEL and abs(true[name]) < SAME):
        return None
    if name == "mce":
        return float(np.mean([one.holds(name, one.largest_gap) for one in seen if one.largest_gap is not None]))
    return float(np.mean([one.holds(name, true[name]) for one in seen]))


def print_coverage(cell: Cell, seeds: int) -> None:
    """Print the table of one cell, then z-scores and noise floors where the model is calibrated."""
    started = time.monotonic()
    true, seen = simulate(cell, seeds)
    print(f"\n{cell}: {seeds} seeds, {time.monotonic() - started:.0f} s")
    print(f"{'95 % intervals that hold the truth, %':38}" + "".join(f"{name:>12}" for name in cell.faults))
    for name in ROWS:
        shares = [coverage(name, true[fault], seen[fault]) for fault in cell.faults]
        print(f"{name:38}" + "".join(f"{_shown(share):>12}" for share in shares))
    print_null(cell, true["calibrated"], seen["calibrated"])


def _shown(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.1f}" + (" " if ASKED[0] <= share <= ASKED[1] else "*")


def print_null(cell: Cell, true: dict, seen: list[Seen]) -> None:
    for name in ("confidence_gap", "nll_minus_entropy_nats"):
        z = np.array([one.measures[name].z for one in seen])
        test = kstest(z, "norm").pvalue
        print(f"z of {name}: mean {z.mean():+.3f}, sd {z.std(ddof=1):.3f}, beyond 1.96 in "
              f"{np.mean(np.abs(z) > 1.96):.1%}, Kolmogorov-Smirnov p {test:.3f}")  # fmt: skip
    for name in WITH_FLOOR:
        measures = [one.measures[name] for one in seen]
        value, floor = (np.array([getattr(one, key) for one in measures], float) for key in ("value", "noise_floor"))
        low, high = np.array([one.interval for one in measures], float).T
        print(f"{name}: mean {np.nanmean(value):.4f}, noise floor {np.nanmean(floor):.4f}; low end 0 in "
              f"{np.mean(low == 0):.0%}, high end {np.nanmean(high):.4f}, value above it in "
              f"{np.mean(value > high):.0%}")  # fmt: skip


def smoothed_models(vocab: int, rows: int, seed: int) -> Iterator[tuple[str, EffectiveSmoothing]]:
    """Yield models and the label smoothing that their runs look like."""
    rng = np.random.default_rng(seed)
    logits = peaked_logits(rng, rows, vocab)
    targets, numbers = draw_targets(rng, logits), document_numbers(rng, rows, 30)
    smooth = {epsilon: smoothed_logits(logits, epsilon) for epsilon in (0.05, 0.1, 0.2)}
    models = {"ε 0": logits, **{f"ε {epsilon}": model for epsilon, model in smooth.items()}}
    models |= {f"T {temperature}": tempered_logits(logits, temperature) for temperature in (0.7, 0.9, 1.1, 1.3)}
    models["ε 0.1 and T 0.9"] = tempered_logits(smooth[0.1], 0.9)
    models["ε 0.2 and T 1.1"] = tempered_logits(smooth[0.2], 1.1)
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            yield name, effective_smoothing(write_drawn(Path(folder) / "run", model, targets, numbers).run)


def print_smoothing(vocab: int, rows: int, seeds: int) -> None:
    """Print what is read of label smoothing: mean and standard deviation of the estimates, and how often ε is named."""
    found: dict[str, list[EffectiveSmoothing]] = {}
    for seed in range(seeds):
        for name, one in smoothed_models(vocab, rows, seed):
            found.setdefault(name, []).append(one)
    print(f"\neffective smoothing, vocabulary {vocab}, {rows} tokens, {seeds} seeds")
    print(f"{'model':18}{'slope':>16}{'tail':>16}{'floor':>16}{'spread, nats':>14}{'named':>8}{'ε named':>16}")
    for name, ones in found.items():
        columns = [[getattr(one, key) for one in ones] for key in ("slope_epsilon", "tail_epsilon", "mode_epsilon")]
        spread = np.mean([np.nan if one.tail_iqr_nats is None else one.tail_iqr_nats for one in ones])
        named = [one.epsilon for one in ones if one.epsilon is not None]
        text = "".join(f"{_mean(column):>16}" for column in columns)
        print(f"{name:18}{text}{spread:>14.2f}{len(named):>8}{_mean(named):>16}")


def _mean(values: list) -> str:
    given = np.array([value for value in values if value is not None], float)
    return f"{given.mean():.3f} ± {given.std():.3f}" if len(given) else "-"


def main(seeds: int = SEEDS) -> None:
    started = time.monotonic()
    for cell in CELLS:
        print_coverage(cell, seeds)
    print_smoothing(64, 3000, max(1, seeds // 4))
    print_smoothing(2048, 1500, max(1, seeds // 20))
    print(f"\n{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
