"""Shards in processes of their own, which can be killed; they are forked from a process that has torch imported."""

from __future__ import annotations

import multiprocessing
import random
import time
from itertools import islice
from unittest import mock

from fakes import SmallModel, checkpoint
from stored_runs import TEXTS

from lossprobe.passes import planned_together, planning
from lossprobe.passes.blocks import blocks_of
from lossprobe.passes.engines import LocalEngine
from lossprobe.passes.shards import score_shard
from lossprobe.plan import rows as plan
from lossprobe.plan.shard import Shard
from lossprobe.text.documents import StringSource

PARTS = 12
LONG = [*TEXTS, *(f"{number} bottles of beer; " * 3 for number in range(23))]
# A process that has used OpenMP cannot fork, and each start of a new one would import torch.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["shard_processes", "lossprobe.scoring.scorer"])


def opened(model: int = 0):
    """Return a small checkpoint."""
    return checkpoint(SmallModel(model), sha256=f"model {model}")


def share(index, count, output, texts=LONG, model=0, **choices):
    """Score one shard in this process."""
    return score_shard(Shard(index, count), opened(model), StringSource(texts), output=output, **choices)


def small_parts(documents):
    """Cut parts of 128 rows."""
    return plan.cut_parts(documents, 128)


def small_blocks(documents):
    """Divide a text into blocks of about 200 characters."""
    return blocks_of(documents, 200)


class SlowEngine(LocalEngine):
    """An engine that rests after each part, so that others work meanwhile and a process can be killed in between."""

    def score(self, parts, options, advance):
        for scored in super().score(parts, options, advance):
            yield scored
            time.sleep(random.random() * 0.1)


def start(index, count, output, *, planned: int = 1 << 20, begun=None, pause: float = 0.0, divide=blocks_of):
    """Start a shard in a process of its own.

    Args:
        index, count, output: as for `share`.
        planned: parts that it plans at its usual speed, before it rests for a minute.
        begun: an event that it sets when it has planned these.
        pause: seconds that it takes for the plan of each part.
        divide: divides the text into blocks.
    """
    process = CONTEXT.Process(target=_as_shard, args=(index, count, output, planned, begun, pause, divide))
    process.start()
    return process


def _as_shard(index, count, output, planned, begun, pause, divide):
    def cut(documents):
        parts = small_parts(documents)
        for rows in islice(parts, planned):
            if begun is not None and pause:
                begun.set()
            time.sleep(pause)
            yield rows
        if begun is not None and not pause:
            begun.set()
            time.sleep(60)
        yield from parts

    with mock.patch.object(planning, "cut_parts", cut), mock.patch.object(planned_together, "blocks_of", divide):
        share(index, count, output, engine=SlowEngine(opened()))
