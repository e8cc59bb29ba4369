"""Lists every setting of an audit with the origin of its value, for `--print-config`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lossprobe.audit.settings import AuditSettings
from lossprobe.units import visible

COLUMNS = ("key", "value", "origin")
ATTRIBUTES = {"class": "token_class"}
NO_VALUE = {"eval.context": "the model's limit", "eval.batch_size": "auto"}  # meaning of settings without a value


def settings_table(settings: AuditSettings) -> pd.DataFrame:
    """Return one row per setting, in the order of the file's tables, with the text columns `key`, `value` and `origin`.

    A value is written as in TOML without quotes, "" for a setting without one. All text is safe to print.
    """
    tables: dict[str, object] = {
        "model": settings.model, "reference": settings.reference, "eval": settings.windows,
        "baseline": settings.baseline, "stats": settings.stats, "curve": settings.curve,
        **{f"data.{text.name}": text for text in settings.data},
        **{f"check.{check.id}": check for check in settings.checks},
    }  # fmt: skip
    rows = [(key, _spelled(key, _value(tables, key)), origin) for key, origin in settings.origins.items()]
    return pd.DataFrame([tuple(map(visible, row)) for row in rows], columns=list(COLUMNS), dtype=str)


def _value(tables: dict[str, object], key: str) -> object:
    table, _, name = key.rpartition(".")
    settings = tables[table]
    limit = getattr(settings, "limit", None)
    if limit is not None and limit.kind == name:
        return limit.value
    return getattr(settings, ATTRIBUTES.get(name, name))


def _spelled(key: str, value: object) -> str:
    if value is None:
        return NO_VALUE.get(key, "")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ",".join(f"{name}={held}" for name, held in value.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, str | int | float | Path) else ""
