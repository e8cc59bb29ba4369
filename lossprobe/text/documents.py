"""Documents: what a text file, a folder, a JSONL, standard input or a .gz holds, as strict UTF-8.

A `TextSource` can be read more than once and never holds more than one file (one record of a JSONL) in
memory. What it changes on the way (a byte-order mark, line ends) is noted, never done silently.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from lossprobe.errors import TextError, UsageError
from lossprobe.text.files import TextFile, find_files
from lossprobe.units import plural, visible

SEPARATORS = {"blank-line": r"\n[ \t\r]*\n\s*", "line": r"\r?\n"}
NUL_SHARE_OF_BINARY = 0.01


@dataclass(frozen=True)
class TextOptions:
    """How files become documents.

    Attributes:
        split_documents: "blank-line", "line" or a regular expression of the separators; None leaves a file
            whole. Separators belong to no document and are counted; empty documents are dropped.
        text_field: the field of a JSONL record that holds its text; None reads "text" of `.jsonl` files
            and everything else as plain text.
        newlines: "keep", or "lf" to turn CRLF and CR into LF.
        max_bytes: refuse more input than this (decompressed).
    """

    split_documents: str | None = None
    text_field: str | None = None
    newlines: str = "keep"
    max_bytes: int = 1 << 31


@dataclass(frozen=True)
class Document:
    """One unit of text: no context crosses its edges, and intervals resample it whole.

    Attributes:
        text: its characters.
        source: file it came from, "-" for standard input.
        line: line of that file on which it starts, from 1.
        byte_offset: offset in that file (after decompression) of its first byte; -1 for a JSONL record,
            whose text is escaped there.
        fields: the other fields of a JSONL record as a JSON object, or None.
    """

    text: str
    source: str
    line: int
    byte_offset: int
    fields: str | None = None


class Source(Protocol):
    """Anything that yields the same documents each time it is asked.

    Attributes:
        name: short name for headings and run directories.
        notices: what was changed or looked odd, one line each; filled while reading.
    """

    name: str
    notices: list[str]

    def documents(self) -> Iterator[Document]:
        """Yield every document in order."""
        ...


@dataclass
class StringSource:
    """A `Source` over strings in memory, one document each, for Python users."""

    texts: Sequence[str]
    name: str = "strings"
    notices: list[str] = field(default_factory=list)

    def documents(self) -> Iterator[Document]:
        """Yield every string as a document."""
        return (Document(text, self.name, 1, 0) for text in self.texts)


@dataclass
class TextSource:
    """Files to read as documents, in a stable order.

    Attributes:
        name: short name for headings and run directories.
        files: the files, in order.
        options: how files become documents.
        notices: what was changed or looked odd, one line each; filled while reading.
    """

    name: str
    files: list[TextFile]
    options: TextOptions
    notices: list[str] = field(default_factory=list)

    def documents(self) -> Iterator[Document]:
        """Yield every document in order, reading the files anew.

        Raises:
            TextError: not UTF-8 (byte offset and line), binary, over `max_bytes`, a bad JSONL record.
        """
        left = self.options.max_bytes
        for file in self.files:
            reader = self._records(file, left) if self._is_jsonl(file) else self._pieces(file, left)
            for document, size in reader:
                left -= size
                yield document

    def _is_jsonl(self, file: TextFile) -> bool:
        return self.options.text_field is not None or file.is_jsonl

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)

    def _pieces(self, file: TextFile, left: int) -> Iterator[tuple[Document, int]]:
        data = file.read(left)
        text = self._decode(file.shown, data)
        size = len(data)
        if self.options.newlines == "lf":
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        whole = Document(text, file.shown, 1, 3 if data.startswith(b"\xef\xbb\xbf") else 0)
        if self.options.split_documents is None:
            yield whole, size
            return
        for piece in split_document(whole, self.options.split_documents):
            yield piece, size
            size = 0

    def _records(self, file: TextFile, left: int) -> Iterator[tuple[Document, int]]:
        name = self.options.text_field or "text"
        for number, line in enumerate(file.lines(left), start=1):
            if line.strip():
                text = self._decode(file.shown, line, first_line=number)
                yield parse_record(text, name, file.shown, number, self.options.newlines), len(line)

    def _decode(self, shown: str, data: bytes, first_line: int = 1) -> str:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise TextError(
                "text.utf16", f"{shown}: looks like UTF-16 (byte-order mark 0x{data[:2].hex()})",
                hint="convert it to UTF-8 first, for instance with iconv -f UTF-16 -t UTF-8",
            )  # fmt: skip
        try:
            text = data.decode("utf-8", "strict")
        except UnicodeDecodeError as error:
            line = first_line + data.count(b"\n", 0, error.start)
            raise TextError(
                "text.not_utf8",
                f"{shown}: byte 0x{data[error.start]:02x} at offset {error.start} (line {line}) is not valid UTF-8",
            ) from None
        if text.startswith("\ufeff"):
            self._notice(f"{shown}: byte-order mark removed")
            text = text[1:]
        nuls = text.count("\0")
        if nuls > NUL_SHARE_OF_BINARY * len(text):
            raise TextError(
                "text.binary", f"{shown}: looks binary ({nuls} NUL bytes in {plural(len(text), 'character')})"
            )
        if nuls:
            self._notice(f"{shown}: {plural(nuls, 'NUL byte')} in the text")
        return text


def open_text(paths: list[Path], options: TextOptions) -> TextSource:
    """Return the source of all `paths`: files, folders (every file below, sorted), or "-" for standard input.

    Raises:
        UsageError: a path that does not exist, an empty folder, a bad separator.
        TextError: standard input over `max_bytes`.
    """
    if options.split_documents is not None:
        separator_pattern(options.split_documents)
    files = [file for path in paths for file in find_files(path, options.max_bytes)]
    name = files[0].stem if len(paths) == 1 and len(files) == 1 else paths[0].name or "text"
    return TextSource(visible(name, 40), files, options)


def separator_pattern(split: str) -> re.Pattern[str]:
    """Return the compiled separator for `--split-documents`.

    Raises:
        UsageError: not a regular expression, or one that matches the empty string.
    """
    try:
        pattern = re.compile(SEPARATORS.get(split, split))
    except re.error as error:
        raise UsageError(
            "text.separator",
            f"--split-documents {visible(split, 40)!r}: {error}; use blank-line, line, or a regular expression",
        ) from None
    if pattern.match(""):
        raise UsageError("text.separator", f"--split-documents {visible(split, 40)!r}: matches the empty string")
    return pattern


def split_document(whole: Document, split: str) -> Iterator[Document]:
    """Yield the non-empty pieces of a document between separators, with their line and byte offset."""
    position, line, byte_offset = 0, whole.line, whole.byte_offset
    pattern = separator_pattern(split)
    bounds = [(match.start(), match.end()) for match in pattern.finditer(whole.text)]
    for start, stop in [*bounds, (len(whole.text), len(whole.text))]:
        piece = whole.text[position:start]
        if piece:
            yield replace(whole, text=piece, line=line, byte_offset=byte_offset)
        passed = whole.text[position:stop]
        line += passed.count("\n")
        byte_offset += len(passed.encode())
        position = stop


def parse_record(line: str, name: str, source: str, number: int, newlines: str) -> Document:
    """Return the document of one JSONL line; its other fields are kept as JSON.

    Raises:
        TextError: not a JSON object, or without a string in the field `name`.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TextError("text.bad_record", f"{source}: line {number} is not JSON: {visible(str(error), 80)}") from None
    if not isinstance(record, dict) or not isinstance(record.get(name), str):
        fields = ", ".join(visible(key, 20) for key in record) if isinstance(record, dict) else type(record).__name__
        raise TextError(
            "text.no_field",
            f"{source}: line {number} has no text in the field {visible(name, 40)!r} (found: {visible(fields, 120)})",
            hint="name the field that holds the text with --text-field",
        )
    text = record.pop(name)
    if newlines == "lf":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            "text.surrogate", f"{source}: line {number} holds half a surrogate pair at character {error.start}"
        ) from None
    return Document(text, source, number, -1, json.dumps(record, ensure_ascii=True, sort_keys=True))


class Fingerprint:
    """A running sha256 over documents and their fields, length first: no two splits of a text collide."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, document: Document) -> None:
        """Add the next document."""
        for part in (document.text, document.fields or ""):
            data = part.encode()
            self._digest.update(len(data).to_bytes(8, "little"))
            self._digest.update(data)

    def hexdigest(self) -> str:
        """Return the sha256 so far."""
        return self._digest.hexdigest()


def fingerprint(source: Source) -> str:
    """Return the sha256 of all documents of a source, as they will be scored."""
    running = Fingerprint()
    for document in source.documents():
        running.add(document)
    return running.hexdigest()
