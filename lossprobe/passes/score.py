"""Makes a run from a checkpoint and a text: names it, plans it, and scores it part by part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lossprobe.checkpoint.deferred import opened
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.display import to_html
from lossprobe.errors import OutputError
from lossprobe.passes.engines import Engine, PartOptions, engine_of
from lossprobe.passes.identity import PlannedRun, describe, measured_facts
from lossprobe.passes.known_checkpoint import keep_known
from lossprobe.passes.parts import Progress as Progress
from lossprobe.passes.parts import no_progress, score_parts
from lossprobe.passes.policy import window_policy
from lossprobe.passes.prepared import make_plan, prepare_policy
from lossprobe.passes.rendered import rendered
from lossprobe.passes.unknown import check_unknown
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import WindowPolicy
from lossprobe.run.latest import RUNS_FOLDER, write_latest
from lossprobe.run.reader import Run, open_run
from lossprobe.run.reuse import complete_run, stored_plan, stored_run
from lossprobe.run.shared_plan import SharedPlan
from lossprobe.run.store import RunStore
from lossprobe.run.twin import twin_of
from lossprobe.text.documents import Source


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
    prepared = prepare_policy(output, checkpoint, source, policy, options, progress)
    path, settings = prepared.path, prepared.settings
    reusable = bool(checkpoint.facts.sha256)  # a checkpoint that cannot be identified is always scored again
    found = complete_run(path, settings) if reusable and twin_of(path) is None else None
    if found is not None:
        check_unknown(found.counts, source, options.max_unknown)
        return PassResult(found, reused=True)
    with RunStore(path) as store:
        store.bring()
        stored = stored_run(path, settings, overwrite=overwrite)
        if stored is not None and reusable:
            check_unknown(stored.counts, source, options.max_unknown)
            source.notices.extend(stored.notices)
            store.drop_plan()  # a pass that was stopped just before this step leaves its plan
            return PassResult(stored, reused=True)
        checkpoint = opened(checkpoint)
        measured = measured_facts(checkpoint)
        plan = stored_plan(store, settings, measured, source.notices, overwrite=overwrite) if reusable else None
        plan = plan or make_plan(store, prepared, checkpoint, options, shared, progress)
        check_unknown(plan["counts"], source, options.max_unknown)
        parts = PartOptions(options.batch_size, plan["sample_every"])
        engine = engine or engine_of(checkpoint, source, progress)
        score_parts(store, engine, plan, parts, source, progress or no_progress)
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


def remember(path: Path, source: Source) -> None:
    """Make a run the latest one of the working folder; if that cannot be written, add a notice."""
    try:
        write_latest(Path(RUNS_FOLDER), path)
    except OutputError as error:
        source.notices.append(f"not remembered as the latest run: {error.message}")
