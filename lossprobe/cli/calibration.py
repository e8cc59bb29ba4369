"""The command `lossprobe calibration`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lossprobe.analysis.options import SLICES_BY, CalibrationOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    scoring_options,
    sources_argument,
    view_options,
)


@click.command(cls=ViewCommand, short_help="Calibration of the probabilities; models side by side.")
@sources_argument
@declared_options(CalibrationOptions)
@view_options
@scoring_options
def calibration(sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, **choices: Any) -> None:
    """Measure how well a model's probabilities match its accuracy: calibration errors, best temperature, smoothing.

    Several models on one text are shown side by side and compared token by token with the first. --desmooth EPS scores
    each checkpoint a second time, with label smoothing removed. The CSV has the bins of the diagrams, or with --by the
    slices.

    \b
    Examples:
      lossprobe calibration plain smoothed data.txt --plot
      lossprobe calibration --by context
    """
    from lossprobe.analysis.calibration.calibration import measure_calibration
    from lossprobe.analysis.rows.same_tokens import refuse_different
    from lossprobe.cli.models import find_runs
    from lossprobe.cli.present import present
    from lossprobe.report.views.calibration import calibration_view

    by = choices["by"]
    refuse = (lambda _: None) if choices["allow_different"] else refuse_different
    runs = find_runs(sources, scoring, refuse, None if by in SLICES_BY else by)
    present(calibration_view(runs, measure_calibration(runs, **choices)), outputs)
