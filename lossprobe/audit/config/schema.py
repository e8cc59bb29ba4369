"""The schema of an audit file: its tables, their keys, and the kind of value of each key."""

from __future__ import annotations

from collections.abc import Mapping

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.options import ANY
from lossprobe.analysis.rows.token_classes import FORMS
from lossprobe.audit.checks.metrics import METRICS
from lossprobe.audit.settings import INCONCLUSIVE, LEVELS, MISSING, RULES
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.options.declare import kinds_of
from lossprobe.options.kinds import Choice, File, Flag, Kind, Names, Number, Pairs, Text
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.options import TextOptions

SCHEMA_VERSION = 1
NAME = Text("[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "letters, digits and . _ -, the first a letter or digit, at most 100")

Keys = Mapping[str, Kind]

MODEL: Keys = {"checkpoint": File(), **kinds_of(LoadOptions)}
EVAL: Keys = kinds_of(ScoreOptions)
DATA: Keys = {
    "path": File(),
    "sha256": Text("[0-9A-Fa-f]{64}", "64 hexadecimal digits", lower=True),
    **kinds_of(TextOptions),
}
BASELINE: Keys = {"path": File(), "missing": Choice(MISSING)}
STATS: Keys = {
    "confidence": Number(0, 1, inside=True),
    "seed": Number(0, 2**63 - 1, whole=True),
    "stop_early": Flag(),
}
CURVE: Keys = {
    "log": File(),
    "columns": Pairs(),
    "fail_on": Names((*DIAGNOSES, ANY)),
    "level": Choice(LEVELS),
}
LIMIT_KEYS: Keys = {
    "max": Number(),
    "min": Number(),
    "max_increase": Number(0),
    "max_decrease": Number(0),
    "max_increase_pct": Number(0),
    "max_decrease_pct": Number(0, 100),
}
SLICE_KEYS: Keys = {
    "where": Text(empty=True),
    "class": Choice(FORMS),
    "field": Text(),
    "equals": Text(empty=True),
}
CHECK: Keys = {
    "id": NAME,
    "data": Text(),
    "metric": Choice(tuple(METRICS)),
    **LIMIT_KEYS,
    **SLICE_KEYS,
    "nats": Number(0),
    "quantile": Number(0, 1, inside=True),
    "level": Choice(LEVELS),
    "rule": Choice(RULES),
    "inconclusive": Choice(INCONCLUSIVE),
}

# In the order of `--print-config`.
TABLES: Mapping[str, Keys] = {
    "model": MODEL,
    "reference": MODEL,
    "eval": EVAL,
    "baseline": BASELINE,
    "stats": STATS,
    "curve": CURVE,
}
TOP_LEVEL = ("schema", "model", "reference", "eval", "data", "baseline", "stats", "curve", "check")
HEADERS = {
    **{name: f"[{name}]" for name in TABLES},
    "data": "[data.NAME]",
    "check": "[[check]]",
}
ALL_KEYS: Mapping[str, Keys] = {**TABLES, "data": DATA, "check": CHECK}

# Columns known before a token is scored. A check on tokens chosen by their loss would be biased, so others are refused.
KNOWN_BEFORE = ("document", "token", "token_id", "byte_start", "byte_stop", "window", "context", "turn", "role", "part")


def other_table(key: str, table: str) -> str | None:
    """Return a hint that names the tables to which a misplaced key belongs, or None if no table has the key.

    >>> other_table("stride", "model"), other_table("path", "model"), other_table("x", "model")
    ('stride belongs in [eval]', 'path belongs in [baseline] or [data.NAME]', None)
    """
    homes = [HEADERS[name] for name, keys in ALL_KEYS.items() if key in keys and name != table]
    return f"{key} belongs in {' or '.join(homes)}" if homes else None
