"""The command `lossprobe verify`."""

from __future__ import annotations

from pathlib import Path

import click

from lossprobe.cli.values import RunPath
from lossprobe.errors import OutputError
from lossprobe.units import visible


@click.command(short_help="Check a run's files against their hashes.")
@click.argument("run", required=False, type=RunPath())
def verify(run: Path | None) -> None:
    """Check every file of a run (by default the latest) against the hashes in its run.json.

    \b
    Example:
      lossprobe verify .lossprobe/my-model-data-0123456789
    """
    from lossprobe.cli.sources import noticed
    from lossprobe.run.reader import latest_run, open_run

    opened = latest_run(Path()) if run is None else open_run(run)
    damaged = opened.damaged_files()
    count = len(opened.manifest["files"])
    if damaged:
        raise OutputError(
            "run.damaged",
            f"{visible(str(opened.path), 200)}: {len(damaged)} of {count} files damaged, "
            f"first {visible(damaged[0], 80)}",
            hint="score again with --overwrite, or remove its folder",
        )
    opened.check()
    noticed(opened)
    click.echo(
        f"{visible(str(opened.path), 200)}: {count} files intact, {opened.counts['scored_tokens']:,} tokens scored"
    )
