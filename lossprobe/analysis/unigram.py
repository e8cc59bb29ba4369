"""The loss of the best model without context: the entropy of a text's own token frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.rows.clusters import copies_per_token
from lossprobe.run.reader import Run

TOKENS_PER_TYPE = 5


@dataclass(frozen=True)
class Unigram:
    """The frequencies of a text's scored tokens.

    Attributes:
        nats: their entropy. They fit the text that they are counted in, so that it is too low for the language.
        bias_nats: by about how much; with five tokens of each kind, 0.1 to 0.4 nats in texts of Zipf's law.
        tokens: how many scored tokens there are, copies of a text counted once (by `clusters.copies_per_token`).
        types: how many different ones.
    """

    nats: float
    bias_nats: float
    tokens: float
    types: int

    def comparable(self, nats: float) -> bool:
        """Return whether a model with this mean loss can be called better or worse than these frequencies.

        It needs five tokens of each kind, and a loss that is not between their entropy and that without its bias.
        """
        enough = self.tokens >= TOKENS_PER_TYPE * self.types
        return enough and not self.nats < nats <= self.nats + self.bias_nats


def measure_unigram(run: Run) -> Unigram:
    """Return the entropy of the scored tokens' own frequencies, in nats."""
    query = "SELECT count(*) AS n FROM tokens WHERE unscored IS NULL GROUP BY token_id ORDER BY token_id"
    counts = run.columns(query)["n"]
    share = counts / counts.sum()
    different = float(counts.sum()) / copies_per_token(run)
    nats = float(-(share * np.log(share)).sum()) + 0.0  # not -0.0 of one kind of token
    return Unigram(nats, max(0.0, unbiased_entropy(counts.astype(float)) - nats), different, len(counts))


def unbiased_entropy(counts: npt.NDArray[np.float64]) -> float:
    """Return the entropy of the language behind counts, in nats; infinite where every kind came once.

    Shares q are shrunk by the coverage C = 1 − (kinds that came once) / N, and each kind counts for those that did not
    come: −Σ C q log(C q) / (1 − (1 − C q)^N) (Chao & Shen 2003, Environmental and Ecological Statistics 10, 429-443).
    Of two kinds that came twice each, so that C = 1, it is log 2 / (1 − 1 / 2^4):

    >>> round(unbiased_entropy(np.array([2.0, 2.0])), 6), round(math.log(2.0) * 16 / 15, 6)
    (0.739357, 0.739357)
    """
    total = counts.sum()
    coverage = 1.0 - float((counts == 1.0).sum()) / total
    if coverage <= 0.0:
        return math.inf
    q = coverage * counts / total
    seen = 1.0 - (1.0 - q) ** total
    return float(-(q * np.log(q) / seen).sum())
