"""Read the zip archive that `torch.save` writes: check its layout, and its records against their checksums."""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.units import format_count, plural, visible

LOCAL_HEADER = struct.Struct("<26xHH")  # zip local file header: 26 bytes skipped, length of name, length of extra field
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Record:
    """One record: its name in the archive, offset and size of its bytes in the file, and their stored CRC-32."""

    name: str
    start: int
    size: int
    crc: int


def read_records(path: Path, stream: IO[bytes], size: int) -> dict[str, Record]:
    """Return every record by its name inside the archive's single folder.

    Args:
        path: the file, for messages.
        stream: the file, open for reading.
        size: its size in bytes.

    Raises:
        CheckpointError: the layout is not what `torch.save` writes: names outside the folder or given twice, code, or
            compressed, encrypted or overlapping entries.
        zipfile.BadZipFile, struct.error, ...: the archive's central directory cannot be read.
    """
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
    named = _by_name(path, entries)
    code = [name for name in named if name == "constants.pkl" or name.startswith("code/")]
    if code:
        what = f"TorchScript is not supported: the archive holds {visible(code[0], 80)} ({len(code)} code entries)"
        raise refusal("checkpoint.torchscript", path, what, "save the model's state_dict with torch.save instead")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            kind = "encrypted" if entry.flag_bits & 1 else "compressed"
            sizes = f"{format_count(entry.compress_size)} bytes stand for {format_count(entry.file_size)}"
            what = f"{kind} entries are not allowed: {visible(entry.orig_filename, 80)}, {sizes}"
            raise refusal("checkpoint.compressed", path, what)
    starts = {entry.orig_filename: _data_start(stream, entry) for entry in entries}
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in ordered[1:]), size]
    for entry, following in zip(ordered, ends, strict=True):
        stop = starts[entry.orig_filename] + entry.file_size
        if stop > following:
            limit = f"but the next entry or the file's end is at {following}"
            what = f"entry {visible(entry.orig_filename, 80)} ends at byte {stop}, {limit}"
            raise refusal("checkpoint.bad_entry", path, what)
    return {
        name: Record(entry.orig_filename, starts[entry.orig_filename], entry.file_size, entry.CRC)
        for name, entry in named.items()
    }


def _by_name(path: Path, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by their names inside the single folder, refusing names outside it or given twice."""
    folder = entries[0].orig_filename.partition("/")[0] if entries else ""
    named: dict[str, zipfile.ZipInfo] = {}
    for number, entry in enumerate(entries, start=1):
        name = entry.orig_filename
        top, *parts = name.split("/")
        if top != folder or not parts or not folder or set(parts) & {"", ".", ".."} or re.search(r"[\\\0]|^\w:", name):
            raise refusal(
                "checkpoint.bad_entry", path, f"bad entry name {visible(name, 80)} (entry {number} of {len(entries)})"
            )
        record = "/".join(parts)
        if record in named:
            raise refusal("checkpoint.bad_entry", path, f"entry {visible(name, 80)} appears twice")
        named[record] = entry
    return named


def _data_start(stream: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Return the offset of a record's bytes, which follow its local header.

    The length of that header is read from the header itself, because torch pads it and the central directory does not
    say by how much.
    """
    stream.seek(entry.header_offset)
    name, padding = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
    return entry.header_offset + LOCAL_HEADER.size + int(name) + int(padding)


def read_record(stream: IO[bytes], record: Record) -> bytes:
    """Return the bytes of a record."""
    stream.seek(record.start)
    return stream.read(record.size)


def hash_archive(path: Path, stream: IO[bytes], records: dict[str, Record]) -> tuple[str, tuple[str, ...]]:
    """Return the sha256 of a file and notices about its checksums, in one pass over its bytes.

    torch ignores the checksums and would read a damaged weight as a different weight. If no record at all matches its
    checksum, the file was written without checksums, an option of torch; that gives a notice and not an error.

    Raises:
        CheckpointError: `checkpoint.checksum`: some, but not all, records do not match their checksums.
    """
    digest = hashlib.sha256()
    wrong, position = [], 0
    stream.seek(0)
    for record in sorted(records.values(), key=lambda each: each.start):
        _pass_through(stream, record.start - position, digest)
        if _pass_through(stream, record.size, digest) != record.crc:
            wrong.append(record)
        position = record.start + record.size
    while chunk := stream.read(CHUNK_BYTES):
        digest.update(chunk)
    checked = sum(record.size > 0 for record in records.values())
    if wrong and len(wrong) == checked:
        return digest.hexdigest(), (f"{path.name}: written without checksums, so that damage to it cannot be detected",)
    if wrong:
        first = visible(wrong[0].name, 80)
        what = f"damaged: {first} is not what its checksum says ({len(wrong)} of {plural(checked, 'record')} wrong)"
        raise refusal("checkpoint.checksum", path, what, "copy or download it again")
    return digest.hexdigest(), ()


def _pass_through(stream: IO[bytes], size: int, digest: hashlib._Hash) -> int:
    """Read `size` bytes from the stream, add them to the digest, and return their CRC-32."""
    crc = 0
    while size > 0:
        chunk = stream.read(min(size, CHUNK_BYTES))
        if not chunk:
            break
        digest.update(chunk)
        crc = zlib.crc32(chunk, crc)
        size -= len(chunk)
    return crc
