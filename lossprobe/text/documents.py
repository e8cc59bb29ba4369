"""Reads documents from text files, folders, JSON records, Parquet, standard input and .gz files, as strict UTF-8.

A `TextSource` can be read more than once and holds at most one file (of a JSONL, one record) in memory. A removed
byte-order mark and other oddities are reported as notices.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lossprobe.arguments import as_paths, as_strings
from lossprobe.errors import BadTextError, TextError, UsageError
from lossprobe.objects.address import address_of
from lossprobe.options.kinds import BadValueError
from lossprobe.text.decoding import BOM, decode
from lossprobe.text.examples import DataKind, Example
from lossprobe.text.faults import Faults
from lossprobe.text.files import STDIN, Budget, TextFile, find_files
from lossprobe.text.options import TextOptions
from lossprobe.text.record_files import MARKUP, RecordLayout, oddity, raw_records, record_layout
from lossprobe.text.record_reader import RecordReader, asked_kind
from lossprobe.text.records import refuse_surrogates
from lossprobe.text.selection import Selection
from lossprobe.text.spans import Span
from lossprobe.text.splitting import LineEnds, separator_pattern, split_text, with_lf
from lossprobe.units import plural, visible


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
        example: what a record of a conversation, a completion or a pair holds; such a document has no text until a
            checkpoint's template makes one (`passes.rendered`). None for plain text.
        spans: the parts of a rendered document, which tile its text; () for plain text.
    """

    text: str
    source: str
    line: int
    byte_offset: int
    fields: str | None = None
    example: Example | None = None
    spans: tuple[Span, ...] = ()

    def scorable(self) -> str:
        """Return the text, which is to be scored.

        Raises:
            TextError: it holds an example that no chat template has made a text of.
        """
        if self.example is not None and not self.spans:
            where = f"{self.source}: line {self.line}"
            raise TextError("text.not_rendered", f"{where} has no text as long as no chat template has rendered it")
        return self.text


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

    kind = DataKind.TEXT

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
    _kind: DataKind | None = field(default=None, init=False, repr=False)

    @property
    def kind(self) -> DataKind:
        """What the records hold; where no option says it, the text is read up to its first record.

        Raises:
            TextError: the text holds nothing that can be read.
        """
        kind = self._kind or asked_kind(self.options)
        if kind is None:
            next(self.documents(), None)
        return kind or self._kind or DataKind.TEXT

    @property
    def skips_bad(self) -> bool:
        """Whether bad records and files are left out."""
        return self.options.skip_bad

    def documents(self) -> Iterator[Document]:
        """Read the files again and yield every document in order.

        Raises:
            BadTextError: files or records cannot be read (not UTF-8, binary, damaged, malformed); raised after the
                last document, for all of them together. With `skip_bad` they are left out instead.
            TextError: the text has more than `max_bytes`.
        """
        budget = Budget(self.options.max_bytes)
        faults, separators, read, reader = Faults(), 0, 0, RecordReader(self.options)
        asked = self.options.text_field is not None or reader.kind not in (None, DataKind.TEXT)
        layouts = [record_layout(file, self.options.max_bytes, asked=asked) for file in self.files]
        self._tell_of_markup([file for file, layout in zip(self.files, layouts, strict=True) if layout is None])
        for file, layout in zip(self.files, layouts, strict=True):
            documents = self._documents_of(file, layout, budget, faults, reader)
            try:
                while True:
                    document = next(documents)
                    self._kind = reader.kind
                    yield document
                    read += 1
            except StopIteration as end:
                separators += end.value
            except BadTextError as fault:
                faults.add(fault, "file", file.shown)
        if separators:
            self._notice(f"{self.name}: {plural(separators, 'byte')} of separators belong to no document")
        for line in reader.notices(self.files[0].shown if len(self.files) == 1 else self.name):
            self._notice(line)
        self._tell_of(faults, read)

    def _documents_of(
        self, file: TextFile, layout: RecordLayout | None, budget: Budget, faults: Faults, reader: RecordReader
    ) -> Generator[Document, None, int]:
        """Yield the documents of one file; return the bytes that lie between them."""
        if layout is not None:
            yield from self._records(file, layout, budget, faults, reader)
            return 0
        reader.see_plain(file.shown)
        if self.options.split_documents is not None:
            return (yield from self._pieces(file, budget))
        text, first_byte = self._text(file, budget)
        if odd := oddity(text, file):
            self._notice(f"{file.shown}: {odd}")
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

    def _records(
        self, file: TextFile, layout: RecordLayout, budget: Budget, faults: Faults, reader: RecordReader
    ) -> Iterator[Document]:
        for number, where, value in raw_records(file, layout, budget, faults, self._notice):
            try:
                record = reader.read(value, where)
            except BadTextError as fault:
                faults.add(fault, "record", file.shown)
                continue
            yield Document(record.text, file.shown, number, -1, record.fields, record.example)


def open_text(paths: Path | str | Sequence[Path | str], options: TextOptions | None = None) -> TextSource:
    """Return a source of the files at `paths`, without reading them yet.

    Args:
        paths: files, folders (every file below, sorted), addresses s3://BUCKET/KEY of either, or "-" for standard
            input; one or several.
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
    if options.text_field is not None and asked_kind(options) is not DataKind.TEXT:
        kind = options.data_kind
        raise UsageError("text.field_and_kind", f"`text_field` is for plain text, not for `data_kind` {kind}")
    notices: list[str] = []
    selection = Selection(options.include, options.exclude)
    files = [
        file
        for path in chosen
        for file in find_files(path, options.max_bytes, selection, follow_links=options.follow_links, notices=notices)
    ]
    if selection != Selection() and not any(path.is_dir() or address_of(path) for path in chosen):
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
