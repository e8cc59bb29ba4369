"""Scores one shard of a run for the command `lossprobe score --shard`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lossprobe.checkpoint.options import LoadOptions
from lossprobe.cli.options import Scoring
from lossprobe.cli.order import check_order
from lossprobe.cli.sources import check_output, load_checkpoint, read_text, say_notices
from lossprobe.errors import UsageError
from lossprobe.report.talk import say
from lossprobe.units import plural, visible

if TYPE_CHECKING:
    from lossprobe.passes.shards import ShardResult


def score_share(checkpoint_path: Path, texts: Sequence[Path], given: str, scoring: Scoring) -> Path:
    """Score the shard that an option names, and return the folder of its run.

    Raises:
        UsageError: the option names no shard.
        LossprobeError: as `passes.shards.score_shard`.
    """
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.cli.progress import show_progress
    from lossprobe.passes.known_checkpoint import keep_known
    from lossprobe.passes.shards import score_shard
    from lossprobe.plan.shard import read_shard

    shard = read_shard(given, os.environ)
    if scoring.overwrite:
        what = "--overwrite: would remove what other shards have scored"
        raise UsageError("shard.overwrite", what, hint="remove the run first: lossprobe runs remove RUN")
    if scoring.work.tensor_parallel_size == 1:
        scoring = replace(scoring, load=on_own_device(scoring.load, given, os.environ))
    check_order([checkpoint_path], texts, scoring)
    check_output(checkpoint_path, scoring.output)
    source = read_text(texts, scoring)
    checkpoint = load_checkpoint(checkpoint_path, scoring, Opener())
    with show_progress(f"shard {shard} of {source.name}", quiet=scoring.quiet) as progress:
        scored = score_shard(
            shard, checkpoint, source, scoring.score, output=scoring.output, progress=progress,
        )  # fmt: skip
    keep_known(checkpoint)
    say_notices(checkpoint, source, scoring)
    if not scoring.quiet:
        say(told(scored))
    return scored.path


def on_own_device(load: LoadOptions, given: str, environment: Mapping[str, str]) -> LoadOptions:
    """Return load options with a GPU of its own for each process that torchrun starts, unless the user chose one."""
    from lossprobe.plan.shard import TORCHRUN

    local = environment.get("LOCAL_RANK", "")
    if given != TORCHRUN or load.device != "auto" or not local.isdecimal():
        return load
    from lossprobe.checkpoint.detect import resolve_device

    device = resolve_device("auto")
    return replace(load, device=f"cuda:{int(local)}" if device.partition(":")[0] == "cuda" else device)


def told(scored: ShardResult) -> str:
    """Return what a shard has done in words."""
    from lossprobe.objects.folder import shown_place

    shown = visible(shown_place(scored.path), 200)
    if scored.complete:
        return f"already scored and gathered: {shown}"
    before = scored.parts - scored.scored
    stored = f", {before:,} of them before" if before else ""
    share = f"{plural(scored.parts, 'part')}, {plural(scored.tokens, 'token')}"
    return f"shard {scored.shard} stored: {share}{stored}; when all have ended: lossprobe gather {shown}"
