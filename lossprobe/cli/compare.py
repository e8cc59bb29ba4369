"""The command `lossprobe compare`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.analysis.options import CHANGES_BY, CompareOptions
from lossprobe.cli.options import Outputs, Scoring, ViewCommand, declared_options, scoring_options, view_options
from lossprobe.cli.values import RunPath
from lossprobe.cli.workers import refuse_workers
from lossprobe.errors import OutputError, UsageError
from lossprobe.passes.order import has_adapter, refuse_checkpoints_as_texts, refuse_swapped
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.analysis.compare.divergence import Divergence
    from lossprobe.analysis.rows.same_tokens import Described
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.run.pair import Pair
    from lossprobe.run.reader import Run

KL_HELP = (
    "Run both models together, and compare whole distributions: KL divergence, agreement. What was measured is stored; "
    "the CSV has a row for each token."
)
KL_HINT = "lossprobe compare A B TEXT --kl"


@click.command(cls=ViewCommand, short_help="Two models on one text: how much they differ, and where.")
@click.argument("sources", nargs=-1, type=RunPath(), metavar="[A B [TEXT]]")
@declared_options(CompareOptions)
@click.option("--kl", is_flag=True, help=KL_HELP)
@view_options
@scoring_options
def compare(sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, **choices: Any) -> None:
    """Compare two models on one text: difference with interval and test, smallest detectable difference, and slices.

    A and B are runs, or checkpoints with TEXT last. Differences are B − A: positive means that B is worse. Models with
    different tokenizers are compared by the bytes of the text. Without A and B, the last pair is compared again.

    \b
    Examples:
      lossprobe compare old-model new-model data.txt --by class
      lossprobe compare old-model new-model data.txt --kl
      lossprobe compare --kl --by document
    """
    from lossprobe.analysis.compare.compare import compare as compare_two
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.cli.models import find_runs
    from lossprobe.cli.present import present
    from lossprobe.report.views.compare import compare_view

    kl = choices.pop("kl")
    refuse_other_than_two(sources, scoring, kl=kl)
    field = None if choices["by"] in CHANGES_BY else choices["by"]
    refuse = functools.partial(refuse_incomparable, kl=kl, allow_different=choices["allow_different"])
    opener = Opener(keep=2, share_base=has_adapter(sources)) if kl else None  # both models run together
    runs = find_runs(sources or last_two(quiet=scoring.quiet), scoring, refuse, field, opener)
    if len(runs) != 2:
        raise not_two(len(runs))
    pair = None if opener is None else pair_of((runs[0], runs[1]), sources, scoring, opener)
    result = compare_two(runs[0], runs[1], **choices)
    remember_pair((runs[0].path, runs[1].path))
    if pair is not None:
        result = result.with_divergence(measured(pair, choices["by"], choices["top"]))
    present(compare_view(runs, result, pair), outputs)


def last_two(*, quiet: bool) -> list[Path]:
    """Return the two runs that were compared last in this folder, and say which they are unless `quiet`.

    Raises:
        UsageError: none were, or one of them was removed.
    """
    from lossprobe.report.talk import say
    from lossprobe.run.latest import RUNS_FOLDER, last_pair
    from lossprobe.run.run_folders import is_run
    from lossprobe.run.shown import shown_run

    pair = last_pair(Path(RUNS_FOLDER))
    for path in pair:
        if not is_run(path):
            raise UsageError(
                "run.missing", f"{shown_run(path)}: is no run any more (it was compared last in this folder)",
                hint="compare RUN RUN, or A B TEXT",
            )  # fmt: skip
    if not quiet:
        say(f"the last pair again: {' and '.join(map(shown_run, pair))}")
    return pair


def remember_pair(pair: tuple[Path, Path]) -> None:
    """Note the two runs for a later `lossprobe compare`, where this folder has runs and can be written."""
    import contextlib

    from lossprobe.run.latest import RUNS_FOLDER, write_pair

    if Path(RUNS_FOLDER).is_dir():
        with contextlib.suppress(OutputError):
            write_pair(Path(RUNS_FOLDER), pair)


def refuse_other_than_two(sources: Sequence[Path], scoring: Scoring, *, kl: bool) -> None:
    """Refuse, before a text is read, sources that are not two models; with `kl` they must be checkpoints.

    Raises:
        UsageError: they are more or fewer, or in the wrong order.
    """
    from lossprobe.passes.order import looks_like_checkpoint
    from lossprobe.run.run_folders import is_run

    if kl:
        refuse_mixed(sources)
        refuse_workers(scoring.work, "--kl")
    if len(sources) == 1 and looks_like_checkpoint(sources[0]):
        raise not_two(1)
    runs = sum(map(is_run, sources))
    if sources and runs == len(sources):
        count = runs
    else:
        refuse_swapped(sources[:-1], sources[-1:])
        refuse_checkpoints_as_texts(sources[-1:])
        checkpoints = len(sources) - 1 - runs
        if checkpoints < 1:
            return  # no sources, one that is no run, or runs and a text: what finds the runs says so
        count = len(sources) - 1 + (0 if scoring.desmooth is None else checkpoints)
    if count != 2:
        raise not_two(count)


def refuse_incomparable(runs: Sequence[Described], *, kl: bool, allow_different: bool) -> None:
    """Refuse runs, stored or not scored yet, that `compare` would refuse, and with `kl` those without a divergence.

    Raises:
        NotComparableError: they cannot be compared.
    """
    from lossprobe.analysis.compare.compare import refuse_other_windows
    from lossprobe.analysis.rows.same_tokens import refuse_other_vocabulary

    for run in runs[1:]:
        if kl:
            refuse_other_vocabulary(runs[0], run)
        if not allow_different:
            refuse_other_windows(runs[0], run)


def not_two(count: int) -> UsageError:
    """Return the error for another number of models than two."""
    return UsageError("compare.sources", f"compare takes two models, not {count}", hint="compare RUN RUN, or A B TEXT")


def refuse_mixed(sources: Sequence[Path]) -> None:
    """Refuse --kl for a run beside a checkpoint: both models must run together, or have done so.

    Raises:
        UsageError: the sources are neither two checkpoints and a text, nor stored runs.
    """
    from lossprobe.run.run_folders import is_run

    runs = sum(map(is_run, sources))
    if runs not in (0, len(sources)) or (sources and not runs and len(sources) != 3):
        raise UsageError(
            "compare.kl", "--kl needs both checkpoints and the text, or two runs that were compared with --kl before",
            hint=KL_HINT,
        )  # fmt: skip


def pair_of(runs: tuple[Run, Run], sources: Sequence[Path], scoring: Scoring, opener: Opener) -> Pair:
    """Return the stored pair of two runs; of checkpoints it is measured first unless it is stored.

    Raises:
        UsageError: stored runs were named, and their pair is not stored.
        NotComparableError: the models have other vocabularies.
        LossprobeError: the pair is damaged, or cannot be measured or written.
    """
    from lossprobe.analysis.rows.same_tokens import refuse_other_vocabulary
    from lossprobe.cli.progress import show_progress
    from lossprobe.cli.sources import load_checkpoint, say_each
    from lossprobe.passes.divergence import score_pair, stored_pair
    from lossprobe.report.talk import say
    from lossprobe.run.shown import shown_run

    refuse_other_vocabulary(*runs)
    pair, notices = stored_pair(*runs, overwrite=scoring.overwrite), list[str]()
    found = pair is not None
    if pair is None and len(sources) != 3:
        names = " and ".join(shown_run(run.path) for run in runs)
        raise UsageError("compare.kl", f"{names}: not compared with --kl yet, or not to the end", hint=KL_HINT)
    if pair is None:
        models = [load_checkpoint(path, scoring, opener) for path in sources[:2]]
        with show_progress(f"comparing on {runs[0].text_name}", quiet=scoring.quiet) as progress:
            pair = score_pair(runs, (models[0], models[1]), notices, scoring.score.batch_size, progress,
                              overwrite=scoring.overwrite)  # fmt: skip
    if not scoring.quiet:
        say_each(notices)
        say(f"{'already compared, reusing' if found else 'stored'} {visible(str(pair.path), 200)}")
    return pair


def measured(pair: Pair, by: str, top: int) -> Divergence:
    """Return how far the predictions of a stored pair are apart."""
    from lossprobe.analysis.compare.measured_divergence import measure_pair

    return measure_pair(pair, by, top)
