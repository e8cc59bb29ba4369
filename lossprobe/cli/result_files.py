"""The options that name files for results, and what a name of such a file ends in."""

from __future__ import annotations

from lossprobe.errors import UsageError

SUFFIXES = {"--csv": (".csv",), "--plot": (".png", ".svg", ".pdf")}
DEFAULT_FILE = "\0default"  # means a file named after the command; no real file name contains a NUL


def file_name(given: str | None, command: str, suffix: str) -> str | None:
    """Return the file of `--csv` or `--plot`: the one given, or one named after the command; None without the option.

    Raises:
        UsageError: the name is empty.
    """
    if given == "":
        raise UsageError("output.name", f"--{suffix.strip('.')}: the file name is empty")
    return f"{command}{suffix}" if given == DEFAULT_FILE else given
