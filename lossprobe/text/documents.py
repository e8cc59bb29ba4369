"""Reads documents from text files, folders, JSONL, standard input and .gz files, as strict UTF-8.

A `TextSource` can be read more than once and holds at most one file (of a JSONL, one record) in memory. A removed
byte-order mark and other oddities are reported as notices.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lossprobe.arguments import as_paths, as_strings
from lossprobe.errors import BadTextError, UsageError
from lossprobe.options.kinds import BadValueError
from lossprobe.text.decoding import BOM, decode
from lossprobe.text.faults import Faults
from lossprobe.text.files import STDIN, Budget, TextFile, find_files
from lossprobe.text.options import TextOptions
from lossprobe.text.record_files import RecordLayout, record_layout
from lossprobe.text.records import JsonRecord, read_array, read_line, refuse_surrogates, split_record
from lossprobe.text.selection import Selection
from lossprobe.text.splitting import LineEnds, separator_pattern, split_text, with_lf
from lossprobe.units import format_count, plural, visible

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

    def __post_init__(self) -> None:
        self.texts = as_strings("texts", self.texts)

    def documents(self) -> Iterator[Document]:
        """Yield every string as a document.

        Raises:
            BadTextError: a string contains half a surrogate pair, which UTF-8 cannot encode.
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
        skipped: number of bad records ("record") and files ("file") that the last reading left out.
    """

    name: str
    files: list[TextFile]
    options: TextOptions
    notices: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    def documents(self) -> Iterator[Document]:
        """Read the files again and yield every document in order.

        Raises:
            BadTextError: files or records cannot be read (not UTF-8, binary, damaged, malformed); raised after the
                last document, for all of them together. With `skip_bad` they are left out instead.
            TextError: the text has more than `max_bytes`.
        """
        budget = Budget(self.options.max_bytes)
        faults, separators, read = Faults(), 0, 0
        layouts = [
            record_layout(file, self.options.max_bytes, asked=self.options.text_field is not None)
            for file in self.files
        ]
        self._tell_of_markup([file for file, layout in zip(self.files, layouts, strict=True) if layout is None])
        for file, layout in zip(self.files, layouts, strict=True):
            documents = self._documents_of(file, layout, budget, faults)
            try:
                while True:
                    yield next(documents)
                    read += 1
            except StopIteration as end:
                separators += end.value
            except BadTextError as fault:
                faults.add(fault, "file", file.shown)
        if separators:
            self._notice(f"{self.name}: {plural(separators, 'byte')} of separators belong to no document")
        self._tell_of(faults, read)

    def _documents_of(
        self, file: TextFile, layout: RecordLayout | None, budget: Budget, faults: Faults
    ) -> Generator[Document, None, int]:
        """Yield the documents of one file; return the bytes that lie between them."""
        if layout is not None:
            yield from self._records(file, layout, budget, faults)
        elif self.options.split_documents is not None:
            return (yield from self._pieces(file, budget))
        else:
            text, first_byte = self._text(file, budget)
            if text.isspace():
                self._notice(f"{file.shown}: nothing but white space")
            yield Document(self._line_ends(text), file.shown, 1, first_byte)
        return 0

    def _tell_of(self, faults: Faults, read: int) -> None:
        """Refuse a text with bad files or records, or note that they are left out.

        Args:
            faults: what could not be read.
            read: documents that could.
        """
        if not faults.total:
            return
        if not self.options.skip_bad:
            raise faults.error(others=read > 0)
        self.skipped = dict(faults.counts)
        self._notice(f"{self.name}: {faults} left out; the first: {faults.first.message}")

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)

    def _tell_of_markup(self, plain: Sequence[TextFile]) -> None:
        """Add a notice for plain files named JSON, CSV or TSV, since they are scored with brackets and quotes."""
        files = [file for file in plain if file.name.lower().removesuffix(".gz").endswith(MARKUP)]
        if files:
            others = f" and {plural(len(files) - 1, 'other file')}" if len(files) > 1 else ""
            self._notice(
                f"{files[0].shown}{others}: scored as plain text, with brackets, keys and quotes; "
                "`text_field` NAME reads JSON records"
            )

    def _line_ends(self, text: str) -> str:
        return with_lf(text) if self.options.newlines == "lf" else text

    def _text(self, file: TextFile, budget: Budget) -> tuple[str, int]:
        """Return the text of a whole file, and the byte offset of its start: 3 after a byte-order mark, else 0."""
        data = file.read(budget)
        text = decode(data, file.shown, self._notice)
        return text, 3 if data.startswith(BOM) else 0

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

    def _records(self, file: TextFile, layout: RecordLayout, budget: Budget, faults: Faults) -> Iterator[Document]:
        name = self.options.text_field or "text"
        repeated: list[int] = []
        records = self._array(file, budget) if layout is RecordLayout.ARRAY else self._lines(file, budget, faults)
        for place, (number, record) in enumerate(records, start=1):
            where = f"record {place} (line {number})" if layout is RecordLayout.ARRAY else f"line {number}"
            try:
                text, fields = split_record(record.value, name, f"{file.shown}: {where}")
            except BadTextError as fault:
                faults.add(fault, "record", file.shown)
                continue
            if record.repeats:
                repeated.append(number)
            yield Document(self._line_ends(text), file.shown, number, -1, fields)
        if repeated:
            lines = ", ".join(map(format_count, repeated[:SHOWN_LINES])) + (
                ", …" if len(repeated) > SHOWN_LINES else ""
            )
            count = plural(len(repeated), "record")
            self._notice(f"{file.shown}: {count} with the same key twice, where the last value counts (line {lines})")

    def _array(self, file: TextFile, budget: Budget) -> Iterator[tuple[int, JsonRecord]]:
        text, _ = self._text(file, budget)
        yield from read_array(text, file.shown)

    def _lines(self, file: TextFile, budget: Budget, faults: Faults) -> Iterator[tuple[int, JsonRecord]]:
        start = 0
        for number, data in enumerate(file.lines(budget), start=1):
            if data.strip():
                try:
                    line = decode(data, file.shown, self._notice, number, start)
                    yield number, read_line(line, f"{file.shown}: line {number}")
                except BadTextError as fault:
                    faults.add(fault, "record", file.shown)
            start += len(data)


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
    chosen = as_paths("paths", paths)
    if not chosen:
        raise UsageError("text.none", "no text was named")
    if options.split_documents is not None:
        _check_separator(options.split_documents)
    notices: list[str] = []
    selection = Selection(options.include, options.exclude)
    files = [
        file
        for path in chosen
        for file in find_files(path, options.max_bytes, selection, follow_links=options.follow_links, notices=notices)
    ]
    if selection != Selection() and not any(path.is_dir() for path in chosen):
        notices.append("`include` and `exclude` choose files of a folder, and no text is one")
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
