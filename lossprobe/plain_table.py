"""Tables of plain columns: pandas takes longer to load than a small table takes to make and to show."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

EXACT = 2**53  # largest size up to which floats hold all integers
Table: TypeAlias = "PlainTable | pd.DataFrame"  # what is shown reads either by what `PlainTable` has


class PlainTable:
    """Columns of one length by name, with the few words of a frame of pandas that showing a table takes.

    Args:
        columns: name → array [N]; texts, and what may be absent (None), as objects.

    >>> table = PlainTable({"n": np.array([3, 4, 5]), "word": np.array(["a", None, "c"], object)})
    >>> len(table), table.columns, "n" in table, table["n"].sum().item(), table[1:]["word"].tolist()
    (3, ('n', 'word'), True, 12, [None, 'c'])
    >>> table.drop(columns=["n"]).head(1).frame().to_dict("list")
    {'word': ['a']}
    """

    def __init__(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        self._columns = dict(columns)

    @classmethod
    def of_records(cls, records: Sequence[Mapping[str, Any]], types: Mapping[str, type]) -> PlainTable:
        """Return a table of rows.

        Args:
            records: each has a value for each column; others are left out.
            types: the names and types of the columns; texts are of the type `object`.
        """
        return cls({name: np.array([row[name] for row in records], type) for name, type in types.items()})

    @classmethod
    def of_arrays(cls, columns: Mapping[str, Any]) -> PlainTable:
        """Return a table of arrays, of which those are masked that have absent values.

        These are NaN of numbers, NaT of times, and None of all else: texts, truths, integers that no float holds.

        >>> numbers, words = (np.ma.masked_array(values, [True, False]) for values in ([3, 4], ["a", "b"]))
        >>> table = PlainTable.of_arrays({"n": numbers, "word": words.astype(object)})
        >>> table["n"].tolist(), table["word"].tolist()
        ([nan, 4.0], [None, 'b'])
        """
        return cls({name: _filled(values) for name, values in columns.items()})

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._columns)

    def __len__(self) -> int:
        return max(map(len, self._columns.values()), default=0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    @overload
    def __getitem__(self, chosen: str) -> npt.NDArray[Any]: ...

    @overload
    def __getitem__(self, chosen: slice) -> PlainTable: ...

    def __getitem__(self, chosen: str | slice) -> npt.NDArray[Any] | PlainTable:
        if isinstance(chosen, str):
            return self._columns[chosen]
        return PlainTable({name: values[chosen] for name, values in self._columns.items()})

    def head(self, rows: int) -> PlainTable:
        """Return the first rows."""
        return self[:rows]

    def drop(self, *, columns: Collection[str]) -> PlainTable:
        """Return the table without some columns."""
        return PlainTable({name: values for name, values in self._columns.items() if name not in columns})

    def assign(self, **columns: npt.ArrayLike) -> PlainTable:
        """Return the table with further columns of numbers, or others in place of some."""
        return PlainTable(self._columns | {name: np.asarray(values) for name, values in columns.items()})

    def records(self) -> list[dict[str, Any]]:
        """Return the rows, each as name → value."""
        columns = [values.tolist() for values in self._columns.values()]
        return [dict(zip(self._columns, row, strict=True)) for row in zip(*columns, strict=True)]

    def frame(self) -> pd.DataFrame:
        """Return the table as a frame of pandas."""
        import pandas as pd

        # Of a list pandas finds out what it holds; an array of objects it may leave as that.
        held = {name: values.tolist() if values.dtype == object else values for name, values in self._columns.items()}
        return pd.DataFrame(held)


def _filled(values: Any) -> npt.NDArray[Any]:
    if not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values)
    absent = np.ma.getmaskarray(values)
    filled = values.data.astype(_type_with_absent(values.data[~absent]))
    filled[absent] = None if filled.dtype == object else "NaT" if filled.dtype.kind in "mM" else np.nan
    return filled


def _type_with_absent(values: npt.NDArray[Any]) -> npt.DTypeLike:
    """Return the type that holds values beside absent ones: their own if it can, else float if that keeps them all."""
    if values.dtype.kind not in "biu":
        return values.dtype
    whole = values.dtype.kind != "b" and bool(np.all((values <= EXACT) & (values >= -EXACT)))
    return float if whole else object


def is_numeric(values: npt.NDArray[Any] | pd.Series) -> bool:
    """Return whether a column holds numbers, or truths, by its type.

    >>> is_numeric(np.array([1.5])), is_numeric(np.array([True])), is_numeric(np.array([1.5], object))
    (True, True, False)
    """
    return values.dtype.kind in "biufc"
