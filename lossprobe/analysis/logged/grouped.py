"""The order in which transformers' Trainer evaluates rows that it groups by length (`group_by_length`).

Its sampler shuffles the rows, cuts them into groups of up to 50 batches, sorts each group by length, and moves the
longest row to the front. From transformers 5.16 on the shuffle of an evaluation starts from the seed of the run, 42 by
default, so that the order is known from the lengths; before, it took whatever state torch's generator was in.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lossprobe.analysis.logged.recipe import Integers

SEED = 42  # of TrainingArguments
MOST_BATCHES = 50  # of a group


def length_grouped(lengths: Integers, rows_per_batch: int, seed: int = SEED) -> Integers:
    """Return the numbers of the rows in the order of the sampler.

    Args:
        lengths: int64 [R], tokens of each row.
        rows_per_batch: rows of a batch on one rank.
        seed: of the run (its `data_seed`, else its `seed`).

    >>> length_grouped(np.array([3, 9, 4, 7]), 2).tolist()  # shuffled: rows 2, 3, 1, 0, as two groups of one batch
    [1, 2, 3, 0]
    """
    shuffled = shuffled_as_torch(len(lengths), seed)
    size = rows_per_batch * max(1, min(len(lengths) // (rows_per_batch * 4), MOST_BATCHES))
    groups = [shuffled[at : at + size] for at in range(0, len(lengths), size)]
    groups = [group[np.argsort(-lengths[group], kind="stable")] for group in groups]
    longest = int(np.argmax([lengths[group[0]] for group in groups]))
    groups[0][0], groups[longest][0] = groups[longest][0], groups[0][0]
    return np.concatenate(groups)


@lru_cache(maxsize=8)
def shuffled_as_torch(size: int, seed: int) -> Integers:
    """Return `torch.randperm(size)` of a new generator with a seed: a Fisher-Yates shuffle with raw MT19937 draws.

    >>> shuffled_as_torch(5, 42).tolist()
    [2, 4, 3, 0, 1]
    """
    # RandomState seeds the twister as torch does (init_genrand); over the whole range its integers are raw words.
    draws = np.random.RandomState(seed).randint(0, 1 << 32, size=max(size - 1, 0), dtype=np.uint32)
    order = np.arange(size)
    for at, draw in enumerate(draws.tolist()):
        other = at + draw % (size - at)
        order[at], order[other] = order[other], order[at]
    order.flags.writeable = False  # it is kept: every size of batches begins with it
    return order
