"""The command `lossprobe defects`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lossprobe.analysis.defects.options import DefectOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    scoring_options,
    source_argument,
    view_options,
)


@click.command(cls=ViewCommand, short_help="What is wrong with the text: mojibake, copies, keys, markup.")
@source_argument
@declared_options(DefectOptions)
@view_options
@scoring_options
def defects(sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, **given: Any) -> None:
    """Name what is wrong with the text, by cause, with what it costs: wrong encodings, markup, keys, copies, cut ends.

    The bytes of the text show a cause; the loss confirms it and says what it weighs. The CSV has every place.

    \b
    Examples:
      lossprobe defects my-model data.txt
      lossprobe defects --cause mojibake
      lossprobe defects --csv places.csv --plot
      lossprobe defects my-model data.jsonl --fail-on secret,mojibake
    """
    from lossprobe.analysis.defects.defects import find_defects
    from lossprobe.cli.present import present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.views.defects import defects_view

    run = find_run(sources, scoring)
    result = find_defects(run, DefectOptions(**given))
    present(defects_view(run, result), outputs)
    sys.stdout.flush()  # now, while a closed pipe can still be told apart from a finding
    raise click.exceptions.Exit(result.exit_code)
