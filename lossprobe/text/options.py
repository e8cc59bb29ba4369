"""The options that say how files become documents."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.options.declare import option
from lossprobe.options.kinds import Choice, Flag, Number, Text, Words
from lossprobe.text.examples import DataKind
from lossprobe.text.kinds import AUTO


@dataclass(frozen=True)
class TextOptions:
    """How files become documents.

    Attributes:
        split_documents: separator between the documents of a file: "blank-line", "line" or a regular expression; None
            makes each file one document. Separators belong to no document (a notice has their bytes), and empty
            documents are dropped.
        text_field: field of a JSON record that holds its text, with dots into objects ("data.text"); every file is then
            read as records, one a line or in one array. None reads "text" of `.jsonl` and `.ndjson` files and of
            `.json` files that hold records, and other files as plain text.
        data_kind: what the records hold: "text", "chat" (conversations), "completion" (prompts with completions) or
            "pairs" (chosen and rejected), and every file is then read as records, but with "text" only those that would
            be anyway; "auto" for what the keys of the first record say (with `text_field` for plain text).
        newlines: "keep", or "lf" to turn CRLF and CR into LF (before files are split).
        max_bytes: refuse a text with more bytes (decompressed, all files together).
        skip_bad: leave out files and records that cannot be read, and count them.
        include: patterns of the files of a folder that are read; none reads all files.
        exclude: patterns of the files of a folder that are not read.
        follow_links: follow links in a folder of texts that lead out of it.
    """

    split_documents: str | None = option(
        None, Text(), "Separator at which files are split into documents.", metavar="blank-line|line|REGEX"
    )
    text_field: str | None = option(
        None, Text(), "Field of a JSON record that holds the text, as in data.text.  [default: text]", metavar="NAME"
    )
    data_kind: str = option(
        AUTO,
        Choice((AUTO, *(kind.value for kind in DataKind))),
        "What the records hold; auto: what the keys of the first one say.",
    )
    newlines: str = option("keep", Choice(("keep", "lf")), "Keep line ends, or turn CRLF and CR into LF.")
    max_bytes: int = option(
        1 << 31, Number(1, 1 << 40, whole=True), "Refuse a text with more bytes.", in_audit_file=False
    )
    skip_bad: bool = option(False, Flag(), "Leave out files and records that cannot be read, and count them.")
    include: tuple[str, ...] = option(
        (), Words(), "Read only the files of a folder that match; may be repeated.", metavar="PATTERN"
    )
    exclude: tuple[str, ...] = option(
        (), Words(), "Leave out the files of a folder that match; may be repeated.", metavar="PATTERN"
    )
    follow_links: bool = option(False, Flag(), "Follow links in a folder of texts that lead out of it.")
