"""A run on object storage: a folder here, `.lossprobe/objects/s3/BUCKET/KEY`, whose finished files are put there.

Files are put in the order in which they are finished: the plan before the first part, the record of a part after its
files, run.json last. So whatever is stopped in between leaves there what a stopped run leaves in a folder. Before a run
goes on, its folder is made equal to the store, which is what counts. There are no locks: see `RunStore.finish_plan` for
two shards that plan at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from lossprobe.errors import OutputError
from lossprobe.objects.address import Address, address_of
from lossprobe.objects.folder import COPIES, RUNS, address_of_copy, copies_folder
from lossprobe.objects.store import all_at_once
from lossprobe.run.files import writing
from lossprobe.run.folder import LINK
from lossprobe.run.latest import runs_folder
from lossprobe.run.schema import MANIFEST, PLAN, PLAN_PARTS
from lossprobe.run.sender import Sender
from lossprobe.run.twin_files import RECORD, TwinFiles, Wanted, part_is, part_of
from lossprobe.units import plural, visible


class Twin(TwinFiles):
    """The place on object storage that the folder of a run stands for.

    Args:
        path: the folder.
        address: the place.
    """

    def __init__(self, path: Path, address: Address) -> None:
        super().__init__(path, address)
        self._sender: Sender | None = None

    def bring(self, wanted: Wanted) -> None:
        """Make the folder equal to the store, as to the parts that are wanted; the caller holds the folder's lock.

        Raises:
            OutputError: the store cannot be asked, holds something else than a run there, or the folder is full.
        """
        with self._reading():
            copies_folder(RUNS)
            there = self._files()
            if MANIFEST in there:  # a complete run is checked as a whole
                wanted = _any_part
            if any(self._other(name) for name in (MANIFEST, PLAN)):
                self._clear()
            known = {name for name in there if RECORD.fullmatch(name) and part_is(name, wanted)}
            changed = {part_of(name) for name in known if self._other(name)}
            stale = [name for name in self._local() if part_is(name, wanted) and name not in there]
            for name in stale:
                (self.path / name).unlink(missing_ok=True)
            asked = [name for name in there if part_is(name, wanted) and name not in (MANIFEST, PLAN)]
            lacking = {
                name: there[name] for name in asked if part_of(name) in changed or self._size(name) != there[name]
            }
            self._fetch(lacking)
            self._fetch({name: there[name] for name in (PLAN, MANIFEST) if name in there})

    def bring_complete(self, *, afresh: bool = False) -> bool:
        """Fetch what the folder lacks of a complete run, and return whether there is a run; other views may read it.

        Args:
            afresh: whether all is fetched, so that the folder shows what the store holds now.

        Raises:
            OutputError: the run is not complete, the store cannot be asked or has no such bucket, or the disk is full.
        """
        shown = visible(self.address.uri, 200)
        with self._reading():
            if not self.holds(MANIFEST):
                if not self.holds(PLAN):
                    self._store.refuse_no_bucket(self.address)
                    return False
                done = sum(RECORD.fullmatch(name) is not None for name in self._files())
                hint = "repeat the score command to resume it, or gather it, if shards have scored it"
                what = f"{shown}: unfinished run ({plural(done, 'part')} stored)"
                raise OutputError("run.unfinished", what, hint=hint)
            copies_folder(RUNS)
            there = {name: size for name, size in self._files().items() if not name.startswith(PLAN_PARTS)}
            there.pop(PLAN, None)
            changed = afresh or self._other(MANIFEST)
            if changed:
                self._clear()
            for name in set(self._local()) - there.keys():
                (self.path / name).unlink(missing_ok=True)  # lost in the store: it is told as missing
            self._fetch({name: size for name, size in there.items() if name != MANIFEST and self._size(name) != size})
            if changed:
                self._fetch({MANIFEST: there[MANIFEST]})
        return True

    def send(self, names: Iterable[str]) -> None:
        """Put files of the folder to the store, several at once.

        Raises:
            OutputError: one cannot be put; what the folder has of it does not count then.
        """
        try:
            with writing(self.address.uri):
                all_at_once(lambda name: self._store.put(self.path / name, self.address.below(name)), list(names))
        except OutputError as error:
            error.hint = "repeat the command to resume"  # what was put before is kept
            raise

    def send_part(self, names: Sequence[str], record: str) -> None:
        """Put the files of a part to the store, then its record, while the caller goes on; parts in order.

        Raises:
            OutputError: as `send`, of an earlier part.
        """
        self._sender = self._sender or Sender(self.send)
        self._sender.add(names, record)

    def finish_sending(self) -> None:
        """Wait until all parts are in the store.

        Raises:
            OutputError: as `send`.
        """
        if self._sender is not None:
            self._sender.finish()

    def stop_sending(self) -> None:
        """Send nothing more; what a request is under way for may still come to be there."""
        if self._sender is not None:
            self._sender.stop()
            self._sender = None

    def send_plan(self, names: Iterable[str]) -> None:
        """Put a plan to the store in the place of what the run has there; plan.json is put last.

        Raises:
            OutputError: as `send`.
        """
        self.remove((MANIFEST,))
        self.remove((PLAN,))
        with self._reading():
            old = list(self._files())
        self.remove(old)
        self.send(names)
        self.send((PLAN,))

    def drop_plan(self) -> None:
        """Remove the plan of a complete run from the store."""
        with suppress(OutputError), self._reading():
            self._store.remove_below(self.address.below(PLAN_PARTS))
            self._store.remove(self.address.below(PLAN))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files from the store.

        Raises:
            OutputError: one cannot be removed.
        """
        with writing(self.address.uri):
            all_at_once(lambda name: self._store.remove(self.address.below(name)), list(names))


def folder_of(path: Path) -> Path:
    """Return the local folder that stands for a run on object storage; any other path as it is.

    Raises:
        UsageError: as `address_of`.
        OutputError: the folder of runs is a link.
    """
    address = address_of(path)
    if address is not None and COPIES.is_symlink():
        raise OutputError("output.link", f"{COPIES}: {LINK}")
    return path if address is None else runs_folder() / COPIES.name / RUNS / address.bucket / address.key


def twin_of(path: Path) -> Twin | None:
    """Return the place that a folder stands for; None for a run of this machine alone."""
    address = address_of_copy(path)
    return None if address is None else Twin(path, address)


def arrived(path: Path, *, afresh: bool = False) -> Path:
    """Return the local folder of a run; a complete run on object storage is fetched, as far as it is not there.

    Args:
        path: a path, which is returned as it is, or an address; one where no run is stays as it is too.
        afresh: whether all files are fetched, whatever the folder has.

    Raises:
        OutputError: the run at an address is not complete, or cannot be read, or there is no such bucket.
    """
    folder = folder_of(path)
    twin = None if folder == path else twin_of(folder)
    return folder if twin is not None and twin.bring_complete(afresh=afresh) else path


def _any_part(_index: int) -> bool:
    return True
