"""The command `lossprobe findings`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.analysis.findings.options import FindingOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    scoring_options,
    sources_argument,
    view_options,
)

if TYPE_CHECKING:
    from lossprobe.analysis.rows.same_tokens import Described


@click.command(cls=ViewCommand, short_help="What the numbers say, in plain words, the worst first.")
@sources_argument
@declared_options(FindingOptions)
@view_options
@scoring_options
def findings(sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, **choices: Any) -> None:
    """Say in plain words what is remarkable in a run: rules look at the results of all views.

    A rule speaks where the interval of its number clears a threshold, at a level that allows any finding in 1 % of
    clean texts.
    Several models are compared with the first. lossprobe explain NAME explains a finding.

    \b
    Examples:
      lossprobe findings my-model data.txt
      lossprobe findings old-model new-model data.txt --plot
      lossprobe findings --fail-on fault,known-by-heart
    """
    from lossprobe.analysis.findings.findings import find_findings
    from lossprobe.cli.models import find_runs
    from lossprobe.cli.present import present
    from lossprobe.report.views.findings import findings_view

    runs = find_runs(sources, scoring, refuse_other_texts)
    result = find_findings(runs, FindingOptions(**choices))
    present(findings_view(runs, result), outputs)
    sys.stdout.flush()  # now, while a closed pipe can still be told apart from a finding
    raise click.exceptions.Exit(result.exit_code)


def refuse_other_texts(runs: Sequence[Described]) -> None:
    """Refuse runs that `compare` would not compare with the first.

    Raises:
        NotComparableError: the texts differ, or with the same tokenizer the windows or BOS do.
    """
    from lossprobe.analysis.compare.compare import refuse_other_windows

    for run in runs[1:]:
        refuse_other_windows(runs[0], run)
