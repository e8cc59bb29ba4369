"""The command `lossprobe verify`."""

from __future__ import annotations

from pathlib import Path

import click

from lossprobe.cli.values import RunPath
from lossprobe.errors import OutputError
from lossprobe.units import plural, visible

AGAIN = {
    "score": "score again with --overwrite; shards score it again after lossprobe runs remove",
    "stored": "score again with --overwrite; shards score it again when its objects have been removed",
    "compare": "compare again with --overwrite, or remove its folder",
}


@click.command(short_help="Check a run's files against their hashes.")
@click.argument("run", required=False, type=RunPath(afresh=True))
def verify(run: Path | None) -> None:
    """Check every file of a run (by default the latest) against the hashes in its run.json.

    A run on object storage is fetched anew, so that what lies there is checked. A pair of runs, which compare --kl
    stores, is checked against its pair.json in the same way.

    \b
    Example:
      lossprobe verify .lossprobe/my-model-data-0123456789
    """
    from lossprobe.cli.sources import say_each
    from lossprobe.objects.folder import address_of_copy
    from lossprobe.run.pair import is_pair, pair_checks
    from lossprobe.run.reader import latest_run, open_run
    from lossprobe.run.shown import shown_run

    notices, again = tuple[str, ...](), "score" if run is None or address_of_copy(run) is None else "stored"
    if run is not None and is_pair(run):
        checks, again = pair_checks(run), "compare"
    else:
        opened = latest_run(Path()) if run is None else open_run(run)
        assert opened.checks is not None
        checks, notices = opened.checks, opened.notices
    shown, damaged = shown_run(checks.path), checks.damaged_files()
    count, scored = len(checks.manifest["files"]), checks.manifest["counts"]["scored_tokens"]
    if damaged:
        what = f"{shown}: {len(damaged)} of {count} files damaged, first {visible(damaged[0], 80)}"
        raise OutputError("run.damaged", what, hint=AGAIN[again])
    checks.check()
    say_each(notices)
    click.echo(f"{shown}: {plural(count, 'file')} intact, {plural(scored, 'token')} scored")
