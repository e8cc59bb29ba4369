"""What a user may choose for `findings`."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.analysis.findings.rule import SEVERITIES
from lossprobe.options.declare import option
from lossprobe.options.kinds import Names


@dataclass(frozen=True)
class FindingOptions:
    """The choices of `findings`.

    Attributes:
        fail_on: rules, or severities, that make the exit code 10; a severity stands for all that are as grave.
    """

    fail_on: tuple[str, ...] = option(
        (), Names((*FINDING_RULES, *SEVERITIES)),
        "Exit with 10 where one of these is found (lossprobe explain lists them; fault, warning or note: every one as "
        "grave).",
        metavar="FINDING,...",
    )  # fmt: skip
