"""The command `lossprobe preferences`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.analysis.options import PreferenceOptions
from lossprobe.cli.options import Outputs, Scoring, ViewCommand, declared_options, scoring_options, view_options
from lossprobe.cli.values import RunPath
from lossprobe.errors import UsageError
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.checkpoint.interface import Checkpoint
    from lossprobe.passes.known_text import KnownText
    from lossprobe.run.reader import Run

REFERENCE_HELP = "Model of the same tokenizer (or its run on the same pairs) for implicit rewards, DPO and IPO."


@click.command(cls=ViewCommand, short_help="Pairs of answers: is the chosen one more likely?")
@click.argument("sources", nargs=-1, type=RunPath(), metavar="[RUN | CHECKPOINT PAIRS...]")
@click.option("--reference", type=RunPath(), metavar="CHECKPOINT2|RUN2", help=REFERENCE_HELP)
@declared_options(PreferenceOptions)
@view_options
@scoring_options
def preferences(
    sources: tuple[Path, ...], reference: Path | None, outputs: Outputs, scoring: Scoring, **choices: Any
) -> None:
    """Measure how a model ranks pairs of answers (chosen, rejected): share ranked right, length bias, losses.

    \b
    Examples:
      lossprobe preferences my-model pairs.jsonl --by source --plot
      lossprobe preferences my-dpo-model pairs.jsonl --reference my-sft-model
    """
    from lossprobe.analysis.preferences.preferences import measure_preferences
    from lossprobe.cli.present import present
    from lossprobe.report.views.preferences import preferences_view

    options = PreferenceOptions(**choices)
    run, other = find_runs_of_pairs(sources, reference, scoring, options.by)
    runs = (run,) if other is None else (run, other)
    present(preferences_view(runs, measure_preferences(run, other, options)), outputs)


def find_runs_of_pairs(
    sources: Sequence[Path], reference: Path | None, scoring: Scoring, field: str | None
) -> tuple[Run, Run | None]:
    """Return the run of both sides of the pairs, and that of the reference where one is named.

    Raises:
        UsageError: the sources are neither a run nor a checkpoint and pairs, or the reference cannot be one.
        LossprobeError: whatever scoring or opening a run raises.
    """
    from lossprobe.cli.sources import find_run, noticed
    from lossprobe.run.reader import open_run
    from lossprobe.run.run_folders import is_run
    from lossprobe.run.shown import shown_run

    if len(sources) > 1 and not is_run(sources[0]):
        return score_pairs(sources, reference, scoring, field)
    run = find_run(sources, scoring)
    if reference is None:
        return run, None
    if not is_run(reference):
        raise UsageError(
            "preferences.reference", f"--reference {shown_run(reference)}: is no run, and no pairs are named",
            hint="lossprobe preferences CHECKPOINT PAIRS --reference CHECKPOINT2",
        )  # fmt: skip
    return run, noticed(open_run(reference))


def score_pairs(
    sources: Sequence[Path], reference: Path | None, scoring: Scoring, field: str | None
) -> tuple[Run, Run | None]:
    """Return the runs of a checkpoint, and of the reference, on both sides of the pairs; scored unless stored."""
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.cli.order import check_order
    from lossprobe.cli.sources import check_output, load_checkpoint, noticed, read_text
    from lossprobe.passes.known_text import KeptTokens
    from lossprobe.passes.order import has_adapter
    from lossprobe.passes.rendered import both_sides
    from lossprobe.run.reader import open_run
    from lossprobe.run.run_folders import is_run

    path, texts = sources[0], sources[1:]
    check_order([path], texts, scoring)
    check_output(path, scoring.output)
    opener = Opener(keep=2, share_base=has_adapter([path, reference or path]))
    again = reference is not None and not is_run(reference)  # a single pass needs the tokens only once
    source = read_text(texts, scoring, field, KeptTokens() if again else None)
    checkpoint = load_checkpoint(path, scoring, opener)
    pairs = both_sides(source, checkpoint, scoring.score.score)
    if reference is None:
        return scored(checkpoint, pairs, scoring), None
    if is_run(reference):
        return scored(checkpoint, pairs, scoring), noticed(open_run(reference))
    plain = replace(scoring, desmooth=None, output=None)
    other = load_checkpoint(reference, plain, opener)
    refuse_other_tokens(checkpoint, other, pairs)
    same_windows = replace(scoring.score, context=common_context(checkpoint, other, scoring))
    second = scored(other, pairs, replace(plain, score=same_windows))  # the first one is remembered as the latest run
    return scored(checkpoint, pairs, replace(scoring, score=same_windows)), second


def scored(checkpoint: Checkpoint, pairs: KnownText, scoring: Scoring) -> Run:
    """Return the run of a checkpoint on both sides of pairs, with a progress bar unless it is stored."""
    from lossprobe.cli.progress import show_progress
    from lossprobe.cli.sources import say_scored
    from lossprobe.passes.score import score

    with show_progress(f"scoring {pairs.name}", quiet=scoring.quiet) as progress:
        found = score(
            checkpoint, pairs, scoring.score, output=scoring.output, overwrite=scoring.overwrite, progress=progress
        )
    say_scored(found, checkpoint, pairs, scoring)
    return found.run


def common_context(checkpoint: Checkpoint, other: Checkpoint, scoring: Scoring) -> int | None:
    """Return the context that both models can take: the one asked for, or the smaller of their own."""
    limits = [each.facts.context_length for each in (checkpoint, other) if each.facts.context_length is not None]
    return scoring.score.context or min(limits, default=None)


def refuse_other_tokens(checkpoint: Checkpoint, other: Checkpoint, pairs: KnownText) -> None:
    """Refuse a reference whose tokenizer gives other tokens than the model's on these pairs.

    Raises:
        NotComparableError: it does; the message names the first record.
    """
    from lossprobe.errors import NotComparableError

    one, two = checkpoint.tokenizer, other.tokenizer
    if one.sha256 == two.sha256:
        return
    names = f"{visible(checkpoint.facts.name, 80)} and {visible(other.facts.name, 80)}"
    hint = "a reference is the model that training started from, with the same tokenizer"
    for document in pairs.documents():
        first, second = (pairs.tokens(document.text, tokenizer).ids.tolist() for tokenizer in (one, two))
        if first != second:
            where = f"{visible(document.source, 80)}: line {document.line}"
            raise NotComparableError(
                "preferences.other_tokenizer", f"{names}: their tokenizers give other tokens ({where})", hint=hint
            )
    if (one.adds_bos, one.bos_id) != (two.adds_bos, two.bos_id):
        raise NotComparableError("preferences.other_tokenizer", f"{names}: one puts another BOS first", hint=hint)
