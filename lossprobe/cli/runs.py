"""The command `lossprobe runs`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.cli.options import json_option
from lossprobe.cli.values import RunPath
from lossprobe.errors import UsageError
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.plain_table import PlainTable
    from lossprobe.run.stored import StoredRun

YIELDS = ("folder", "text", "size")


@click.group(invoke_without_command=True, short_help="List the stored runs; choose the latest; remove runs.")
@json_option
@click.pass_context
def runs(context: click.Context, /, as_json: bool) -> None:
    """List the runs of this folder, newest first; choose the latest one, or remove runs.

    Pairs of runs, which compare --kl stores, stand among them: the models of both, and "pair" as their state.
    Wherever a command takes a RUN, the name shown here is enough, or the start of a folder's name that means one run.

    \b
    Examples:
      lossprobe runs               list them
      lossprobe runs latest 3f2a   make it the run that views take by default
      lossprobe runs remove 3f2a   remove it
    """
    if context.invoked_subcommand is not None:
        return
    from lossprobe.run.latest import RUNS_FOLDER

    table = runs_table(Path(RUNS_FOLDER))
    if as_json:
        click.echo(json.dumps(table.records(), indent=1))
    elif sys.stdout.isatty():
        print_runs(table)
    else:
        from lossprobe.report.formats.csv import to_csv

        click.echo(to_csv(table), nl=False)


@runs.command(short_help="Make a run the one that views take by default.")
@click.argument("run", type=RunPath())
def latest(run: Path) -> None:
    """Make a run the latest one of this folder, which views take where none is named.

    \b
    Example:
      lossprobe runs latest 3f2a
    """
    from lossprobe.report.talk import say
    from lossprobe.run.latest import RUNS_FOLDER, write_latest
    from lossprobe.run.reader import open_run
    from lossprobe.run.run_folders import run_folders
    from lossprobe.run.shown import shown_run

    if not run_folders(run):  # of several runs, `open_run` says the names
        refuse_no_run(run)
    opened = open_run(run)
    write_latest(Path(RUNS_FOLDER), opened.path)
    say(f"latest: {shown_run(opened.path)}")


@runs.command(short_help="Remove runs.")
@click.argument("chosen", nargs=-1, required=True, type=RunPath(complete=False), metavar="RUN...")
def remove(chosen: tuple[Path, ...]) -> None:
    """Remove runs and pairs: only files that they have, never through a link, and none that is being written.

    \b
    Example:
      lossprobe runs remove 3f2a 81c0
    """
    from lossprobe.report.talk import say
    from lossprobe.run.shown import shown_run
    from lossprobe.run.stored import remove_run

    for run in chosen:  # all of them before the first is removed
        refuse_kept_elsewhere(run)
        refuse_no_run(run)
    for run in chosen:
        shown = shown_run(run)  # asked before: how a place is named depends on what lies there
        remove_run(run)
        say(f"removed {shown}")


def refuse_kept_elsewhere(path: Path) -> None:
    """Refuse to remove a run on object storage, of which the folder is only a copy; a pair beside it lies here alone.

    Raises:
        UsageError: it is one.
    """
    from lossprobe.run.pair import is_pair
    from lossprobe.run.twin import twin_of

    twin = None if is_pair(path) else twin_of(path)
    if twin is not None:
        what = f"{visible(twin.address.uri, 200)}: lossprobe removes no run from object storage"
        raise UsageError("object.remove", what, hint="use a tool of the store, such as aws s3 rm --recursive")


def refuse_no_run(path: Path) -> None:
    """Refuse a path that is no run, whole or not.

    Raises:
        UsageError: it is none.
    """
    from lossprobe.run.pair import is_pair
    from lossprobe.run.run_folders import is_run
    from lossprobe.run.schema import MANIFEST
    from lossprobe.run.shown import shown_run

    if not is_run(path) and not is_pair(path):
        raise UsageError(
            "run.missing", f"{shown_run(path)}: is no run (no {MANIFEST})",
            hint="lossprobe runs lists the runs of this folder",
        )  # fmt: skip


def runs_table(folder: Path) -> PlainTable:
    """Return one row a run of a folder, newest first."""
    from lossprobe.plain_table import PlainTable
    from lossprobe.run.latest import latest_of
    from lossprobe.run.stored import stored_runs

    default = latest_of(folder)
    rows: list[dict[str, Any]] = [
        {
            "name": each.short, "latest": each.path.absolute() == default, **about(each), "state": each.state,
            "changed": each.changed.strftime("%Y-%m-%dT%H:%M:%SZ"), "size": each.size, "folder": each.path.name,
        }
        for each in stored_runs(folder)
    ]  # fmt: skip
    columns = ["name", "latest", "model", "text_name", "tokens", "state", "changed", "size", "folder"]
    types = dict.fromkeys(columns, object) | {"latest": bool, "size": int}
    return PlainTable.of_records(rows, types)


def about(each: StoredRun) -> dict[str, Any]:
    """Return the model, the text and the scored tokens of a run, or of a pair of runs; None where nothing says them."""
    labels = each.labels
    of_pair = "first" in labels and "second" in labels
    model = f"{labels['first']} ‖ {labels['second']}" if of_pair else labels.get("checkpoint")
    content = each.pair or (each.run and each.run.manifest)
    return {"model": model, "text_name": labels.get("text"), "tokens": content and content["counts"]["scored_tokens"]}


def print_runs(table: PlainTable) -> None:
    """Print the table for people: sizes in MB, local words for what is latest and what is not complete."""
    from lossprobe.plain_table import PlainTable
    from lossprobe.report.formats.output import STDOUT, write_text
    from lossprobe.report.formats.terminal import to_terminal

    rows = [
        {
            **row, "text": row["text_name"], "size": f"{row['size'] / 1e6:,.1f} MB",
            "state": "latest" if row["latest"] else "" if row["state"] == "complete" else row["state"],
            "changed": f"{row['changed'][:10]} {row['changed'][11:16]}",
        }
        for row in table.records()
    ]  # fmt: skip
    columns = ["name", "model", "text", "tokens", "state", "changed", "size", "folder"]
    shown = PlainTable.of_records(rows, dict.fromkeys(columns, object))
    lines = [] if len(table) else ["no run in this folder yet; score first: lossprobe score CHECKPOINT TEXT"]
    write_text(STDOUT, to_terminal(shown, "runs of this folder, newest first (UTC)", lines, yields=YIELDS))
