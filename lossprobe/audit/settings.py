"""The settings of an audit as typed values: model, texts, baseline, statistics and checks.

`config.reader` reads them from TOML; all other code uses only these.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from lossprobe.checkpoint.options import LoadOptions
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.options import TextOptions

ABSOLUTE_LIMITS = ("max", "min")
BASELINE_LIMITS = ("max_increase", "max_decrease", "max_increase_pct", "max_decrease_pct")
LIMITS = ABSOLUTE_LIMITS + BASELINE_LIMITS
FINDINGS = "findings"  # the metric of the checks of a training log
LEVELS = ("off", "warn", "error")
RULES = ("interval", "point")
INCONCLUSIVE = ("pass", "warn", "fail")
MISSING = ("error", "warn", "create")


@dataclass(frozen=True, kw_only=True)
class ModelSettings(LoadOptions):
    """The checkpoint, and the options with which it is opened.

    Attributes:
        checkpoint: its file or folder.
    """

    checkpoint: Path

    @property
    def load(self) -> LoadOptions:
        """Return the options with which the checkpoint is opened, without its path."""
        return LoadOptions(**{each.name: getattr(self, each.name) for each in fields(LoadOptions)})


@dataclass(frozen=True, kw_only=True)
class DataSettings(TextOptions):
    """One text, and the options with which it becomes documents.

    Attributes:
        name: the name by which checks refer to it.
        path: file or folder of the text.
        sha256: required sha256 of the file's bytes; None for any file.
    """

    name: str
    path: Path
    sha256: str | None = None


@dataclass(frozen=True)
class BaselineSettings:
    """The baseline: stored losses of an earlier model, from which changes are measured.

    Attributes:
        path: folder that `lossprobe baseline update` writes; None for no baseline.
        missing: what to do if the baseline is missing and checks need it: "error" (exit 12), "warn" (these checks are
            inconclusive) or "create" (make it from this model; these checks pass).
    """

    path: Path | None = None
    missing: str = "error"


@dataclass(frozen=True)
class StatsSettings:
    """The statistics of an audit.

    Attributes:
        confidence: confidence level of the two-sided intervals that decide, between 0 and 1.
        seed: seed of the random order of documents with `stop_early`; the seed of resampling is fixed.
        stop_early: score documents in random order, and stop as soon as every check is decided.
    """

    confidence: float = 0.95
    seed: int = 0
    stop_early: bool = False


@dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """The log of the training run that made the checkpoint, and what must not be found in it.

    Attributes:
        log: file or folder of the log, as `lossprobe curve` takes it.
        columns: what the log calls its quantities, such as "step=iter,loss=ce"; None to go by its form.
        fail_on: diagnoses that fail the audit, each a check `curve.NAME`; "any" for every fault, one check.
        level: "error", "warn" (reported, never fails the audit) or "off" (the log is not read).
        line: line of the audit file on which the table starts, from 1.
    """

    log: Path
    columns: dict[str, str] | None = None
    fail_on: tuple[str, ...] = ("any",)
    level: str = "error"
    line: int = 0


@dataclass(frozen=True)
class Limit:
    """The limit of a check, on a metric's value or on its change from the baseline.

    Attributes:
        kind: one of `LIMITS`; it says whether the value or the change is limited, on which side, and in which unit.
        value: the limit; for `max_decrease` a positive number.
    """

    kind: str
    value: float

    @property
    def needs_baseline(self) -> bool:
        """Return whether a change is limited."""
        return self.kind in BASELINE_LIMITS

    @property
    def in_percent(self) -> bool:
        """Return whether a change in percent of the baseline's value is limited."""
        return self.kind.endswith("_pct")

    @property
    def bound(self) -> float:
        """Return the limit with the sign of the value or change: −0.1 for a `max_decrease` of 0.1."""
        return -self.value if self.kind.startswith("max_decrease") else self.value

    @property
    def is_floor(self) -> bool:
        """Return whether `bound` is a lower limit; otherwise it is an upper limit."""
        return self.kind == "min" or self.kind.startswith("max_decrease")


@dataclass(frozen=True)
class Check:
    """One limit on one metric of one text.

    Attributes:
        id: name of the check in every output.
        data: name of the text.
        metric: name of the metric.
        limit: the limit of the metric.
        where: condition on the tokens, as in `where` of a view, over columns known before scoring; "" for all tokens.
        token_class: only tokens of this class; None for all.
        field, equals: only documents whose JSONL record has this value in this field; None for all.
        nats: threshold of the metric `share_above`, in nats; None for other metrics.
        quantile: probability of the metric `quantile`, such as 0.99; None for other metrics.
        level: "error", "warn" (reported, never fails the audit) or "off" (not measured).
        rule: "interval" (the interval decides) or "point" (the estimate decides, whatever its interval).
        inconclusive: effect of an interval that contains the limit: "pass", "warn" (both are reported, and the audit
            passes) or "fail" (exit 11).
        line: line of the audit file on which the check starts, from 1.
    """

    id: str
    data: str
    metric: str
    limit: Limit
    where: str = ""
    token_class: str | None = None
    field: str | None = None
    equals: str | None = None
    nats: float | None = None
    quantile: float | None = None
    level: str = "error"
    rule: str = "interval"
    inconclusive: str = "warn"
    line: int = 0


@dataclass(frozen=True)
class AuditSettings:
    """All settings of an audit file.

    Attributes:
        file: the audit file. Paths in it are relative to its folder; the settings here start with that folder.
        model, windows, data, baseline, stats, checks, curve, reference: its tables; `data` and `checks` in the order of
            the file, `curve` and `reference` None where it has none. The reference is the model that this one was made
            from; some metrics say how far their predictions are apart.
        origins: dotted key, such as "model.dtype" → where its value came from, for `--print-config`: "default", the
            file with the line, the environment variable, or the option.
    """

    file: Path
    model: ModelSettings
    windows: ScoreOptions
    data: tuple[DataSettings, ...]
    baseline: BaselineSettings
    stats: StatsSettings
    checks: tuple[Check, ...]
    curve: CurveSettings | None = None
    reference: ModelSettings | None = None
    origins: dict[str, str] = field(default_factory=dict, repr=False)

    def checks_of(self, data: DataSettings) -> tuple[Check, ...]:
        """Return the checks of a text whose level is not "off"."""
        return tuple(check for check in self.checks if check.data == data.name and check.level != "off")
