"""Finds an audit file and reads its settings: `lossprobe.toml`, or `[tool.lossprobe]` of a pyproject.toml."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lossprobe.audit.config.check_table import read_check
from lossprobe.audit.config.document import INIT_HINT, PYPROJECT, AuditFile, file_error, has_section, read_document
from lossprobe.audit.config.overrides import Override, apply_overrides
from lossprobe.audit.config.schema import CHECK, DATA, LIMIT_KEYS, NAME, TABLES
from lossprobe.audit.config.tables import check_shape, header, read_table, table_origins
from lossprobe.audit.settings import (
    AuditSettings,
    BaselineSettings,
    Check,
    CurveSettings,
    DataSettings,
    ModelSettings,
    StatsSettings,
)
from lossprobe.options.kinds import BadValueError
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.splitting import separator_pattern
from lossprobe.units import visible

__all__ = ["Override", "find_config", "read_settings"]
CONFIG_NAME = "lossprobe.toml"


def find_config(folder: Path) -> Path:
    """Return the audit file of a folder: its lossprobe.toml, else its pyproject.toml if it has `[tool.lossprobe]`.

    Raises:
        UsageError: the folder has neither, or a pyproject.toml that cannot be read.
    """
    for name in (CONFIG_NAME, PYPROJECT):
        path = folder / name
        try:
            present = path.is_file()
        except OSError as error:
            raise file_error("unreadable", path, f"cannot be read: {error.strerror}") from None
        if present and (name == CONFIG_NAME or has_section(path)):
            return path
    text = f"holds no {CONFIG_NAME}, and no {PYPROJECT} with [tool.lossprobe]"
    raise file_error("no_file", folder, text, hint=INIT_HINT)


def read_settings(path: Path, overrides: Sequence[Override] = ()) -> AuditSettings:
    """Return the settings of an audit file, with some values replaced by those of options or environment variables.

    Only the audit file is read. Whether its checkpoint and texts exist is checked when they are opened.

    Args:
        path: the file; paths in it are relative to its folder.
        overrides: values that replace those of the file, later ones those before; their paths are relative to the
            working folder.

    Raises:
        UsageError: the file is not an audit file, has an unknown key or a value that its key cannot have, or settings
            do not go together; the message names file, line (or option) and key.
    """
    document = read_document(path)
    check_shape(document)
    apply_overrides(document, overrides)
    windows = ScoreOptions(**read_table(document, ("eval",)))
    _check_stride(document, windows)
    data = tuple(_read_data(document))
    baseline = BaselineSettings(**read_table(document, ("baseline",)))
    return AuditSettings(
        file=path,
        model=ModelSettings(**read_table(document, ("model",), required=("checkpoint",))),
        windows=windows,
        data=data,
        baseline=baseline,
        stats=StatsSettings(**read_table(document, ("stats",))),
        checks=_read_checks(document, tuple(text.name for text in data), baseline),
        curve=_read_curve(document),
        reference=_read_reference(document),
        origins=dict(_origins(document)),
    )


def _check_stride(document: AuditFile, windows: ScoreOptions) -> None:
    if windows.stride is not None and windows.context is not None and windows.stride > windows.context:
        text = f"stride = {windows.stride} in {header(document, ('eval',))}: more than the context, {windows.context}"
        raise document.error("value", ("eval", "stride"), text)


def _read_data(document: AuditFile) -> Iterator[DataSettings]:
    texts = document.content.get("data", {})
    if not texts:
        raise document.error("no_data", ("data",), f"no text: needs a table [{document.named('data', 'NAME')}]")
    for name in texts:
        keys = ("data", name)
        try:
            NAME.read(name)
        except BadValueError as error:
            raise document.error("value", keys, f'the name "{visible(name, 60)}" of a text {error}') from None
        values = read_table(document, keys, required=("path",))
        _check_separator(document, name, values.get("split_documents"))
        yield DataSettings(name=name, **values)


def _check_separator(document: AuditFile, name: str, split: str | None) -> None:
    if split is None:
        return
    keys = ("data", name, "split_documents")
    try:
        separator_pattern(split)
    except BadValueError as error:
        text = f"split_documents in {header(document, keys[:2])}: {error}"
        raise document.error("value", keys, text) from None


def _read_curve(document: AuditFile) -> CurveSettings | None:
    if "curve" not in document.content:
        return None
    return CurveSettings(**read_table(document, ("curve",), required=("log",)), line=document.line("curve"))


def _read_reference(document: AuditFile) -> ModelSettings | None:
    if "reference" not in document.content:
        return None
    return ModelSettings(**read_table(document, ("reference",), required=("checkpoint",)))


def _read_checks(document: AuditFile, texts: tuple[str, ...], baseline: BaselineSettings) -> tuple[Check, ...]:
    checks: dict[str, Check] = {}
    for index in range(len(document.content.get("check", []))):
        check = read_check(document, index, texts, baseline)
        if check.id in checks:
            line = checks[check.id].line
            text = f'id = "{check.id}" in {header(document, ("check",))}: taken by the check of line {line}'
            raise document.error("duplicate_id", ("check", index, "id"), text)
        if check.id.startswith("curve.") and "curve" in document.content:
            text = f'id = "{check.id}" in {header(document, ("check",))}: taken by the checks of [curve]'
            raise document.error("duplicate_id", ("check", index, "id"), text)
        checks[check.id] = check
    if not checks:
        raise document.error("no_check", ("check",), f"no check: needs a table {header(document, ('check',))}")
    return tuple(checks.values())


def _origins(document: AuditFile) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the origin of every setting, in the order of the schema; of limits only the one set."""
    content = document.content
    for name in ("model", *(("reference",) if "reference" in content else ()), "eval"):
        yield from table_origins(document, (name,), name, TABLES[name])
    for name in content["data"]:
        yield from table_origins(document, ("data", name), f"data.{name}", DATA)
    for name in ("baseline", "stats", *(("curve",) if "curve" in content else ())):
        yield from table_origins(document, (name,), name, TABLES[name])
    for index, check in enumerate(content["check"]):
        keys = {key: kind for key, kind in CHECK.items() if key != "id" and (key in check or key not in LIMIT_KEYS)}
        yield from table_origins(document, ("check", index), f"check.{check['id']}", keys)
