"""From a checkpoint and a text to a run: name it, plan it, score it part by part. Where the layers meet."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

from lossprobe import __version__
from lossprobe.checkpoint.interface import PADDED, Checkpoint
from lossprobe.errors import UsageError
from lossprobe.passes.engines import Engine, LocalEngine, Part, PartOptions
from lossprobe.passes.known_text import text_sha256
from lossprobe.passes.planning import PlanOptions, check_unknown, write_plan
from lossprobe.passes.stored import Scored, note_beyond_trained, remember, versions
from lossprobe.plan.options import ScoreOptions as ScoreOptions
from lossprobe.plan.rows import WindowPolicy
from lossprobe.plan.windows import Layout, check_window_options
from lossprobe.run.files import refuse_undecodable, sha256_of_json
from lossprobe.run.identity import divide_facts
from lossprobe.run.inputs import stored_inputs
from lossprobe.run.latest import runs_folder
from lossprobe.run.reader import open_run
from lossprobe.run.reuse import stored_plan, stored_run
from lossprobe.run.store import RunStore
from lossprobe.text.documents import Source
from lossprobe.units import plural, visible

UNSTORED = frozenset({"name", "notices", "files", "hashes"})  # facts that decide no number
DEFAULT_CONTEXT = 2048  # for the few families that set no limit of their own

Progress = Callable[[int, int], None]


def score(
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Scored:
    """Return the run of a checkpoint over a text, scoring only what is not stored yet.

    Args:
        checkpoint: from `open_checkpoint`, or a `CallableCheckpoint`.
        source: from `open_text`, or a `StringSource`.
        options: windows, BOS, batch size, unknown characters.
        output: run directory; None for one under `.lossprobe/` in the working folder, named by what the run is.
        overwrite: replace a run with other settings that stands at `output`.
        progress: called with the tokens scored so far and the tokens to score.

    Raises:
        LossprobeError: see `errors`; what was finished before is kept, and scoring again resumes.
    """
    scored = score_into(output, checkpoint, source, options, overwrite=overwrite, progress=progress)
    remember(scored.run.path, source)
    return scored


def score_into(  # noqa: PLR0913 - those of `score`, and who does the work
    output: Path | None,
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Scored:
    """Return what `score` does, without making it the latest run of the working folder.

    An `engine` scores the parts, with the same checkpoint opened by itself; None scores them in this process.
    """
    options = options or ScoreOptions()
    policy = window_policy(checkpoint, options)
    return score_policy(
        output, checkpoint, source, policy, options, overwrite=overwrite, progress=progress, engine=engine
    )


def score_policy(  # noqa: PLR0913 - those of `score_into`, and the policy
    output: Path | None,
    checkpoint: Checkpoint,
    source: Source,
    policy: WindowPolicy,
    options: ScoreOptions,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Scored:
    """Return what `score_into` does, with windows and BOS that are decided; those of the options are not looked at."""
    if output is not None:
        refuse_undecodable(output)
    if policy.layout is not Layout.WHOLE:  # there it is no window's length: the protocol notes what ran past the limit
        tell_beyond_trained(checkpoint, policy.context, source)
    settings, measured = describe(checkpoint, source, policy, options), measured_facts(checkpoint)
    labels = {"checkpoint": checkpoint.facts.name, "text": source.name}
    path = output or runs_folder() / run_name(settings, labels)
    reusable = bool(checkpoint.facts.sha256)  # what cannot be identified is scored anew
    with RunStore(path) as store:
        stored = stored_run(path, settings, overwrite=overwrite)
        if stored is not None and reusable:
            check_unknown(stored.counts, source, options.max_unknown)
            source.notices.extend(stored.notices)
            store.drop_plan()  # where the run was stopped between its last step and this one
            return Scored(stored, reused=True)
        plan = stored_plan(store, settings, measured, source.notices, overwrite=overwrite) if reusable else None
        if plan is None:
            sha256 = settings["text"]["sha256"]
            plan_options = PlanOptions(policy, checkpoint.facts.vocab_size, options.keep_text, sha256)
            planned = write_plan(store, source, checkpoint.tokenizer, plan_options)
            told = {"lossprobe": __version__, "settings": settings, "measured": measured, "labels": labels}
            plan = {**told, **planned}
            plan["inputs"] = stored_inputs(checkpoint.facts.files, path)
            store.finish_plan(plan)
        check_unknown(plan["counts"], source, options.max_unknown)
        parts = PartOptions(options.batch_size, plan["sample_every"])
        _score_parts(store, engine or LocalEngine(checkpoint), plan, parts, source, progress or _no_progress)
        store.finish(plan)
    return Scored(open_run(path), reused=False)


def _no_progress(done: int, total: int) -> None:
    """Show nothing."""


def _score_parts(
    store: RunStore,
    engine: Engine,
    plan: dict[str, Any],
    options: PartOptions,
    source: Source,
    progress: Progress,
) -> None:
    """Score and store every part that is not there yet, or no longer as it was stored."""
    total = plan["counts"]["tokens"]
    pending, broken = store.pending(len(plan["part_rows"]))
    if broken:
        parts = plural(len(broken), "finished part")
        source.notices.append(f"{visible(str(store.path), 200)}: {parts} damaged since, and scored again")
    first_rows = [0, *accumulate(plan["part_rows"])]
    done = ahead = total - sum(plan["part_rows"][index] for index in pending)
    progress(done, total)

    def advance(scored: int) -> None:
        nonlocal ahead
        ahead += scored
        progress(ahead, total)

    wanted = (Part(index, store.read_plan_part(index), first_rows[index]) for index in pending)
    for part, scores in engine.score(wanted, options, advance):
        store.write_part(part.index, part.rows, scores)
        done = ahead = done + plan["part_rows"][part.index]
        progress(done, total)


def window_policy(checkpoint: Checkpoint, options: ScoreOptions) -> WindowPolicy:
    """Return the windows and the BOS of a pass.

    Raises:
        UsageError: a context that the model cannot take, a bad stride, or a BOS that the tokenizer does not have.
    """
    limit = checkpoint.facts.context_length
    context = options.context or limit or DEFAULT_CONTEXT
    refuse_beyond_hard_limit(checkpoint, context)
    check_window_options(context, options.stride)
    tokenizer = checkpoint.tokenizer
    if options.bos == "always" and tokenizer.bos_id is None:
        raise UsageError("windows.bos", f"`bos` always: the tokenizer of {checkpoint.facts.name} has no BOS token")
    if options.bos == "always" and (tokenizer.bos_id or 0) >= checkpoint.facts.vocab_size:
        raise UsageError(
            "windows.bos",
            f"`bos` always: BOS is id {tokenizer.bos_id}, the model has {checkpoint.facts.vocab_size} ids",
        )
    with_bos = options.bos == "always" or (options.bos == "auto" and tokenizer.adds_bos)
    return WindowPolicy(
        context, options.stride or context, tokenizer.bos_id if with_bos else None, options.score_unknown
    )


def refuse_beyond_hard_limit(checkpoint: Checkpoint, context: int) -> None:
    """Refuse a context for which the model has no positions.

    Raises:
        UsageError: `windows.context`, with the limit.
    """
    facts = checkpoint.facts
    if facts.hard_limit and facts.context_length is not None and context > facts.context_length:
        raise UsageError("windows.context", f"`context` {context}: the model's limit is {facts.context_length}")


def tell_beyond_trained(checkpoint: Checkpoint, context: int, source: Source) -> None:
    """Add a notice to the source where a context is above the length that the model's configuration states."""
    note_beyond_trained(source, checkpoint.facts.name, checkpoint.facts.context_length, context)


def describe(checkpoint: Checkpoint, source: Source, policy: WindowPolicy, options: ScoreOptions) -> dict[str, Any]:
    """Return the identity of a run; see `run.identity`."""
    facts, _ = _divided_facts(checkpoint)
    if facts["batching"] == PADDED:  # as every run was scored before there was another way
        del facts["batching"]
    tokenizer = checkpoint.tokenizer
    return {
        "checkpoint": facts,
        "tokenizer": {"kind": tokenizer.kind, "sha256": tokenizer.sha256},
        "text": {"sha256": text_sha256(source), "kept": options.keep_text},
        "windows": asdict(policy),
        "versions": versions(),
    }


def measured_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what was measured when a checkpoint was opened; see `run.identity`."""
    return _divided_facts(checkpoint)[1]


def _divided_facts(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
    return divide_facts({key: value for key, value in asdict(checkpoint.facts).items() if key not in UNSTORED})


def run_name(settings: dict[str, Any], labels: dict[str, str]) -> str:
    """Return the directory name of a run: what it is, for people, and a hash of its settings."""
    words = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-.") or "x" for label in labels.values())
    return f"{words[:60]}-{sha256_of_json(settings)[:10]}"
