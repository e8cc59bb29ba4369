"""Simulates how often the verdicts of `calibration` are right, with models of which it is known what was done to them.

    python tests/simulations/verdict_truth.py [TEXTS]

draws TEXTS (40) texts of 30 documents, and prints for each model how often it is called over-confident and
under-confident over the whole distribution and in its first choices, how often the temperature is said to make ECE
worse, how often an ε is named, and each reason that is given where none is.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script is started without pytest's path

from drawn_runs import document_numbers, draw_targets, log_probabilities, smoothed_logits, tempered_logits, write_drawn
from simulations.known_truth import peaked_logits

from lossprobe.analysis.calibration.effective_smoothing import EffectiveSmoothing, effective_smoothing
from lossprobe.analysis.calibration.measures import mean_measures
from lossprobe.analysis.calibration.temperature import fit_temperature
from lossprobe.analysis.calibration.verdict import confidence_word
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.outcomes import outcome_sums

VOCAB, TOKENS, DOCUMENTS = 64, 3000, 30


@dataclass(frozen=True)
class Verdicts:
    """What is said of one model: "over-confident", "under-confident" or "" of its distribution and of its choices."""

    whole: str
    first: str
    makes_ece_worse: bool
    smoothing: EffectiveSmoothing


def half_smoothed(rng, logits: np.ndarray, epsilon: float) -> np.ndarray:
    """Return logits of a smoothed model short of its optimum: each entry has e^z times ε / V, z normal with σ 0.6."""
    floor = epsilon / logits.shape[1] * np.exp(0.6 * rng.standard_normal(logits.shape))
    return np.log((1.0 - epsilon) * np.exp(log_probabilities(logits)) + floor)


def models(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the logits of every model, the targets and their documents."""
    rng = np.random.default_rng(seed)
    logits = peaked_logits(rng, TOKENS, VOCAB)
    targets, documents = draw_targets(rng, logits), document_numbers(rng, TOKENS, DOCUMENTS)
    found = {"plain": logits}
    found |= {f"T {temperature}": tempered_logits(logits, temperature) for temperature in (0.7, 0.9, 1.1, 1.3)}
    found |= {f"ε {epsilon}": smoothed_logits(logits, epsilon) for epsilon in (0.05, 0.1, 0.2)}
    found["ε 0.1, over-fitted"] = smoothed_logits(tempered_logits(logits, 0.6), 0.1)
    found["ε 0.1, short of its optimum"] = half_smoothed(rng, logits, 0.1)
    found["ε 0.1 and T 0.8"] = tempered_logits(smoothed_logits(logits, 0.1), 0.8)
    uneven = 0.1 / VOCAB * np.exp(1.5 * rng.standard_normal((1, VOCAB)))
    found["ε 0.1, uneven floor"] = np.log(0.97 * np.exp(log_probabilities(logits)) + uneven)
    return found, targets, documents


def verdicts(folder: Path, logits: np.ndarray, targets: np.ndarray, documents: np.ndarray) -> Verdicts:
    """Return what is said of a model."""
    run = write_drawn(folder, logits, targets, documents).run
    measures = mean_measures(outcome_sums(run, find_clusters(run)))
    ece = fit_temperature(run).table.set_index("measure").loc["ece"]
    return Verdicts(
        whole=confidence_word(measures["nll_minus_entropy_nats"]),
        first=confidence_word(measures["confidence_gap"]),
        makes_ece_worse=bool(ece["low"] > 0.0),
        smoothing=effective_smoothing(run),
    )


def simulate(texts: int, names: tuple[str, ...] = ()) -> dict[str, list[Verdicts]]:
    """Return what is said of every model, or of those named, on so many texts."""
    found: dict[str, list[Verdicts]] = {}
    for seed in range(texts):
        drawn, targets, documents = models(seed)
        for name in names or drawn:
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault(name, []).append(verdicts(Path(folder) / "run", drawn[name], targets, documents))
    return found


def shape(reason: str) -> str:
    """Return a reason without its numbers."""
    return re.sub(r"-?\d+(\.\d+)?", "#", reason.rpartition("; ")[2])


def main(texts: int = 40) -> None:
    print(f"{'':30}{'whole':>14}{'first choices':>16}{'ECE worse':>11}{'ε named':>9}")
    for name, said in simulate(texts).items():
        counts = [
            "/".join(str(sum(getattr(one, of) == f"{word}-confident" for one in said)) for word in ("over", "under"))
            for of in ("whole", "first")
        ]
        named = [one.smoothing.epsilon for one in said if one.smoothing.epsilon is not None]
        worse = sum(one.makes_ece_worse for one in said)
        print(f"{name:30}{counts[0]:>14}{counts[1]:>16}{worse:>11}{len(named):>9}", end="")
        print(f"  mean {np.mean(named):.3f}" if named else "", flush=True)
        for reason, count in Counter(shape(s.smoothing.reason) for s in said if s.smoothing.epsilon is None).items():
            print(f"    {count} × {reason}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
