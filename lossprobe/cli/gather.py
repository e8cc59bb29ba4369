"""The command `lossprobe gather`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lossprobe.cli.values import RunPath
from lossprobe.units import plural, visible


@click.command(short_help="Complete a run that shards have scored.")
@click.argument("run", type=RunPath(complete=False))
@click.option("-q", "--quiet", is_flag=True, help="Show no notices and no next commands.")
def gather(run: Path, quiet: bool) -> None:
    """Complete a run that several processes have scored with score --shard.

    Checks every part and writes run.json last: the run that one process would have made. Where parts are missing or
    damaged it says which shards have to run again.

    \b
    Example:
      lossprobe gather runs/held-out
    """
    from lossprobe.objects.folder import shown_place
    from lossprobe.report.talk import say
    from lossprobe.run.latest import RUNS_FOLDER, write_latest
    from lossprobe.run.shards import gather as gather_parts

    gathered, before = gather_parts(run)
    write_latest(Path(RUNS_FOLDER), gathered.path)
    path = shown_place(gathered.path)
    if not quiet:
        parts = plural(len(gathered.manifest.get("part_rows", [])), "part")
        say(f"{'complete already' if before else 'gathered'}: {parts}, {plural(gathered.counts['tokens'], 'token')}")
    click.echo(visible(path) if sys.stdout.isatty() else path)
    if not quiet:
        click.echo("next:  lossprobe perplexity", err=True)
