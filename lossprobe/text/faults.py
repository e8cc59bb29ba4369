"""The bad files and records of a text: all of them are found before anything is said, or left out and counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lossprobe.errors import BadTextError
from lossprobe.units import format_count, plural

LISTED = 20  # faults that an error lists; the others are counted
LEAVE_OUT = "`skip_bad` leaves out what cannot be read, and counts it"


@dataclass
class Faults:
    """What could not be read of a text, during one reading.

    Attributes:
        first: the first faults, in the order in which they were met.
        counts: bad things of each kind, "record" or "file".
    """

    first: list[BadTextError] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, fault: BadTextError, kind: str) -> None:
        """Add a bad "record" or "file"."""
        self.counts[kind] += 1
        if len(self.first) < LISTED:
            self.first.append(fault)

    @property
    def total(self) -> int:
        """Bad files and records together."""
        return self.counts.total()

    def __str__(self) -> str:
        return " and ".join(plural(count, f"bad {kind}") for kind, count in self.counts.items())

    def error(self, *, others: bool) -> BadTextError:
        """Return one error for all of them: the only one as it is, several under the id of the first.

        Args:
            others: something else of the text could be read, so that the faults may be left out.
        """
        first = self.first[0]
        hint = "; ".join(([first.hint] if first.hint else []) + ([LEAVE_OUT] if others else [])) or None
        if self.total == 1:
            return BadTextError(first.id, first.message, hint=hint)
        details = [fault.message for fault in self.first[1:]]
        if self.total > len(self.first):
            details.append(f"… and {format_count(self.total - len(self.first))} more")
        return BadTextError(first.id, f"{self}: {first.message}", hint=hint, details=details)
