"""The command `lossprobe report`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.analysis.coloured_text.options import ReportOptions
from lossprobe.cli.options import Scoring, declared_options, placed_scoring_options
from lossprobe.cli.values import RunPath

if TYPE_CHECKING:
    from lossprobe.run.reader import Run


@click.command(short_help="One HTML page of everything, to look at and to send.")
@click.argument("sources", nargs=-1, type=RunPath(), metavar="[RUN... | CHECKPOINT... TEXT]")
@click.option("-o", "--output", "page", default="report.html", metavar="FILE", help="The page; - is standard output.")
@declared_options(ReportOptions)
@partial(placed_scoring_options, place={})
def report(sources: tuple[Path, ...], page: str, max_tokens: int, scoring: Scoring) -> None:
    """Write one HTML page of everything that a run says: numbers, pictures, and the text coloured by loss.

    The page is one file, opens by double-click and loads nothing. Of two models it shows the difference; of three or
    more, in the order of their steps, what was learned when. A folder of checkpoints stands for those in it.

    \b
    Examples:
      lossprobe report my-model data.txt
      lossprobe report old-model new-model data.txt -o difference.html
    """
    from lossprobe.cli.inputs import refuse_place
    from lossprobe.cli.present import protect_inputs
    from lossprobe.cli.progress import show_progress
    from lossprobe.python.report import make_report
    from lossprobe.report.formats.output import STDOUT, write_bytes
    from lossprobe.report.page.page import page_to_html

    refuse_place(page)
    runs = find_reported(sources, scoring)
    if page != STDOUT:
        for run in runs:
            protect_inputs(Path(page), run)
    with show_progress("writing the report", quiet=scoring.quiet, unit="sections") as progress:
        made = make_report(*runs, options=ReportOptions(max_tokens), progress=progress)
    write_bytes(page, page_to_html(made))


def find_reported(sources: Sequence[Path], scoring: Scoring) -> list[Run]:
    """Return the runs of a report: the latest one, RUN…, or those of CHECKPOINT… TEXT, scored if need be.

    A folder of checkpoints stands for those in it.

    Raises:
        NotComparableError: the runs are not of one text and one way of reading it.
        LossprobeError: scoring or opening a run fails.
    """
    from lossprobe.analysis.rows.same_tokens import refuse_different
    from lossprobe.cli.checkpoints import checkpoints_in, find_series
    from lossprobe.cli.models import find_runs
    from lossprobe.passes.order import looks_like_checkpoint

    if len(sources) == 2 and not looks_like_checkpoint(sources[0]) and len(checkpoints_in(sources[0])) > 1:
        return find_series(sources, scoring, None)[0]

    return find_runs(sources, scoring, refuse_different)
