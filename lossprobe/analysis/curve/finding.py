"""What is told of a fault in a training log: the diagnosis, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval


@dataclass(frozen=True)
class Diagnosis:
    """A fault that a training run can have, in words.

    Attributes:
        name: the word for it on the command line and in files, such as "over-fitting".
        title: the same in words, such as "validation loss rises while training loss falls".
        rule: when it is told, with its numbers.
        causes: likely causes, the likeliest first.
        remedies: what to do, in the same order.
        fault: whether something is wrong; otherwise it is only worth knowing, such as a plateau.
    """

    name: str
    title: str
    rule: str
    causes: tuple[str, ...]
    remedies: tuple[str, ...]
    fault: bool = True


@dataclass(frozen=True)
class Finding:
    """The evidence for a diagnosis in one log.

    Attributes:
        diagnosis: what it is.
        key: the series' name in the log, such as "eval_loss".
        first_step: the first step that shows it.
        last_step: the last step that shows it.
        size: how large it is, in `unit`.
        size_interval: the interval of `size` at 95 %, where it can be given.
        unit: such as "nats" or "% of steps"; "" for a ratio.
        evidence: what was seen, in one sentence with its numbers.
    """

    diagnosis: Diagnosis
    key: str
    first_step: int
    last_step: int
    size: float
    unit: str
    evidence: str
    size_interval: Interval = NO_INTERVAL
