"""Every exit code as a term."""

from __future__ import annotations

from lossprobe.errors import EXIT_CODES
from lossprobe.terms.term import Term

NOTES = {
    0: "Also where a check of an audit is inconclusive and only warns.",
    1: "Never a verdict.",
    2: "Nothing was measured. The message names the option or key, and a hint says what to try.",
    3: "Nothing was measured. The message names the file and what is wrong with it.",
    4: "Nothing was measured. The message names the file, the line or the share that decided.",
    10: "audit: the model is worse than the limit allows, beyond noise. selfcheck: the loss moved where it must not. "
    "curve, findings, defects: the log, the run or the text shows what --fail-on names.",
    11: "The text cannot tell: the limit lies inside the interval. Use more text.",
}

TERMS = tuple(
    Term(str(code), f"{what[0].upper()}{what[1:]}.", "exit code", how_to_read=NOTES.get(code, ""))
    for code, what in EXIT_CODES.items()
)
