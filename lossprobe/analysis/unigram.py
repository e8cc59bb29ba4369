"""The loss of the best model without context: the entropy of a text's own token frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.rows.clusters import copies_per_token
from lossprobe.run.reader import Run

TOKENS_PER_TYPE = 5


@dataclass(frozen=True)
class Unigram:
    """The frequencies of a text's scored tokens.

    Attributes:
        nats: their entropy.
        tokens: how many scored tokens there are, copies of a text counted once (by `clusters.copies_per_token`).
        types: how many different ones.
    """

    nats: float
    tokens: float
    types: int

    @property
    def comparable(self) -> bool:
        """Whether a model can be compared with it: five tokens of each kind.

        The frequencies fit the text that they are counted in: their entropy is too low for the language by about
        (types − 1) / (2 tokens) nats (Miller 1955, Note on the bias of information estimates), here below 0.1.
        """
        return self.tokens >= TOKENS_PER_TYPE * self.types


def measure_unigram(run: Run) -> Unigram:
    """Return the entropy of the scored tokens' own frequencies, in nats."""
    counts = run.query("SELECT count(*) AS n FROM tokens WHERE unscored IS NULL GROUP BY token_id ORDER BY token_id")
    share = counts["n"].to_numpy() / counts["n"].sum()
    different = float(counts["n"].sum()) / copies_per_token(run)
    return Unigram(float(-(share * np.log(share)).sum()), different, len(counts))
