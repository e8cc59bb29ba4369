"""Makes a run from a checkpoint and a text: names it, plans it, and scores it part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from lossprobe import __version__
from lossprobe.checkpoint.deferred import opened
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.display import to_html
from lossprobe.errors import OutputError, UsageError
from lossprobe.passes.engines import Engine, Part, PartOptions, local_engine
from lossprobe.passes.identity import PlannedRun, describe, measured_facts, run_name
from lossprobe.passes.known_checkpoint import keep_known
from lossprobe.passes.known_text import templated
from lossprobe.passes.planning import PlanOptions, check_unknown, write_plan
from lossprobe.passes.rendered import rendered
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import WindowPolicy
from lossprobe.plan.windows import Layout, check_window_options
from lossprobe.run.files import refuse_undecodable
from lossprobe.run.inputs import stored_inputs
from lossprobe.run.latest import RUNS_FOLDER, runs_folder, write_latest
from lossprobe.run.reader import Run, open_run
from lossprobe.run.reuse import complete_run, stored_plan, stored_run
from lossprobe.run.shared_plan import SharedPlan
from lossprobe.run.store import RunStore
from lossprobe.text.documents import Source
from lossprobe.units import format_count, plural, visible

TRUNCATIONS = {"none": Layout.ROLLING, "keep-start": Layout.FIRST, "keep-end": Layout.LAST}
SHORTEST_CUT = 2  # one token to see and one to predict
DEFAULT_CONTEXT = 2048  # for the few families without a limit

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PassResult:
    """The result of a pass.

    Attributes:
        run: the run.
        reused: whether the run was already stored.
        notices: lines about the checkpoint and the text that a user should read; only for Python.
    """

    run: Run
    reused: bool
    notices: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return to_html("found stored" if self.reused else "scored", [], self.notices) + self.run._repr_html_()


def score(  # noqa: PLR0913 - what is scored, where it goes, and what is shared with other passes
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    shared: SharedPlan | None = None,
) -> PassResult:
    """Return the run of a checkpoint over a text, scoring only what is not stored yet.

    Args:
        checkpoint: from `open_checkpoint`, or a `CallableCheckpoint`.
        source: from `open_text`, or a `StringSource`.
        options: windows, BOS, batch size, unknown characters.
        output: run directory; None for one under `.lossprobe/` in the working folder, named by `run_name`.
        overwrite: replace a run with other settings that stands at `output`.
        progress: called with the tokens scored so far and the tokens to score.
        shared: keeps the plan for other checkpoints that are scored on this text; None for a single one.

    Raises:
        LossprobeError: see `errors`; what was finished before is kept, and scoring again resumes.
    """
    scored = score_into(output, checkpoint, source, options, overwrite=overwrite, progress=progress, shared=shared)
    remember(scored.run.path, source)
    keep_known(checkpoint)
    return scored


def score_into(  # noqa: PLR0913 - those of `score`, and who does the work
    output: Path | None,
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    shared: SharedPlan | None = None,
    engine: Engine | None = None,
) -> PassResult:
    """Return what `score` does, without making it the latest run of the working folder.

    The `engine` scores the parts and opens the same checkpoint itself; None scores them in this process.
    """
    options = options or ScoreOptions()
    source = rendered(source, checkpoint, options.score)
    policy = window_policy(checkpoint, options, source)
    return score_policy(
        output,
        checkpoint,
        source,
        policy,
        options,
        overwrite=overwrite,
        progress=progress,
        shared=shared,
        engine=engine,
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
    shared: SharedPlan | None = None,
    engine: Engine | None = None,
) -> PassResult:
    """Return what `score_into` does, with the windows and BOS of `policy` instead of those of the options."""
    if output is not None:
        refuse_undecodable(output)
    # With WHOLE a window is as long as its document; the measures of the protocol tell of documents beyond the limit.
    if policy.layout is not Layout.WHOLE:
        tell_beyond_trained(checkpoint, policy.context, source)
    settings = describe(checkpoint, source, policy, options)
    labels = {"checkpoint": checkpoint.facts.name, "text": source.name}
    path = output or runs_folder() / run_name(settings, labels)
    reusable = bool(checkpoint.facts.sha256)  # a checkpoint that cannot be identified is always scored again
    found = complete_run(path, settings) if reusable else None
    if found is not None:
        check_unknown(found.counts, source, options.max_unknown)
        return PassResult(found, reused=True)
    with RunStore(path) as store:
        stored = stored_run(path, settings, overwrite=overwrite)
        if stored is not None and reusable:
            check_unknown(stored.counts, source, options.max_unknown)
            source.notices.extend(stored.notices)
            store.drop_plan()  # a pass that was stopped just before this step leaves its plan
            return PassResult(stored, reused=True)
        checkpoint = opened(checkpoint)
        measured = measured_facts(checkpoint)
        plan = stored_plan(store, settings, measured, source.notices, overwrite=overwrite) if reusable else None
        if plan is None:
            sha256 = settings["text"]["sha256"]
            plan_options = PlanOptions(policy, checkpoint.facts.vocab_size, options.keep_text, sha256)
            copied = None if shared is None else shared.copy_into(store, settings)
            planned = copied or write_plan(store, source, checkpoint.tokenizer, plan_options)
            told = {"lossprobe": __version__, "settings": settings, "measured": measured, "labels": labels}
            plan = {**told, **planned}
            plan["inputs"] = stored_inputs(checkpoint.facts.files, path)
            store.finish_plan(plan)
        check_unknown(plan["counts"], source, options.max_unknown)
        parts = PartOptions(options.batch_size, plan["sample_every"])
        engine = engine or local_engine(checkpoint, source, progress)
        _score_parts(store, engine, plan, parts, source, progress or _no_progress)
        store.finish(plan, keep_plan=shared is not None and shared.keeps(path))
    return PassResult(open_run(path), reused=False)


def planned_run(checkpoint: Checkpoint, source: Source, options: ScoreOptions) -> PlannedRun:
    """Return what is known of a run before its text is scored; nothing is loaded for it.

    Raises:
        UsageError: as `window_policy`.
    """
    source = rendered(source, checkpoint, options.score)
    policy = window_policy(checkpoint, options, source)
    settings = describe(checkpoint, source, policy, options)
    return PlannedRun(checkpoint.facts.name, {"settings": settings}, source, checkpoint.tokenizer, policy)


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
    """Score and store every part that is missing or damaged."""
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
        done += plan["part_rows"][part.index]
        ahead = max(ahead, done)  # some parts are scored together, and stored one after the other
        progress(ahead, total)


def window_policy(checkpoint: Checkpoint, options: ScoreOptions, source: Source) -> WindowPolicy:
    """Return the windows and the BOS of a pass.

    A chat template alone decides about the BOS of a conversation, as in transformers, which adds none to what a
    template renders. With `bos` "always" one is put before it unless the template wrote it.

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
    bos_id, written = (tokenizer.bos_id if with_bos else None), None
    if templated(source):
        bos_id, written = None, (tokenizer.bos_id if options.bos == "always" else None)
    layout = TRUNCATIONS[options.truncate]
    if layout is not Layout.ROLLING:
        context = _cut_context(context, options)  # as in trainers, the length counts the last token, a target only
    stride = context if options.stride is None or layout is not Layout.ROLLING else options.stride
    return WindowPolicy(context, stride, bos_id, options.score_unknown, layout, written)


def _cut_context(length: int, options: ScoreOptions) -> int:
    """Return the most input tokens of a window that holds what is left of a document of `length` tokens.

    Raises:
        UsageError: a stride, or a length without a token to predict.
    """
    if options.stride is not None:
        raise UsageError("windows.stride", f"`stride` {options.stride}: `truncate` leaves one window a document")
    if length < SHORTEST_CUT:
        raise UsageError("windows.context", f"`context` {length}: `truncate` needs at least {SHORTEST_CUT} tokens")
    return length - 1


def refuse_beyond_hard_limit(checkpoint: Checkpoint, context: int) -> None:
    """Refuse a context for which the model has no positions.

    Raises:
        UsageError: `windows.context`, with the limit.
    """
    facts = checkpoint.facts
    if facts.hard_limit and facts.context_length is not None and context > facts.context_length:
        raise UsageError("windows.context", f"`context` {context}: the model's limit is {facts.context_length}")


def tell_beyond_trained(checkpoint: Checkpoint, context: int, source: Source) -> None:
    """Add a notice to a text where the context is above the length that the model's configuration states.

    Args:
        checkpoint: the model.
        context: most input tokens of a window.
        source: the text.
    """
    limit = checkpoint.facts.context_length
    if limit is not None and context > limit:
        notice = (
            f"{checkpoint.facts.name}: a context of {format_count(context)} is above the model's own, "
            f"{format_count(limit)}: its positions go on, but may not have been trained so far"
        )
        if notice not in source.notices:
            source.notices.append(notice)


def remember(path: Path, source: Source) -> None:
    """Make a run the latest one of the working folder; if that cannot be written, add a notice."""
    try:
        write_latest(Path(RUNS_FOLDER), path)
    except OutputError as error:
        source.notices.append(f"not remembered as the latest run: {error.message}")
