"""The command `lossprobe score`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lossprobe.cli.options import Scoring, scoring_options
from lossprobe.units import visible


@click.command(short_help="Score every token of a text once, and store the run.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TEXT...")
@scoring_options
def score(checkpoint: Path, texts: tuple[Path, ...], scoring: Scoring) -> None:
    """Score every token of a text once and store the run.

    TEXT is a UTF-8 file, a .gz, a JSONL (each record is a document), a folder, or - for standard input. The same
    command again resumes a run that was stopped, and reuses a run that is complete.

    \b
    Examples:
      lossprobe score my-model data.txt
      lossprobe score my-model held-out.jsonl --text-field body -o runs/held-out
    """
    from lossprobe.cli.sources import score_text

    scored = score_text(checkpoint, texts, scoring)
    path = str(scored.run.path)
    click.echo(visible(path) if sys.stdout.isatty() else path)
    if not scoring.quiet:
        click.echo("next:  lossprobe perplexity\n       lossprobe positions --plot\n       lossprobe hardest\n"
                   "       lossprobe tokens --csv", err=True)  # fmt: skip
