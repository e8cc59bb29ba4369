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
        counts: bad things of each kind, "record" or "file".
        of_file: file → its first faults, in the order in which they were met; at most `LISTED`.
        totals: file → number of its faults.
    """

    counts: Counter[str] = field(default_factory=Counter)
    of_file: dict[str, list[BadTextError]] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)

    def add(self, fault: BadTextError, kind: str, file: str) -> None:
        """Add a bad "record" or "file" of a file."""
        self.counts[kind] += 1
        self.totals[file] += 1
        kept = self.of_file.setdefault(file, [])
        if len(kept) < LISTED:
            kept.append(fault)

    @property
    def total(self) -> int:
        """Bad files and records together."""
        return self.counts.total()

    @property
    def first(self) -> BadTextError:
        """The fault that was met first."""
        return next(iter(self.of_file.values()))[0]

    def __str__(self) -> str:
        return " and ".join(plural(count, f"bad {kind}") for kind, count in self.counts.items())

    def error(self, *, others: bool, listed: int = LISTED) -> BadTextError:
        """Return one error for all of them: the only one as it is, several under the id of the first.

        Args:
            others: something else of the text could be read, so that the faults may be left out.
            listed: most faults with a line of their own.
        """
        first = self.first
        hints = [fault.hint for faults in self.of_file.values() for fault in faults if fault.hint]
        hint = "; ".join([*dict.fromkeys(hints), *([LEAVE_OUT] if others else [])]) or None
        if self.total == 1:
            return BadTextError(first.id, first.message, hint=hint)
        return BadTextError(first.id, f"{self}: {first.message}", hint=hint, details=self._listed(listed)[1:])

    def _listed(self, most: int) -> list[str]:
        """Return a line for each fault, as many of every file as leave room for all files, and lines for the rest."""
        share = most
        while share > 1 and sum(min(count, share) for count in self.totals.values()) > most:
            share -= 1
        lines = []
        for file, faults in list(self.of_file.items())[:most]:
            lines += [fault.message for fault in faults[:share]]
            left = self.totals[file] - share
            if left > 0:
                lines.append(f"… and {format_count(left)} more{f' in {file}' if len(self.totals) > 1 else ''}")
        files = len(self.of_file) - most
        return [*lines, f"… and {plural(files, 'other file')} with faults"] if files > 0 else lines
