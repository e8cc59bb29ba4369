"""Simulates how often the power law of `positions` is said to miss, with curves that are one and curves that are not.

    python tests/simulations/power_law_truth.py [TEXTS]

draws TEXTS (200) texts of each curve and kind of text, and prints in how many of 100 the fit is said to have another
shape, by each of the two checks alone at 1 % and by the rule of the program, and in how many no fit settles.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.stats.power_law import LEVEL, FoldSums, PowerLaw, fit_power_law

A, B, ALPHA = 2.0, 3.0, 0.6
GROUPS = 20
Curve = Callable[[np.ndarray], np.ndarray]


def power_law(t: np.ndarray) -> np.ndarray:
    return A + B * (t + 1.0) ** -ALPHA


CURVES: dict[str, Curve] = {
    "power law": power_law,
    "step of 0.3 nats": lambda t: power_law(t) + 0.3 * (t > 128),
    "step of 0.1 nats": lambda t: power_law(t) + 0.1 * (t > 128),
    "bump of 0.3 nats": lambda t: power_law(t) + 0.3 * np.exp(-(np.log2(t / 64.0) ** 2)),
    "bump of 0.15 nats": lambda t: power_law(t) + 0.15 * np.exp(-(np.log2(t / 64.0) ** 2)),
    "kink of 0.1 nats an octave": lambda t: power_law(t) + 0.1 * np.maximum(0.0, np.log2(t / 64.0)),
    "kink of 0.05 nats an octave": lambda t: power_law(t) + 0.05 * np.maximum(0.0, np.log2(t / 64.0)),
}


@dataclass(frozen=True)
class Kind:
    """Texts of one kind; tokens have exponential noise of the standard deviation `noise`.

    Attributes:
        documents: how many.
        noise: of a token, in nats.
        slope: standard deviation of the documents' own change per five octaves, in nats.
        shortest: documents have `shortest` to 512 tokens.
    """

    documents: int = 100
    noise: float = 1.0
    slope: float = 0.0
    shortest: int = 512

    def __str__(self) -> str:
        lengths = "512" if self.shortest == 512 else f"{self.shortest} to 512"
        slopes = f", slopes of their own of {self.slope} nats in five octaves" if self.slope else ""
        return f"{self.documents} documents of {lengths} tokens, noise {self.noise} nats{slopes}"


KINDS = (Kind(), Kind(noise=2.0), Kind(shortest=20), Kind(documents=40, slope=0.2), Kind(documents=8))


def draw(generator: np.random.Generator, curve: Curve, kind: Kind) -> FoldSums:
    """Return the sums of a text: a curve, 0.35 nats between documents, noise of tokens."""
    t = np.arange(1, 513)
    bins = np.floor(4 * np.log2(t + 1) + 1e-9).astype(int)
    tokens, nats, places = np.zeros((3, bins.max() + 1, GROUPS))
    for number in range(kind.documents):
        length = int(generator.integers(kind.shortest, 513))
        loss = curve(t) + generator.normal(0.0, 0.35) + generator.normal(0.0, kind.slope) * np.log2(t) / 5
        loss += kind.noise * (generator.exponential(1.0, len(t)) - 1.0)
        for grid, values in ((tokens, 1), (nats, loss[:length]), (places, t[:length])):
            np.add.at(grid, (bins[:length], number % GROUPS), values)
    found, held = tokens.sum(axis=1) > 0, tokens.sum(axis=0) > 0
    return FoldSums(*(grid[found][:, held] for grid in (tokens, nats, places)))


def fits(curve: Curve, kind: Kind, texts: int, seed: int = 1) -> list[PowerLaw | None]:
    """Return the fits to so many texts."""
    generator = np.random.default_rng(seed)
    return [fit_power_law(draw(generator, curve, kind)) for _ in range(texts)]


def main(texts: int = 200) -> None:
    for kind in KINDS:
        print(f"\n{kind}, {texts} texts\n{'of 100':30}{'runs':>8}{'shape':>8}{'missed':>8}{'no fit':>8}")
        for name, curve in CURVES.items():
            found = fits(curve, kind, texts)
            given = [fit for fit in found if fit is not None]
            counts = [
                sum(fit.residual_runs_p < LEVEL for fit in given),
                sum(fit.residual_shape_p < LEVEL for fit in given),
                sum(fit.misses for fit in given),
                len(found) - len(given),
            ]
            print(f"{name:30}" + "".join(f"{100 * count / texts:8.1f}" for count in counts), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
