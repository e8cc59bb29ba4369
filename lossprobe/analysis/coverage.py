"""How much of a text was scored, and why the rest was not."""

from __future__ import annotations

from typing import Any

from lossprobe.analysis.preferences.pairs import BOTH
from lossprobe.run.reader import Run


def measure_coverage(run: Run) -> dict[str, Any]:
    """Return tokens and bytes read, scored, and unscored by reason; the parts add up to what was read.

    Beside them: bytes that the tokenizer dropped or rewrote, those of them that have no token at all, tokens that are
    control ids because the text holds their names, documents whose tokens may be others than those of the whole,
    records (a pair of which both sides are documents is one), and bad records and files that `skip_bad` left out, which
    are in none of the other numbers.
    """
    counts = run.counts
    sides = 2 if run.settings.text.sides == BOTH else 1
    return {
        "tokens_read": counts["tokens"],
        "tokens_scored": counts["scored_tokens"],
        "tokens_unscored": counts["unscored_tokens"],
        "bytes_read": counts["bytes"],
        "bytes_scored": counts["scored_bytes"],
        "bytes_unscored": counts["unscored_bytes"],
        "bytes_normalized": counts["normalized_bytes"],
        "bytes_vanished": counts.get("vanished_bytes", 0),
        "special_strings": counts.get("special_strings", 0),
        "documents_in_pieces": counts.get("documents_in_pieces", 0),
        "records_read": counts["documents"] // sides,
        "records_skipped": counts.get("skipped_records", 0),
        "files_skipped": counts.get("skipped_files", 0),
    }
