"""Reads one `[[check]]` of an audit file, and refuses limits and slices that make no sense."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from lossprobe.audit.checks.metrics import METRICS
from lossprobe.audit.config.document import AuditFile
from lossprobe.audit.config.schema import KNOWN_BEFORE, LIMIT_KEYS
from lossprobe.audit.config.tables import header, read_table
from lossprobe.audit.config.toml_lines import KeyPath
from lossprobe.audit.settings import ABSOLUTE_LIMITS, BaselineSettings, Check, Limit
from lossprobe.errors import UsageError
from lossprobe.options.kinds import nearest, shown_value
from lossprobe.run.filters import where_sql


def read_check(document: AuditFile, index: int, texts: tuple[str, ...], baseline: BaselineSettings) -> Check:
    """Return one check of an audit file.

    Args:
        document: the audit file.
        index: number of the check in the file, from 0.
        texts: names of the texts in the file.
        baseline: settings of the baseline.

    Raises:
        UsageError: a key or value is wrong, or keys of the check do not go together.
    """
    keys: KeyPath = ("check", index)
    values = read_table(document, keys, required=("id", "metric"))
    entry = _Entry(document, keys, values)
    limit = _limit(entry)
    _check_range(entry, limit)
    _check_parameters(entry)
    _check_slice(entry)
    if values.get("level") != "off":
        _check_baseline(entry, limit, baseline)
        _check_reference(entry)
    named = {key: value for key, value in values.items() if key not in LIMIT_KEYS and key != "class"}
    named |= {"data": _text(entry, texts), "limit": limit, "token_class": values.get("class")}
    return Check(**named, line=document.line(*keys))


@dataclass(frozen=True)
class _Entry:
    """A check whose single values are valid; they may still not go together.

    Attributes:
        document: the audit file.
        keys: path of the check in the file.
        values: its values by key.
    """

    document: AuditFile
    keys: KeyPath
    values: dict[str, Any]

    def error(self, id: str, text: str, key: str | None = None, hint: str | None = None) -> UsageError:
        """Return the error that refuses the check, or the value of one of its keys."""
        named = "" if key is None else f"{key} = {shown_value(self.values[key])} in "
        keys = self.keys if key is None else (*self.keys, key)
        return self.document.error(id, keys, f"{named}{header(self.document, self.keys)}: {text}", hint=hint)


def _limit(entry: _Entry) -> Limit:
    given = [key for key in LIMIT_KEYS if key in entry.values]
    if not given:
        raise entry.error("no_limit", f"needs a limit: one of {', '.join(LIMIT_KEYS)}")
    if len(given) > 1:
        raise entry.error("two_limits", f"has more than one limit: {', '.join(given)}", hint="write a check for each")
    return Limit(given[0], entry.values[given[0]])


def _check_range(entry: _Entry, limit: Limit) -> None:
    """Refuse a limit that could never fail or never be met, such as an accuracy of at least 95."""
    metric = entry.values["metric"]
    about = METRICS[metric]
    low, high = about.range
    if limit.kind in ABSOLUTE_LIMITS:
        if not low <= limit.value <= high:
            raise entry.error("value", f"{metric} lies {_range(low, high)}", limit.kind)
    elif about.of_pair:
        text = f"{metric} is a distance from the reference model, and has no change from a baseline"
        raise entry.error("value", text, limit.kind, hint="use max or min")
    elif limit.kind.endswith("_pct"):
        if not about.in_percent:
            text = f"{metric} can be negative or 0, and has no change in percent"
            raise entry.error("value", text, limit.kind, hint=f"use {limit.kind.removesuffix('_pct')}")
    elif about.per_nat:
        text = f"the change of a {metric} is a ratio, and has no interval in its own unit"
        raise entry.error("value", text, limit.kind, hint=f"use {limit.kind}_pct")
    elif limit.value > high - low:
        raise entry.error("value", f"{metric} lies {_range(low, high)}, and cannot change by more", limit.kind)


def _range(low: float, high: float) -> str:
    return f"between {low:g} and {high:g}" if math.isfinite(high) else f"at {low:g} or above"


def _check_parameters(entry: _Entry) -> None:
    metric = entry.values["metric"]
    for owner, about in METRICS.items():
        key = about.parameter
        if key is None:
            continue
        if key in entry.values and metric != owner:
            raise entry.error("parameter", f"only with metric {owner}, not {metric}", key)
        if metric == owner and key not in entry.values:
            raise entry.error("parameter", f"metric {metric} needs {key}")


def _check_slice(entry: _Entry) -> None:
    for key, other in (("field", "equals"), ("equals", "field")):
        if key in entry.values and other not in entry.values:
            raise entry.error("slice", f"needs {other} as well", key)
    where = entry.values.get("where", "")
    if not where:
        return
    columns = f"columns: {', '.join(KNOWN_BEFORE)}"
    try:
        names = re.findall('"([a-z_0-9]+)"', where_sql([where]))
    except UsageError:
        text = "expected COLUMN < <= = != >= > NUMBER, joined by and"
        raise entry.error("where", text, "where", hint=columns) from None
    for name in names:
        if name not in KNOWN_BEFORE:
            text = f"{name} is known only after scoring, and a check on tokens chosen by their loss would be biased"
            raise entry.error("where", text, "where", hint=columns)


def _text(entry: _Entry, texts: tuple[str, ...]) -> str:
    name = entry.values.get("data")
    if name is None:
        if len(texts) == 1:
            return texts[0]
        raise entry.error("missing_key", f"data is missing, with more than one text: {', '.join(texts)}")
    if name not in texts:
        raise entry.error("unknown_data", f"no such text; there is {', '.join(texts)}", "data", nearest(name, texts))
    return str(name)


def _check_baseline(entry: _Entry, limit: Limit, baseline: BaselineSettings) -> None:
    if limit.needs_baseline and baseline.path is None and baseline.missing != "warn":
        table = f"[{entry.document.named('baseline')}]"
        raise entry.error("no_baseline", f"needs a baseline, and there is no path in {table}", limit.kind)


def _check_reference(entry: _Entry) -> None:
    metric = entry.values["metric"]
    if METRICS[metric].of_pair and "reference" not in entry.document.content:
        table = f"[{entry.document.named('reference')}]"
        raise entry.error("no_reference", f"{metric} needs a reference model, and there is no table {table}", "metric")
