"""Texts on object storage: each is copied once into `.lossprobe/objects/texts`, and read from there.

A copy is named by the address, ETag and size of the object, so that it is used again until the object changes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from lossprobe.errors import BadTextError, TextError, UsageError
from lossprobe.objects.address import Address
from lossprobe.objects.folder import copies_folder, reason_of_copying, refuse_full
from lossprobe.objects.store import ObjectStore, all_at_once
from lossprobe.text.selection import Selection
from lossprobe.units import format_count, plural, visible

FOLDER = "texts"


def copied_objects(
    address: Address, max_bytes: int, selection: Selection, notices: list[str]
) -> list[tuple[Path, Address]]:
    """Return the local copies of an object, or of the objects below an address, in the order of a folder's files.

    Args:
        address: the address.
        max_bytes: refuse a text whose objects have more bytes.
        selection: which of several objects are read; hidden ones are not.
        notices: gets a line where some are left out.

    Raises:
        UsageError: nothing is there, or nothing is left.
        TextError: the store cannot be asked, an object changes or ends while it is copied, or there is no space.
    """
    shown, store = visible(address.uri, 200), ObjectStore()
    try:
        found = _chosen(store, address, selection, notices)
        total = sum(found.values())
        if total > max_bytes:
            what = f"{shown}: the text has more than {format_count(max_bytes)} bytes (`max_bytes`)"
            raise TextError("text.too_large", what, hint="raise `max_bytes`")
        folder = copies_folder(FOLDER)
        versions = all_at_once(store.version, found)
        files = {each: folder / _name(each, version) for each, version in zip(found, versions, strict=True)}
        lacking = [each for each, file in files.items() if not _is_copy(file, found[each])]
        refuse_full(folder, sum(found[each] for each in lacking))
        all_at_once(lambda each: _copy(store, each, files[each], found[each]), lacking)
    except OSError as error:
        raise BadTextError(
            "text.unreadable", f"{shown}: cannot be read: {visible(reason_of_copying(error), 300)}"
        ) from None
    return [(file, each) for each, file in files.items()]


def _chosen(store: ObjectStore, address: Address, selection: Selection, notices: list[str]) -> dict[Address, int]:
    """Return the objects that are read, in order, with their sizes."""
    shown, size = visible(address.uri, 200), store.size(address)
    if size is not None:
        return {address: size}
    names = store.below(address)
    if not names:
        raise UsageError("text.missing", f"{shown}: there is no such object, and none below it")
    paths = sorted(path for path in map(PurePosixPath, names) if not any(part.startswith(".") for part in path.parts))
    chosen = [path for path in paths if selection.takes(path)]
    if not chosen:
        raise UsageError("text.empty_folder", f"{shown}: none of {plural(len(names), 'object')} is read")
    if len(chosen) < len(paths):
        left = f"{format_count(len(paths) - len(chosen))} of {plural(len(paths), 'object')}"
        notices.append(f"{shown}: {left} left out by `include` and `exclude`")
    return {address.below(str(path)): names[str(path)] for path in chosen}


def _name(address: Address, version: str) -> str:
    return f"{_digest(address.uri)}-{_digest(version)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def _is_copy(file: Path, size: int) -> bool:
    return file.is_file() and not file.is_symlink() and file.stat().st_size == size


def _copy(store: ObjectStore, address: Address, file: Path, size: int) -> None:
    """Copy an object, and remove the copies of what it was before."""
    store.fetch(address, file, size)
    if _name(address, store.version(address)) != file.name:
        file.unlink()
        raise TextError("text.changed", f"{visible(address.uri, 200)}: the object changed while it was copied")
    for old in file.parent.glob(f"{file.name.partition('-')[0]}-*"):
        if old != file:
            old.unlink(missing_ok=True)
