"""Texts with one planted cause, and the numbers of it, computed from the stored columns with numpy and pandas alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from drawn_runs import document_numbers, draw_logits, draw_targets, write_drawn
from scipy import stats

from lossprobe.run.reader import Run

TOKENS, DOCUMENTS = 6000, 60
PIECES = [
    *(b" w%d" % place for place in range(48)), *("éèêëàâîï"[place].encode() for place in range(8)),
    b" 7", b" 8", b"1", b"2", b"\n", b"\r\n", b".", b",",
]  # fmt: skip
NON_ASCII = range(48, 56)


class Planted:
    """A text that its model is calibrated on, of unlike documents; `lower` plants a cause, `run` writes it."""

    def __init__(self, seed: int = 3, tokens: int = TOKENS, documents: int = DOCUMENTS):
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.documents = document_numbers(rng, tokens, documents)
        sizes = np.bincount(self.documents)
        self.place = np.arange(len(self.documents)) - np.repeat(sizes.cumsum() - sizes, sizes)
        scale = np.exp(0.2 * rng.standard_normal(documents))[self.documents]
        self.logits = draw_logits(rng, len(self.documents), len(PIECES)) * scale[:, None]
        self.targets = draw_targets(rng, self.logits)

    def lower(self, rows: np.ndarray, by: float) -> np.ndarray:
        """Return the logits with the token's own one lower by some nats in the chosen rows, bool [N]."""
        logits = self.logits.copy()
        logits[np.flatnonzero(rows), self.targets[rows]] -= by
        return logits

    def run(self, folder: Path, logits: np.ndarray | None = None, **choices: Any) -> Run:
        logits = self.logits if logits is None else logits
        return write_drawn(folder, logits, self.targets, self.documents, vocabulary=PIECES, **choices).run


def run_of_halves(folder: Path, targets: np.ndarray, documents: np.ndarray, nats: np.ndarray, **choices: Any) -> Run:
    """Write a run of a tokenizer that has two tokens for each of those that begin with a blank; `nats` [N] is of both.

    Every entry but the token's own has the same logit: it is that which gives the token its loss.
    """
    pieces = [PIECES[0], b" ", *sorted({piece.removeprefix(b" ") for piece in PIECES})]
    pieces += [b"-%d" % place for place in range(8)]
    halves = [[b" ", piece[1:]] if piece.startswith(b" ") else [piece] for piece in PIECES]
    ids = [[pieces.index(half) for half in each] for each in halves]
    count = np.array([len(ids[target]) for target in targets.tolist()])
    own = np.concatenate([ids[target] for target in targets.tolist()])
    loss = np.repeat(nats / count, count)
    logits = np.zeros((len(own), len(pieces)))
    logits[np.arange(len(own)), own] = np.log((len(pieces) - 1) / np.expm1(loss))
    return write_drawn(folder, logits, own, np.repeat(documents, count), vocabulary=pieces, **choices).run


def frame(run: Run) -> pd.DataFrame:
    """Return the stored rows with a loss, in order, with float64 losses."""
    rows = pd.concat([pd.read_parquet(part) for part in sorted((Path(run.path) / "tokens").glob("*.parquet"))])
    rows = rows[rows["unscored"].isna()].reset_index(drop=True)
    return rows.assign(loss=rows["loss_nats"].astype(float))


def jackknife(clusters: pd.Series, number: Callable[[np.ndarray], float]) -> tuple[float, float, float]:
    """Return a number of rows with the ends of its 95 % interval; `number` takes a mask of the rows."""
    keys = clusters.unique()
    whole = number(np.ones(len(clusters), bool))
    without = np.array([number((clusters != key).to_numpy()) for key in keys])
    error = math.sqrt((len(keys) - 1) / len(keys) * ((without - without.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, len(keys) - 1) * error
    return whole, whole - half, whole + half


def spread(rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return a mask of all rows from that of the chosen ones."""
    mask = np.zeros(len(rows), bool)
    mask[np.flatnonzero(rows)[kept]] = True
    return mask
