"""The hardest shown tokens with the text around them, for the table that stands in for the coloured text."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.rows.texts import texts_of
from lossprobe.run.reader import Run
from lossprobe.run.texts import Vocabulary
from lossprobe.units import visible_bytes

TABLE_ROWS = 50


@dataclass(frozen=True)
class HardestToken:
    """One of the hardest tokens; every text is safe to print.

    Attributes:
        document, token: where it stands.
        before, text, after: the token and what stands around it; of a token that is a part of characters, all of them.
        loss_nats: its loss.
        difference_nats: the other run's loss − this one; None without another run.
        rank: vocabulary entries that are strictly more likely.
        context: tokens that the model saw before.
        top_text: the model's first choice.
    """

    document: int
    token: int
    before: str
    text: str
    after: str
    loss_nats: float
    difference_nats: float | None
    rank: int
    context: int
    top_text: str


def hardest_tokens(
    run: Run,
    rows: pd.DataFrame,
    order: npt.NDArray[np.int64],
    differences: npt.NDArray[np.float64] | None,
    vocabulary: Vocabulary,
) -> tuple[HardestToken, ...]:
    """Return the first `TABLE_ROWS` of some rows with the text around them.

    Args:
        run: the run.
        rows: the shown tokens.
        order: their numbers, the hardest or most changed first.
        differences: the other run's loss − this one of each row, or None.
        vocabulary: that of the run.
    """
    chosen = rows.iloc[order[:TABLE_ROWS]]
    _, around = texts_of(run, chosen, vocabulary)
    return tuple(
        HardestToken(
            document=int(row["document"]),
            token=int(row["token"]),
            before=place.before,
            text=place.characters,
            after=place.after,
            loss_nats=float(row["loss_nats"]),
            difference_nats=None if differences is None else _known(float(differences[number])),
            rank=int(row["rank"]),
            context=int(row["context"]),
            top_text=visible_bytes(vocabulary.entries[int(row["top_id"])]),
        )
        for number, row, place in zip(order.tolist(), chosen.to_dict("records"), around, strict=False)
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
