"""Damages files on purpose, runs the commands that read them, and reports wrong numbers, internal errors and hangs.

    python tests/fuzz/campaign.py                          the cases of the test
    python tests/fuzz/campaign.py --seconds 3600 --seed 1  other cases, for an hour
    python tests/fuzz/campaign.py --only "run.json 17"     one case, whose folder is kept

A case is a kind (`cases.KINDS`) and a seed. Each case runs in a copy of the same undamaged files, in a process forked
from this one. Whatever is damaged: the exit code must be documented and not 1, an error must be one line, no command
may take longer than ten seconds, and only the result may be written. A result must have the numbers of the undamaged
files, or other hashes if files of a checkpoint were changed. A command that takes longer is tried again at the end with
ten times the limit, to tell a hang from a busy machine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, count, takewhile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

from fuzz import material
from fuzz.cases import ANEW, KINDS, MOVED, RESUMED, SCORED, Case, Command, back, chosen
from fuzz.judge import Outcome, Running, differs, faults_of, identity, snapshot, touched

import lossprobe

CASES = 40  # number of cases in the test
PATIENCE = 10.0  # seconds that a command may take
AGAIN = 10  # factor on the limit for undamaged files, and for cases that are tried again
AT_ONCE = 2  # cases that run at the same time


@dataclass(frozen=True)
class Fault:
    """A fault found in a case.

    Attributes:
        case: kind and seed of the case.
        broken: what was damaged.
        command: the command that behaved wrongly.
        what: the fault.
        said: the error that the command printed, or the difference found.
    """

    case: str
    broken: str
    command: str
    what: str
    said: str


class Campaign:
    """Runs cases in a folder, and compares their results with those of undamaged files."""

    def __init__(self, folder: Path, patience: float = PATIENCE, *, keep: bool = False) -> None:
        self.folder, self.patience, self.keep, self.numbers = folder, patience, keep, count()
        self.files, self.sound = folder / "sound", defaultdict[tuple[Command, Command], list[Outcome]](list)
        _import_everything()
        _forked(lambda: material.make(self.files))
        sets = dict.fromkeys((*kind.commands, *kind.some) for kind in KINDS.values())
        wanted = ((commands, None) for commands in (*sets, ANEW))
        for _, _, _, outcomes, _ in self._run(wanted, AGAIN * patience):
            first = RESUMED[0] if outcomes[0].command == ANEW[0] else outcomes[0].command
            for outcome in outcomes:
                assert outcome.code == 0, outcome
                self.sound[first, outcome.command].append(outcome)

    def run(self, cases: Iterable[Case]) -> Iterator[tuple[Case, list[Fault]]]:
        """Yield each case with its faults."""
        slow = list[Case]()
        for case, said, harmed, outcomes, given_up in self._run(((None, case) for case in cases), self.patience):
            assert case is not None
            if given_up:
                slow.append(case)
            else:
                yield case, list(self._faults(case, said, harmed, outcomes))
        for case, said, harmed, outcomes, _ in self._run(((None, case) for case in slow), AGAIN * self.patience):
            assert case is not None
            yield case, list(self._faults(case, said, harmed, outcomes))

    def _run(
        self, wanted: Iterator[tuple[tuple[Command, ...] | None, Case | None]], patience: float
    ) -> Iterator[tuple[Case | None, str, list[str], list[Outcome], bool]]:
        """Run commands on undamaged files, or cases, several at the same time.

        Yields:
            The case (None for undamaged files), what was damaged, the files that were wrongly changed, the outcomes of
            the commands, and whether the case was stopped at the limit.
        """
        active: list[tuple[Case | None, str, dict, Running]] = []
        more = True
        while more or active:
            while more and len(active) < AT_ONCE:
                following = next(wanted, None)
                more = following is not None
                if following is not None:
                    active.append(self._start(*following))
            for each in [each for each in active if each[-1].over(patience)]:
                active.remove(each)
                yield self._end(*each)
            time.sleep(0.002)

    def _start(self, commands: tuple[Command, ...] | None, case: Case | None) -> tuple[Case | None, str, dict, Running]:
        folder = self.folder / f"{next(self.numbers):05}"
        shutil.copytree(self.files, folder, symlinks=True)
        os.chdir(folder)
        said, otherwise = "", ()
        if case is not None:
            said, commands = case.broken()
            replaced = KINDS[case.kind].replaced
            otherwise = (replaced, *KINDS[case.kind].commands[1:]) if replaced else ()
        os.chdir(self.folder)
        assert commands is not None
        return case, said, snapshot(folder), Running(folder, commands, otherwise)

    def _end(
        self, case: Case | None, said: str, before: dict, running: Running
    ) -> tuple[Case | None, str, list[str], list[Outcome], bool]:
        written = (
            SCORED,
            ".lossprobe",
            MOVED if case and KINDS[case.kind].written else SCORED,
            *(KINDS[case.kind].written if case else ["unfinished"]),
        )
        harmed, outcomes = touched(before, snapshot(running.folder), written), running.outcomes()
        if case is None or not self.keep:
            shutil.rmtree(running.folder)
            shutil.rmtree(running.records)
        return case, said, harmed, outcomes, running.given_up

    def _faults(self, case: Case, said: str, harmed: list[str], outcomes: list[Outcome]) -> Iterator[Fault]:
        kind, name = KINDS[case.kind], f"{case.kind} {case.seed}"
        if harmed:
            yield Fault(name, said, "", "files touched", ", ".join(harmed))
        for outcome in outcomes:
            command = " ".join(outcome.command)
            last = (outcome.err.strip().splitlines() or [""])[-1]
            error = next((line for line in outcome.err.splitlines() if "error[" in line), last)
            for what in faults_of(outcome):
                yield Fault(name, said, command, what, error)
            if outcome.command == kind.replaced and not outcome.done:
                yield Fault(name, said, command, "not replaced by --overwrite", error)
            if outcome.done and kind.numbers:
                yield from self._silent(name, said, case, outcome)

    def _silent(self, name: str, said: str, case: Case, outcome: Outcome) -> Iterator[Fault]:
        """Yield a fault if a result differs from that of undamaged files without an error or other hashes."""
        kind, command = KINDS[case.kind], " ".join(outcome.command)
        sound = self.sound[kind.commands[0], back(outcome.command, kind)]
        if not sound:  # the command replaced the damaged run
            return
        differences = [differs(outcome, each) for each in sound]
        difference = None if None in differences else differences[0]
        if difference and not kind.identified:
            yield Fault(name, said, command, "silently another number", difference)
        same = kind.identified and outcome.command[0] == "perplexity" and identity(outcome) == identity(sound[0])
        if same and (difference or case.kind == "safetensors data"):
            yield Fault(name, said, command, "another number with the same hashes", difference or "none")


def _import_everything() -> None:
    """Import all modules that commands need before forking; nothing imported here may start a thread."""
    models = (f"transformers.models.{name}.modeling_{name}" for name in ("gpt2", "llama"))
    for name in (*models, "safetensors.torch", "scipy.stats", "matplotlib.figure"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(lossprobe.__path__, "lossprobe."):
        if not module.name.endswith(("pytest_plugin", "__main__", "sandbox_worker")):
            importlib.import_module(module.name)


def _forked(task: Callable[[], None]) -> None:
    """Run a task in another process, so that this one has no threads when cases are forked."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            task()
            code = 0
        except BaseException:  # noqa: BLE001 - the parent only sees the code
            traceback.print_exc()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the sound files could not be made"


def _cases(choices: argparse.Namespace) -> Iterable[Case]:
    if choices.only:
        kind, seed = choices.only.rsplit(" ", 1)
        return [Case(kind, int(seed))]
    if choices.seconds is None:
        return chosen(choices.cases, choices.seed, choices.kind)
    end = time.monotonic() + choices.seconds
    rounds = (chosen(500, choices.seed + 1000 * number, choices.kind) for number in count())
    return takewhile(lambda _: time.monotonic() < end, chain.from_iterable(rounds))


def main() -> int:
    """Run cases, print each fault and the numbers of faults by kind, and return 1 if there was any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the first seed of each kind")
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seconds", type=float, help="in the place of a number of cases")
    parser.add_argument(
        "--kind", action="append", default=[], choices=sorted(KINDS), help="only such cases; repeatable"
    )
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds that a command may take")
    parser.add_argument("--only", help="kind and seed of one case, whose folder is kept")
    parser.add_argument("--json", type=Path, help="also write the faults there")
    choices = parser.parse_args()
    started, faults, count_of = time.monotonic(), list[Fault](), Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="lossprobe-fuzz-"))
    try:
        campaign = Campaign(folder, choices.patience, keep=bool(choices.only))
        for case, found in campaign.run(_cases(choices)):
            count_of[case.kind] += 1
            faults += found
            for fault in found:
                print(
                    f"{fault.case}: {fault.broken}\n  {fault.command}\n  {fault.what}: {fault.said[:300]}", flush=True
                )
    finally:
        if choices.only:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    for (kind, what), number in sorted(Counter((each.case.rsplit(" ", 1)[0], each.what) for each in faults).items()):
        print(f"{number:5} {kind}: {what}")
    broken = len({fault.case for fault in faults})
    print(f"{sum(count_of.values())} cases, {broken} with faults, {time.monotonic() - started:.0f} s")
    if choices.json:
        choices.json.write_text(json.dumps([asdict(each) for each in faults], indent=1), "utf-8")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
