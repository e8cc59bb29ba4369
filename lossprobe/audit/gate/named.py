"""Says of a model, text or log that is refused where the audit file names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lossprobe.audit.config.document import PYPROJECT, SECTION
from lossprobe.audit.settings import AuditSettings, CurveSettings, DataSettings, ModelSettings
from lossprobe.errors import LossprobeError
from lossprobe.units import visible

LONGEST = 200  # characters of a path in a message


@contextmanager
def naming(settings: AuditSettings, table: str, values: ModelSettings | DataSettings | CurveSettings) -> Iterator[None]:
    """Begin the messages about the inputs of a table with the place in the audit file that names the input.

    An audit has several models and texts, and a path alone does not say which of them is missing. Where an option or
    an environment variable names the input, it stands for the place.

    Args:
        settings: the audit file.
        table: name of the table, such as "reference" or "data.heldout".
        values: the table.

    Raises:
        LossprobeError: the one from inside.
    """
    try:
        yield
    except LossprobeError as error:
        paths = {key: value for key, value in vars(values).items() if isinstance(value, Path)}
        about = [key for key, path in paths.items() if _is_about(error.message, path)]
        if about:
            error.put_before(_place(settings, table, max(about, key=lambda key: len(str(paths[key])))))
        raise


def _is_about(message: str, path: Path) -> bool:
    """Return whether a message begins with a path, or with that of a file in it."""
    shown = visible(str(path), LONGEST)
    return message.startswith(shown) and message[len(shown) : len(shown) + 1] in (":", "/", "\\")


def _place(settings: AuditSettings, table: str, key: str) -> str:
    """Return the file, line, key and table; or the option or environment variable that replaces the value."""
    origin = settings.origins.get(f"{table}.{key}", "")
    start = f"{visible(settings.file.name, 100)} line "
    if origin and not origin.startswith(start):
        return origin
    section = ".".join((*(SECTION if settings.file.name == PYPROJECT else ()), table))
    line = f"line {origin.removeprefix(start)}: " if origin else ""
    return f"{visible(str(settings.file), LONGEST)}: {line}{key} in [{section}]"
