"""Scores the parts of a run that belong to one of several processes, its shard."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.deferred import opened
from lossprobe.checkpoint.facts import DIVIDED
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.layer_by_layer import STREAMED
from lossprobe.errors import CheckpointError, OutputError
from lossprobe.passes.engines import Engine, PartOptions, engine_of, stage_of
from lossprobe.passes.identity import measured_facts
from lossprobe.passes.parts import Progress, no_progress, score_parts
from lossprobe.passes.planned_together import join_plan, plan_blocks
from lossprobe.passes.prepared import PreparedPass, make_plan, plan_options, prepare
from lossprobe.passes.unknown import check_unknown
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.shard import Shard
from lossprobe.run.identity import identity_of, measured_of
from lossprobe.run.manifest import BEGUN, damaged
from lossprobe.run.reuse import complete_run, refuse_other_settings, stored_run
from lossprobe.run.shards import REMOVE, ShardStore, without_overwrite, without_plan_of_refused
from lossprobe.run.store import RunStore
from lossprobe.run.twin import twin_of
from lossprobe.text.documents import Source
from lossprobe.units import visible

ROUNDS = 3  # a folder that damages what is written there cannot hold a run


@dataclass(frozen=True)
class ShardResult:
    """What one shard of a run has done.

    Attributes:
        path: the folder of the run.
        shard: which of the processes it was.
        parts: number of parts of its share.
        scored: number of these that were scored now; the others were stored before.
        tokens: number of tokens of its share.
        complete: whether the run was complete before, so that nothing was to be done.
        notices: lines about the checkpoint and the text that a user should read; only for Python.
    """

    path: Path
    shard: Shard
    parts: int
    scored: int
    tokens: int
    complete: bool = False
    notices: tuple[str, ...] = field(default=(), repr=False)


@without_overwrite(f"use another `output`; {REMOVE}")
def score_shard(  # noqa: PLR0913 - those of `score`, and which shard
    shard: Shard,
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    *,
    output: Path | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> ShardResult:
    """Score the parts of a run that belong to a shard and are not stored yet, beside other processes.

    All shards need the same checkpoint, text and options. Those that run make the plan together; `run.shards.gather`
    completes the run when all have ended.

    Args:
        shard: which share of the parts.
        checkpoint: as for `score`.
        source: as for `score`.
        options: as for `score`.
        output: run directory, on a file system that all shards see; None as for `score`.
        progress: called with the tokens scored so far and the tokens of the share.
        engine: as for `score_into`.

    Raises:
        CheckpointError: nothing identifies the checkpoint, so that shards cannot know that they have the same.
        OutputError: the folder holds another run, is divided among another number of shards, was planned where the
            model runs with other code, or another process works as this shard.
        LossprobeError: see `errors`; what was finished before is kept, and scoring again resumes.
    """
    options = options or ScoreOptions()
    prepared = prepare(checkpoint, source, options, output, progress)
    if not checkpoint.facts.sha256:
        raise CheckpointError(
            "shard.no_identity", f"{visible(checkpoint.facts.name, 80)}: has no sha256, which shards compare"
        )
    found = None if twin_of(prepared.path) else complete_run(prepared.path, prepared.settings)
    if found is not None:
        check_unknown(found.counts, prepared.source, options.max_unknown)
        return ShardResult(found.path, shard, 0, 0, 0, complete=True)
    checkpoint = opened(checkpoint)
    with RunStore(prepared.path, among_shards=True) as store:
        store.bring(shard.owns)
        stored = stored_run(prepared.path, prepared.settings, overwrite=False)
        if stored is not None:  # gathered while this one started
            return ShardResult(stored.path, shard, 0, 0, 0, complete=True)
        plan = _joined(store, prepared, measured_facts(checkpoint), shard)
        plan = plan or _made_or_begun(store, prepared, checkpoint, options, shard, progress)
        share = ShardStore(prepared.path, shard)
    with without_plan_of_refused(prepared.path), share:
        plan = plan or _planned_together(share, prepared, checkpoint, options, shard, progress)
        check_unknown(plan["counts"], prepared.source, options.max_unknown)
        own = shard.own(len(plan["part_rows"]))
        parts = PartOptions(options.batch_size, plan["sample_every"])
        scorer = engine or engine_of(checkpoint, prepared.source, progress)
        scored = score_parts(share, scorer, plan, parts, prepared.source, progress or no_progress, own)
    tokens = sum(plan["part_rows"][index] for index in own)
    return ShardResult(prepared.path, shard, len(own), scored, tokens)


def _joined(store: RunStore, prepared: PreparedPass, measured: dict[str, Any], shard: Shard) -> dict[str, Any] | None:
    """Return the plan that another shard has made; None if this one is to make it.

    Raises:
        OutputError: the plan is damaged, of another run, or was made where the model runs with other code: parts that
            were scored in other ways would differ in the last digits, and a part would depend on who scored it.
    """
    plan = store.plan(whole=False)
    if plan is not None:
        _refuse_other_run(store, plan, prepared, measured, shard, sound="files" in plan)
    return plan


def _refuse_other_run(
    store: RunStore,
    stored: dict[str, Any],
    prepared: PreparedPass,
    measured: dict[str, Any],
    shard: Shard,
    *,
    sound: bool = True,
) -> None:
    """Refuse a plan, whole or begun, of another run or machine, or one whose parts cannot be checked (not `sound`)."""
    refuse_other_settings(store.path, identity_of(stored), prepared.settings)
    before, now = (_of_all_machines(facts) for facts in (measured_of(stored), measured))
    names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if sound and not names:
        return
    there, here = (", ".join(f"{name} {visible(str(of.get(name)), 60)}" for name in names) for of in (before, now))
    kernels = [str(of.get("kernels")) for of in (before, now)]
    same = "run all shards on machines of one kind"
    if any(DIVIDED in each for each in kernels):
        same = "give all shards the same `tensor_parallel_size`"
    elif sum(STREAMED in each for each in kernels) == 1:
        same = "give all shards `stream_weights` always, or never: auto goes by the memory that is free at the moment"
    raise OutputError(
        "shard.measured",
        f"{store.shown}: shard {shard} would score with {here}; begun with {there}",
        hint=f"{same}; {REMOVE}",
    )


def _made_or_begun(
    store: RunStore,
    prepared: PreparedPass,
    checkpoint: Checkpoint,
    options: ScoreOptions,
    shard: Shard,
    progress: Progress | None,
) -> dict[str, Any] | None:
    """Begin a plan that shards make together, or go on with it, and return None.

    On object storage, which has no locks, make the plan, and return it or the one that another shard made meanwhile.

    Raises:
        OutputError: the plan that was begun is of another run, or was begun where the model runs with other code.
    """
    if twin_of(prepared.path) is None:
        measured = measured_facts(checkpoint)
        begun = store.begun_plan()
        if begun is None:
            store.begin_blocks(prepared.settings, prepared.labels, measured)
        else:
            _refuse_other_run(store, begun, prepared, measured, shard)
        return None
    plan = make_plan(store, prepared, checkpoint, options, progress=progress)
    if not store.bring(shard.owns):
        return plan
    joined = _joined(store, prepared, measured_facts(checkpoint), shard)
    if joined is None:
        what = f"{store.shown}: others have completed the run while shard {shard} planned it"
        raise OutputError("output.locked", what, hint="nothing is left to do")
    return joined


def _planned_together(
    share: ShardStore,
    prepared: PreparedPass,
    checkpoint: Checkpoint,
    options: ScoreOptions,
    shard: Shard,
    progress: Progress | None,
) -> dict[str, Any]:
    """Plan the text together with the other shards that run, and return the plan.

    Raises:
        OutputError: the run is damaged, or as `_joined`.
        LossprobeError: as `plan_blocks` and `join_plan`.
    """
    asked = plan_options(prepared, checkpoint, options)
    for _ in range(ROUNDS):
        ends = plan_blocks(share.blocks, prepared.source, checkpoint.tokenizer, asked, stage_of(progress))
        with RunStore(prepared.path, among_shards=True) as store:
            plan = _joined(store, prepared, measured_facts(checkpoint), shard)
            if plan is None and ends is None:  # what was read of the text may not be all of it
                raise damaged(prepared.path, f"unfinished plan: {BEGUN} is missing or damaged")
            if plan is None and ends is not None:
                plan = join_plan(store, prepared, checkpoint, asked, ends)
        if plan is not None:
            share.plan(whole=False)
            return plan
    raise damaged(prepared.path, f"unfinished plan: blocks of it were damaged {ROUNDS} times")


def _of_all_machines(measured: dict[str, Any]) -> dict[str, Any]:
    """Return measured facts without those that differ between machines and change no number: which GPU of several."""
    return {**measured, "device": str(measured.get("device", "")).partition(":")[0]}
