"""The loss at each checkpoint against n-gram models of the text: from which step on is the model better than counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.rows.differences import TESTED_CLUSTERS, mean_changes
from lossprobe.analysis.rows.paired import Ints
from lossprobe.analysis.series.ngrams import FOLDS, NAMES, NgramLosses
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.analysis.stats.significance import LEVEL, holm

NOTE = (
    f"unigram, bigram: Witten-Bell counts of the text itself, each of {FOLDS} parts of it predicted from the others, "
    "which the model may not have seen; tested over the parts"
)


@dataclass(frozen=True)
class Reference:
    """An n-gram model of the text, and how the checkpoints compare with it.

    Attributes:
        name: "unigram" or "bigram".
        mean_loss_nats: its mean loss on the tokens that the checkpoints scored, each part predicted from the others.
        difference_nats: the loss of each checkpoint minus its own, on the same tokens.
        better_from_step: the first step from which on every checkpoint is better than it beyond noise (paired t-test
            over the parts, p-values adjusted over all checkpoints and both references, Holm 5 %); None where the last
            checkpoint is not, or no test was possible.
    """

    name: str
    mean_loss_nats: float
    difference_nats: list[float]
    better_from_step: int | None


def against_ngrams(
    ngrams: NgramLosses, nats: Floats, tokens: Floats, names: Ints, steps: Sequence[int]
) -> list[Reference]:
    """Return how the checkpoints compare with n-gram models.

    Args:
        ngrams: the losses of these.
        nats: float64 [K, G], sums of the losses of each checkpoint and cluster.
        tokens: float64 [G].
        names: int64 [G], names of the clusters, whose last digit is their fold.
        steps: step of each checkpoint.
    """
    fold = names % FOLDS
    own = np.stack([np.bincount(fold, row, FOLDS) for row in nats])
    counted = np.bincount(fold, tokens, FOLDS)
    differences = (own[None] - ngrams.nats[:, None]).reshape(-1, FOLDS)
    found = mean_changes(differences, np.broadcast_to(counted, differences.shape))
    p_values = found["p_value"].where(found["clusters"] >= TESTED_CLUSTERS).to_numpy(float)
    mean = found["mean_difference_nats"].to_numpy(float)
    better = ((holm(p_values) < LEVEL) & (mean < 0)).reshape(len(NAMES), -1)
    references = []
    for row, name in enumerate(NAMES):
        last_not = np.flatnonzero(~better[row])
        first = int(last_not[-1]) + 1 if len(last_not) else 0
        references.append(
            Reference(
                name=name,
                mean_loss_nats=float(ngrams.nats[row].sum() / ngrams.tokens.sum()),
                difference_nats=mean.reshape(len(NAMES), -1)[row].tolist(),
                better_from_step=steps[first] if first < len(steps) else None,
            )
        )
    return references
