"""Where the numbers of runs came from: hashes, versions, windows, device, and how much was scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lossprobe.analysis.coverage import measure_coverage
from lossprobe.analysis.shown import Shown
from lossprobe.run.identity import all_settings
from lossprobe.run.names import distinct_names
from lossprobe.run.reader import Run
from lossprobe.units import plural


@dataclass(frozen=True)
class Provenance(Shown):
    """Where the numbers of runs came from.

    Attributes:
        table: one row a setting: group, setting, and one column a run, named after its checkpoint. A setting that a run
            does not have is an empty cell.
        notes: what a reader must know, one line each.
        finding: the result in one line.
    """

    table: pd.DataFrame = field(repr=False)
    notes: list[str]
    finding: str


def find_provenance(runs: Sequence[Run]) -> Provenance:
    """Return where the numbers of runs came from.

    Args:
        runs: one run or more.
    """
    known = [_settings(run) for run in runs]
    keys = dict.fromkeys(key for settings in known for key in settings)
    rows = [
        {"group": group, "setting": setting, **{
            name: settings.get((group, setting), "")
            for name, settings in zip(distinct_names(runs), known, strict=True)}}
        for group, setting in keys
    ]  # fmt: skip
    differ = sum(len({settings.get(key, "") for settings in known}) > 1 for key in keys)
    finding = f"{plural(differ, 'setting')} differ" if len(runs) > 1 else f"{plural(len(keys), 'setting')}"
    return Provenance(pd.DataFrame(rows, dtype=str), [], finding)


def _settings(run: Run) -> dict[tuple[str, str], str]:
    """Return (group, setting) → its value in words, of one run."""
    found: dict[tuple[str, str], str] = {}
    groups: dict[str, dict[str, Any]] = {**all_settings(run.manifest), "coverage": measure_coverage(run)}
    for group, settings in groups.items():
        for name, value in settings.items():
            if isinstance(value, dict):
                found |= {(group, f"{name}.{key}"): _in_words(each) for key, each in value.items()}
            elif value is not None:
                found[group, name] = _in_words(value)
    return found


def _in_words(value: Any) -> str:
    """Return a setting as text: counts with commas, yes and no, lists with commas between.

    >>> _in_words(1442240), _in_words(True), _in_words([1, 2]), _in_words("gpt2")
    ('1,442,240', 'yes', '1, 2', 'gpt2')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_in_words, value))
    return str(value)
