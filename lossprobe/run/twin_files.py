"""The files of a run on object storage, beside those of the folder here that stands for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from lossprobe.errors import OutputError
from lossprobe.objects.address import Address
from lossprobe.objects.folder import reason_of_copying, refuse_full
from lossprobe.objects.store import ObjectStore, all_at_once
from lossprobe.run.schema import CHECKED, DOCUMENTS, MANIFEST, PART_TABLES, PLAN, PLAN_PARTS, ROUTING, VOCABULARY
from lossprobe.units import visible

PART = re.compile(rf"(?:{'|'.join((*PART_TABLES, ROUTING, PLAN_PARTS))})/part-([0-9]{{5,}})\.(?:parquet|json)")
RECORD = re.compile(rf"{PLAN_PARTS}/part-([0-9]{{5,}})\.json")
OTHERS = (MANIFEST, PLAN, DOCUMENTS, VOCABULARY, f"{PLAN_PARTS}/shards")
Wanted = Callable[[int], bool]


class TwinFiles:
    """The files of a run in two places.

    Args:
        path: the folder.
        address: the place on object storage.
    """

    def __init__(self, path: Path, address: Address) -> None:
        self.path = path
        self.address = address
        self._store = ObjectStore()

    def holds(self, name: str) -> bool:
        """Return whether the store has one of the run's files.

        Raises:
            OutputError: the store cannot be asked.
        """
        with self._reading():
            return self._store.size(self.address.below(name)) is not None

    def read(self, name: str) -> bytes:
        """Return the bytes of one of the run's small files in the store.

        Raises:
            FileNotFoundError: the store has none of this name.
            OutputError: the store cannot be asked.
        """
        with self._reading():
            data = self._store.read(self.address.below(name))
        if data is None:
            raise FileNotFoundError(name)
        return data

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Return the sizes in bytes of those of some files that the store has.

        Raises:
            OutputError: the store cannot be asked.
        """
        with self._reading():
            there = self._store.below(self.address)
        return {name: there[name] for name in names if name in there}

    def _files(self) -> dict[str, int]:
        """Return the files of the run in the store with their sizes.

        Raises:
            OutputError: there are objects, but no run.
        """
        found = self._store.below(self.address)
        own = {name: size for name, size in found.items() if size and (name in OTHERS or PART.fullmatch(name))}
        if self._store.size(self.address) is not None:
            raise OutputError("output.foreign", f"{visible(self.address.uri, 200)}: is an object, and no run")
        foreign = next((name for name, size in found.items() if size and name not in own), None)
        if foreign is not None and not own:
            what = f"{visible(self.address.uri, 200)}: holds {visible(foreign, 80)} and no run"
            raise OutputError("output.foreign", what)
        return own

    def _local(self) -> list[str]:
        """Return the files of the run in the folder."""
        found = (file.relative_to(self.path).as_posix() for file in self.path.glob("*/part-*"))
        names = (*found, *(name for name in OTHERS if (self.path / name).exists()))
        return [name for name in names if name in OTHERS or PART.fullmatch(name)]

    def _clear(self) -> None:
        """Remove the files of the run from the folder; run.json goes first."""
        for name in (MANIFEST, CHECKED, *self._local()):
            (self.path / name).unlink(missing_ok=True)

    def _other(self, name: str) -> bool:
        """Return whether a small file is another one in the store than in the folder, or only in one of them."""
        file = self.path / name
        return self._store.read(self.address.below(name)) != (file.read_bytes() if file.exists() else None)

    def _size(self, name: str) -> int | None:
        file = self.path / name
        return file.stat().st_size if file.exists() else None

    def _fetch(self, sizes: dict[str, int]) -> None:
        """Fetch files; records come after the files that they are about."""
        for name in sizes:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        refuse_full(self.path.parent, sum(sizes.values()))
        for chosen in ([n for n in sizes if not RECORD.fullmatch(n)], [n for n in sizes if RECORD.fullmatch(n)]):
            all_at_once(lambda n: self._store.fetch(self.address.below(n), self.path / n, sizes[n]), chosen)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = visible(reason_of_copying(error), 300)
            shown = visible(self.address.uri, 200)
            raise OutputError("run.unreachable", f"{shown}: cannot be read: {reason}") from None


def part_of(name: str) -> int | None:
    """Return the number of the part that a file belongs to; None if it belongs to none."""
    match = PART.fullmatch(name)
    return None if match is None else int(match[1])


def part_is(name: str, wanted: Wanted) -> bool:
    """Return whether a file is of a wanted part, or of none."""
    index = part_of(name)
    return index is None or wanted(index)
