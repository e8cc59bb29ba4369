"""Simulates how often an audit with early stopping decides wrongly, and how soon it decides.

    python tests/simulations/early_stopping.py

draws texts of documents, looks at them in the order drawn as an audit does, and writes `early_stopping.json`, in less
than a minute. A document has n tokens and a summed difference s in nats; the true difference per token is E s / E n.
Ways to decide that it is above a limit ("fail") or below it ("pass"):

- the audit: the confidence sequence at every early look, and its share of the risk on the whole text;
- early: the early looks alone;
- asymptotic: the same with the quantile of a known variance, to show the effect of the correction for few documents;
- whole: one ordinary 95 % jackknife-t interval of the whole text;
- naive: 1.96 standard errors at every look, to show that this is wrong.

If the true difference equals the limit, every decision is wrong; each side may be up to 2.5 %. With 10,000 texts, a
share of .025 is measured within ± .003 (two standard errors). The rule against skewed documents is simulated in
`early_skew.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from lossprobe.analysis.stats.confidence_sequence import (
    EARLY_ERROR,
    effective_clusters,
    last_quantile,
    looks,
    mixture_variance,
    sequence_quantile,
)
from lossprobe.run.reader import open_run

FILE = Path(__file__).with_suffix(".json")
EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIDENCE = 0.95
RUNS, AT_ONCE = 10_000, 500
SIZES = (40, 100, 400, 2000)
TOKENS = 1800  # mean tokens of a document
DOCUMENT_SD, TOKEN_SD = 0.03, 0.3  # nats: of the documents' means, and of tokens within one
CLEAR_NATS = 0.01  # a limit that is this far above the truth
EFFECTS = (0, 2, 3, 4, 5, 6, 8, 10, 15)  # standard errors of the whole text
Sums = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator, tuple[int, int]], Sums]


def sizes(rng, shape, spread: float = 1.0) -> np.ndarray:
    """Return log-normal document sizes around `TOKENS`."""
    return np.maximum(2.0, np.round(TOKENS * np.exp(spread * rng.standard_normal(shape) - spread**2 / 2)))


def equal(rng, shape) -> Sums:
    n = np.full(shape, float(TOKENS))
    return n * DOCUMENT_SD * rng.standard_normal(shape), n


def unequal(rng, shape, spread: float = 1.0) -> Sums:
    n = sizes(rng, shape, spread)
    noise = DOCUMENT_SD * n * rng.standard_normal(shape) + TOKEN_SD * np.sqrt(n) * rng.standard_normal(shape)
    return noise, n


def very_unequal(rng, shape) -> Sums:
    return unequal(rng, shape, 1.5)


def heavy(rng, shape) -> Sums:
    """Means with Student's t of three degrees of freedom, and in each document one token that far out of n such."""
    n = sizes(rng, shape)
    largest = TOKEN_SD * rng.standard_t(3, shape) * n ** (1 / 3)
    return DOCUMENT_SD * n * rng.standard_t(3, shape) + TOKEN_SD * np.sqrt(n) * rng.standard_normal(shape) + largest, n


def skewed(rng, shape) -> Sums:
    """Document means that are exponential: most a little below the truth, few far above."""
    n = sizes(rng, shape)
    return DOCUMENT_SD * n * (rng.exponential(size=shape) - 1.0), n


def longer_is_worse(rng, shape) -> Sums:
    """A document's mean grows with the log of its size, as much as it varies at one size."""
    z = rng.standard_normal(shape)
    n = TOKENS * np.exp(z - 0.5)
    return DOCUMENT_SD * n * (rng.standard_normal(shape) + z - 1.0), n  # E[n z] = E n


def rare(rng, shape) -> Sums:
    """One document in twenty carries all of the difference."""
    n = sizes(rng, shape)
    broken = (rng.random(shape) < 0.05) * 20.0 - 1.0
    return DOCUMENT_SD * n * (broken + 0.2 * rng.standard_normal(shape)), n


def bundled(sums: np.ndarray) -> Draw:
    """Return draws of whole documents, with replacement, from the [2, G] sums and tokens of the bundled pair."""
    s, n = sums[0] - sums[0].sum() / sums[1].sum() * sums[1], sums[1]

    def draw(rng, shape) -> Sums:
        chosen = rng.integers(0, len(n), shape)
        return s[chosen], n[chosen]

    return draw


POPULATIONS: dict[str, Draw] = {
    "equal sizes, normal": equal,
    "log-normal sizes": unequal,
    "log-normal sizes, σ 1.5": very_unequal,
    "heavy tails": heavy,
    "skewed means": skewed,
    "longer is worse": longer_is_worse,
    "one in twenty": rare,
}


@dataclass(frozen=True)
class Seen:
    """Estimates, standard errors and quantiles of texts: float64 [looks, texts], of the whole text last."""

    counts: list[int]
    estimate: np.ndarray
    error: np.ndarray
    quantile: np.ndarray

    def decisions(self, limit: np.ndarray | float, quantile: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return which looks show more than the limit, and which less: bool [looks, texts]."""
        half = quantile * self.error
        return self.estimate - half > limit, self.estimate + half < limit

    def audit(self, limit: np.ndarray | float) -> dict[str, np.ndarray]:
        """Return what an audit does: `fail` and `pass` bool [texts], `early` bool, `share` of the documents used."""
        above, below = self.decisions(limit, self.quantile)
        decided = above | below
        stop = np.where(decided.any(axis=0), decided.argmax(axis=0), len(self.counts) - 1)
        at = stop, np.arange(above.shape[1])
        share = np.array(self.counts)[stop] / self.counts[-1]
        return {"fail": above[at], "pass": below[at], "early": stop < len(self.counts) - 1, "share": share}


def look(s: np.ndarray, n: np.ndarray) -> Seen:
    """Return what the looks at texts see; s and n are [texts, documents]."""
    documents = n.shape[1]
    counts = looks(documents)
    found = []
    for count in counts:
        nats, tokens = s[:, :count], n[:, :count]
        total, size = nats.sum(axis=1, keepdims=True), tokens.sum(axis=1, keepdims=True)
        error = np.sqrt((count - 1) * ((total - nats) / (size - tokens)).var(axis=1))
        if count < documents:
            quantile = sequence_quantile(count, documents, CONFIDENCE, effective_clusters(tokens))
        else:
            quantile = np.full(len(n), last_quantile(documents, CONFIDENCE))
        found.append(((total / size)[:, 0], error, quantile))
    return Seen(counts, *np.moveaxis(np.array(found), 1, 0))


def draw_seen(draw: Draw, documents: int, runs: int = RUNS, seed: int = 0) -> Seen:
    """Return what is seen of so many texts, a few hundred of them at a time."""
    rng = np.random.default_rng([seed, documents])
    parts = [look(*draw(rng, (min(AT_ONCE, runs - start), documents))) for start in range(0, runs, AT_ONCE)]
    names = ("estimate", "error", "quantile")
    joined = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names)
    return Seen(parts[0].counts, *joined)


def false_alarms(seen: Seen) -> dict[str, float]:
    """Return the share of texts that each way decides about wrongly where the truth, 0, is the limit.

    `clear_fail` and `clear_pass` are the audit's decisions where the limit is `CLEAR_NATS`: a fail is wrong.
    """
    audit, clear = seen.audit(0.0), seen.audit(CLEAR_NATS)
    early = [side[:-1].any(axis=0) for side in seen.decisions(0.0, seen.quantile)]
    asymptotic = [side[:-1].any(axis=0) for side in seen.decisions(0.0, known_variance(seen.counts))]
    quantile = student.ppf((1 + CONFIDENCE) / 2, seen.counts[-1] - 1)
    whole = [side[-1] for side in seen.decisions(0.0, quantile)]
    naive = [side.any(axis=0) for side in seen.decisions(0.0, 1.96)]
    columns = {"fail": audit["fail"], "pass": audit["pass"]}
    for name, sides in (("early", early), ("asymptotic", asymptotic), ("whole", whole), ("naive", naive)):
        columns |= {f"{name}_fail": sides[0], f"{name}_pass": sides[1]}
    columns |= {"clear_fail": clear["fail"], "clear_pass": clear["pass"], "clear_share": clear["share"]}
    return {name: round(float(column.mean()), 4) for name, column in columns.items()}


def known_variance(counts: list[int]) -> np.ndarray:
    """Return q of `confidence_sequence` for every look, [looks, 1]."""
    alpha = EARLY_ERROR * (1 - CONFIDENCE)
    r = np.array(counts)[:, None] * mixture_variance(counts[-1], alpha)
    return np.sqrt((1 + 1 / r) * (np.log1p(r) - 2 * np.log(alpha)))


def power(seen: Seen) -> list[dict[str, float]]:
    """Return for every effect, in standard errors of the whole text, how often and after how much it is found."""
    error = float(seen.estimate[-1].std())
    quantile = student.ppf((1 + CONFIDENCE) / 2, seen.counts[-1] - 1)
    rows = []
    for effect in EFFECTS:
        audit = seen.audit(-effect * error)
        whole = seen.decisions(-effect * error, quantile)[0][-1]
        columns = {
            "whole": whole, "fail": audit["fail"], "early": audit["early"] & audit["fail"], "pass": audit["pass"],
            "share": audit["share"], "under_a_quarter": audit["share"] < 0.25,
        }  # fmt: skip
        rows.append({"effect": effect} | {name: round(float(column.mean()), 4) for name, column in columns.items()})
    return rows


def orders(sums: np.ndarray, limits: tuple[float, ...], runs: int = 1000) -> list[dict[str, float]]:
    """Return what audits of the bundled pair decide in random orders of its documents; the whole text is the same."""
    order = np.random.default_rng(0).permuted(np.tile(np.arange(sums.shape[1]), (runs, 1)), axis=1)
    seen = look(sums[0][order], sums[1][order])
    rows = []
    for limit in limits:
        audit = seen.audit(limit)
        last = [bool(side[-1][0]) for side in seen.decisions(limit, seen.quantile)]
        verdict = "fail" if last[0] else "pass" if last[1] else "inconclusive"
        columns = {"fail": audit["fail"], "pass": audit["pass"], "share": audit["share"],
                   "under_a_quarter": audit["share"] < 0.25}  # fmt: skip
        errors = (seen.estimate[-1][0] - limit) / seen.error[-1][0]
        row = {"limit": limit, "effect": round(float(errors), 2), "whole": verdict}
        rows.append(row | {name: round(float(column.mean()), 4) for name, column in columns.items()})
    return rows


def bundled_sums() -> np.ndarray:
    """Return [2, documents]: summed differences, smoothed − plain, and tokens, of the bundled pair's held-out text."""
    sql = "SELECT sum(loss_nats::DOUBLE) AS s, count(*) AS n FROM tokens WHERE unscored IS NULL GROUP BY document"
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("plain", "smoothed"):
            run = Path(folder) / name
            arguments = [EXAMPLES / f"jargon-{name}", EXAMPLES / "jargon-valid.jsonl", "-o", run]
            command = [sys.executable, "-m", "lossprobe", "score", *map(str, arguments)]
            subprocess.run(command, check=True, capture_output=True)
            tables.append(open_run(run).query(f"{sql} ORDER BY document"))
    first, second = tables
    return np.stack([second["s"] - first["s"], first["n"]]).astype(float)


def main() -> None:
    started = time.process_time()
    sums = bundled_sums()
    populations = POPULATIONS | {"the bundled pair": bundled(sums)}
    found: dict[str, list] = {"false_alarms": [], "power": [], "orders": []}
    for name, draw in populations.items():
        for documents in SIZES:
            seen = draw_seen(draw, documents)
            found["false_alarms"].append({"population": name, "documents": documents, **false_alarms(seen)})
            if documents in (100, 400) and name in ("equal sizes, normal", "log-normal sizes", "the bundled pair"):
                found["power"] += [{"population": name, "documents": documents, **row} for row in power(seen)]
    found["orders"] = orders(sums, (-0.05, 0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.12, 0.15))
    for name, rows in found.items():
        print_table(name, rows)
    lines = [
        f' "{name}": [\n' + ",\n".join(f"  {dumped(row)}" for row in rows) + "\n ]" for name, rows in found.items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    print(f"\n{time.process_time() - started:.0f} s of CPU")


def dumped(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False)


def print_table(name: str, rows: list[dict]) -> None:
    print(f"\n{name}\n{'':28}" + "".join(f"{key.replace('under_a_quarter', '< 1/4'):>12}" for key in rows[0]))
    for row in rows:
        label = str(row.get("population", ""))
        print(f"{label:28}" + "".join(f"{'' if key == 'population' else value!s:>12}" for key, value in row.items()))


if __name__ == "__main__":
    main()
