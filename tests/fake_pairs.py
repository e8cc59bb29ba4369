"""Stores the pair of two fake runs without a model; the test chooses every divergence."""

from __future__ import annotations

import itertools

import numpy as np

from lossprobe.passes.divergence import pair_path
from lossprobe.run.pair import Pair, open_pair, pair_labels, pair_settings, planned_run
from lossprobe.run.pair_store import PairStore
from lossprobe.run.planned_rows import part_rows

BESIDE = {"same_top": True, "target_prob_change": 0.0, "first_loss_nats": 0.0, "second_loss_nats": 0.0}


def write_pair(first, second, kl, **columns) -> Pair:
    """Store the pair of two runs and return it.

    Args:
        first: the run of model A.
        second: the run of model B.
        kl: the divergence of each scored token in text order.
        columns: likewise same_top, target_prob_change, first_loss_nats, second_loss_nats; else those of `BESIDE`.
    """
    planned = planned_run(first, second)
    frame = planned.query("SELECT document, token, unscored IS NULL AS scored FROM tokens ORDER BY document, token")
    scored = frame["scored"].to_numpy(bool)
    values = {name: frame[name].to_numpy() for name in ("document", "token")}
    given = {"kl_nats": kl, **{name: columns.get(name, np.full(len(kl), value)) for name, value in BESIDE.items()}}
    for name, measured in given.items():
        measured = np.asarray(measured)
        whole = np.zeros(len(scored), measured.dtype)
        whole[scored] = measured
        values[name] = np.ma.masked_array(whole, ~scored)
    rows = part_rows(planned)
    counts = {name: planned.counts[name] for name in ("documents", "tokens", "scored_tokens")}
    plan = {
        "settings": pair_settings(first, second), "measured": {}, "labels": pair_labels(first, second),
        "counts": counts, "part_rows": rows,
    }  # fmt: skip
    edges = np.cumsum([0, *rows])
    with PairStore(pair_path(first, second)) as store:
        store.begin(plan, resume=True)
        for index, (start, stop) in enumerate(itertools.pairwise(edges)):
            store.write_part(index, {name: column[start:stop] for name, column in values.items()})
        store.finish(plan)
    pair = open_pair(pair_path(first, second), first, second)
    assert pair is not None
    return pair
