"""The result of an audit: the verdict on each check with its numbers, and the verdict on the whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from lossprobe.analysis.stats.interval import Interval
from lossprobe.audit.settings import Check
from lossprobe.units import format_count, plural

VERDICTS = ("pass", "fail", "inconclusive")
EXIT_CODES = {"pass": 0, "fail": 10, "inconclusive": 11}


@dataclass(frozen=True)
class CheckResult:
    """The verdict on one check.

    Attributes:
        check: the check.
        verdict: "pass", "fail" or "inconclusive".
        unit: unit of the metric, such as "nats per token".
        value: the metric of this model; None where it is undefined.
        value_interval: interval of `value`.
        baseline_value: the metric of the baseline; None for limits on the value.
        measured: the number that the limit applies to: the value, or its change from the baseline (in percent for a
            limit in percent).
        measured_interval: interval of `measured`.
        measured_unit: unit of `measured`: that of the metric, or "%".
        tokens: number of tokens measured.
        clusters: number of documents (or blocks) with such tokens.
        further_tokens: about how many more tokens would decide if the estimate holds; None for a decided check, or
            where no number would.
        reason: the reason for the verdict in one line, with the numbers.
    """

    check: Check
    verdict: str
    unit: str
    value: float | None
    value_interval: Interval
    baseline_value: float | None
    measured: float | None
    measured_interval: Interval
    measured_unit: str
    tokens: int
    clusters: int
    further_tokens: int | None
    reason: str

    @property
    def effect(self) -> str:
        """Return the effect of the check on the audit: "pass", "warn", "fail" or "inconclusive"."""
        if self.verdict == "pass" or (self.verdict == "inconclusive" and self.check.inconclusive == "pass"):
            return "pass"
        if self.check.level == "warn" or (self.verdict == "inconclusive" and self.check.inconclusive == "warn"):
            return "warn"
        return self.verdict


@dataclass(frozen=True)
class TextResult:
    """A text as it was scored.

    Attributes:
        name: the name by which checks refer to it.
        text: name of the file or folder.
        sha256: sha256 of its documents.
        tokens, scored_tokens: numbers of tokens that were read, and that have a loss.
        documents: number of documents of the whole text.
        scored_share: share of the documents that were scored until every check was decided; 1 without `stop_early`.
        baseline: name of the baseline's model; None without a baseline.
        reference: name of the model that divergences are measured from; None if no check does.
    """

    name: str
    text: str
    sha256: str
    tokens: int
    scored_tokens: int
    documents: int
    scored_share: float
    baseline: str | None
    reference: str | None = None


@dataclass(frozen=True)
class AuditResult:
    """The result of an audit.

    Attributes:
        file: the audit file, as it was given.
        model: name of the checkpoint.
        model_sha256: sha256 of the checkpoint's files.
        confidence: confidence level of the intervals.
        seed: seed of the order of documents, used with `stop_early`.
        stop_early: whether the audit was allowed to stop before the end of the text.
        texts: the texts that were scored.
        checks: the checks whose level is not "off", in the order of the file.
        notes: notices for the reader, one line each.
    """

    file: str
    model: str
    model_sha256: str
    confidence: float
    seed: int
    stop_early: bool
    texts: list[TextResult]
    checks: list[CheckResult] = field(repr=False)
    notes: list[str]

    @property
    def verdict(self) -> str:
        """Return "fail" if a check fails, else "inconclusive" if a check is and must not be, else "pass"."""
        effects = {check.effect for check in self.checks}
        return next((verdict for verdict in ("fail", "inconclusive") if verdict in effects), "pass")

    @property
    def exit_code(self) -> int:
        """Return the exit code of the command: 0, 10 or 11."""
        return EXIT_CODES[self.verdict]

    @property
    def finding(self) -> str:
        """Return the result in one line."""
        counts = {name: sum(check.verdict == name for check in self.checks) for name in VERDICTS}
        parts = ", ".join(f"{format_count(count)} {name}" for name, count in counts.items() if count)
        warned = sum(check.effect == "warn" for check in self.checks)
        line = f"{self.verdict}: {plural(len(self.checks), 'check')}" + (f" ({parts})" if parts else "")
        if warned:
            line += f", {plural(warned, 'warning')}"
        scored = [text.scored_share for text in self.texts]
        if self.stop_early and scored:
            line += f"; needed {', '.join(f'{share:.0%}' for share in scored)} of the text"
        return line


def slice_name(check: Check) -> str:
    """Return a description of the tokens that a check measures; "" for all tokens.

    >>> from lossprobe.audit.settings import Limit
    >>> slice_name(Check("a", "b", "nll", Limit("max", 1.0), where="context >= 128", token_class="digits"))
    'context >= 128, class digits'
    """
    parts = [check.where] if check.where else []
    if check.token_class is not None:
        parts.append(f"class {check.token_class}")
    if check.field is not None:
        parts.append(f"{check.field} = {check.equals}")
    return ", ".join(parts)
