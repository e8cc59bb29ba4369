"""Collects sums, quantiles and the largest divergences for a `Divergence` while two models run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.compare.divergence import Divergence
from lossprobe.analysis.rows.clusters import BLOCK_TOKENS, copies_note
from lossprobe.analysis.stats.interval import Estimate
from lossprobe.analysis.stats.jackknife import around, jackknife_ratio
from lossprobe.analysis.stats.quantile_sketch import EXACT, QuantileSketch
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.units import format_count, plural

PERCENTILES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
HARDEST = 20
HARDEST_COLUMNS = ["document", "token", "token_id", "kl_nats", "first_loss_nats", "second_loss_nats"]
SUMS = ["tokens", "finite_kl", "infinite", "same_top", "squared_change", "first_loss", "second_loss"]


@dataclass(frozen=True)
class TokenDivergences:
    """Scored tokens of a text under two models A and B, [n] in text order.

    Attributes:
        document, token, token_id: int64, which tokens.
        kl_nats: float64, KL(A‖B) ≥ 0; +inf where A gives probability to an entry that B excludes.
        same_top: bool, both have the same first choice.
        target_prob_change: float64, p_B − p_A of the token.
        first_loss_nats, second_loss_nats: float64, −log p of the token under A and under B.
    """

    document: npt.NDArray[np.int64]
    token: npt.NDArray[np.int64]
    token_id: npt.NDArray[np.int64]
    kl_nats: Floats
    same_top: npt.NDArray[np.bool_]
    target_prob_change: Floats
    first_loss_nats: Floats
    second_loss_nats: Floats


class DivergenceTally:
    """Gathers what a `Divergence` needs while the models run: sums, two sketches and the largest divergences.

    Memory grows with the documents (72 bytes each), not with their tokens.

    Args:
        first: name of model A.
        second: name of model B.
        texts: number of every document's text, where copies have the same one; None where all documents differ.
    """

    def __init__(self, first: str, second: str, texts: Sequence[int] | None = None) -> None:
        self._names = (first, second)
        self._texts = None if texts is None else np.asarray(texts, np.int64)
        self._keys: list[npt.NDArray[np.int64]] = []  # [k, 2]: document, block
        self._sums: list[Floats] = []  # [k, len(SUMS)]
        self._divergences, self._changes = QuantileSketch(), QuantileSketch()
        self._largest = pd.DataFrame(columns=HARDEST_COLUMNS)
        self._last_token = 0

    def add(self, tokens: TokenDivergences) -> None:
        """Add the next tokens of the text."""
        if not len(tokens.token):
            return
        finite = np.isfinite(tokens.kl_nats)
        values = np.stack(
            [
                np.ones(len(finite)), np.where(finite, tokens.kl_nats, 0.0), ~finite, tokens.same_top,
                tokens.target_prob_change**2, tokens.first_loss_nats, tokens.second_loss_nats,
            ],
            axis=1,
        )  # fmt: skip
        keys = np.stack([tokens.document, tokens.token // BLOCK_TOKENS], axis=1)
        starts = np.concatenate([[0], np.flatnonzero((np.diff(keys, axis=0) != 0).any(axis=1)) + 1])
        self._keys.append(keys[starts])
        self._sums.append(np.add.reduceat(values, starts, axis=0))
        self._divergences.add(tokens.kl_nats)
        self._changes.add(tokens.target_prob_change)
        self._last_token = int(tokens.token[-1])
        own = pd.DataFrame({name: getattr(tokens, name) for name in HARDEST_COLUMNS})
        own = own.nlargest(HARDEST, "kl_nats", keep="first")
        both = pd.concat([self._largest, own]) if len(self._largest) else own
        self._largest = both.nlargest(HARDEST, "kl_nats", keep="first")  # equals stay in text order

    def result(self, notes: list[str]) -> Divergence:
        """Return the result over everything that was added, at least one token.

        Args:
            notes: what a reader must know of the pass, one line each.
        """
        sums, note = self._clusters()
        part = {name: sums[:, index] for index, name in enumerate(SUMS)}
        total = {name: float(values.sum()) for name, values in part.items()}
        count, infinite = int(total["tokens"]), int(total["infinite"])
        mean = jackknife_ratio(part["finite_kl"], part["tokens"]).within(0.0, math.inf)
        kl = Estimate(math.inf) if infinite else mean
        same_top = jackknife_ratio(part["same_top"], part["tokens"]).within(0.0, 1.0)
        change = _root_mean(part["squared_change"], part["tokens"])
        notes = [*notes, *([note] if note else [])]
        if infinite:
            others = f"{total['finite_kl'] / (count - infinite):.6f} nats" if count > infinite else "n/a"
            notes.append(
                f"KL is infinite on {plural(infinite, 'token')}, where the second model excludes an entry that the "
                f"first does not; mean over the others: {others}"
            )
        if count > EXACT:
            notes.append(f"more than {plural(EXACT, 'token')}: percentiles are right to 0.025 % of themselves")
        return Divergence(
            first=self._names[0],
            second=self._names[1],
            tokens=count,
            mean_kl_nats=kl.value,
            mean_kl_nats_interval=kl.interval,
            kl_percentiles=_percentiles(self._divergences),
            infinite_kl_tokens=infinite,
            same_top_share=same_top.value,
            same_top_share_interval=same_top.interval,
            rms_target_prob_change=change.value,
            rms_target_prob_change_interval=change.interval,
            target_prob_change_percentiles=_percentiles(self._changes),
            first_mean_loss=total["first_loss"] / count,
            second_mean_loss=total["second_loss"] / count,
            hardest=self._largest.reset_index(drop=True),
            notes=notes,
        )

    def _clusters(self) -> tuple[Floats, str | None]:
        """Return the sums of each cluster [G, len(SUMS)], by the rule of `clusters.find_clusters`, and a note."""
        keys, sums = np.concatenate(self._keys), np.concatenate(self._sums)
        documents, labels = np.unique(keys[:, 0], return_inverse=True)
        note = None
        if self._texts is not None:
            distinct, labels = np.unique(self._texts[keys[:, 0]], return_inverse=True)
            note = copies_note(len(documents), len(distinct))
            documents = distinct
        if len(documents) == 1:
            last = max(0, (self._last_token + 1) // BLOCK_TOKENS - 1)
            blocks, labels = np.unique(np.minimum(keys[:, 1], last), return_inverse=True)
            count, size = len(blocks), format_count(BLOCK_TOKENS)
            whole = note or "one document"
            note = f"{whole}: intervals resample {count} blocks of {size} tokens and are a lower bound"
            if count == 1:
                note = f"{whole} of fewer than {format_count(2 * BLOCK_TOKENS)} tokens: no interval can be given"
        merged = np.zeros((int(labels.max()) + 1, len(SUMS)))
        np.add.at(merged, labels, sums)
        return merged, note


def _percentiles(sketch: QuantileSketch) -> dict[str, float]:
    return {f"{share:g}": value for share, value in zip(PERCENTILES, sketch.quantiles(PERCENTILES), strict=True)}


def _root_mean(squares: Floats, tokens: Floats) -> Estimate:
    """Return √(Σ squares / Σ tokens) with its delete-one jackknife-t interval, cut at 0."""
    root = math.sqrt(squares.sum() / tokens.sum())
    if len(tokens) < 2:
        return Estimate(root)
    rest = np.maximum(squares.sum() - squares, 0.0) / (tokens.sum() - tokens)
    return around(root, np.sqrt(rest)).within(0.0, math.inf)
