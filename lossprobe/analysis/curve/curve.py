"""Whether training runs are healthy, from their logs: findings, a summary of every series, where two runs part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lossprobe.analysis.curve.checkpoint_loss import CheckpointLoss
from lossprobe.analysis.curve.examine import examine
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.options import ANY, CurveOptions
from lossprobe.analysis.shown import Shown
from lossprobe.logs.log import LOSS, TRAIN, VALIDATION, Log, Series
from lossprobe.units import format_count

GATE_FAILED = 10  # exit code
FINDINGS = (
    "log", "diagnosis", "fault", "key", "first_step", "last_step", "size", "size_low", "size_high", "unit", "evidence",
    "causes", "remedies",
)  # fmt: skip


@dataclass(frozen=True)
class LogFacts:
    """What a log is.

    Attributes:
        log: its name, which no other one has.
        kind: what wrote it.
        first_step, last_step: its steps; None where it holds no series.
        epochs: epochs at its last step; None where it does not say.
        tokens_seen: training tokens at its last step; None where it does not say.
        restarts: how often the run went back and wrote steps again.
        vocabulary: entries of the vocabulary that the diagnoses were made with; None where it is not known.
        steps_counted: whether it has no steps, so that they are its rows, counted from 1.
    """

    log: str
    kind: str
    first_step: int | None
    last_step: int | None
    epochs: float | None
    tokens_seen: float | None
    restarts: int
    vocabulary: int | None
    steps_counted: bool


@dataclass(frozen=True)
class Curve(Shown):
    """The health of training runs.

    Attributes:
        logs: the logs, in the order given.
        series: every quantity of the logs, one a row: log, key, split, name, points, not_finite, first_step, last_step,
            first_value, last_value, lowest, lowest_step.
        checkpoint: what a checkpoint says of the log's validation loss; None where none was measured.
        failed: diagnoses of `fail_on` that were found.
        notes: what a reader must know, one line each.
        table: the findings, one a row, those of a log together and the gravest first.
    """

    logs: list[LogFacts]
    series: pd.DataFrame = field(repr=False)
    checkpoint: CheckpointLoss | None
    failed: list[str]
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 10 where a diagnosis of `fail_on` was found."""
        return GATE_FAILED if self.failed else 0

    @property
    def finding(self) -> str:
        """The result in one line: the gravest finding, or that there is none."""
        if len(self.logs) == 1:
            return self.finding_of(self.logs[0].log)
        return "; ".join(f"{facts.log}: {self._brief(facts.log)}" for facts in self.logs)

    def findings_of(self, log: str) -> pd.DataFrame:
        """Return the rows of the table about one log."""
        return self.table[self.table["log"] == log]

    def finding_of(self, log: str) -> str:
        """Return what is found in one log, in one line."""
        found = self.findings_of(log)
        if not len(found):
            return f"healthy: {self._healthy(log)}"
        first = found.iloc[0]
        others = list(found["diagnosis"].iloc[1:])
        more = f"; also {', '.join(others)}" if others else ""
        return f"{first['diagnosis']} ({steps_of(first)}): {first['evidence']}{more}"

    def _brief(self, log: str) -> str:
        names = list(dict.fromkeys(self.findings_of(log)["diagnosis"]))
        return ", ".join(names) or "healthy"

    def _healthy(self, log: str) -> str:
        losses = self.series[(self.series["log"] == log) & (self.series["name"] == LOSS)]
        told = [f"{format_count(row['points'])} of {row['key']}" for row in losses.to_dict("records")]
        return f"no diagnosis in these values: {', '.join(told) or 'none, the log has no loss'}"


def curve(
    logs: Sequence[Log],
    options: CurveOptions | None = None,
    vocabulary: int | None = None,
    checkpoint: CheckpointLoss | None = None,
) -> Curve:
    """Return what the logs of training runs say of their health.

    Args:
        logs: one or more logs; several are put side by side, each against the first.
        options: the choices of the command; its `fail_on` and `vocabulary` are used.
        vocabulary: entries of the model's vocabulary, where a checkpoint says it; the options and a log overrule.
        checkpoint: what a checkpoint says of the log's validation loss, if one was measured.
    """
    options = options or CurveOptions()
    names = names_of(logs)
    known = [options.vocabulary or log.vocabulary or vocabulary for log in logs]
    found = [examine(log, size) for log, size in zip(logs, known, strict=True)]
    rows = [_finding_row(name, each) for name, findings in zip(names, found, strict=True) for each in findings]
    table = pd.DataFrame(rows, columns=list(FINDINGS))
    return Curve(
        logs=[_facts(name, log, size) for name, log, size in zip(names, logs, known, strict=True)],
        series=pd.DataFrame([_series_row(name, each) for name, log in zip(names, logs, strict=True)
                             for each in prominent_first(log)]),
        checkpoint=checkpoint,
        failed=list(dict.fromkeys(findings_asked_for(table, options.fail_on)["diagnosis"])),
        notes=[note if len(logs) == 1 else f"{name}: {note}" for name, log in zip(names, logs, strict=True)
               for note in log.notes],
        table=table,
    )  # fmt: skip


def findings_asked_for(table: pd.DataFrame, fail_on: Sequence[str]) -> pd.DataFrame:
    """Return the findings whose diagnoses are asked for; "any" asks for every fault."""
    return table[table["diagnosis"].isin(list(fail_on)) | (table["fault"].astype(bool) & (ANY in fail_on))]


def steps_of(finding: Mapping[Any, Any] | pd.Series) -> str:
    """Return the steps of a row of the findings in words, as in "steps 1,750 to 5,000"."""
    first, last = (format_count(int(finding[f"{end}_step"])) for end in ("first", "last"))
    return f"step {first}" if first == last else f"steps {first} to {last}"


def names_of(logs: Sequence[Log]) -> list[str]:
    """Return what logs are called: their files, with as many folders as tell them apart."""
    paths = [log.path.absolute() for log in logs]
    names = [path.name for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0)):
        if len(set(names)) == len(set(paths)):
            break
        names = [
            "/".join(path.parts[-depth:]) if names.count(name) > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[place] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def prominent_first(log: Log) -> list[Series]:
    """Return the series of a log that have values: losses first, and of these those of training and validation."""
    places = {TRAIN: 0, VALIDATION: 1}
    held = [each for each in log.series if len(each.steps)]
    return sorted(held, key=lambda each: (each.name != LOSS, places.get(each.split, 2)))


def _finding_row(log: str, finding: Finding) -> dict[str, object]:
    diagnosis = finding.diagnosis
    low, high = finding.size_interval
    return {
        "log": log, "diagnosis": diagnosis.name, "fault": diagnosis.fault, "key": finding.key,
        "first_step": finding.first_step, "last_step": finding.last_step, "size": finding.size, "size_low": low,
        "size_high": high, "unit": finding.unit, "evidence": finding.evidence, "causes": "; ".join(diagnosis.causes),
        "remedies": "; ".join(diagnosis.remedies),
    }  # fmt: skip


def _series_row(log: str, series: Series) -> dict[str, object]:
    finite = np.isfinite(series.values)
    steps, values = series.steps[finite], series.values[finite]
    place = int(values.argmin()) if len(values) else None
    return {
        "log": log, "key": series.key, "split": series.split, "name": series.name, "points": len(finite),
        "not_finite": int((~finite).sum()), "first_step": int(series.steps[0]), "last_step": int(series.steps[-1]),
        "first_value": float(series.values[0]), "last_value": float(series.values[-1]),
        "lowest": np.nan if place is None else float(values[place]),
        "lowest_step": pd.NA if place is None else int(steps[place]),
    }  # fmt: skip


def _facts(name: str, log: Log, vocabulary: int | None) -> LogFacts:
    held = [each for each in log.series if len(each.steps)]
    epochs = [float(each.epochs[-1]) for each in held if each.epochs is not None]
    tokens = [float(each.tokens[-1]) for each in held if each.tokens is not None]
    return LogFacts(
        name, log.kind,
        min((int(each.steps[0]) for each in held), default=None),
        max((int(each.steps[-1]) for each in held), default=None),
        max(filter(np.isfinite, epochs), default=None), max(filter(np.isfinite, tokens), default=None),
        len(log.restarts), vocabulary, log.steps_counted,
    )  # fmt: skip
