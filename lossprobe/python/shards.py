"""`lossprobe.score_shard` and `lossprobe.gather`: one run scored by several processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossprobe.arguments import as_path, wrong_type
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.passes.engine_options import EngineOptions
from lossprobe.passes.parts import Progress
from lossprobe.passes.shards import ShardResult
from lossprobe.passes.shards import score_shard as score_shard_pass
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.shard import read_shard
from lossprobe.python.score import PathLike, opened_arguments
from lossprobe.run.latest import RUNS_FOLDER, write_latest
from lossprobe.run.reader import Run
from lossprobe.run.shards import gather as gather_parts
from lossprobe.run.twin import folder_of
from lossprobe.text.documents import Source
from lossprobe.text.options import TextOptions


def score_shard(  # noqa: PLR0913 - those of `score`, and which shard
    shard: str,
    checkpoint: Checkpoint | PathLike,
    source: Source | PathLike | Sequence[PathLike],
    options: ScoreOptions | None = None,
    *,
    output: PathLike | None = None,
    progress: Progress | None = None,
    load_options: LoadOptions | None = None,
    text_options: TextOptions | None = None,
    engine_options: EngineOptions | None = None,
    **choices: Any,
) -> ShardResult:
    """Score one share of the parts of a run, beside other processes; `gather` completes the run when all have ended.

    Args:
        shard: "3/8" for the third of eight shares, or "slurm" or "torchrun" for what these set for the process.
        checkpoint: as for `score`; the same for all shards.
        source: as for `score`; the same for all shards.
        options: as for `score`; the same for all shards.
        output: run directory, which all shards must see; None as for `score`.
        progress: called with the tokens scored so far and the tokens of the share.
        load_options: as for `score`.
        text_options: as for `score`.
        engine_options: as for `score`.
        choices: as for `score`.

    Raises:
        WrongTypeError: an argument is of a type that is not named above.
        LossprobeError: see `errors`; what was finished before is kept, and the same call again resumes.

    Examples:
        >>> score_shard("3/8", "my-model", "data.txt", output="runs/data").scored  # doctest: +SKIP
    """
    if not isinstance(shard, str):
        raise wrong_type("shard", 'a text such as "3/8"', shard)
    share = read_shard(shard, os.environ)
    folder = None if output is None else folder_of(as_path("output", "the folder of a run", output))
    given = (options, load_options, text_options, engine_options)
    with opened_arguments(checkpoint, source, given, choices) as (model, text, scoring):
        scored = score_shard_pass(share, model, text, scoring, output=folder, progress=progress)
    return replace(scored, notices=tuple(dict.fromkeys((*model.facts.notices, *text.notices))))


def gather(path: PathLike) -> Run:
    """Return the run that shards have scored, complete; it is the run that one process would have made.

    Args:
        path: the folder of the run.

    Raises:
        UsageError: the path is no run.
        OutputError: parts are missing or damaged (the message names their shards), or a shard is running.
    """
    run, _ = gather_parts(folder_of(as_path("path", "the folder of a run", path)))
    write_latest(Path(RUNS_FOLDER), run.path)
    return run
