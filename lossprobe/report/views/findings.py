"""What the rules say of runs: a paragraph a finding for people, a row in the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.analysis.findings.findings import RunFindings
from lossprobe.analysis.findings.words import percent
from lossprobe.report.formats.cells import small_numbers
from lossprobe.report.views.view import FINDINGS, View, view_of_runs
from lossprobe.run.reader import Run

NUMBERS = ("value", "low", "high", "threshold", "decision_low", "decision_high")
LEFT_OUT = ["sentence", "look", "below", "decision_low", "decision_high"]  # the paragraphs say these
SHARE = " of the loss"
NAMED = ("compare",)  # views whose sentences name both models
YIELDS = ("about", "model", "unit", "share_of_loss", "threshold", "high", "low")


def findings_view(runs: Sequence[Run], result: RunFindings) -> View:
    """Return the view of findings; a terminal shows the paragraphs alone."""
    shown = small_numbers(result.table, NUMBERS).drop(columns=LEFT_OUT)
    return view_of_runs(FINDINGS, runs, result, shown=shown, yields=YIELDS,
                        findings=tuple(told_in_lines(result)), brief=())  # fmt: skip


def told_in_lines(result: RunFindings) -> Iterator[str]:
    """Yield each finding: what was found, what to do, and where to look; its share of the loss stands there once."""
    yield result.finding.partition("; first: ")[0]
    for name, found in zip(result.table["model"], result.findings, strict=True):
        yield ""
        of = f"{name}: " if len(result.models) > 1 and found.view not in NAMED else ""
        yield f"{found.severity} ({found.id}): {of}{found.sentence}"
        side = "below" if found.below else "above"
        untold = found.share_of_loss is not None and SHARE not in found.sentence
        share = f"; {percent(found.share_of_loss or 0.0)}{SHARE}" if untold else ""
        yield f"  told {side} {found.threshold:g} {found.unit}{share}"
        yield f"  do: {FINDING_RULES[found.id].remedy}"
        yield f"  look: {found.look}"
