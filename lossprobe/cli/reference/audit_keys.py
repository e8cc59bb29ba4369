"""Makes the tables of the keys of an audit file, from the schema and the docstrings of the settings."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from lossprobe.audit.config.schema import ALL_KEYS, HEADERS, LIMIT_KEYS
from lossprobe.audit.settings import BaselineSettings, Check, CurveSettings, DataSettings, ModelSettings, StatsSettings
from lossprobe.cli.reference.json_keys import described
from lossprobe.cli.reference.markdown import code, table, text
from lossprobe.options.declare import options_of
from lossprobe.options.kinds import Choice, File, Flag, Kind, Names, Number, Words
from lossprobe.plan.options import ScoreOptions

HOLDERS: dict[str, type[Any]] = {
    "model": ModelSettings, "eval": ScoreOptions, "data": DataSettings, "baseline": BaselineSettings,
    "stats": StatsSettings, "curve": CurveSettings, "check": Check,
}  # fmt: skip
FIELDS = {"class": "token_class"}  # a key whose name Python keeps for itself


def audit_keys() -> str:
    """Return the keys of every table of an audit file."""
    return "\n".join(f"### {_headings(name)}\n\n{_keys(name)}" for name in HOLDERS)


def _headings(name: str) -> str:
    """Return the headers of the tables that have the keys of a table."""
    return " and ".join(code(HEADERS[other]) for other, keys in ALL_KEYS.items() if keys is ALL_KEYS[name])


def _keys(name: str) -> str:
    holder = HOLDERS[name]
    meanings = {each: meaning for names, meaning in described(holder).items() for each in names}
    helps = {each: declared.help for each, declared in options_of(holder).items()}
    defaults = {field.name: field.default for field in dataclasses.fields(holder)}
    rows = []
    for key, kind in ALL_KEYS[name].items():
        field = FIELDS.get(key, key)
        meaning = "a limit: see above" if key in LIMIT_KEYS else helps.get(field) or meanings[field]
        rows.append(
            (code(key), _values(kind), _default(defaults.get(field)), text(meaning.replace("None", "left out")))
        )
    return table(("key", "values", "default", "meaning"), rows)


def _values(kind: Kind) -> str:
    match kind:
        case Choice():
            return ", ".join(map(code, kind.words))
        case Flag():
            return "`true`, `false`"
        case Words():
            return "list of texts"
        case Names():
            return f"list of {', '.join(map(code, kind.known))}"
        case File():
            return "path"
        case Number():
            return _number(kind)
        case _:
            return "text"


def _number(kind: Number) -> str:
    low = f" from {kind.low:g}" if math.isfinite(kind.low) else ""
    high = f" to {kind.high:g}" if kind.high < 1e6 else ""
    edges = ", neither included" if kind.inside else ""
    return f"{'whole number' if kind.whole else 'number'}{low}{high}{edges}{f', `{kind.word}`' if kind.word else ''}"


def _default(value: object) -> str:
    if isinstance(value, tuple):
        return code(json.dumps(value))
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(str(value)) if isinstance(value, str | int | float) and value != "" else ""
