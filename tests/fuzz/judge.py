"""Runs commands in another process with a time limit, and finds faults in what they did."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import resource
import signal
import stat
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossprobe.cli.main import run
from lossprobe.errors import EXIT_CODES
from lossprobe.run.schema import CHECKED

ADDRESS_SPACE = 16 << 30  # limit in bytes, so that a damaged file cannot use up the machine's memory
VERDICTS = (0, 10, 11)
LINES = ("lossprobe: ", "hint: ", "{", "note: ")
Command = tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        command: the command.
        code: its exit code; None if it did not end.
        out, err: what it printed.
        seconds: time that it took.
    """

    command: Command
    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def done(self) -> bool:
        """Return whether the command gave a result."""
        return self.code in VERDICTS


class Running:
    """Commands that run one after the other in a forked process.

    If the first command is `score` and fails, the others are skipped and `otherwise` runs.
    """

    def __init__(self, folder: Path, commands: Sequence[Command], otherwise: Sequence[Command] = ()) -> None:
        self.folder, self.records = folder, folder.with_name(f"{folder.name}.out")
        self.records.mkdir()
        self.commands = (*commands, *otherwise)
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(list(commands), list(otherwise))
        self.ended = self.given_up = False

    def _run(self, commands: list[Command], otherwise: list[Command]) -> None:
        os.setsid()
        os.chdir(self.folder)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = 0
        while commands:
            code = self._one(number, commands.pop(0))
            if number == 0 and code not in VERDICTS and self.commands[0][0] == "score":
                number, commands = len(self.commands) - len(otherwise) - 1, otherwise
            number += 1
        os._exit(0)

    def _one(self, number: int, command: Command) -> int:
        started = time.monotonic()
        for name, stream in (("out", 1), ("err", 2)):
            file = os.open(self.records / f"{number}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, stream)
            os.close(file)
        (self.records / f"{number}.started").touch()
        try:
            code = run(list(command))
        except BaseException:  # noqa: BLE001 - no exception may leave `run`; this one is reported as a fault
            traceback.print_exc()
            code = 1
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        (self.records / f"{number}.code").write_text(f"{code} {time.monotonic() - started}")
        return code

    def over(self, patience: float) -> bool:
        """Return whether the process has ended; kill it if a command takes longer than `patience` seconds."""
        if not self.ended:
            self.ended = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        started = max([self.started, *(self._age(path) for path in self.records.glob("*.started"))])
        if not self.ended and time.monotonic() - started > patience:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.ended = self.given_up = True
        return self.ended

    @staticmethod
    def _age(path: Path) -> float:
        return time.monotonic() - (time.time() - path.stat().st_mtime)

    def outcomes(self) -> list[Outcome]:
        """Return the outcome of each command that was started."""
        found = []
        for number, command in enumerate(self.commands):
            if (self.records / f"{number}.started").exists():
                ended = self.records / f"{number}.code"
                code, seconds = ended.read_text().split() if ended.exists() else ("", "nan")
                texts = [(self.records / f"{number}.{name}").read_text("utf-8", "replace") for name in ("out", "err")]
                found.append(Outcome(command, int(code) if code else None, texts[0], texts[1], float(seconds)))
        return found


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return the kind and content of every file in a folder."""
    return {str(path.relative_to(folder)): _state(path) for path in _below(folder)}


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


def _state(path: Path) -> tuple[Any, ...]:
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        return "file", hashlib.sha256(path.read_bytes()).hexdigest()
    return (stat.S_IFMT(mode), path.readlink() if stat.S_ISLNK(mode) else None)


def touched(before: dict[str, Any], after: dict[str, Any], written: Sequence[str]) -> list[str]:
    """Return the files that have changed, without those that may be written.

    The note that a run's files have been checked may always be written; views write it once files are some seconds old.
    """
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    harmed = [name for name in changed if not any(name == each or name.startswith(f"{each}/") for each in written)]
    return [name for name in harmed if Path(name).name != CHECKED]


def faults_of(outcome: Outcome) -> Iterator[str]:
    """Yield the faults in how a command ended and in its messages."""
    lines = outcome.err.splitlines()
    if outcome.code is None:
        yield "hang or crash"
        return
    if outcome.code == 1 or outcome.code not in EXIT_CODES:
        yield f"exit code {outcome.code}"
    if "Traceback" in outcome.err or "panicked" in outcome.err:
        yield "traceback"
    errors = [line for line in lines if line.startswith("lossprobe: error[")]
    if len(errors) != (outcome.code not in VERDICTS):
        yield f"{len(errors)} error lines"
    if any(line.strip() and not line.startswith(LINES) for line in lines):
        yield "other lines on standard error"


def differs(outcome: Outcome, sound: Outcome) -> str | None:
    """Return the first difference of a result from that of undamaged files; None if all numbers are equal."""
    if outcome.code != sound.code:
        return f"verdict {outcome.code} for {sound.code}"
    if not sound.out.startswith("{"):
        return None if outcome.out == sound.out else "text"
    found, expected = (dict(_numbers(json.loads(each.out))) for each in (outcome, sound))
    for name in sorted({*found, *expected}):
        if not _same(found.get(name), expected.get(name)):
            return f"{name}: {found.get(name)} for {expected.get(name)}"
    return None


def identity(outcome: Outcome) -> list[Any]:
    """Return the hashes of checkpoint and tokenizer in a result."""
    settings = json.loads(outcome.out)["run"]["settings"] if outcome.out.startswith("{") else {}
    return [settings.get(name, {}).get("sha256") for name in ("checkpoint", "tokenizer")]


def _numbers(content: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, (dict, list)):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _numbers(value, f"{where}/{key}")
    elif not isinstance(content, str):
        yield where, content


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return type(one) is type(other) and one == other
