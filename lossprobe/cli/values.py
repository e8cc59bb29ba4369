"""The values that options take, as click has them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from lossprobe.options.kinds import BadValueError, Choice, Counts, File, Kind, Names, Number, Pairs
from lossprobe.units import visible


class Count(click.IntRange):
    """A positive number below what any text needs: libraries count in 64 bits, and fail in their own words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        number = int(super().convert(value, param, ctx))
        if number > 1 << 40:
            self.fail(f"{visible(str(value), 40)} is more than {1 << 40:,}", param, ctx)
        return number


class Real(click.FloatRange):
    """A number in a range: click lets "nan" pass, with which every comparison is false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


COUNT = Count(min=1)


class BatchSize(click.ParamType[int | None]):
    """A positive number, or `auto` (None)."""

    name = "integer|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number, or None for `auto`."""
        if value == "auto" or value is None:
            return None
        return int(COUNT.convert(value, param, ctx))


class Spelled(click.ParamType[Any]):
    """A value that its kind reads from a text, such as several words with commas between them."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of the kind."""
        try:
            return self.kind.read(self.kind.from_text(value) if isinstance(value, str) else value)
        except BadValueError as error:
            hint = f"; {error.hint}" if error.hint else ""
            self.fail(f"{visible(str(value), 40)!r} {error}{hint}", param, ctx)


class RunPath(click.Path):
    """A path, or a short name of a run of this folder; a path that exists wins."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path of a source."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if os.path.lexists(path) or len(path.parts) != 1 or str(path) == "-":
            return path
        from lossprobe.run.stored import find_stored  # loads pandas

        return find_stored(str(path)) or path


def click_type(kind: Kind) -> click.ParamType[Any] | None:
    """Return the values that an option takes as click has them; None for any text."""
    match kind:
        case Number(word="auto"):
            return BatchSize()
        case Number(whole=True):
            return Count(min=int(kind.low))
        case Number():
            low, high = (limit if math.isfinite(limit) else None for limit in (kind.low, kind.high))
            return Real(low, high, min_open=kind.inside, max_open=kind.inside or kind.below)
        case Choice():
            return click.Choice(kind.words)
        case Counts() | Names() | Pairs():
            return Spelled(kind)
        case File():
            return click.Path(path_type=Path, exists=not kind.word)
        case _:
            return None
