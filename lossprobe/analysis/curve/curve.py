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
from lossprobe.analysis.curve.parting import Parting, part
from lossprobe.analysis.curve.seen import NEGATIVE
from lossprobe.analysis.curve.summary import Summary, summarise
from lossprobe.analysis.options import ANY, CurveOptions
from lossprobe.analysis.shown import Gated
from lossprobe.logs.log import LOSS, TRAIN, VALIDATION, Log, Series
from lossprobe.units import format_count, plural, visible

FEW = 20  # values of a loss, below which most rules are silent
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
class LogPair:
    """Where two runs part.

    Attributes:
        first: the name of the first log.
        second: the name of the other.
        parting: from which step their training losses differ beyond noise; None where they do not.
    """

    first: str
    second: str
    parting: Parting | None

    @property
    def finding(self) -> str:
        """The result in one line."""
        if self.parting is None:
            return f"{self.second} and {self.first}: no step from which their training losses differ beyond noise"
        found = self.parting
        equal = found.equal_until
        until = "" if equal is None else f"; equal to the last digit until {format_count(equal)}"
        return (
            f"{self.second} parts from {self.first} at step {format_count(found.step)}: training loss "
            f"{found.size:+.4f} nats {found.size_interval.shown('+.4f')} from there on{until}"
        )


@dataclass(frozen=True)
class Curve(Gated):
    """The health of training runs.

    Attributes:
        logs: the logs, in the order given.
        series: every quantity of the logs, one a row: log, key, split, name, points, not_finite, first_step, last_step,
            first_value, last_value, lowest, lowest_step, noise, trend, trend_low, trend_high.
        partings: where each other run parts from the first; none for one log.
        checkpoint: what a checkpoint says of the log's validation loss; None where none was measured.
        failed: diagnoses of `fail_on` that were found.
        notes: what a reader must know, one line each.
        table: the findings, one a row, those of a log together and the gravest first.
    """

    logs: list[LogFacts]
    series: pd.DataFrame = field(repr=False)
    partings: list[LogPair]
    checkpoint: CheckpointLoss | None
    failed: list[str]
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line: the gravest finding, or that there is none."""
        if len(self.logs) == 1:
            return self.finding_of(self.logs[0].log)
        told = [f"{facts.log}: {self._brief(facts.log)}" for facts in self.logs]
        return "; ".join((*told, *(pair.finding for pair in self.partings if pair.parting is not None)))

    def findings_of(self, log: str) -> pd.DataFrame:
        """Return the rows of the table about one log."""
        return self.table[self.table["log"] == log]

    def finding_of(self, log: str) -> str:
        """Return what is found in one log, in one line."""
        found = self.findings_of(log)
        if not len(found):
            return self._healthy(log)
        first = found.iloc[0]
        others = list(found["diagnosis"].iloc[1:])
        more = f"; also {', '.join(others)}" if others else ""
        return f"{first['diagnosis']} ({steps_of(first)}): {first['evidence']}{more}"

    def _brief(self, log: str) -> str:
        names = list(dict.fromkeys(self.findings_of(log)["diagnosis"]))
        return ", ".join(names) or "healthy"

    def _healthy(self, log: str) -> str:
        losses = self.series[(self.series["log"] == log) & (self.series["name"] == LOSS)]
        told = ", ".join(f"{format_count(row['points'])} of {row['key']}" for row in losses.to_dict("records"))
        if losses["points"].max() < FEW:
            return f"little can be seen, and nothing was found in these values: {told}"
        if losses["lowest"].min() < NEGATIVE:
            return f"nothing was found, but the level of a negative loss is not judged, in these values: {told}"
        return f"healthy: no diagnosis in these values: {told}"


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
        series=_series_table(names, logs),
        partings=[LogPair(names[0], name, part(logs[0], log)) for name, log in zip(names[1:], logs[1:], strict=True)],
        checkpoint=checkpoint,
        failed=list(dict.fromkeys(findings_asked_for(table, options.fail_on)["diagnosis"])),
        notes=[*(note if len(logs) == 1 else f"{name}: {note}" for name, log in zip(names, logs, strict=True)
                 for note in (*log.notes, *_negative(log))), *(checkpoint.notes if checkpoint else ())],
        table=table,
    )  # fmt: skip


def _negative(log: Log) -> list[str]:
    """Return a line about each loss that is negative, and so no mean of -log p."""
    counts = [(each.key, int((each.values < NEGATIVE).sum()), len(each.values)) for each in log.series
              if each.name == LOSS and each.split in (TRAIN, VALIDATION)]  # fmt: skip
    return [
        f"{visible(key, 60)} is negative in {format_count(below)} of {plural(rows, 'row')}, so it is no mean of "
        "-log p (a policy's loss is none), and its level is not judged"
        for key, below, rows in counts if below
    ]  # fmt: skip


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


def prominence(series: Series | Summary) -> tuple[bool, int]:
    """Return the place of a series among those of a log: losses first, of these those of training and validation."""
    places = {TRAIN: 0, VALIDATION: 1}
    return series.name != LOSS, places.get(series.split, 2)


def _series_table(names: Sequence[str], logs: Sequence[Log]) -> pd.DataFrame:
    summaries = [(name, each) for name, log in zip(names, logs, strict=True)
                 for each in sorted(summarise(log), key=prominence)]  # fmt: skip
    table = pd.DataFrame([_series_row(*each) for each in summaries])
    numbers = ["first_value", "last_value", "lowest", "noise", "trend", "trend_low", "trend_high"]
    return table.astype(dict.fromkeys(numbers, float)).astype({"lowest_step": "Int64"})


def _finding_row(log: str, finding: Finding) -> dict[str, object]:
    diagnosis = finding.diagnosis
    low, high = finding.size_interval
    return {
        "log": log, "diagnosis": diagnosis.name, "fault": diagnosis.fault, "key": finding.key,
        "first_step": finding.first_step, "last_step": finding.last_step, "size": finding.size, "size_low": low,
        "size_high": high, "unit": finding.unit, "evidence": finding.evidence, "causes": "; ".join(diagnosis.causes),
        "remedies": "; ".join(diagnosis.remedies),
    }  # fmt: skip


def _series_row(log: str, of: Summary) -> dict[str, object]:
    low, high = of.trend_interval
    return {
        "log": log, "key": of.key, "split": of.split, "name": of.name, "points": of.points,
        "not_finite": of.not_finite, "first_step": of.first_step, "last_step": of.last_step, "first_value": of.first,
        "last_value": of.last, "lowest": of.lowest, "lowest_step": of.lowest_step, "noise": of.noise,
        "trend": of.trend, "trend_low": low, "trend_high": high,
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
