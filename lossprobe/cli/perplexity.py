"""The command `lossprobe perplexity`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lossprobe.analysis.options import LoggedOptions, PerplexityOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    scoring_options,
    source_argument,
    view_options,
)
from lossprobe.errors import UsageError
from lossprobe.plan.protocols import PROTOCOLS

PROTOCOL_HELP = (
    "Score as another tool does, with its windows and its mean; all: a row for each tool.  "
    f"[{', '.join(('all', *PROTOCOLS))}]"
)


@click.command(cls=ViewCommand, short_help="Perplexity and bits, with intervals and coverage.")
@source_argument
@declared_options(PerplexityOptions)
@declared_options(LoggedOptions)
@click.option("--protocol", type=click.Choice(["all", *PROTOCOLS]), metavar="NAME", help=PROTOCOL_HELP)
@view_options
@scoring_options
def perplexity(
    sources: tuple[Path, ...], by: str | None, protocol: str | None, outputs: Outputs, scoring: Scoring, **logged: Any
) -> None:
    """Show perplexity per token, word and byte, and bits per byte and character, with intervals and coverage.

    \b
    Examples:
      lossprobe perplexity my-model data.txt
      lossprobe perplexity --by document --csv
      lossprobe perplexity my-model data.txt --protocol all
    """
    if protocol is not None:
        from lossprobe.cli.protocols import show_protocols

        if by is not None:
            raise UsageError("protocol.by", f"--by {by}: not with --protocol {protocol}")
        show_protocols(protocol, sources, outputs, scoring, LoggedOptions(**logged))
        return
    if LoggedOptions(**logged) != LoggedOptions():
        raise UsageError("protocol.option", "--rows-per-batch, --ranks and the like: only with --protocol of a trainer")

    from lossprobe.analysis.perplexity import measure_perplexity
    from lossprobe.cli.present import present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.views.perplexity import perplexity_view

    run = find_run(sources, scoring, None if by == "document" else by)
    present(perplexity_view(run, measure_perplexity(run, by)), outputs)
