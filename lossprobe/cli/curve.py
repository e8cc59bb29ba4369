"""The command `lossprobe curve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lossprobe.analysis.options import CurveOptions
from lossprobe.cli.options import Outputs, ViewCommand, declared_options, view_options


@click.command(cls=ViewCommand, short_help="Is a training run healthy? Its log says what went wrong.")
@click.argument("logs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="LOG...")
@declared_options(CurveOptions)
@view_options
@click.option("-q", "--quiet", is_flag=True, help="Show no progress or notices, and in a pipe no finding.")
def curve(logs: tuple[Path, ...], outputs: Outputs, quiet: bool, **given: Any) -> None:
    """Say from its log whether a training run is healthy, and if not, what is wrong, why, and what to do.

    LOG is a trainer_state.json or a folder with checkpoints of a Trainer, a TensorBoard event file or a folder of them,
    a CSV or JSONL log, the output of nanoGPT, llm.c, Megatron and others, or - for standard input. Several logs are
    drawn into one picture, and it is told where two runs part.

    \b
    Examples:
      lossprobe curve trainer_state.json --plot
      lossprobe curve run-1.log run-2.log
      lossprobe curve metrics.csv --fail-on nan,over-fitting
      lossprobe curve out.txt --columns step=iter,loss=ce
    """
    from lossprobe.analysis.curve.curve import curve as examine_logs
    from lossprobe.cli.present import present
    from lossprobe.logs.read import read_log
    from lossprobe.report.views.curve import curve_view

    options = CurveOptions(**given)
    read = [read_log(path, options.columns) for path in logs]
    result = examine_logs(read, options)
    present(curve_view(read, result), outputs)
    sys.stdout.flush()
    raise click.exceptions.Exit(result.exit_code)
