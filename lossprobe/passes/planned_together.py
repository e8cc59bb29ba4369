"""Plans a text together with other processes that score other shards of the same run.

Each reads the whole text, and tokenizes and plans the blocks that no other process has planned or is planning. A block
that a killed process left is planned by one that still runs. A block that turns out to be damaged, or of another run,
when the blocks are joined is planned again: it follows from the text, which each process has read and hashed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from lossprobe.checkpoint.interface import Checkpoint, Tokenizer
from lossprobe.passes.blocks import Block, blocks_of
from lossprobe.passes.known_text import read_again
from lossprobe.passes.planning import PlannedBlock, Planner, PlanOptions, assembled, write_vocabulary
from lossprobe.passes.prepared import PreparedPass, finish_plan
from lossprobe.run.document_table import documents_table
from lossprobe.run.plan_blocks import PlanBlocks
from lossprobe.run.store import RunStore
from lossprobe.text.documents import Source
from lossprobe.text.fingerprint import Fingerprint
from lossprobe.text.stage import Stage


def plan_blocks(
    blocks: PlanBlocks, source: Source, tokenizer: Tokenizer, options: PlanOptions, stage: Stage
) -> list[str] | None:
    """Plan blocks of a text until all are stored, by this process or another; return the text's hash at each one's end.

    Return None as soon as another process has joined them; the text may not have been read to its end then.
    `stage` is called with words for how far this process is.

    Raises:
        TextError: the text changed since it was hashed.
        LossprobeError: as `Planner.plan`.
    """
    planner = Planner(source, tokenizer, options, stage)
    while True:
        ends = _plan_what_is_left(blocks, source, planner, options)
        if ends is None:
            return None
        stored = []
        for number in range(len(ends)):
            what = f"waiting for block {number + 1} of {len(ends)}, which another shard plans"
            stored.append(blocks.wait(number, partial(stage, what)))
        if blocks.joined():
            return None
        if None not in stored:
            return ends


def _plan_what_is_left(blocks: PlanBlocks, source: Source, planner: Planner, options: PlanOptions) -> list[str] | None:
    """Read the text once and plan each block that nobody else plans; return its hash at the end of each block.

    Return None, before the end of the text, if the blocks have been joined.
    """
    seen, ends, damaged = Fingerprint(), list[str](), 0
    for block in blocks_of(read_again(source, options.text_sha256, seen)):
        if blocks.joined():
            return None
        if blocks.stored(block.number) is None:
            with blocks.claim(block.number) as free:
                # Asked in this order: a block that is gone has become a part of the plan.
                if free and blocks.stored(block.number) is None and not blocks.joined():
                    damaged += blocks.left_damaged(block.number)
                    _plan_one(blocks, block, planner, seen, options)
        for _ in block.documents:
            pass
        ends.append(seen.hexdigest())
    if damaged:
        source.notices.append(blocks.planned_again(damaged))
    return ends


def _plan_one(blocks: PlanBlocks, block: Block, planner: Planner, seen: Fingerprint, options: PlanOptions) -> None:
    with blocks.documents(block.number) as target, documents_table(target) as table:
        planned = planner.plan(block, table, lambda index, rows: blocks.write_part(block.number, index, rows))
    made_of = {"text_sha256": seen.hexdigest(), "settings_sha256": options.settings_sha256}
    blocks.finish(block.number, len(planned.part_rows), {**planned.to_json(), **made_of})


def join_plan(
    store: RunStore, prepared: PreparedPass, checkpoint: Checkpoint, options: PlanOptions, ends: list[str]
) -> dict[str, Any] | None:
    """Make one plan of all blocks, and return it; None, and a notice, if some of them have to be planned again.

    Args:
        store: the folder of the run.
        prepared: the pass; its text was read before.
        checkpoint: its checkpoint.
        options: options of the planning.
        ends: what `plan_blocks` returned.

    Raises:
        NothingToScoreError: no token can be scored.
    """
    told = store.forget_lost_blocks(ends, options.settings_sha256)
    if told is not None:
        prepared.source.notices.append(told)
        return None
    stored = store.join_blocks(len(ends))
    planned = assembled(map(PlannedBlock.from_json, stored), prepared.source, prepared.policy)
    write_vocabulary(store, checkpoint.tokenizer, options.vocab_size)
    return finish_plan(store, prepared, checkpoint, planned)
