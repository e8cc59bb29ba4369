"""Names a pass before its model is needed, and plans it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossprobe import __version__
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.passes.engines import stage_of
from lossprobe.passes.identity import describe, measured_facts, run_name
from lossprobe.passes.planning import PlanOptions, write_plan
from lossprobe.passes.policy import tell_beyond_trained, window_policy
from lossprobe.passes.rendered import rendered
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import WindowPolicy
from lossprobe.plan.windows import Layout
from lossprobe.run.files import refuse_undecodable, sha256_of_json
from lossprobe.run.inputs import stored_inputs
from lossprobe.run.latest import runs_folder
from lossprobe.run.shared_plan import SharedPlan
from lossprobe.run.store import RunStore
from lossprobe.text.documents import Source


@dataclass(frozen=True)
class PreparedPass:
    """What is known of a pass before its model is needed.

    Attributes:
        path: the folder of its run.
        settings: the identity of the run; see `run.identity`.
        labels: the names of checkpoint and text.
        source: the text, rendered if it holds conversations.
        policy: windows and BOS.
    """

    path: Path
    settings: dict[str, Any]
    labels: dict[str, str]
    source: Source
    policy: WindowPolicy


def prepare(
    checkpoint: Checkpoint, source: Source, options: ScoreOptions, output: Path | None, progress: object = None
) -> PreparedPass:
    """Return where the run of a pass goes and what identifies it; nothing is loaded for it.

    `progress` may be a `StagedProgress`, which shows how much of the text was read.

    Raises:
        UsageError: as `window_policy`.
    """
    source = rendered(source, checkpoint, options.score)
    policy = window_policy(checkpoint, options, source)
    return prepare_policy(output, checkpoint, source, policy, options, progress)


def prepare_policy(
    output: Path | None,
    checkpoint: Checkpoint,
    source: Source,
    policy: WindowPolicy,
    options: ScoreOptions,
    progress: object = None,
) -> PreparedPass:
    """Return what `prepare` does, with the windows and BOS of `policy`, for a text that is rendered already."""
    if output is not None:
        refuse_undecodable(output)
    # With WHOLE a window is as long as its document; the measures of the protocol tell of documents beyond the limit.
    if policy.layout is not Layout.WHOLE:
        tell_beyond_trained(checkpoint, policy.context, source)
    settings = describe(checkpoint, source, policy, options, stage_of(progress))
    labels = {"checkpoint": checkpoint.facts.name, "text": source.name}
    return PreparedPass(output or runs_folder() / run_name(settings, labels), settings, labels, source, policy)


def make_plan(
    store: RunStore,
    prepared: PreparedPass,
    checkpoint: Checkpoint,
    options: ScoreOptions,
    shared: SharedPlan | None = None,
    progress: object = None,
) -> dict[str, Any]:
    """Store the plan of a pass, and return it. The checkpoint is open; `progress` may be a `StagedProgress`."""
    copied = None if shared is None else shared.copy_into(store, prepared.settings)
    asked = plan_options(prepared, checkpoint, options)
    stage = stage_of(progress)
    planned = copied or write_plan(store, prepared.source, checkpoint.tokenizer, asked, stage)
    return finish_plan(store, prepared, checkpoint, planned)


def plan_options(prepared: PreparedPass, checkpoint: Checkpoint, options: ScoreOptions) -> PlanOptions:
    """Return the options of the planning of a pass."""
    sha256 = prepared.settings["text"]["sha256"]
    identity = sha256_of_json(prepared.settings)
    return PlanOptions(prepared.policy, checkpoint.facts.vocab_size, options.keep_text, sha256, identity)


def finish_plan(
    store: RunStore, prepared: PreparedPass, checkpoint: Checkpoint, planned: dict[str, Any]
) -> dict[str, Any]:
    """Mark the plan of a pass as complete, and return it, with what identifies the run."""
    told = {"lossprobe": __version__, "settings": prepared.settings, "measured": measured_facts(checkpoint)}
    inputs = stored_inputs(checkpoint.facts.files, prepared.path)
    plan = {**told, "labels": prepared.labels, **planned, "inputs": inputs}
    store.finish_plan(plan)
    return plan
