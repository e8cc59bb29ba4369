"""The errors that a user can cause, each with a stable id and a documented exit code.

Raise the most specific class, where the fault is found. The message names the path, what is wrong, and the number that
shows it. Messages, hints, notices and notes name arguments as in Python, in backquotes: "raise `max_bytes`". Only
`cli.main` turns an error into a printed line and an exit code; it writes the option `--max-bytes` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "internal error: a bug in lossprobe",
    2: "usage or configuration error",
    3: "checkpoint or tokenizer refused",
    4: "text refused",
    5: "nothing to score (fewer than one scored token)",
    6: "output cannot be written, is locked, damaged, or exists with other settings",
    7: "out of memory, or over a resource limit",
    10: "gate failed: a check of an audit, an invariant of selfcheck, or what curve or defects is told to fail on",
    11: "gate inconclusive, where a check says that it must not be",
    12: "runs not comparable (text, tokenizer, windows or BOS differ), or a baseline missing or damaged",
    130: "interrupted (Ctrl-C); the message says what is kept",
    141: "the reader closed the pipe",
    143: "terminated (SIGTERM); the message says what is kept",
}


class LossprobeError(Exception):
    """A failure that the user can understand and act on.

    Attributes:
        id: stable dotted name, such as `checkpoint.missing_tensor`.
        message: one line with the path, what is wrong, and the number that shows it.
        hint: what to try, or None.
        subject: the start of the message that names what it is about, such as a path; "" without one.
        reason: the message without its subject.
        details: further lines where one error stands for several faults, such as each bad record of a text.
        exit_code: the process exit code; see `EXIT_CODES`.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, id: str, reason: str, *, hint: str | None = None, subject: str = "", details: Sequence[str] = ()
    ) -> None:
        self.id = id
        self.message = f"{subject}: {reason}" if subject else reason
        self.hint = hint
        self.subject = subject
        self.reason = reason
        self.details = tuple(details)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes this error again: as an exception is pickled by default, it would lose all but its message.

        A tokenizer that goes to another process can hold one, to be raised when it is asked for what failed.
        """
        return _made_again, (type(self), self.args), vars(self)

    def told_of(self, subject: str) -> str:
        """Return the message for a place that names `subject` already.

        >>> UsageError("a.b", "is empty", subject="x.txt").told_of("x.txt")
        'is empty'
        """
        return self.reason if self.subject == subject else self.message

    def put_before(self, place: str) -> None:
        """Begin the message with the place that names what is refused, such as a line of a file of settings.

        >>> error = UsageError("a.b", "is empty", subject="x.txt")
        >>> error.put_before("settings.toml line 3")
        >>> str(error)
        'settings.toml line 3: x.txt: is empty'
        """
        self.subject, self.reason = place, self.message
        self.message = f"{place}: {self.reason}"
        self.args = (self.message,)


class UsageError(LossprobeError):
    """A command, option or argument that cannot be carried out."""

    exit_code = 2


class WrongTypeError(UsageError, TypeError):
    """An argument in Python that is of another type than the function takes."""


class CheckpointError(LossprobeError):
    """A checkpoint or tokenizer that lossprobe refuses to load, or that gives unusable numbers."""

    exit_code = 3


class TextError(LossprobeError):
    """A text that cannot be read or may not be scored."""

    exit_code = 4


class BadTextError(TextError):
    """A file or record that cannot be read as text, while others of the same text may be."""


class NothingToScoreError(LossprobeError):
    """A text without a single token that can be scored."""

    exit_code = 5


class OutputError(LossprobeError):
    """A run or file that cannot be written, is locked or damaged, or exists with other settings."""

    exit_code = 6


class ResourceError(LossprobeError):
    """Memory or another limited resource ran out."""

    exit_code = 7


class NotComparableError(LossprobeError):
    """Runs that must not be compared: text, tokenizer, windows or BOS differ."""

    exit_code = 12


def _made_again(kind: type[LossprobeError], arguments: tuple[Any, ...]) -> LossprobeError:
    """Return an error without its attributes, which whoever reads it from a pickle sets."""
    return kind.__new__(kind, *arguments)
