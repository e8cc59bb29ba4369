"""Decodes the bytes of a text file, strictly as UTF-8."""

from __future__ import annotations

from collections.abc import Callable

from lossprobe.errors import BadTextError
from lossprobe.units import plural

NUL_SHARE_OF_BINARY = 0.01
BOM = b"\xef\xbb\xbf"  # the byte-order mark in UTF-8


def decode(data: bytes, shown: str, notice: Callable[[str], None], line: int = 1, offset: int = 0) -> str:
    """Return bytes of a file as text.

    Args:
        data: the bytes.
        shown: name of the file in messages.
        notice: called with a line about a byte-order mark that was removed, or NUL bytes.
        line: line of the file on which the bytes start, from 1.
        offset: offset of the bytes in the file.

    Raises:
        BadTextError: the bytes are not UTF-8 (the message has byte offset and line), or look binary.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadTextError(
            "text.utf16", f"{shown}: looks like UTF-16 (byte-order mark 0x{data[:2].hex()})",
            hint="convert it to UTF-8 first, for instance with iconv -f UTF-16 -t UTF-8",
        )  # fmt: skip
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        place = f"offset {offset + error.start} (line {line})"
        byte = f"byte 0x{data[error.start]:02x} at {place}"
        raise BadTextError("text.not_utf8", f"{shown}: {byte} is not valid UTF-8: {error.reason}") from None
    if data.startswith(BOM):
        notice(f"{shown}: byte-order mark removed")
        text = text[1:]
    nuls = text.count("\0")
    if nuls > NUL_SHARE_OF_BINARY * len(text):
        raise BadTextError(
            "text.binary", f"{shown}: looks binary ({plural(nuls, 'NUL byte')} in {plural(len(text), 'character')})"
        )
    if nuls:
        notice(f"{shown}: {plural(nuls, 'NUL byte')} in the text")
    return text
