"""Rules for values of config.json, each stricter than transformers: nothing that passes can need a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

ValueRule = Callable[[Any], bool]
LARGEST_COUNT: Final = 1 << 24  # shapes of such sizes can be written down without an overflow
LARGEST_BASE: Final = 1e12  # JSON also has integers that no dtype can hold; models in use have up to 1e8
LARGEST_FACTOR: Final = 1e4


def is_count(value: Any) -> bool:
    """Return whether a value is a positive number of things."""
    return type(value) is int and 0 < value <= LARGEST_COUNT


def is_count_or_none(value: Any) -> bool:
    """Return whether a value is a positive number of things, or null."""
    return value is None or is_count(value)


def is_flag(value: Any) -> bool:
    """Return whether a value is true or false."""
    return type(value) is bool


def is_text(value: Any) -> bool:
    """Return whether a value is a text."""
    return type(value) is str


def is_fraction(value: Any) -> bool:
    """Return whether a value is a number from 0 to 1."""
    return type(value) in (int, float) and 0 <= value <= 1


def is_float_fraction(value: Any) -> bool:
    """Return whether a value is a number from 0 to 1, written with a point."""
    return type(value) is float and 0 <= value <= 1


def is_small(value: Any) -> bool:
    """Return whether a value is a number between 0 and 1, written with a point."""
    return type(value) is float and 0 < value < 1


def is_base(value: Any) -> bool:
    """Return whether a value can be the base of rotary angles."""
    return type(value) in (int, float) and 1 < value <= LARGEST_BASE


def is_factor(value: Any) -> bool:
    """Return whether a value can scale a length: a number of at least 1, written with a point."""
    return type(value) is float and 1 <= value <= LARGEST_FACTOR


def is_id(value: Any) -> bool:
    """Return whether a value is a token id, or null."""
    return value is None or (type(value) is int and value >= 0)


def is_ids(value: Any) -> bool:
    """Return whether a value is a token id, several, or null."""
    return is_id(value) or (type(value) is list and bool(value) and None not in value and all(map(is_id, value)))


def one_of(*allowed: Any) -> ValueRule:
    """Return the rule that a value is one of these, of the same type."""
    return lambda value: any(type(value) is type(each) and value == each for each in allowed)
