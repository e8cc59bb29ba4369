"""The values that options take, as click has them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from lossprobe.objects.address import SCHEME
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
    """A path, or a short name of a run of this folder; a path that exists wins.

    The address of a run on object storage becomes the local folder that stands for it; other addresses stay.

    Args:
        complete: whether a run on object storage must be complete, and is fetched.
        afresh: whether all of it is fetched, also what the local copy has.
    """

    def __init__(self, *, complete: bool = True, afresh: bool = False) -> None:
        super().__init__(path_type=Path)
        self._complete, self._afresh = complete, afresh

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path of a source."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if str(path).lower().startswith(SCHEME):
            return self._of_object_storage(path)
        if os.path.lexists(path) or len(path.parts) != 1 or str(path) == "-":
            return path
        from lossprobe.run.stored import find_stored  # loads pandas

        return find_stored(str(path)) or path

    def _of_object_storage(self, path: Path) -> Path:
        from lossprobe.passes.order import TEXT_SUFFIXES
        from lossprobe.run.twin import arrived, folder_of  # loads what writes runs

        if not self._complete:
            return folder_of(path)
        if path.suffix.lower() in TEXT_SUFFIXES:
            return path
        return arrived(path, afresh=self._afresh)


class RunPlace(click.Path):
    """A folder for a run; of an address of object storage the local folder that stands for it."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the folder."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not str(path).lower().startswith(SCHEME):
            return path
        from lossprobe.run.twin import folder_of

        return folder_of(path)


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
