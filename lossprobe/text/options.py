"""The options that say how files become documents."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.options.declare import option
from lossprobe.options.kinds import Choice, Flag, Number, Text


@dataclass(frozen=True)
class TextOptions:
    """How files become documents.

    Attributes:
        split_documents: separator between the documents of a file: "blank-line", "line" or a regular expression; None
            makes each file one document. Separators belong to no document (a notice has their bytes), and empty
            documents are dropped.
        text_field: field of a JSON record that holds its text, one record a line in every file. None reads "text" of
            `.jsonl` and `.ndjson` files, and other files as plain text.
        newlines: "keep", or "lf" to turn CRLF and CR into LF (before files are split).
        max_bytes: refuse a text with more bytes (decompressed, all files together).
        follow_links: follow links in a folder of texts that lead out of it.
    """

    split_documents: str | None = option(
        None, Text(), "Separator at which files are split into documents.", metavar="blank-line|line|REGEX"
    )
    text_field: str | None = option(
        None, Text(), "Field of a JSON record that holds the text.  [default: text, for .jsonl]", metavar="NAME"
    )
    newlines: str = option("keep", Choice(("keep", "lf")), "Keep line ends, or turn CRLF and CR into LF.")
    max_bytes: int = option(
        1 << 31, Number(1, 1 << 40, whole=True), "Refuse a text with more bytes.", in_audit_file=False
    )
    follow_links: bool = option(False, Flag(), "Follow links in a folder of texts that lead out of it.")
