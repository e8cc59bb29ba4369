"""The model's first choice for each token, as a number into the entries that occur."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.coloured_text.codes import loss_codes
from lossprobe.run.texts import Vocabulary

LEAST_PROBABILITY = 1e-30  # a first choice is above 1 / vocabulary; a damaged run must not stop the page


def first_choices(rows: pd.DataFrame, vocabulary: Vocabulary) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays choice_0, choice_1, …, choice_loss, entries and entry_length of `coloured_text.ColouredText`.

    The most frequent entries have the smallest numbers, so that most high bytes are 0 and take little room.

    Args:
        rows: token_id, and top_id and top_prob, which are missing without a loss.
        vocabulary: that of the run.
    """
    ids = rows["token_id"].to_numpy()
    top = rows["top_id"].fillna(-1).to_numpy(np.int64)
    itself = (top == ids) | (top < 0)
    used, counts = np.unique(top[~itself], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    used = used[order]
    numbers = np.zeros(int(used.max(initial=0)) + 1, np.int64)
    numbers[used] = 1 + np.arange(len(used))
    choice = np.where(itself, 0, numbers[np.where(itself, 0, top)])
    entries = [vocabulary.entries[int(index)] for index in used]
    probability = np.where(itself, 1.0, rows["top_prob"].fillna(1.0).to_numpy(np.float64))
    planes = max(1, (len(used).bit_length() + 7) // 8)
    return {
        **{f"choice_{plane}": (choice >> (8 * plane)).astype(np.uint8) for plane in range(planes)},
        "choice_loss": loss_codes(-np.log(np.maximum(probability, LEAST_PROBABILITY))),
        "entries": np.frombuffer(b"".join(entries), np.uint8),
        "entry_length": np.array([len(entry) for entry in entries], "<u4"),
    }
