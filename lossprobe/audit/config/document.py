"""Parses an audit file into its content and the line of each key, and words the errors about it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossprobe.audit.config.toml_lines import KeyPath, key_lines, longest_key
from lossprobe.errors import UsageError
from lossprobe.units import format_count, visible

MAX_FILE_BYTES = 64 << 10
MAX_KEY_PARTS = 32
PYPROJECT = "pyproject.toml"
SECTION = ("tool", "lossprobe")
INIT_HINT = "name one with `config`, or write one: lossprobe audit init CHECKPOINT TEXT"
PLACE = re.compile(
    r"(?P<reason>.*?)(?: \(at (?:line (?P<line>[0-9]+), column [0-9]+|(?P<end>end of document))\))?", re.DOTALL
)


@dataclass
class AuditFile:
    """The content of an audit file, or of `[tool.lossprobe]` in a pyproject.toml.

    Attributes:
        path: the file.
        content: its tables.
        lines: key path from the root of the file → its line, from 1.
        root: key path of `content` in the file.
        overridden: key path in `content` → name of the option or environment variable that replaced its value.
    """

    path: Path
    content: dict[str, Any]
    lines: Mapping[KeyPath, int]
    root: KeyPath = ()
    overridden: dict[KeyPath, str] = field(default_factory=dict)

    def line(self, *keys: str | int) -> int:
        """Return the line of a key, or of the table that would hold it; 0 if that has no line either."""
        path: KeyPath = (*self.root, *keys)
        return next((self.lines[path[:size]] for size in range(len(path), 0, -1) if path[:size] in self.lines), 0)

    def origin(self, *keys: str | int) -> str:
        """Return where a value came from: the option or environment variable, or the file and line."""
        return self.overridden.get(keys) or f"{visible(self.path.name, 100)} line {self.line(*keys)}"

    def named(self, *tables: str) -> str:
        """Return the name of a table as in its header, without brackets.

        >>> AuditFile(Path("pyproject.toml"), {}, {}, SECTION).named("data", "heldout")
        'tool.lossprobe.data.heldout'
        """
        return ".".join(str(part) for part in (*self.root, *tables))

    def error(self, id: str, keys: KeyPath, text: str, *, hint: str | None = None) -> UsageError:
        """Return the error that refuses a key: one line with file, line (or option) and reason."""
        line = self.line(*keys)
        return file_error(id, self.path, text, place=self.overridden.get(keys) or (line or None), hint=hint)


def file_error(
    id: str, path: Path, text: str, *, place: int | str | None = None, hint: str | None = None
) -> UsageError:
    """Return the error that refuses an audit file, in one line that is safe to print.

    Args:
        id: id of the error without "audit.".
        path: the file.
        text: the reason.
        place: a line, or the name of an option or environment variable; None for the whole file.
        hint: what to try, or None.
    """
    where = f"line {place}: " if isinstance(place, int) else f"{place}: " if place else ""
    message = visible(f"{visible(str(path), 200)}: {visible(where, 120)}{text}", 700)
    return UsageError(f"audit.{id}", message, hint=None if hint is None else visible(hint, 400))


def has_section(path: Path) -> bool:
    """Return whether a pyproject.toml has `[tool.lossprobe]`; errors are those of `read_document`."""
    return _section(_parse(path, _read_text(path))) is not None


def read_document(path: Path) -> AuditFile:
    """Return the content of an audit file, or of `[tool.lossprobe]` in a pyproject.toml.

    Raises:
        UsageError: the file cannot be read, has more than `MAX_FILE_BYTES`, is not UTF-8 or not TOML, is nested too
            deeply, or is a pyproject.toml without `[tool.lossprobe]`.
    """
    text = _read_text(path)
    content = _parse(path, text)
    if path.name != PYPROJECT:
        return AuditFile(path, content, key_lines(text))
    section = _section(content)
    if section is None:
        raise file_error("no_section", path, "has no [tool.lossprobe]", hint=INIT_HINT)
    if not isinstance(section, dict):
        raise AuditFile(path, {}, key_lines(text)).error("type", SECTION, "tool.lossprobe must be a table")
    return AuditFile(path, section, key_lines(text), SECTION)


def _section(content: dict[str, Any]) -> Any:
    tool = content.get("tool")
    return tool.get("lossprobe") if isinstance(tool, dict) else None


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)  # bounded, because a device such as /dev/zero has no end
    except FileNotFoundError:
        raise file_error("no_file", path, "does not exist", hint=INIT_HINT) from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise file_error("unreadable", path, f"cannot be read: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise file_error("too_large", path, f"larger than {format_count(MAX_FILE_BYTES)} bytes, the limit")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + len(data) - len(error.object)  # the decoder may have removed a byte-order mark
        text = f"byte 0x{data[start]:02x} is not UTF-8"
        raise file_error("not_utf8", path, text, place=data.count(b"\n", 0, start) + 1) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    if longest_key(text) > MAX_KEY_PARTS:
        raise file_error("nested", path, f"a key has more than {MAX_KEY_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise file_error("nested", path, "nested too deeply") from None
    except ValueError as error:  # a TOMLDecodeError, or a number with too many digits
        match = PLACE.fullmatch(str(error))
        assert match is not None, "the pattern matches every text"
        line = int(match["line"]) if match["line"] else text.count("\n") + 1 if match["end"] else None
        raise file_error("syntax", path, f"no valid TOML: {match['reason']}", place=line) from None
