"""Replaces values of an audit file by those of options and environment variables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossprobe.audit.config.document import AuditFile
from lossprobe.audit.config.schema import ALL_KEYS, NAME, TABLES
from lossprobe.audit.config.toml_lines import KeyPath
from lossprobe.errors import UsageError
from lossprobe.options.kinds import nearest

OPTION_KEYS = {  # option of the commands, environment variables and pytest fixture → its key in the audit file
    "checkpoint": "model.checkpoint",
    "tokenizer": "model.tokenizer",
    "device": "model.device",
    "dtype": "model.dtype",
    "baseline": "baseline.path",
    "seed": "stats.seed",
    "stop_early": "stats.stop_early",
}


@dataclass(frozen=True)
class Override:
    """A value that replaces a value of the file.

    Attributes:
        key: dotted key, such as "model.dtype", "data.heldout.path" or "check.no-regression.max_increase".
        value: the new value in the key's type or as text; a path is relative to the working folder.
        origin: the option or environment variable, such as "--dtype" or "LOSSPROBE_AUDIT_DTYPE".
    """

    key: str
    value: Any
    origin: str


def apply_overrides(document: AuditFile, overrides: Sequence[Override]) -> None:
    """Replace values in a document, in place; of several overrides of a key the last one counts.

    `base` and `merge` of the file are about its adapter, and go where a checkpoint that is none takes its place: so the
    baseline of an adapter is made from its base by the same file.

    Args:
        document: the audit file, checked by `tables.check_shape`.
        overrides: the new values.

    Raises:
        UsageError: an override of an unknown key or check.
    """
    for override in overrides:
        path, name = _place(document, override)
        table: Any = document.content
        for step in path:
            table = table[step] if isinstance(step, int) else table.setdefault(step, {})
        kind = ALL_KEYS[str(path[0])][name]
        value = override.value
        table[name] = kind.from_text(value) if isinstance(value, str) else value
        document.overridden[(*path, name)] = override.origin
    model: Any = document.content.get("model", {})
    of_adapter = {"base", "merge"} & model.keys()
    if ("model", "checkpoint") in document.overridden and of_adapter:
        from lossprobe.checkpoint.adapters.folder import is_adapter  # loads torch, which few audits need here

        for key in of_adapter if not is_adapter(Path(str(model["checkpoint"]))) else ():
            if ("model", key) not in document.overridden:
                del model[key]


def _place(document: AuditFile, override: Override) -> tuple[KeyPath, str]:
    """Return the path of the table that an override changes, and the key in it."""
    head, _, rest = override.key.partition(".")
    entry, _, name = rest.rpartition(".")
    keys = ALL_KEYS.get(head, {})
    path: KeyPath | None = None
    if name in keys:
        if head in TABLES and not entry:
            path = (head,)
        elif head == "data" and re.fullmatch(NAME.pattern, entry):
            path = (head, entry)
        elif head == "check":
            ids = [check.get("id") for check in document.content.get("check", [])]
            path = (head, ids.index(entry)) if entry in ids else None
    if path is None:
        raise _unknown(document, override, name)
    return path, name


def _unknown(document: AuditFile, override: Override, name: str) -> UsageError:
    keys = ALL_KEYS.get(override.key.partition(".")[0], {})
    document.overridden[(override.key,)] = override.origin
    return document.error(
        "unknown_key",
        (override.key,),
        f"unknown key {override.key}",
        hint=None if name in keys else nearest(name, keys),
    )
