"""Every exit code as a term."""

from __future__ import annotations

from lossprobe.errors import EXIT_CODES
from lossprobe.terms.term import Term

NOTES = {
    0: "Also where a check of an audit is inconclusive and only warns.",
    1: "Never a verdict.",
    10: "The model is worse than the limit allows, beyond noise.",
    11: "The text cannot tell: the limit lies inside the interval. Use more text.",
}

TERMS = tuple(
    Term(str(code), f"{what[0].upper()}{what[1:]}.", "exit code", how_to_read=NOTES.get(code, ""))
    for code, what in EXIT_CODES.items()
)
