"""What an audit file says, as typed values: which model, which texts, which baseline, which limits.

`config.reader` makes these from TOML; everything after it works with these alone.
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
LEVELS = ("off", "warn", "error")
RULES = ("interval", "point")
INCONCLUSIVE = ("pass", "warn", "fail")
MISSING = ("error", "warn", "create")


@dataclass(frozen=True, kw_only=True)
class ModelSettings(LoadOptions):
    """The checkpoint, and how it is opened.

    Attributes:
        checkpoint: file or folder.
    """

    checkpoint: Path

    @property
    def load(self) -> LoadOptions:
        """How it is opened, alone."""
        return LoadOptions(**{each.name: getattr(self, each.name) for each in fields(LoadOptions)})


@dataclass(frozen=True, kw_only=True)
class DataSettings(TextOptions):
    """One text, and how it becomes documents.

    Attributes:
        name: what checks call it.
        path: file or folder.
        sha256: what the file's bytes must hash to; None for any.
    """

    name: str
    path: Path
    sha256: str | None = None


@dataclass(frozen=True)
class BaselineSettings:
    """What changes are measured from.

    Attributes:
        path: folder that `lossprobe baseline update` writes; None without one.
        missing: what a missing baseline does to the checks that need it: "error" (exit 12), "warn" (they are
            inconclusive), "create" (it is made from this model, and they pass).
    """

    path: Path | None = None
    missing: str = "error"


@dataclass(frozen=True)
class StatsSettings:
    """How sure a verdict has to be.

    Attributes:
        confidence: confidence of the two-sided intervals that decide, between 0 and 1.
        seed: seed of the random order of documents with `stop_early`; resampling always has the same seed.
        stop_early: score documents in random order, and end as soon as every check is decided.
    """

    confidence: float = 0.95
    seed: int = 0
    stop_early: bool = False


@dataclass(frozen=True)
class Limit:
    """What a metric must keep to.

    Attributes:
        kind: one of `LIMITS`: the metric's value, or its change from the baseline, in its unit or in percent of it.
        value: the limit; a `max_decrease` is a positive number.
    """

    kind: str
    value: float

    @property
    def needs_baseline(self) -> bool:
        """Whether it limits a change."""
        return self.kind in BASELINE_LIMITS

    @property
    def in_percent(self) -> bool:
        """Whether it limits a change in percent of the baseline's value."""
        return self.kind.endswith("_pct")

    @property
    def bound(self) -> float:
        """What the value or the change is held against: a `max_decrease` of 0.1 is a change of −0.1."""
        return -self.value if self.kind.startswith("max_decrease") else self.value

    @property
    def is_floor(self) -> bool:
        """Whether `bound` is the least that may be, and not the most."""
        return self.kind == "min" or self.kind.startswith("max_decrease")


@dataclass(frozen=True)
class Check:
    """One limit on one metric of one text.

    Attributes:
        id: its name in every output.
        data: name of the text.
        metric: the name of what is limited.
        limit: what it must keep to.
        where: comparisons as in `where` of a view, of columns known before scoring; "" for all tokens.
        token_class: only tokens of this class, by the token itself; None for all.
        field, equals: only documents whose JSONL record has this value in this field; None for all.
        nats: the loss of `share_above`; None for other metrics.
        quantile: the share of `quantile`, such as 0.99; None for other metrics.
        level: "error", "warn" (shown, never fails the audit) or "off" (not looked at).
        rule: "interval" (the interval decides) or "point" (the estimate decides, noise and all).
        inconclusive: what an interval on both sides of the limit does: "pass", "warn" (both shown, the audit passes) or
            "fail" (exit 11).
        line: line of the audit file on which it starts, from 1.
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
    """A whole audit file.

    Attributes:
        file: where it stands; its paths are relative to its folder and are resolved here.
        model, windows, data, baseline, stats, checks: its tables; `data` and `checks` in the order of the file.
        origins: dotted key, such as "model.dtype", to where its value came from: "default", "file" with the line,
            the variable or the option; for `--print-config`.
    """

    file: Path
    model: ModelSettings
    windows: ScoreOptions
    data: tuple[DataSettings, ...]
    baseline: BaselineSettings
    stats: StatsSettings
    checks: tuple[Check, ...]
    origins: dict[str, str] = field(default_factory=dict, repr=False)

    def checks_of(self, data: DataSettings) -> tuple[Check, ...]:
        """Return the checks about a text that are not off."""
        return tuple(check for check in self.checks if check.data == data.name and check.level != "off")
