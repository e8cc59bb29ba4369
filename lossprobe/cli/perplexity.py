"""`lossprobe perplexity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.cli.options import Outputs, Scoring, ViewCommand, scoring_options, source_argument, view_options
from lossprobe.errors import UsageError
from lossprobe.plan.protocols import PROTOCOLS

if TYPE_CHECKING:
    from lossprobe.analysis.perplexity import Perplexity

PROTOCOL_HELP = "Score the tokens that another tool scores, with its windows and its mean; all: a row for each."


@click.command(cls=ViewCommand, short_help="Perplexity and bits, with intervals and coverage.")
@source_argument
@click.option("--by", metavar="document|FIELD", help="The same for every document, or every value of a JSONL field.")
@click.option("--protocol", type=click.Choice(["all", *PROTOCOLS]), help=PROTOCOL_HELP)
@view_options
@scoring_options
def perplexity(
    sources: tuple[Path, ...], by: str | None, protocol: str | None, outputs: Outputs, scoring: Scoring
) -> None:
    """Perplexity per token, word and byte; bits per byte and character; intervals and coverage.

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
        show_protocols(protocol, sources, outputs, scoring)
        return

    from lossprobe.analysis.perplexity import measure_perplexity
    from lossprobe.cli.present import View, present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.formats.tables import to_csv

    run = find_run(sources, scoring)
    result = measure_perplexity(run, by)

    groups = result.groups
    csv = None if groups is None else lambda: [to_csv(groups).encode()]
    more = () if groups is None else ((f"by {result.by}", groups),)
    present(View("perplexity", run, result, csv=csv, lines=_coverage_lines(result), more=more), outputs)


def _coverage_lines(result: Perplexity) -> tuple[str, ...]:
    coverage = result.coverage
    reasons = [
        f"{reason} {count:,} ({coverage['bytes_unscored'].get(reason, 0):,} bytes)"
        for reason, count in coverage["tokens_unscored"].items()
    ]
    more = [
        f"; {words}: {coverage[name]:,}"
        for name, words in (
            ("bytes_vanished", "of them without any token"),
            ("special_strings", "control ids from special strings in the text"),
            ("documents_in_pieces", "documents tokenized in pieces that may matter"),
        )
        if coverage[name]
    ]
    return (
        f"reference levels: uniform {result.uniform_nats:.6f}, unigram {result.unigram_nats:.6f} nats per token",
        f"coverage: {coverage['tokens_scored']:,} of {coverage['tokens_read']:,} tokens "
        f"and {coverage['bytes_scored']:,} of "
        f"{coverage['bytes_read']:,} bytes scored; unscored tokens: {', '.join(reasons) or 'none'}; "
        f"bytes normalised away by the tokenizer: {coverage['bytes_normalized']:,}{''.join(more)}",
    )
