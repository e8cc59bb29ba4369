"""Says which way of averaging the losses of a stored run gives a logged number; nothing is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lossprobe.analysis.logged.recipe import RowSums
from lossprobe.analysis.logged.rows import COUNTED_BEFORE_SHIFT, row_order, row_sums
from lossprobe.analysis.reconcile.balancing import balancing_of
from lossprobe.analysis.reconcile.feed import Feed
from lossprobe.analysis.reconcile.logged_value import LoggedValue
from lossprobe.analysis.reconcile.reconcile import Reconciliation, reconcile_number
from lossprobe.run.reader import Run

ONLY_AVERAGES = (
    "a stored run: only batches, denominators, ranks, smoothing and units were tried, with its own tokens, windows and "
    "masks; with the checkpoint and the text the others are tried too"
)


def reconcile_run(run: Run, logged: LoggedValue, order: Path | None = None) -> Reconciliation:
    """Return which means of the losses of a stored run give a logged number.

    Args:
        run: the run; its documents are the rows, and its windows too where there are more of them.
        logged: the number.
        order: file with the order of the documents; None for that of the text. Windows stay as they are.

    Raises:
        UsageError: the file of the order cannot be read, or is not of these rows.
    """
    windows = _window_sums(run)
    whole = len(windows) <= int(run.counts["documents"])
    feed = Feed(rows=row_sums(run), balancing=balancing_of(run) if whole else None)
    feeds = [feed.take(row_order(order, len(feed.rows)))]
    if len(windows) > len(feeds[0].rows):
        feeds.append(Feed(rows=windows, own_windows=True))
    before_shift = run.settings.checkpoint.family in COUNTED_BEFORE_SHIFT
    result = reconcile_number(feeds, logged, before_shift=before_shift, passes=0)
    result.notes.append(ONLY_AVERAGES)
    return result


def _window_sums(run: Run) -> RowSums:
    """Return the sums over each window that scores a token."""
    frame = run.query("""
        SELECT sum(loss_nats::DOUBLE) AS nats, sum(uniform_loss_nats::DOUBLE) AS uniform, count(*) AS tokens
        FROM tokens WHERE unscored IS NULL GROUP BY "window" ORDER BY "window" """)
    nats, uniform = (frame[name].to_numpy(np.float64) for name in ("nats", "uniform"))
    tokens = frame["tokens"].to_numpy(np.int64)
    return RowSums(nats, uniform, np.zeros(len(frame)), tokens, tokens, np.zeros_like(tokens))
