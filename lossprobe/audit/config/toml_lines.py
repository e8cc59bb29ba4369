"""Which line each key of a TOML document stands on: `tomllib` reads the values and tells none."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

KeyPath = tuple[str | int, ...]
MAX_DEPTH = 16  # deeper keys have no line of their own; what audit files hold goes down to 5

# No text makes the matching try twice: it is possessive, and a string without an end is one piece (and no TOML).
# Three quotes end a long string, and up to two before them belong to it.
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
    """A piece of TOML: its kind (a group of `TOKEN`), its text, and the line on which it starts, from 1."""

    kind: str
    text: str
    line: int


def key_lines(text: str) -> dict[KeyPath, int]:
    r"""Return the line, from 1, of every key of a document that `tomllib` accepts.

    Keys are paths from the root: names, and indices of the tables in arrays. A table that no header names has the line
    on which it is first mentioned; one that a header names has that header's. Paths of more than `MAX_DEPTH` steps are
    left out.

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

    `tomllib` needs memory that grows with the square of it, so it is asked before.

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
    """Yield the pieces of a document but for blanks and comments; of one that is no TOML, some pieces."""
    line = 1
    for match in TOKEN.finditer(text):
        if match.lastgroup != "blank":
            yield Token(str(match.lastgroup), match[0], line)
        line += match[0].count("\n")


@dataclass
class _Open:
    """An array or inline table whose end has not come: its path, and the index of the element (None in a table)."""

    path: KeyPath
    index: int | None


@dataclass
class _Scanner:
    """One walk over a document; nothing in it recurses, since the document may be nested deeper than Python calls.

    Attributes:
        tokens: what is still to come.
        lines: what is known.
        arrays: the last index of each array of tables.
        header: path of the table that keys belong to.
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
        """Keep a line: the first one that was told of the path, or this one in its place."""
        if len(path) <= MAX_DEPTH:
            self.lines[path] = self.lines.get(path, line) if first else line

    def _skip_line(self) -> None:
        for token in self.tokens:
            if token.kind == "newline":
                return


def _next(opened: _Open) -> tuple[KeyPath, bool]:
    """Return, after a comma, the path of the next element, and whether a key comes instead of one."""
    if opened.index is None:
        return opened.path, True
    opened.index += 1
    return _below(opened.path, opened.index), False


def _below(path: KeyPath, step: str | int) -> KeyPath:
    return path if len(path) > MAX_DEPTH else (*path, step)  # bounded: a key may have thousands of parts


def _name(token: Token) -> str:
    if token.kind != "string":
        return token.text
    try:
        name = tomllib.loads(f"name = {token.text}")["name"]
    except tomllib.TOMLDecodeError:  # the document is none that tomllib accepts
        return token.text
    return str(name)
