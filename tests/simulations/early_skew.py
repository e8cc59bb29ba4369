"""Simulates how often early stopping is wrong if few documents carry a change, and what the rule against it costs.

    python tests/simulations/early_skew.py

draws texts as `early_stopping.py` does, with more populations, and writes `early_skew.json` in two minutes. It compares
three ways to decide: the whole text alone (`last_quantile`, with the confidence that it has in such an audit), the
confidence sequence alone ("before"), and the sequence with the rule of `analysis.stopping` ("now"). The true change
equals the limit, so every decision is wrong: a pass if few documents are much worse, and in the mirrored text, where
few documents are much better, a fail.

`power` has changes of several sizes, in standard errors of the whole text: how often they are decided, on which share
of the documents, and how often a look with a clear interval had to go on to the whole text in vain. `baselines` has how
often the losses of an unchanged text under its baseline are so skewed that the first look that is large enough may not
be a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from simulations.early_stopping import (
    CONFIDENCE,
    DOCUMENT_SD,
    POPULATIONS,
    Draw,
    Seen,
    Sums,
    bundled,
    bundled_sums,
    dumped,
    look,
    print_table,
    sizes,
)

from lossprobe.analysis.stats.confidence_sequence import looks
from lossprobe.analysis.stopping import PASS_SHARE, beyond_doubt, documents_to_pass, most_skewness, skewness
from lossprobe.audit.checks.metrics import METRICS

FILE = Path(__file__).with_suffix(".json")
RUNS, AT_ONCE = 4000, 500
SIZES = (40, 100, 400, 2000)
WORST = METRICS["nll"].worst
EFFECTS = (4, 6, 10, 30)
MEAN_LOSS, LOSS_SD = 3.7, 0.4  # nats: of documents' mean losses, as in the bundled text


def log_normal(sigma: float) -> Draw:
    """Return draws of documents whose mean changes are log-normal."""
    mean, sd = np.exp(sigma**2 / 2), np.sqrt(np.expm1(sigma**2) * np.exp(sigma**2))

    def draw(rng, shape) -> Sums:
        n = sizes(rng, shape)
        return DOCUMENT_SD * n * (np.exp(sigma * rng.standard_normal(shape)) - mean) / sd, n

    return draw


def pareto(index: float) -> Draw:
    """Return draws of documents whose mean changes have a tail like x^−index: below 2 they have no variance."""

    def draw(rng, shape) -> Sums:
        n = sizes(rng, shape)
        return DOCUMENT_SD * n * (rng.pareto(index, shape) - 1.0 / (index - 1.0)), n

    return draw


def carriers(share: float, noise: float = 0.2) -> Draw:
    """Return draws where one kind of documents carries all of the change."""

    def draw(rng, shape) -> Sums:
        n = sizes(rng, shape)
        broken = (rng.random(shape) < share) / share - 1.0
        return DOCUMENT_SD * n * (broken + noise * rng.standard_normal(shape)), n

    return draw


SKEWED: dict[str, Draw] = {
    "exponential": POPULATIONS["skewed means"],
    "longer is worse": POPULATIONS["longer is worse"],
    "log-normal, σ 0.5": log_normal(0.5),
    "log-normal, σ 1": log_normal(1.0),
    "log-normal, σ 1.5": log_normal(1.5),
    "log-normal, σ 2": log_normal(2.0),
    "Pareto, index 3": pareto(3.0),
    "Pareto, index 1.5": pareto(1.5),
    "10 % carry all": carriers(0.1),
    "5 % carry all": carriers(0.05),
    "5 % carry all, noisy": carriers(0.05, 1.0),
    "2 % carry all": carriers(0.02),
}
ORDINARY: dict[str, Draw] = {
    "normal": POPULATIONS["equal sizes, normal"],
    "normal, log-normal sizes": POPULATIONS["log-normal sizes"],
    "heavy tails": POPULATIONS["heavy tails"],
}


@dataclass(frozen=True)
class Skewed(Seen):
    """What is seen, and float64 [looks, texts] of `skewness`."""

    skew: np.ndarray

    def ruled(self, limit: float) -> dict[str, np.ndarray]:
        """Return what an audit does with the rule; as `audit`, and `refused`: clear at a look, decided by none."""
        above, below = self.decisions(limit, self.quantile)
        clear = (above | below)[:-1].any(axis=0)
        for at, count in enumerate(self.counts[:-1]):
            above[at] &= -self.skew[at] <= most_skewness(count, passed=False)
            enough = count >= documents_to_pass(CONFIDENCE) and count >= PASS_SHARE * self.counts[-1]
            far = beyond_doubt(limit - self.estimate[at], WORST, count, CONFIDENCE)
            below[at] &= (self.skew[at] <= most_skewness(count, passed=True)) & (enough | far)
        decided = above | below
        last = len(self.counts) - 1
        stop = np.where(decided.any(axis=0), decided.argmax(axis=0), last)
        at = stop, np.arange(above.shape[1])
        share = np.array(self.counts)[stop] / self.counts[-1]
        return {"fail": above[at], "pass": below[at], "share": share, "refused": clear & (stop == last)}

    def mirrored(self) -> Skewed:
        """Return what is seen where every change has the other sign."""
        return replace(self, estimate=-self.estimate, skew=-self.skew)


def see(s: np.ndarray, n: np.ndarray) -> Skewed:
    """Return what the looks at texts see; s and n are [texts, documents]."""
    seen = look(s, n)
    skew = [-skewness(without(s[:, :count], n[:, :count])) for count in seen.counts]
    return Skewed(seen.counts, seen.estimate, seen.error, seen.quantile, np.array(skew))


def without(s: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the means without each document in turn."""
    return (s.sum(axis=-1, keepdims=True) - s) / (n.sum(axis=-1, keepdims=True) - n)


def draw_skewed(draw: Draw, documents: int, runs: int = RUNS, seed: int = 0) -> Skewed:
    """Return what is seen of so many texts."""
    rng = np.random.default_rng([seed, documents])
    parts = [see(*draw(rng, (min(AT_ONCE, runs - start), documents))) for start in range(0, runs, AT_ONCE)]
    names = ("estimate", "error", "quantile", "skew")
    joined = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names)
    return Skewed(parts[0].counts, *joined)


def wrong(seen: Skewed) -> dict[str, float]:
    """Return the share of texts that each way decides wrongly: passes, and fails of the mirrored texts."""
    mirrored = seen.mirrored()
    columns = {
        "whole_pass": seen.decisions(0.0, seen.quantile)[1][-1],
        "before_pass": seen.audit(0.0)["pass"],
        "now_pass": seen.ruled(0.0)["pass"],
        "whole_fail": mirrored.decisions(0.0, seen.quantile)[0][-1],
        "before_fail": mirrored.audit(0.0)["fail"],
        "now_fail": mirrored.ruled(0.0)["fail"],
    }
    return {name: round(float(column.mean()), 4) for name, column in columns.items()}


def power(seen: Skewed) -> Iterator[dict[str, object]]:
    """Yield what becomes of changes far beyond a limit, and of limits far from a change."""
    error = float(seen.estimate[-1].std())
    for verdict, side in (("fail", -1.0), ("pass", 1.0)):
        for effect in EFFECTS:
            before, now = seen.audit(side * effect * error), seen.ruled(side * effect * error)
            columns = {
                "before": before[verdict], "now": now[verdict], "before_share": before["share"],
                "now_share": now["share"], "refused": now["refused"],
            }  # fmt: skip
            means = {name: round(float(column.mean()), 4) for name, column in columns.items()}
            yield {"verdict": verdict, "effect": effect, **means}


def normal(rng, shape) -> np.ndarray:
    return MEAN_LOSS + LOSS_SD * rng.standard_normal(shape)


def log_normal_losses(rng, shape) -> np.ndarray:
    return MEAN_LOSS * np.exp(0.3 * rng.standard_normal(shape))


def two_kinds(rng, shape) -> np.ndarray:
    """One document in twenty is of another kind and costs 3 nats more."""
    return normal(rng, shape) + 3.0 * (rng.random(shape) < 0.05)


LOSSES = {"normal": normal, "log-normal, σ 0.3": log_normal_losses, "5 % cost 3 nats more": two_kinds}


def too_skewed(draw: Callable[..., np.ndarray], documents: int) -> float:
    """Return the share of texts that the mean losses of their documents keep from passing at the first look."""
    skew = np.abs(skewness(draw(np.random.default_rng([1, documents]), (RUNS, documents))))
    needed = max(documents_to_pass(CONFIDENCE), PASS_SHARE * documents)
    first = next(count for count in looks(documents) if count >= needed)
    return round(float((skew > most_skewness(first, passed=True)).mean()), 4)


def main() -> None:
    started = time.process_time()
    changes = bundled_sums()
    found: dict[str, list] = {"wrong": [], "power": [], "baselines": []}
    for name, draw in (ORDINARY | SKEWED | {"the bundled pair": bundled(changes)}).items():
        for documents in SIZES:
            seen = draw_skewed(draw, documents)
            found["wrong"].append({"population": name, "documents": documents, **wrong(seen)})
            if documents > 40 and name not in SKEWED:
                found["power"] += [{"population": name, "documents": documents, **row} for row in power(seen)]
    for name, losses in LOSSES.items():
        found["baselines"] += [
            {"population": name, "documents": n, "refused": too_skewed(losses, n)} for n in SIZES[1:]
        ]
    for name, rows in found.items():
        print_table(name, rows)
    lines = [
        f' "{name}": [\n' + ",\n".join(f"  {dumped(row)}" for row in rows) + "\n ]" for name, rows in found.items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    print(f"\n{time.process_time() - started:.0f} s of CPU")


if __name__ == "__main__":
    main()
