"""Error ids about audit files and baselines."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

UPDATE = "Make a new one: lossprobe baseline update."
FORCE = "Restore it from version control, or replace it: lossprobe baseline update --force."

FILE = {
    "audit.baseline_place": "The baseline would lie in a text or in the checkpoint. → Choose another path.",
    "audit.duplicate_id": "Two checks of the audit file have the same id. → Give each its own.",
    "audit.missing_key": "A table of the audit file lacks a key that it needs. → Add the key that the message names.",
    "audit.nested": "The audit file is nested too deeply. → Write it flat: [model], [reference], [eval], "
    "[data.NAME], [baseline], [stats] and [[check]].",
    "audit.no_baseline": "A check measures a change, and the audit file names no baseline; or no check measures one. → "
    "Write path = … under [baseline], or give a check max_increase or max_decrease.",
    "audit.no_check": "The audit file has no check. → Add a [[check]] table.",
    "audit.no_data": "The audit file names no text. → Add a [data.NAME] table.",
    "audit.no_file": "The audit file does not exist. → Write one: lossprobe audit init CHECKPOINT TEXT.",
    "audit.no_limit": "A check has no limit. → Give it max, min, max_increase or max_decrease.",
    "audit.no_reference": "A check measures the distance from a reference model, and the audit file names none. → Add "
    "a table [reference] with checkpoint = ….",
    "audit.no_section": "pyproject.toml has no [tool.lossprobe]. → Add it, or write lossprobe.toml with audit init.",
    "audit.not_utf8": "The audit file is not UTF-8. → Save it as UTF-8.",
    "audit.parameter": "A check has a parameter that its metric does not take, or lacks the one that it needs. → "
    "quantile needs quantile = 0.99, share_above needs nats = 10.0; no other metric takes them.",
    "audit.path": "A path cannot stand in an audit file: standard input, or a name that is not UTF-8. → Name a file "
    "or folder.",
    "audit.schema": "The audit file says no schema, or one that this version does not read. → Write schema = 1.",
    "audit.sha256": "The audit file names a sha256 for a folder; only a file has one. → Leave out sha256, or name a "
    "file.",
    "audit.slice": "A check names half of a slice. → field and equals belong together.",
    "audit.syntax": "The audit file is not valid TOML. → Correct the line in the message.",
    "audit.too_large": "The audit file is larger than the limit. → Check that --config names an audit file.",
    "audit.two_limits": "A check has more than one limit. → Write a check for each.",
    "audit.type": "A table of the audit file has the wrong kind of value. → Write it as the message says.",
    "audit.unknown_data": "A check names a text that the audit file does not have. → Name one of the [data.NAME] "
    "tables, or add one.",
    "audit.unknown_key": "The audit file has a key or table that is not known. → The hint has the nearest one.",
    "audit.unreadable": "The audit file cannot be read. → Check its permissions.",
    "audit.value": "A value in the audit file is outside what its key allows. → Choose a value in the range that the "
    "message gives.",
    "audit.where": "The condition of a check cannot be read. → Write COLUMN, one of < <= = != >= >, and a NUMBER, "
    "joined by and: context >= 32 and document < 5.",
}

BASELINE = {
    "baseline.columns": f"The baseline lacks a column that a check needs. → {UPDATE}",
    "baseline.damaged": f"The baseline was edited or damaged. → {FORCE}",
    "baseline.different": f"The baseline belongs to another text, other tokens, windows or dtype. → {UPDATE}",
    "baseline.different_tokens": f"The tokens of the baseline are not those that were scored. → {UPDATE}",
    "baseline.missing": f"There is no baseline. → {UPDATE}",
    "baseline.schema": f"The baseline was written by another version. → {FORCE}",
}

ERROR_IDS = (*error_ids(2, FILE), *error_ids(12, BASELINE))
