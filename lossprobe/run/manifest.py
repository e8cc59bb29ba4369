"""Checks the names, types and sizes in run.json and plan.json before anything uses them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lossprobe.errors import OutputError
from lossprobe.run.folder import Folder
from lossprobe.run.schema import DOCUMENTS, PART_TABLES, PLAN_PARTS, ROUTING, VOCABULARY
from lossprobe.run.shown import shown_run
from lossprobe.units import plural, visible

KIND = "lossprobe run"
VERIFY = "check it with lossprobe verify, or score again with `overwrite`"
START_OVER = "`overwrite` scores it from the start"
LARGEST = 2**63 - 1
SHARDS = f"{PLAN_PARTS}/shards"  # says how many shards an unfinished run has; see `run.shards`
FIRST_WINDOWS = "first_windows"  # of a plan: for each part, how many windows come before those that its rows count
BEGUN = f"{PLAN_PARTS}/begun"  # names the run whose plan several processes have begun; see `run.plan_blocks`
TOTALS = (
    "documents", "tokens", "scored_tokens", "bytes", "characters", "words",
    "scored_bytes", "scored_characters", "scored_words", "normalized_bytes",
)  # fmt: skip
BY_REASON = ("unscored_tokens", "unscored_bytes")


def damaged(path: Path, what: str, hint: str = VERIFY) -> OutputError:
    """Return the error for a run that is damaged.

    Args:
        path: its folder.
        what: what is wrong, with the file's name.
        hint: what to do.
    """
    return OutputError("run.damaged", f"{shown_run(path)}: {what}", hint=hint)


def part_name(table: str, index: int) -> str:
    """Return the path of a part of a table, relative to its run."""
    return f"{table}/part-{index:05d}.parquet"


def part_names(files: Mapping[str, Any], table: str) -> list[str]:
    """Return the paths of a table's files in the order of their rows."""
    names = [name for name in files if name.startswith((f"{table}/", f"{table}.", f"{table}-"))]
    return sorted(names, key=lambda name: (len(name), name))


def run_fault(manifest: dict[str, Any], *, sealed: bool) -> str | None:
    """Return what is wrong with the content of a run.json, apart from its hash; None if nothing is.

    Args:
        manifest: the content.
        sealed: whether it has a hash of itself.
    """
    fault = _plan_fault(manifest)
    if fault is not None:
        return fault
    if sealed and not is_count(manifest["settings"]["windows"].get("context"), least=1):
        return "context is no size"
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_is_hash(digest) for digest in files.values()):
        return "files is no list of names with a sha256 each"
    return files_fault(files, manifest.get("part_rows"))


def plan_fault(plan: dict[str, Any], *, sealed: bool) -> str | None:
    """Return what is wrong with the content of a plan.json, apart from its hash; None if nothing is.

    Args:
        plan: the content.
        sealed: whether it has a hash of itself; plans of earlier versions have none, and no list of files.
    """
    fault = _plan_fault(plan)
    if fault is not None or not sealed:
        return fault
    rows, files = plan.get("part_rows"), plan.get("files")
    if not isinstance(rows, list) or not is_count(plan.get("sample_every"), least=1):
        return "part_rows or sample_every is missing"
    expected = {DOCUMENTS, VOCABULARY, *(part_name("plan", index) for index in range(len(rows)))}
    if not isinstance(files, dict) or files.keys() != expected or not all(map(_is_hash, files.values())):
        return "files does not name each part once"
    windows = plan.get(FIRST_WINDOWS, [])
    if not isinstance(windows, list) or len(windows) not in (0, len(rows)) or not all(map(is_count, windows)):
        return f"{FIRST_WINDOWS} is no list of a count for each part"
    return None


def _plan_fault(content: dict[str, Any]) -> str | None:
    """Return what is wrong with the content that plans and runs share; None if nothing is."""
    settings, labels, counts = (content.get(key) for key in ("settings", "labels", "counts"))
    if not isinstance(settings, dict) or not isinstance(labels, dict) or not isinstance(counts, dict):
        return "settings, labels, counts or files are missing"
    if not isinstance(content.get("measured", {}), dict):
        return "measured is no object"
    groups = ("checkpoint", "text", "windows")
    if not all(isinstance(settings.get(name), dict) for name in (*groups, *settings)):
        return f"settings lacks one of {', '.join(groups)}, or one of them is no object"
    if not all(isinstance(labels.get(name), str) for name in ("checkpoint", "text")):
        return "a label is no text"
    size = settings["checkpoint"].get("vocab_size")
    if not is_count(size, least=1) or not isinstance(settings["text"].get("kept"), bool):
        return "vocab_size is no size, or kept is neither true nor false"
    return _counts_fault(counts) or _part_rows_fault(content)


def _counts_fault(counts: dict[str, Any]) -> str | None:
    wrong = [name for name in TOTALS if not is_count(counts.get(name))]
    wrong += [name for name in BY_REASON if not isinstance(counts.get(name), dict)]
    wrong += [name for name, value in counts.items() if not is_counted(value)]
    if wrong or not isinstance(counts.get("spans_tile"), bool):
        return f"counts: {visible([*wrong, 'spans_tile'][0], 40)} is missing or no count"
    return None if counts["scored_tokens"] <= counts["tokens"] else "counts: more tokens are scored than there are"


def is_counted(value: object) -> bool:
    """Return whether a value has a type of `counts`: a count, counts by reason, true or false, or a list of texts."""
    if isinstance(value, dict):
        return all(map(is_count, value.values()))
    if isinstance(value, list):
        return all(isinstance(text, str) for text in value)
    return isinstance(value, bool) or is_count(value)


def _part_rows_fault(content: dict[str, Any]) -> str | None:
    rows = content.get("part_rows", [])
    if not isinstance(rows, list) or not all(map(is_count, rows)):
        return "part_rows is no list of counts"
    if "part_rows" in content and sum(rows) != content["counts"]["tokens"]:
        return f"part_rows holds {sum(rows)} rows, counts {content['counts']['tokens']} tokens"
    return None


def files_fault(files: Mapping[str, Any], part_rows: Sequence[int] | None) -> str | None:
    """Return what is wrong with the names of a run's files; None if nothing is. A name may not lead out of the run.

    Args:
        files: the files in run.json.
        part_rows: rows of each part of `tokens`; None if the run does not have them.
    """
    parts = {table: part_names(files, table) for table in PART_TABLES}
    routing = part_names(files, ROUTING)
    parts |= {ROUTING: routing} if routing else {}
    allowed = {DOCUMENTS, VOCABULARY}
    for table, names in parts.items():
        expected = [part_name(table, index) for index in range(len(names))]
        if not names or names != expected or (part_rows is not None and len(names) != len(part_rows)):
            count = len(names) if part_rows is None else len(part_rows)
            return f"files does not name the {count} parts of {table} once each"
        allowed.update(names)
    foreign = sorted(files.keys() - allowed)
    if foreign:
        return f"files names {visible(foreign[0], 80)}, which is no file of a run"
    return None if allowed <= files.keys() else f"files lacks {min(allowed - files.keys())}"


def is_count(value: object, *, least: int = 0) -> bool:
    """Return whether a value is a whole number from `least` to the largest of 64 bits."""
    return type(value) is int and least <= value <= LARGEST


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def unfinished(folder: Folder) -> OutputError:
    """Return the error for a run that is not complete, with the number of its finished parts."""
    done = 0
    with suppress(OSError), folder.folder("tokens") as tokens:  # it can be missing, or be no folder
        done = sum(name.startswith("part-") for name in tokens.names())
    what = f"{shown_run(folder.path)}: unfinished run ({plural(done, 'part')} stored)"
    with suppress(OSError):
        folder.regular(SHARDS)
        return OutputError("run.unfinished", what, hint="lossprobe gather completes it, or says which shards to repeat")
    return OutputError("run.unfinished", what, hint="repeat the score command to resume it")
