"""Kinds of values: each checks and converts the value of an option or audit key. Values of other types are refused."""

from __future__ import annotations

import datetime
import difflib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lossprobe.units import visible

MAX_INTEGER = 2**63 - 1  # largest integer that every TOML parser reads
MAX_COUNT = 2**31 - 1  # more than any text needs; larger numbers would overflow inside libraries
NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "an array",
         dict: "a table", datetime.datetime: "a time", datetime.date: "a date", datetime.time: "a time"}  # fmt: skip


class BadValueError(ValueError):
    """A value is not allowed; the message says what it must be.

    Attributes:
        hint: what to try, or None.
    """

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


class BadTypeError(BadValueError):
    """A value is of a type that is not allowed."""


class Kind(Protocol):
    """A kind of value."""

    def read(self, value: object) -> object:
        """Check a value from TOML and return it in the type that settings use.

        Raises:
            BadValueError: the value is not allowed.
        """
        ...

    def from_text(self, text: str) -> object:
        """Return the TOML value for the text of an option or environment variable; `read` still has to check it."""
        ...


@dataclass(frozen=True)
class Number:
    """A finite number between two limits.

    Attributes:
        low, high: the limits.
        inside: whether the limits themselves are refused.
        below: whether the upper limit itself is refused.
        whole: whether only whole numbers are allowed.
        word: text that means None, such as "auto"; "" for no such text.
    """

    low: float = -math.inf
    high: float = math.inf
    inside: bool = False
    below: bool = False
    whole: bool = False
    word: str = ""

    def read(self, value: object) -> int | float | None:
        """Return the number, an int if only whole numbers are allowed, else a float; None for the word."""
        if self.word and value == self.word:
            return None
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            either = f' or "{self.word}"' if self.word else ""
            raise BadTypeError(f"must be a {'whole ' if self.whole else ''}number{either}, not {name_of(value)}")
        if (isinstance(value, float) and not math.isfinite(value)) or not self._holds(value):
            raise BadValueError(f"must be {self._rule()}")
        return value if self.whole else float(value)

    def from_text(self, text: str) -> object:
        """Return the number that the text means, or the text unchanged if it is not a number."""
        try:
            return int(text) if self.whole else float(text)
        except ValueError:
            return text

    def _holds(self, value: int | float) -> bool:
        if abs(value) > MAX_INTEGER and isinstance(value, int):
            return False
        if value in (self.low, self.high):
            return not self.inside and not (self.below and value == self.high)
        return self.low < value < self.high

    def _rule(self) -> str:
        if math.isinf(self.high):
            return "a finite number" if math.isinf(self.low) else f"a finite number, at least {self.low:g}"
        edges = ", neither included" if self.inside else ", the latter not included" if self.below else ""
        shown = [f"{limit:g}" if abs(limit) < 1e6 else str(limit) for limit in (self.low, self.high)]
        return f"between {shown[0]} and {shown[1]}{edges}"


@dataclass(frozen=True)
class Counts:
    """Positive whole numbers; repeated ones count once."""

    def read(self, value: object) -> tuple[int, ...]:
        """Return the numbers in the order given."""
        if not isinstance(value, list | tuple):
            raise BadTypeError(f"must be a list of whole numbers, not {name_of(value)}")
        if not all(isinstance(each, int) and not isinstance(each, bool) and 1 <= each <= MAX_COUNT for each in value):
            raise BadValueError(f"must be whole numbers between 1 and {MAX_COUNT}")
        return tuple(dict.fromkeys(value))

    def from_text(self, text: str) -> object:
        """Return the numbers that a text spells with commas between them, or the text."""
        try:
            return [int(part) for part in text.split(",")]
        except ValueError:
            return text


@dataclass(frozen=True)
class Flag:
    """A boolean: true or false."""

    def read(self, value: object) -> bool:
        """Return the boolean."""
        if not isinstance(value, bool):
            raise BadTypeError(f"must be true or false, not {name_of(value)}")
        return value

    def from_text(self, text: str) -> object:
        """Return True for "true" and "1", False for "false" and "0", else the text unchanged."""
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)


@dataclass(frozen=True)
class Text:
    """A text.

    Attributes:
        pattern: regular expression that the whole text must match; "" for any text.
        says: description of the pattern for the error message.
        empty: whether "" is allowed.
        lower: whether the text is converted to lower case.
    """

    pattern: str = ""
    says: str = ""
    empty: bool = False
    lower: bool = False

    def read(self, value: object) -> str:
        """Return the text."""
        if not isinstance(value, str):
            raise BadTypeError(f"must be text in quotes, not {name_of(value)}")
        if not value and not self.empty:
            raise BadValueError("must not be empty")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise BadValueError(f"must be {self.says}")
        return value.lower() if self.lower else value

    def from_text(self, text: str) -> object:
        """Return the text."""
        return text


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, value: object) -> str:
        """Return the word."""
        if not isinstance(value, str):
            raise BadTypeError(f"must be text in quotes, not {name_of(value)}")
        if value not in self.words:
            raise BadValueError(f"must be one of {', '.join(self.words)}", nearest(value, self.words))
        return value

    def from_text(self, text: str) -> object:
        """Return the text."""
        return text


@dataclass(frozen=True)
class Words:
    """A list of texts."""

    def read(self, value: object) -> tuple[str, ...]:
        """Return the texts."""
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            raise BadTypeError(f"must be a list of texts in quotes, not {name_of(value)}")
        return tuple(value)

    def from_text(self, text: str) -> object:
        """Return the words between commas."""
        return text.split(",")


@dataclass(frozen=True)
class Names:
    """Some of the names that there are; repeated ones count once."""

    known: tuple[str, ...]

    def read(self, value: object) -> tuple[str, ...]:
        """Return the names in the order given."""
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise BadTypeError(f"must be a list of names in quotes, not {name_of(value)}")
        other = next((name for name in value if name not in self.known), None)
        if other is not None:
            hint = nearest(other, self.known) or f"there are {', '.join(self.known)}"
            raise BadValueError(f'names "{visible(other, 60)}", which is not known', hint)
        return tuple(dict.fromkeys(value))

    def from_text(self, text: str) -> object:
        """Return the names between commas, without blanks around them."""
        return [name.strip() for name in text.split(",")]


@dataclass(frozen=True)
class Pairs:
    """Names with a value each, such as step=iter,loss=train_ce."""

    def read(self, value: object) -> dict[str, str]:
        """Return name → value, of a table or of a text that spells it."""
        spelled = self.from_text(value) if isinstance(value, str) else value
        pairs = spelled.items() if isinstance(spelled, dict) else [("", spelled)]
        if not all(isinstance(word, str) and word for pair in pairs for word in pair):
            raise BadTypeError("must be written NAME=VALUE, with commas between several")
        return dict(pairs)

    def from_text(self, text: str) -> object:
        """Return the pairs that a text spells with commas between them, or the text."""
        parts = [part.partition("=") for part in text.split(",")]
        return {name.strip(): held.strip() for name, _, held in parts} if all(sign for _, sign, _ in parts) else text


@dataclass(frozen=True)
class File:
    """The path of a file or folder. A relative path is not resolved here.

    Attributes:
        word: a word that may stand in its place, such as "as-is"; "" where none may.
    """

    word: str = ""

    def read(self, value: object) -> Path:
        """Return the path."""
        if not isinstance(value, str | Path):
            raise BadTypeError(f"must be a path in quotes, not {name_of(value)}")
        if not str(value) or "\0" in str(value):
            raise BadValueError("must be a path")
        if Path(value) == Path("-"):
            raise BadValueError("must be a file or folder; standard input cannot be read twice")
        return Path(value)

    def from_text(self, text: str) -> object:
        """Return the text."""
        return text


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return a hint with the known word most similar to a mistyped one, or None if none is similar.

    >>> nearest("treshold", ["threshold", "metric"]), nearest("xyz", ["metric"])
    ('did you mean threshold?', None)
    """
    close = difflib.get_close_matches(word[:100], list(known), n=1)
    return f"did you mean {close[0]}?" if close else None


def name_of(value: object) -> str:
    """Return the name of a value's type for messages, such as "a number"."""
    return NAMES.get(type(value), "something else")


def shown_value(value: object) -> str:
    r"""Return a value for a message: written as in TOML if it is short, else the name of its type.

    >>> shown_value('a"b'), shown_value(True), shown_value([1]), shown_value(10**5000)
    ('"a\\"b"', 'true', 'an array', 'a whole number')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return visible(json.dumps(str(value), ensure_ascii=False), 60)
    small = isinstance(value, int) and abs(value) <= MAX_INTEGER  # Python raises for integers with thousands of digits
    return str(value) if small or isinstance(value, float) else name_of(value)
