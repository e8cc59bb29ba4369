"""Everything that the rules say of a run, or of several runs of one text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.analysis.compare.compare import compare
from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.analysis.findings.engine import findings_of, located, worst_first
from lossprobe.analysis.findings.facts import RunFacts, find_facts
from lossprobe.analysis.findings.options import FindingOptions
from lossprobe.analysis.findings.rule import SEVERITIES, RuleFinding
from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.objectives.formulas import ObjectiveOptions
from lossprobe.analysis.objectives.objectives import measure_objectives
from lossprobe.analysis.once import Once
from lossprobe.analysis.options import PreferenceOptions
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.preferences.pairs import BOTH
from lossprobe.analysis.preferences.preferences import measure_preferences
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.shown import Gated
from lossprobe.analysis.tokens import measure_tokens
from lossprobe.errors import NothingToScoreError
from lossprobe.options.given import check_options
from lossprobe.run.argument import check_runs
from lossprobe.run.names import distinct_names
from lossprobe.run.reader import Run
from lossprobe.units import plural


@dataclass(frozen=True)
class RunFindings(Gated):
    """What the rules say of one run, or of several runs of one text.

    Attributes:
        models: names of the models.
        rules: how many rules looked at the results.
        views: the commands whose results were looked at.
        findings: what was found, the gravest first.
        failed: rules and severities of `fail_on` that were found.
        notes: what a reader must know, one line each.
        table: one row a finding: model (two for a comparison), severity, rule, about (which slice it is of), value,
            low, high (95 % interval; missing for what was counted), unit, threshold, below (whether it must lie below),
            decision_low, decision_high (the wider interval that decided), share_of_loss, sentence, look (a command).
    """

    models: list[str]
    rules: int
    views: list[str]
    findings: list[RuleFinding]
    failed: list[str]
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        looked = f"{plural(self.rules, 'rule')} looked at"
        if not self.findings:
            return f"no finding: {looked}"
        counts = [
            plural(sum(each.severity == severity for each in self.findings), severity)
            for severity in SEVERITIES
            if any(each.severity == severity for each in self.findings)
        ]
        return f"{', '.join(counts)} ({looked}); first: {self.findings[0].sentence}"


def find_findings(
    runs: Sequence[Run] | Run, options: FindingOptions | None = None, *, once: Once | None = None
) -> RunFindings:
    """Return what the rules say of a run, or of several runs of one text: of each, and of each against the first.

    Args:
        runs: a run or several; the first one is what the others are compared with.
        options: when the exit code is 10; None for the defaults.
        once: takes the results from here that were made already, and keeps those that are made; None keeps nothing.

    Raises:
        NotComparableError: the runs are of different texts, or with one tokenizer of different windows.
    """
    runs = [runs] if isinstance(runs, Run) else list(runs)
    options, once = options or FindingOptions(), once or Once()
    check_runs(runs=runs)
    check_options(FindingOptions, **vars(options))
    names, rows, views = distinct_names(runs), [], []
    results = [(names[0], runs[:1], view, result) for view, result in results_of(runs[0], once)]
    for run, name in zip(runs[1:], names[1:], strict=True):
        both = once(compare, runs[0], run, by="class", once=once)
        results.append((f"{name} − {names[0]}", [runs[0], run], "compare", both))
        results += [(name, [run], view, result) for view, result in results_of(run, once)]
    for name, of, view, result in results:
        views.append(view)
        rows += [(name, located(found, of)) for found in findings_of(view, result, len(runs))]
    order = worst_first([found for _, found in rows])
    rows.sort(key=lambda row: order.index(row[1]))
    found = [each for _, each in rows]
    return RunFindings(
        models=names,
        rules=sum(rule.view in views for rule in FINDING_RULES.values()),
        views=list(dict.fromkeys(views)),
        findings=found,
        failed=fails_on(found, options.fail_on),
        notes=_notes(runs, once, ranked="preferences" in views),
        table=_table(rows),
    )


def results_of(run: Run, once: Once) -> Iterator[tuple[str, Any]]:
    """Yield the results of a run that rules read, each with the name of its view, as their commands show them."""
    yield "perplexity", once(measure_perplexity, run)
    yield "findings", facts_of(run, once)
    yield "tokens", once(measure_tokens, run)
    yield "positions", once(measure_positions, run)
    yield "hardest", once(find_hardest, run, "class")
    yield "hardest", once(find_hardest, run, "document")
    both = run.settings.text.sides == BOTH
    if not both:  # no model has to be calibrated on rejected answers
        yield "calibration", once(measure_calibration, [run], once=once)
    yield "objectives", once(measure_objectives, run, ObjectiveOptions())
    if both:
        with suppress(NothingToScoreError):  # no pair can be ranked
            yield "preferences", once(measure_preferences, run, None, PreferenceOptions())


def facts_of(run: Run, once: Once) -> RunFacts:
    """Return the further facts of a run, without the defects that the rules on its headline numbers tell of."""
    told = findings_of("perplexity", once(measure_perplexity, run))
    return once(find_facts, run, tuple(found.id for found in told), once=once)


def fails_on(findings: Sequence[RuleFinding], fail_on: Sequence[str]) -> list[str]:
    """Return which of some rules and severities were found; a severity also stands for graver ones."""
    return [word for word in fail_on if any(_is(each, word) for each in findings)]


def _is(found: RuleFinding, word: str) -> bool:
    """Return whether a finding is the rule of this name, or as grave as this severity."""
    if word not in SEVERITIES:
        return found.id == word
    return SEVERITIES.index(found.severity) <= SEVERITIES.index(word)


def _notes(runs: Sequence[Run], once: Once, *, ranked: bool) -> list[str]:
    """Return what a reader must know; `ranked` is whether pairs could be ranked."""
    clusters = find_clusters(runs[0])
    notes = [clusters.note] if clusters.note else []
    if clusters.count < 2:
        notes.append("without intervals only what was counted over the whole text can be told")
    if any(run.settings.text.sides == BOTH for run in runs):
        notes.append("rejected answers are scored too: calibration is not judged, and only ends of chosen answers are")
        if not ranked:
            notes.append("no pair can be ranked: the sides of each are equal, or one has no scored token")
    unread = facts_of(runs[0], once).defects.unread
    if unread:
        notes.append(f"defects were not looked for in {plural(unread, 'document')}, whose bytes are not known")
    return notes


def _table(rows: Sequence[tuple[str, RuleFinding]]) -> pd.DataFrame:
    columns = {
        "model": str, "severity": str, "rule": str, "about": str, "value": float, "low": float, "high": float,
        "unit": str, "threshold": float, "below": bool, "decision_low": float, "decision_high": float,
        "share_of_loss": float, "sentence": str, "look": str,
    }  # fmt: skip
    cells = [
        (name, each.severity, each.id, each.about, each.value, *each.value_interval, each.unit, each.threshold,
         each.below, *each.decision_interval, each.share_of_loss, each.sentence, each.look)
        for name, each in rows
    ]  # fmt: skip
    return pd.DataFrame(cells, columns=list(columns)).astype(columns)
