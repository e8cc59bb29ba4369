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
@click.option(
    "--shard",
    metavar="I/N",
    help="Score share I of N of the parts only, beside other processes; gather then completes the run. "
    "[also: slurm, torchrun]",
)
@scoring_options
def score(checkpoint: Path, texts: tuple[Path, ...], shard: str | None, scoring: Scoring) -> None:
    """Score every token of a text once and store the run.

    TEXT is a UTF-8 file, a .gz, a JSONL (each record is a document), a folder, an address such as
    s3://bucket/val.jsonl, or - for standard input. The same command again resumes a run that was stopped, and reuses a
    run that is complete.

    \b
    Examples:
      lossprobe score my-model data.txt
      lossprobe score my-model held-out.jsonl --text-field body -o runs/held-out
      lossprobe score my-model held-out.jsonl -o runs/held-out --shard 3/8
    """
    from lossprobe.cli.shards import score_share
    from lossprobe.cli.sources import score_text
    from lossprobe.objects.folder import shown_place

    if shard is None:
        path = score_text(checkpoint, texts, scoring).run.path
    else:
        path = score_share(checkpoint, texts, shard, scoring)
    place = shown_place(path)
    click.echo(visible(place) if sys.stdout.isatty() else place)
    if not scoring.quiet and shard is None:
        click.echo("next:  lossprobe perplexity\n       lossprobe positions --plot\n       lossprobe hardest\n"
                   "       lossprobe tokens --csv", err=True)  # fmt: skip
