"""Perplexity and bits, reference levels, coverage, and the same by group."""

from __future__ import annotations

from lossprobe.analysis.perplexity import Perplexity
from lossprobe.report.formats.csv import to_csv
from lossprobe.report.views.places import split_places, without_empty_ends
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run
from lossprobe.units import plural

YIELDS = (
    "bits_per_word", "words", "bits_per_character", "characters", "clusters", "documents", "bytes", "bits_per_byte",
)  # fmt: skip


def perplexity_view(run: Run, result: Perplexity) -> View:
    """Return the view of a perplexity; the CSV holds the groups where there are any."""
    groups = result.groups
    csv = None if groups is None else lambda: [to_csv(groups).encode()]
    more = () if groups is None else ((f"by {result.by}", without_empty_ends(groups)),)
    first, last = split_places(groups)
    return view_of_runs("perplexity", [run], result, csv=csv, lines=_coverage_lines(result), more=more,
                        yields=(*first, *YIELDS, *last, "low", "high"))  # fmt: skip


def _coverage_lines(result: Perplexity) -> tuple[str, ...]:
    coverage = result.coverage
    reasons = [
        f"{reason} {count:,} ({plural(coverage['bytes_unscored'].get(reason, 0), 'byte')})"
        for reason, count in coverage["tokens_unscored"].items()
    ]
    more = [
        f"; {words}: {coverage[name]:,}"
        for name, words in (
            ("bytes_vanished", "of them without any token"),
            ("special_strings", "control ids from special strings in the text"),
            ("documents_in_pieces", "documents tokenized in pieces that may matter"),
            ("records_skipped", "bad records left out"),
            ("files_skipped", "bad files left out"),
        )
        if coverage[name]
    ]
    fitted = "" if result.unigram_comparable else " (not compared: too few tokens of each kind)"
    return (
        f"reference levels: uniform {result.uniform_nats:.6f}, unigram {result.unigram_nats:.6f} "
        f"nats per token{fitted}",
        f"coverage: {coverage['tokens_scored']:,} of {coverage['tokens_read']:,} tokens "
        f"and {coverage['bytes_scored']:,} of "
        f"{coverage['bytes_read']:,} bytes scored; unscored tokens: {', '.join(reasons) or 'none'}; "
        f"bytes normalised away by the tokenizer: {coverage['bytes_normalized']:,}{''.join(more)}",
    )
