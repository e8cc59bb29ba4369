"""Finds the line of each key in a TOML document, which `tomllib` does not give."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

KeyPath = tuple[str | int, ...]
MAX_DEPTH = 16  # deeper keys get no line; those of audit files have at most 5 steps

# All quantifiers of strings are possessive, so that no text makes the pattern backtrack. A string without an end (which
# is not TOML) is one token. Three quotes end a long string, and up to two quotes before them belong to it.
TOKEN = re.compile(
    r"""
    (?P<blank>[ \t]+|\#[^\n]*)
    |(?P<newline>\n)
    |(?P<string>"{3}[^"\\]*+(?:(?:\\[\s\S]|"{1,2}(?!"))[^"\\]*+)*+(?:"{3,5})?
        |'{3}[^']*+(?:'{1,2}(?!')[^']*+)*+(?:'{3,5})?
        |"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"?
        |'[^'\n]*+'?)
    |(?P<sign>[\[\]{}=,.])
    |(?P<word>[^\s"'\#\[\]{}=,.]+)
    |(?P<other>[\s\S])
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    """A lexical token of TOML: its kind (a group of `TOKEN`), its text, and the line on which it starts, from 1."""

    kind: str
    text: str
    line: int


def key_lines(text: str) -> dict[KeyPath, int]:
    r"""Return the line, from 1, of every key of a document that `tomllib` accepts.

    A key is a path from the root of names, and of indices for tables in arrays. A table has the line of its header, or
    without one the line on which it is first mentioned. Paths of more than `MAX_DEPTH` steps are left out.

    >>> key_lines('a.b = 1 # [no]\n[[check]]\nid = "x"\n[[check]]\nid = "y"')[("check", 1, "id")]
    5
    """
    scanner = _Scanner(tokens(text))
    for token in scanner.tokens:
        if token.text == "[":
            scanner.read_header()
        elif token.kind in ("word", "string"):
            scanner.read_value(scanner.read_pair_key(scanner.header, token))
    return scanner.lines


def longest_key(text: str) -> int:
    r"""Return the number of parts of the longest dotted key (or number) outside strings and comments.

    Call it before `tomllib`, whose memory grows with the square of this number.

    >>> longest_key('[a.b.c]\nd = "1.2.3.4.5" # e.f.g.h'), longest_key("")
    (3, 0)
    """
    longest = parts = 0
    for token in tokens(text):
        if token.kind in ("word", "string"):
            parts += 1
            longest = max(longest, parts)
        elif token.text != ".":
            parts = 0
    return longest


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a document without blanks and comments; text that is not TOML gives tokens too."""
    line = 1
    for match in TOKEN.finditer(text):
        if match.lastgroup != "blank":
            yield Token(str(match.lastgroup), match[0], line)
        line += match[0].count("\n")


@dataclass
class _Open:
    """An array or inline table whose end is not read yet: its path, and the index of the element (None in a table)."""

    path: KeyPath
    index: int | None


@dataclass
class _Scanner:
    """Reads the tokens of a document once. It does not recurse, because a document may be nested very deeply.

    Attributes:
        tokens: the tokens not read yet.
        lines: key path → line, for the keys read so far.
        arrays: path of an array of tables → its last index.
        header: path of the table to which keys belong now.
    """

    tokens: Iterator[Token]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    arrays: dict[KeyPath, int] = field(default_factory=dict)
    header: KeyPath = ()

    def read_header(self) -> None:
        """Read the rest of a header, after its first bracket."""
        first = next(self.tokens, None)
        if first is None:
            return
        in_array = first.text == "["
        start = next(self.tokens, first) if in_array else first
        path = self.read_key((), start)
        if in_array:
            self.arrays[path] = self.arrays.get(path, -1) + 1
            self._note(path, start.line, first=True)
            path = _below(path, self.arrays[path])
        self._note(path, start.line)
        self.header = path
        self._skip_line()

    def read_pair_key(self, base: KeyPath, first: Token) -> KeyPath:
        """Read the key of a value from its first part up to `=`, note its line, and return its path."""
        path = self.read_key(base, first)
        self._note(path, first.line)
        return path

    def read_key(self, base: KeyPath, first: Token) -> KeyPath:
        """Read a key from its first part up to `=` or `]`, note the lines of its parents, and return its path."""
        path = _below(base, _name(first))
        for token in self.tokens:
            if token.text in ("=", "]"):
                break
            if token.kind in ("word", "string"):
                self._note(path, first.line, first=True)
                if path in self.arrays:
                    path = _below(path, self.arrays[path])
                path = _below(path, _name(token))
        return path

    def read_value(self, here: KeyPath) -> None:
        """Read a value up to the end of its last line, with the keys of the inline tables in it."""
        opened: list[_Open] = []
        awaits_key = False
        for token in self.tokens:
            if token.kind == "newline" and not opened:
                return
            if awaits_key and token.kind in ("word", "string"):
                here = self.read_pair_key(opened[-1].path, token)
                awaits_key = False
            elif token.text in ("[", "{"):
                awaits_key = token.text == "{"
                if awaits_key and opened and opened[-1].index is not None:
                    self._note(here, token.line)
                opened.append(_Open(here, None if awaits_key else 0))
                here = here if awaits_key else _below(here, 0)
            elif opened and token.text in ("]", "}"):
                opened.pop()
                awaits_key = False
            elif opened and token.text == ",":
                here, awaits_key = _next(opened[-1])

    def _note(self, path: KeyPath, line: int, *, first: bool = False) -> None:
        """Store the line of a path; with `first`, only if the path has none yet."""
        if len(path) <= MAX_DEPTH:
            self.lines[path] = self.lines.get(path, line) if first else line

    def _skip_line(self) -> None:
        for token in self.tokens:
            if token.kind == "newline":
                return


def _next(opened: _Open) -> tuple[KeyPath, bool]:
    """Return the path of the next element after a comma, and whether a key comes next, as in an inline table."""
    if opened.index is None:
        return opened.path, True
    opened.index += 1
    return _below(opened.path, opened.index), False


def _below(path: KeyPath, step: str | int) -> KeyPath:
    return path if len(path) > MAX_DEPTH else (*path, step)  # bounded, because a key may have thousands of parts


def _name(token: Token) -> str:
    if token.kind != "string":
        return token.text
    try:
        name = tomllib.loads(f"name = {token.text}")["name"]
    except tomllib.TOMLDecodeError:  # the document is not TOML
        return token.text
    return str(name)
