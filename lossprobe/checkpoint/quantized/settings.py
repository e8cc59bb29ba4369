"""Read the keys of a quantization_config strictly: a key or a value that is not known is refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from lossprobe.errors import CheckpointError
from lossprobe.units import visible

Value = TypeVar("Value")
# What says how the key-value cache is rounded, the shortest word for it first; the first and the last are of ModelOpt.
CACHE = ("kv_cache_quant_algo", "kv_cache_scheme", "kv_cache_quantized_layers")


def rounding(said: object) -> str:
    """Return the numbers to which something that is no weight is rounded, as a setting says it; "" for no rounding.

    >>> rounding({"num_bits": 8, "type": "float"}), rounding("fp8"), rounding("static"), rounding(None)
    ('FP8', 'FP8', 'FP8 (static)', '')
    """
    if isinstance(said, dict) and "num_bits" in said:
        kind = "FP" if str(said.get("type", "int")).lower() == "float" else "int"
        return f"{kind}{visible(str(said['num_bits']), 20)}"
    if isinstance(said, str):
        word = said.strip().lower()
        known = {"": "", "none": "", "auto": "", "static": "FP8 (static)", "dynamic": "FP8 (dynamic)"}
        return known.get(word, visible(word.upper(), 40))
    return "fewer bits" if said else ""


class Settings:
    """The keys of a configuration, each taken once; what is left over is not known.

    Args:
        content: the configuration.
        shown: its path and key, for messages.

    Attributes:
        shown: as given.
    """

    def __init__(self, content: Mapping[str, Any], shown: str) -> None:
        self._left = dict(content)
        self.shown = shown

    def refused(self, key: str, what: str) -> CheckpointError:
        """Return the error that names a key and says what is wrong with it."""
        return CheckpointError("checkpoint.quantized_config", f"{self.shown}: {visible(key, 60)} {what}")

    def take(self, key: str, kind: type[Value], default: Value | None = None) -> Value:
        """Return the value of a key, or `default` where the key is missing or null.

        Raises:
            CheckpointError: it is of another type, or is missing and has no default.
        """
        value = self._left.pop(key, None)
        if value is None:
            if default is None:
                raise self.refused(key, "is missing")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.refused(key, f"is {visible(repr(value), 60)}, not of type {kind.__name__}")
        return value

    def choose(self, key: str, choices: Collection[Value], default: Value | None = None) -> Value:
        """Return the value of a key that must be one of some choices, words in small letters."""
        value = self._left.pop(key, None)
        value = default if value is None else value.lower() if isinstance(value, str) else value
        if isinstance(value, list | dict) or value not in choices:
            known = ", ".join(map(str, choices))
            raise self.refused(key, "is missing" if value is None else f"is {visible(str(value), 40)}, known: {known}")
        return value  # type: ignore[return-value]  # it is one of `choices`

    def words(self, *keys: str) -> tuple[str, ...]:
        """Return the list of words under the first of some keys that there is, each without dots at its ends."""
        found: list[Any] = next((value for key in keys if isinstance(value := self._left.get(key), list)), [])
        for key in keys:
            if not isinstance(self._left.pop(key, None), list | None) or not all(
                isinstance(word, str) for word in found
            ):
                raise self.refused(key, "is no list of words")
        return tuple(word.strip(".") if not word.startswith("re:") else word for word in found)

    def inner(self, key: str) -> Settings:
        """Return the settings inside a key."""
        return Settings(self.take(key, dict), f"{self.shown}: {visible(key, 60)}")

    @property
    def left(self) -> tuple[str, ...]:
        """The keys that have not been taken."""
        return tuple(self._left)

    def has(self, key: str) -> bool:
        """Return whether a key is there, is not null, and has not been taken."""
        return self._left.get(key) is not None

    def pass_over(self, *keys: str) -> None:
        """Leave out keys that say how the quantiser worked, and change no weight."""
        for key in keys:
            self._left.pop(key, None)

    def none_of(self, *keys: str) -> None:
        """Refuse keys that change weights in a way that is not supported, unless they are off."""
        for key in keys:
            value = self._left.pop(key, None)
            if value not in (None, False, {}, [], "", 0):
                raise self.refused(key, f"is {visible(str(value), 60)}, which is not supported")

    def cache_rounding(self) -> str:
        """Return to what a deployed model rounds the keys and values of its cache, such as "FP8"; "" where it does not.

        These keys change no weight. What they say is read as far as it has the forms that are known.
        """
        self.pass_over("kv_cache_schema_version")
        values = [self._left.pop(key, None) for key in CACHE]
        return next((kind for kind in map(rounding, values) if kind), "")

    def finish(self) -> None:
        """Refuse what is left over."""
        for key in self._left:
            error = self.refused(key, "is not known here; it may change what the stored numbers mean")
            error.hint = "remove it from the file if you know that it changes no weight"
            raise error
