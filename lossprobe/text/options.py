"""How files become documents, as a user says it."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.options.declare import option
from lossprobe.options.kinds import Choice, Flag, Number, Text


@dataclass(frozen=True)
class TextOptions:
    """How files become documents.

    Attributes:
        split_documents: "blank-line", "line" or a regular expression of the separators; None leaves a file
            whole. Separators belong to no document and their bytes are noted; empty documents are dropped.
        text_field: the field of a JSONL record that holds its text; None reads "text" of `.jsonl` files
            and everything else as plain text.
        newlines: "keep", or "lf" to turn CRLF and CR into LF (before separators are looked for).
        max_bytes: refuse more input than this (decompressed, all files together).
        follow_links: read also what links in a folder lead to outside of it.
    """

    split_documents: str | None = option(
        None, Text(), "Cut files into documents here.", metavar="blank-line|line|REGEX"
    )
    text_field: str | None = option(None, Text(), "Text field of a JSONL.  [default: text, for .jsonl]", metavar="NAME")
    newlines: str = option("keep", Choice(("keep", "lf")), "lf: CRLF and CR to LF.")
    max_bytes: int = option(1 << 31, Number(1, 1 << 40, whole=True), "Refuse longer texts.", in_audit_file=False)
    follow_links: bool = option(False, Flag(), "Read also what links in a folder of texts lead to outside it.")
