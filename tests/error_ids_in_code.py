"""Finds the error ids that the code can raise, by parsing its source."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from source_code import PACKAGE, nodes

from lossprobe import errors

CODES = {
    name: kind.exit_code
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.LossprobeError)
}
# Files whose functions get the error id from their caller; the ids are read at the callers.
PASSED_ON = {
    "audit/config/document.py",
    "checkpoint/files/refusals.py",
    "checkpoint/tokenizers/sandbox.py",
    "checkpoint/tokenizers/begun.py",
    "logs/evaluation.py",
    "cli/main.py",
    "python/runs.py",
    "python/score.py",
    "text/faults.py",
    "text/record_files.py",
}


def ids_in_code() -> dict[str, set[int]]:
    """Return every error id in the package with the exit codes of the errors that have it."""
    found: dict[str, set[int]] = defaultdict(set)
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE).as_posix()
        for node in nodes(file):
            if isinstance(node, ast.Call):
                for id, code in _ids(node, place):
                    found[id].add(code)
    return dict(found)


def _ids(call: ast.Call, place: str) -> Iterator[tuple[str, int]]:
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    in_audit_file = place.startswith("audit/config/")
    if name in CODES:
        yield from _literal(call.args[0], place, CODES[name])
    elif name == "refusal" and call.args:  # not a method without arguments
        yield from _literal(call.args[0], place, errors.CheckpointError.exit_code)
    elif name == "_exchange":
        yield from _literal(call.args[2], place, errors.CheckpointError.exit_code)
    elif name == "failure" and place == "passes/ray/faults.py":
        yield from _literal(call.args[1], place, CODES[ast.literal_eval(call.args[0])])
    elif name == "Failure":
        code = ast.unparse(call.args[0])
        exit_code = int(code) if code.isdigit() else CODES.get(code.removesuffix(".exit_code"), 0)
        yield from _literal(call.args[1], place, exit_code)
    elif in_audit_file and name in ("file_error", "error"):
        for id, code in _literal(call.args[0], place, errors.UsageError.exit_code):
            yield f"audit.{id}", code


def _literal(argument: ast.expr, place: str, code: int) -> Iterator[tuple[str, int]]:
    if isinstance(argument, ast.Constant):
        yield argument.value, code
    else:
        assert place in PASSED_ON | {"audit/config/check_table.py"}, f"{place}: an id that no test can read"
