"""Which windows of a run a page shows that has no room for all of them: the worst ones, and a sample of the others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.run.reader import Run

CUT_TOKENS = 1024  # a longer window is cut, so that a long context leaves a choice
FEWEST_CUTS = 8  # of which the page has room for at least so many
SAMPLE_SEED = 20_260_101
KIND_SHARES = {"hardest": 0.25, "most": 0.25, "sample": 0.5}  # of the tokens; what one leaves over goes to the next
NOT_CHOSEN = 0
REASONS = (
    "the whole run",
    "holds one of the hardest tokens",
    "has the most loss above the mean",
    "drawn at random",
)  # why a piece is shown; the page knows them by number


@dataclass(frozen=True)
class ChosenWindows:
    """Which tokens of a run are shown.

    Attributes:
        blocks: document, window, block (token // `cut`) and why (index into `REASONS`), in text order; None for all.
        cut: tokens of a block.
        windows: windows of the run, a long one counted once for each block.
        counts: name of a share → windows that were chosen for it.
    """

    blocks: pd.DataFrame | None = field(default=None, repr=False)
    cut: int = CUT_TOKENS
    windows: int = 0
    counts: dict[str, int] = field(default_factory=dict)


def choose_windows(run: Run, most_tokens: int) -> ChosenWindows:
    """Return which windows have a place among `most_tokens` tokens: all if they have, or else a half of each kind.

    A quarter of the tokens goes to the windows with the hardest single tokens, a quarter to those with the most loss
    above the mean of the run, and the rest is drawn from the others with a fixed seed: it shows what is common.
    """
    if int(run.counts["tokens"]) <= most_tokens:
        return ChosenWindows()
    cut = min(CUT_TOKENS, max(1, most_tokens // FEWEST_CUTS))
    frame = run.query(f"""
        SELECT document, "window", token // {cut} AS block, count(*) AS tokens,
               coalesce(max(loss_nats), 0)::DOUBLE AS hardest,
               coalesce(sum(loss_nats::DOUBLE - (SELECT avg(loss_nats::DOUBLE) FROM tokens)), 0) AS excess
        FROM tokens GROUP BY ALL ORDER BY ALL""")
    tokens = frame["tokens"].to_numpy(np.int64)
    orders = (
        np.argsort(-frame["hardest"].to_numpy(), kind="stable"),
        np.argsort(-frame["excess"].to_numpy(), kind="stable"),
        np.random.default_rng(SAMPLE_SEED).permutation(len(frame)),
    )
    why = np.zeros(len(frame), np.int64)
    counts, allowed, used = {}, 0.0, 0
    for number, (order, (name, share)) in enumerate(zip(orders, KIND_SHARES.items(), strict=True), start=1):
        allowed += share * most_tokens
        free = order[why[order] == NOT_CHOSEN]
        taken = free[_fitting(tokens[free], int(allowed) - used)]
        why[taken] = number
        used += int(tokens[taken].sum())
        counts[name] = len(taken)
    chosen = frame.assign(why=why)[why > NOT_CHOSEN][["document", "window", "block", "why"]]
    return ChosenWindows(chosen.reset_index(drop=True), cut, len(frame), counts)


def _fitting(sizes: npt.NDArray[np.int64], room: int) -> npt.NDArray[np.bool_]:
    """Return which of some sizes have room, bool [N]: in order, up to the first that has none."""
    fits: npt.NDArray[np.bool_] = np.cumsum(sizes) <= room
    return fits
