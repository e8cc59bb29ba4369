"""Draws texts with known true distributions and models with known faults, and computes the true values of measures.

Each document has its own scale of logits, so that confidence and loss are alike within a document. With a `spread` each
also has its own temperature, drawn around the model's, so that the errors of the model are correlated within a
document.

The true values of a population come from a large draw of rows from different documents. Targets are not drawn there:
every mean is taken over the true distribution of each row. The values are in `known_truth.json`;

    python tests/simulations/known_truth.py

computes them again, in some twenty minutes.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script is started without pytest's path

from drawn_runs import (
    document_numbers,
    draw_logits,
    draw_targets,
    log_probabilities,
    smoothed_logits,
    tempered_logits,
)

from lossprobe.analysis.calibration.bins import (
    BINS,
    equal_width_edges,
    expected_calibration_error,
    reliability,
    resolution,
    top1_brier,
    uncertainty,
    within_bin,
)
from lossprobe.analysis.calibration.smooth_ece import GRID, smooth_ece

FILE = Path(__file__).with_suffix(".json")
SCALE_SPREAD = 0.3  # standard deviation of the log of a document's scale
# Standard deviation of the log of a document's own temperature. With the first, errors are about as alike within
# documents as those of a small model on real text (design effects at 100 tokens a document: 1.5 of the confidence gap,
# 5 of NLL - entropy); with the second, far more so.
SPREAD, WIDE_SPREAD = 0.15, 0.25
TOKENS = 100  # mean tokens of a document
ROWS, PILOT_ROWS = 1_000_000, 50_000
BLOCK = 1 << 17  # logits at once, so that they stay in the cache
FINE = 1 << 16  # cells of confidence that equal-mass bins are put together from
DECADE_BINS = 121  # of log10 p, as the pass counts


@dataclass(frozen=True)
class Fault:
    """What a model does to the true distribution: logits / `temperature`, then smoothing by `epsilon`."""

    temperature: float = 1.0
    epsilon: float = 0.0

    def of(self, logits: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return the model's logits [N, V] for true ones; `own` [N] are the temperatures of the rows' documents."""
        tempered = tempered_logits(logits, self.temperature * own[:, None])
        return smoothed_logits(tempered, self.epsilon) if self.epsilon else tempered


FAULTS = {
    "calibrated": Fault(),
    "T 0.7": Fault(temperature=0.7),
    "T 1.3": Fault(temperature=1.3),
    "ε 0.05": Fault(epsilon=0.05),
    "ε 0.1": Fault(epsilon=0.1),
    "ε 0.2": Fault(epsilon=0.2),
}
# vocabulary, spread → faults whose truth is kept.
KEPT = {
    (64, 0.0): tuple(FAULTS),
    (64, SPREAD): tuple(FAULTS),
    (64, WIDE_SPREAD): ("calibrated", "T 0.7", "ε 0.05", "ε 0.1"),
    (512, SPREAD): ("calibrated", "ε 0.1"),
}


@dataclass(frozen=True)
class Corpus:
    """Drawn documents: true logits [N, V], targets, documents and the documents' own temperatures [N]."""

    logits: np.ndarray
    targets: np.ndarray
    documents: np.ndarray
    own: np.ndarray


def draw_corpus(seed: int, documents: int, vocab: int, spread: float) -> Corpus:
    """Return `documents` documents of random sizes, 100 tokens on average."""
    rng = np.random.default_rng(seed)
    numbers = document_numbers(rng, documents * TOKENS, documents)
    scale, own = _effects(rng, documents, spread)
    logits = draw_logits(rng, len(numbers), vocab) * scale[numbers, None]
    return Corpus(logits, draw_targets(rng, logits), numbers, own[numbers])


def peaked_logits(rng, rows: int, vocab: int) -> np.ndarray:
    """Return [rows, vocab] true log p of one likely token and a log-normal tail with a third of the probability.

    Its tail is far wider than 2 nats, as a language model's is; `draw_logits` is often flat.
    """
    tail = rng.beta(1, 2, (rows, 1))
    logits = log_probabilities(2.4 * rng.standard_normal((rows, vocab))) + np.log(tail)
    likely = np.arange(rows), rng.integers(0, vocab, rows)
    logits[likely] = np.logaddexp(logits[likely], np.log1p(-tail[:, 0]))
    return logits


def known(vocab: int, spread: float) -> dict[str, dict]:
    """Return what is true of the population: fault → measure → value, and the gap of every equal-width bin."""
    return json.loads(FILE.read_text("utf-8"))[f"{vocab} {spread}"]


def population(vocab: int, spread: float, names, rows: int = ROWS, seed: int = 2**20) -> dict[str, dict]:
    """Return the same from a draw of so many rows."""
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // vocab)
    betas = {name: _best_beta(vocab, spread, FAULTS[name]) for name in names}
    totals = {name: Counter() for name in names}
    for start in range(0, rows, step):
        size = min(step, rows - start)
        scale, own = _effects(rng, size, spread)
        logits = draw_logits(rng, size, vocab) * scale[:, None]
        p = np.exp(log_probabilities(logits))
        for name in names:
            log_q = log_probabilities(FAULTS[name].of(logits, own))
            for key, value in (_top1(p, log_q, betas[name]) | _whole(p, log_q, betas[name])).items():
                totals[name][key] = totals[name][key] + value
    return {name: _values(totals[name], betas[name]) for name in names}


def _top1(p: np.ndarray, log_q: np.ndarray, beta: float) -> dict[str, np.ndarray]:
    """Return sums over rows of what their first choices say; o is the true probability that one is right."""
    index, top = np.arange(len(p)), log_q.argmax(axis=1)
    x, o, ones = np.exp(log_q[index, top]), p[index, top], np.ones(len(p))
    after = np.exp(log_probabilities(beta * log_q)[index, top])
    edges, chance, sums = equal_width_edges(), 1 / p.shape[1], (ones, x, o, x * x, x * o)
    return {
        "rows": ones.sum(),
        "width": _binned(np.searchsorted(edges, x, side="right"), BINS, sums),
        "fine": _binned(np.minimum(x * FINE, FINE - 1).astype(int), FINE, sums),
        "cells": _binned(np.minimum(x * GRID, GRID - 1).astype(int), GRID, (ones, x - o, x * (1 - x))),
        "after": _binned(np.searchsorted(edges, after, side="right"), BINS, (ones, after, o)),
        "square": ((x - chance) ** 2).sum(),
        "product": ((x - chance) * (o - chance)).sum(),
    }


def _whole(p: np.ndarray, log_q: np.ndarray, beta: float) -> dict[str, np.ndarray]:
    """Return sums over rows of what their whole distributions say, at T = 1 and at 1 / β."""
    q, log_t = np.exp(log_q), log_probabilities(beta * log_q)
    t, cross = np.exp(log_t), (p * log_q).sum(axis=1)
    mean = (t * log_q).sum(axis=1)
    fifth = np.partition(log_q, -5, axis=1)[:, -5, None]
    decades = np.clip(np.floor((log_q / math.log(10) + 12) * 10) + 1, 0, DECADE_BINS - 1).astype(int)
    return {
        "loss": -cross.sum(),
        "entropy": -(q * log_q).sum(),
        "top5": (p * (log_q >= fifth)).sum(),
        "brier": (q * q).sum() - 2 * (p * q).sum() + len(p),
        "loss_after": -(p * log_t).sum(),
        "slope": (mean - cross).sum(),
        "curvature": ((t * log_q**2).sum(axis=1) - mean**2).sum(),
        "decades": _binned(decades.ravel(), DECADE_BINS, (q.ravel(), p.ravel())),
    }


def _values(sums: dict[str, np.ndarray], beta: float) -> dict:
    """Return the measures of a population, under the names of `calibration_measures.MEASURES` where they have one."""
    rows, width, fine = sums["rows"], sums["width"], sums["fine"]
    count, confidence, correct, *_ = width.T
    quantiles = np.searchsorted(fine[:, 0].cumsum(), np.arange(1, BINS) / BINS * rows)
    mass = np.add.reduceat(fine, np.r_[0, np.unique(quantiles)], axis=0)
    step = sums["slope"] / sums["curvature"]  # one more Newton step, from a β that is all but there
    after = np.abs(sums["after"][:, 1] - sums["after"][:, 2]).sum() / rows
    parts = (top1_brier, reliability, resolution, uncertainty, within_bin)
    found = {
        "nll_nats": sums["loss"] / rows,
        "nll_minus_entropy_nats": (sums["loss"] - sums["entropy"]) / rows,
        "accuracy": correct.sum() / rows,
        "top5_accuracy": sums["top5"] / rows,
        "mean_confidence": confidence.sum() / rows,
        "confidence_gap": (confidence - correct).sum() / rows,
        "ece": expected_calibration_error(width),
        "ece_equal_mass": expected_calibration_error(mass),
        "squared_error_debiased": reliability(width),
        "smooth_ece": smooth_ece(sums["cells"]),
        "vocabulary_error": np.abs(sums["decades"] @ [1, -1]).sum() / rows,
        "brier": sums["brier"] / rows,
        **{part.__name__: part(width) for part in parts},
        "temperature": 1 / (beta - step),
        "nll_after_temperature": (sums["loss_after"] - sums["slope"] * step / 2) / rows,
        "ece_after_temperature": after,
        "slope_epsilon": 1 - sums["square"] / sums["product"],
    }
    gaps = np.divide(confidence - correct, count, out=np.zeros(BINS), where=count > 0)
    return {name: round(float(value), 9) for name, value in found.items()} | {"gaps": gaps.round(9).tolist()}


def _binned(index: np.ndarray, bins: int, columns) -> np.ndarray:
    return np.stack([np.bincount(index, column, bins) for column in columns], axis=-1)


def _effects(rng, documents: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    scale, own = rng.standard_normal((2, documents))
    return np.exp(SCALE_SPREAD * scale), np.exp(spread * own)


def _best_beta(vocab: int, spread: float, fault: Fault) -> float:
    """Return 1 / T of the least mean loss over a smaller draw, by Newton's method."""
    rng = np.random.default_rng(2**21)
    rows = PILOT_ROWS * 64 // vocab
    scale, own = _effects(rng, rows, spread)
    logits = draw_logits(rng, rows, vocab) * scale[:, None]
    p, log_q = np.exp(log_probabilities(logits)), log_probabilities(fault.of(logits, own))
    target, beta = (p * log_q).sum(axis=1), 1.0
    for _ in range(12):
        t = np.exp(log_probabilities(beta * log_q))
        mean = (t * log_q).sum(axis=1)
        curvature = (t * log_q**2).sum(axis=1) - mean**2
        beta -= float(np.clip((mean - target).mean() / curvature.mean(), -0.2, 0.2))
    return beta


if __name__ == "__main__":
    kept = {f"{vocab} {spread}": population(vocab, spread, names) for (vocab, spread), names in KEPT.items()}
    FILE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
