"""Reads documents from text files, folders, JSONL, standard input and .gz files, as strict UTF-8.

A `TextSource` can be read more than once and holds at most one file (of a JSONL, one record) in memory. A removed
byte-order mark and other oddities are reported as notices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lossprobe.errors import TextError, UsageError
from lossprobe.options.kinds import BadValueError
from lossprobe.text.counts import slices
from lossprobe.text.files import STDIN, Budget, TextFile, find_files
from lossprobe.text.options import TextOptions
from lossprobe.text.records import parse_record, refuse_surrogates
from lossprobe.text.splitting import LineEnds, separator_pattern, split_text, with_lf
from lossprobe.units import format_count, plural, visible

NUL_SHARE_OF_BINARY = 0.01
BOM = "\ufeff"
MARKUP = (".json", ".csv", ".tsv")  # formats that are rarely meant to be scored with their markup
SHOWN_LINES = 5


@dataclass(frozen=True)
class Document:
    """One document: a window never crosses its edges, and confidence intervals resample whole documents.

    Attributes:
        text: the document.
        source: the file that it came from, "-" for standard input.
        line: line of the file on which it starts, from 1.
        byte_offset: offset of its first byte in the (decompressed) file; -1 for a JSONL record, whose text is escaped
            in the file.
        fields: the other fields of a JSONL record, as a JSON object; None for other files.
    """

    text: str
    source: str
    line: int
    byte_offset: int
    fields: str | None = None


class Source(Protocol):
    """A text that yields the same documents each time it is read.

    Attributes:
        name: short name for headings and run directories.
        notices: one line for each thing that was changed or looked odd; filled while reading.
    """

    name: str
    notices: list[str]

    def documents(self) -> Iterator[Document]:
        """Yield every document in order."""
        ...


@dataclass
class StringSource:
    """A `Source` of strings in memory, for use from Python. Each string is one document.

    Attributes:
        texts: the strings.
        name: short name for headings and run directories.
        notices: empty; a string is never changed.
    """

    texts: Sequence[str]
    name: str = "strings"
    notices: list[str] = field(default_factory=list)

    def documents(self) -> Iterator[Document]:
        """Yield every string as a document.

        Raises:
            TextError: a string contains half a surrogate pair, which UTF-8 cannot encode.
        """
        for number, text in enumerate(self.texts, start=1):
            refuse_surrogates(text, f"{self.name}: string {number}")
            yield Document(text, self.name, 1, 0)


@dataclass
class TextSource:
    """A `Source` of files, read in a stable order.

    Attributes:
        name: short name for headings and run directories.
        files: the files, in order.
        options: how files become documents.
        notices: one line for each thing that was changed or looked odd; filled while reading.
    """

    name: str
    files: list[TextFile]
    options: TextOptions
    notices: list[str] = field(default_factory=list)

    def documents(self) -> Iterator[Document]:
        """Read the files again and yield every document in order.

        Raises:
            TextError: a file is not UTF-8 (the message has byte offset and line), binary or damaged, the text has more
                than `max_bytes`, or a JSONL record is malformed.
        """
        budget = Budget(self.options.max_bytes)
        separators = 0
        self._tell_of_markup()
        for file in self.files:
            if self.options.text_field is not None or file.is_jsonl:
                yield from self._records(file, budget)
            elif self.options.split_documents is None:
                text, first_byte = self._text(file, budget)
                if text.isspace():
                    self._notice(f"{file.shown}: nothing but white space")
                yield Document(self._line_ends(text), file.shown, 1, first_byte)
            else:
                separators += yield from self._pieces(file, budget)
        if separators:
            self._notice(f"{self.name}: {plural(separators, 'byte')} of separators belong to no document")

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)

    def _tell_of_markup(self) -> None:
        """Add a notice for files whose names say JSON, CSV or TSV, since they are scored with brackets and quotes."""
        files = [file for file in self.files if file.name.lower().removesuffix(".gz").endswith(MARKUP)]
        if files and self.options.text_field is None:
            others = f" and {plural(len(files) - 1, 'other file')}" if len(files) > 1 else ""
            self._notice(
                f"{files[0].shown}{others}: scored as plain text, with brackets, keys and quotes; "
                "`text_field` NAME reads one JSON record a line"
            )

    def _line_ends(self, text: str) -> str:
        return with_lf(text) if self.options.newlines == "lf" else text

    def _text(self, file: TextFile, budget: Budget) -> tuple[str, int]:
        """Return the text of a whole file, and the byte offset of its start: 3 after a byte-order mark, else 0."""
        data = file.read(budget)
        text = self._decode(file.shown, data)
        return text, 3 if data.startswith(BOM.encode()) else 0

    def _pieces(self, file: TextFile, budget: Budget) -> Generator[Document, None, int]:
        """Yield the documents of a file that is split at separators; return the number of bytes in separators."""
        assert self.options.split_documents is not None
        text, first_byte = self._text(file, budget)
        ends = LineEnds.of(text) if self.options.newlines == "lf" else None
        text = self._line_ends(text)
        size = len(text.encode())
        for piece in split_text(text, self.options.split_documents):
            size -= len(piece.text.encode())
            offset = piece.byte_offset if ends is None else ends.original(piece.byte_offset)
            yield Document(piece.text, file.shown, piece.line, first_byte + offset)
        return size

    def _records(self, file: TextFile, budget: Budget) -> Iterator[Document]:
        name = self.options.text_field or "text"
        start = 0
        repeated: list[int] = []
        for number, data in enumerate(file.lines(budget), start=1):
            if data.strip():
                line = self._decode(file.shown, data, number, start)
                text, fields, repeats = parse_record(line, name, f"{file.shown}: line {number}")
                if repeats:
                    repeated.append(number)
                yield Document(self._line_ends(text), file.shown, number, -1, fields)
            start += len(data)
        if repeated:
            lines = ", ".join(map(format_count, repeated[:SHOWN_LINES])) + (
                ", …" if len(repeated) > SHOWN_LINES else ""
            )
            records = plural(len(repeated), "record")
            self._notice(f"{file.shown}: {records} with the same key twice, where the last value counts (line {lines})")

    def _decode(self, shown: str, data: bytes, first_line: int = 1, first_byte: int = 0) -> str:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise TextError(
                "text.utf16", f"{shown}: looks like UTF-16 (byte-order mark 0x{data[:2].hex()})",
                hint="convert it to UTF-8 first, for instance with iconv -f UTF-16 -t UTF-8",
            )  # fmt: skip
        try:
            text = data.decode("utf-8", "strict")
        except UnicodeDecodeError as error:
            line = first_line + data.count(b"\n", 0, error.start)
            byte = f"byte 0x{data[error.start]:02x} at offset {first_byte + error.start} (line {line})"
            raise TextError("text.not_utf8", f"{shown}: {byte} is not valid UTF-8: {error.reason}") from None
        if text.startswith(BOM):
            self._notice(f"{shown}: byte-order mark removed")
            text = text[1:]
        nuls = text.count("\0")
        if nuls > NUL_SHARE_OF_BINARY * len(text):
            raise TextError(
                "text.binary",
                f"{shown}: looks binary ({plural(nuls, 'NUL byte')} in {plural(len(text), 'character')})",
            )
        if nuls:
            self._notice(f"{shown}: {plural(nuls, 'NUL byte')} in the text")
        return text


def open_text(paths: Path | str | Sequence[Path | str], options: TextOptions | None = None) -> TextSource:
    """Return a source of the files at `paths`, without reading them yet.

    Args:
        paths: files, folders (every file below, sorted), or "-" for standard input; one or several.
        options: how files become documents; None for the defaults.

    Raises:
        UsageError: no path, a path that does not exist, an empty folder, a terminal, or a bad separator.
        TextError: a folder or pipe that cannot be read, or a pipe with more than `max_bytes`.
    """
    options = options or TextOptions()
    chosen = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if not chosen:
        raise UsageError("text.none", "no text was named")
    if options.split_documents is not None:
        _check_separator(options.split_documents)
    notices: list[str] = []
    files = [
        file
        for path in chosen
        for file in find_files(path, options.max_bytes, follow_links=options.follow_links, notices=notices)
    ]
    name = files[0].stem if len(files) == 1 else chosen[0].name or "text"
    notices += [
        f"{file.shown}: read once, into a temporary copy" for file in files if file.copied and file.name != STDIN
    ]
    return TextSource(visible(name, 40), files, options, notices)


def _check_separator(split: str) -> None:
    try:
        separator_pattern(split)
    except BadValueError as error:
        raise UsageError("text.separator", f"`split_documents` {error}") from None


class Fingerprint:
    """A running sha256 over documents and their fields.

    The length of each comes before its bytes, so that the same text split at other places has another hash.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, document: Document) -> None:
        """Add the next document."""
        for part in (document.text, document.fields or ""):
            size = sum(len(piece.encode()) for piece in slices(part))
            self._digest.update(size.to_bytes(8, "little"))
            for piece in slices(part):
                self._digest.update(piece.encode())

    def hexdigest(self) -> str:
        """Return the sha256 so far."""
        return self._digest.hexdigest()


def fingerprint(source: Source) -> str:
    """Return the sha256 of all documents of a source, as `Fingerprint` computes it."""
    running = Fingerprint()
    for document in source.documents():
        running.add(document)
    return running.hexdigest()
