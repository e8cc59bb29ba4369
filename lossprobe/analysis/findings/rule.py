"""What a rule is, what it sees in a result, and what is told of it. Loads nothing heavy: `explain` reads the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval

SEVERITIES = ("fault", "warning", "note")  # the gravest first
FEWEST_TOKENS = 100  # scored ones, below which no rule speaks


@dataclass(frozen=True)
class Clue:
    """A number of a result that a rule is about; the engine decides whether it clears the rule's threshold.

    Attributes:
        value: the number, in the rule's unit.
        sentence: what is told if it does, with the number in it.
        interval: its 95 % interval; `NO_INTERVAL` for what was counted, or where none can be given.
        clusters: how many documents, blocks or pairs the interval resamples: its t has one degree of freedom less.
            None for an interval from normal quantiles.
        counted: whether the number is a count over the whole text, which has no chance in it.
        about: which slice or model it is of; "" where there is one only.
        looks: how many slices were looked at for this one.
        tokens: scored tokens of the result.
        share_of_loss: the part of the total loss that it concerns; None where that means nothing.
        command: where to look, in place of the rule's command; None for that.
        at_level: its interval at another level, where moving the ends of the interval does not give it; else None.
    """

    value: float
    sentence: str
    interval: Interval = NO_INTERVAL
    clusters: int | None = None
    counted: bool = False
    about: str = ""
    looks: int = 1
    tokens: int = field(kw_only=True)
    share_of_loss: float | None = None
    command: str | None = None
    at_level: Callable[[float], Interval] | None = None


@dataclass(frozen=True)
class FindingRule:
    """A rule: a number of a result, and from where on it is worth telling.

    Attributes:
        id: its name on the command line and in files, such as "near-uniform".
        severity: "fault" (something is broken), "warning" (look at it), or "note" (worth knowing).
        view: the command whose result it reads; "findings" for what no other command shows.
        title: what it says, in words, such as "the model hardly knows more than nothing".
        threshold: what the whole interval must lie above, or below; for a count, the number itself.
        unit: of the number and the threshold.
        number: what the number is, in words.
        why: why the threshold is where it is.
        remedy: what to do.
        command: a command line that shows it, with RUN for a run, or RUNS for all of them.
        look: finds its numbers in the result.
        below: whether the interval must lie below the threshold.
    """

    id: str
    severity: str
    view: str
    title: str
    threshold: float
    unit: str
    number: str
    why: str
    remedy: str
    command: str
    look: Callable[[Any], Iterable[Clue]]
    below: bool = False


@dataclass(frozen=True)
class RuleFinding:
    """What a rule tells of a result.

    Attributes:
        id: the rule's name; `lossprobe explain ID` explains it.
        severity: "fault", "warning" or "note".
        view: the command that shows the number.
        about: which slice or model it is of; "" where there is one only.
        sentence: what was found, with the number.
        value: the number, and `value_interval`, at 95 %; null ends for what was counted.
        decision_interval: the wider interval that cleared the threshold; see the page on findings.
        unit: of the number and the threshold.
        threshold: what the interval had to clear.
        below: whether it had to lie below the threshold.
        share_of_loss: the part of the total loss that it concerns; None where that means nothing.
        look: a command that shows more.
    """

    id: str
    severity: str
    view: str
    about: str
    sentence: str
    value: float
    value_interval: Interval
    decision_interval: Interval
    unit: str
    threshold: float
    below: bool
    share_of_loss: float | None
    look: str

    @property
    def decision(self) -> float:
        """The number that `decision_interval` is of: the value."""
        return self.value

    @property
    def told(self) -> str:
        """The finding in one line."""
        return f"{self.severity} ({self.id}): {self.sentence}"
