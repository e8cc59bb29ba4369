"""The command that each finding names runs, on a run of the kind that the finding is about."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from fake_pairs import write_pair
from planted_runs import Planted

from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.cli.main import run

COMMANDS = sorted({rule.command for rule in FINDING_RULES.values()} | {"lossprobe hardest RUN"})


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Return two runs of conversations of one text, with ties, ends of turns, a field, and their stored divergence."""
    folder, text = tmp_path_factory.mktemp("runs"), Planted(tokens=1500, documents=15)
    sizes = np.bincount(text.documents) + 1
    labels = [(1, "assistant", "end_of_turn" if place == size - 1 else "content") for size in sizes.tolist()
              for place in range(size)]  # fmt: skip
    fields = [{"FIELD": str(place % 2)} for place in range(15)]
    stored = [
        text.run(folder / name, logits, name=name, labels=labels, fields=fields)
        for name, logits in (("one", np.round(text.logits)), ("two", text.logits))
    ]
    write_pair(*stored, np.full(1500, 0.1))
    return [run.path for run in stored]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[Path]:
    """Return two runs of both sides of pairs; the first one likes chosen answers less than the second one does."""
    folder, text = tmp_path_factory.mktemp("pairs"), Planted(tokens=2000, documents=80)
    text.documents = np.repeat(np.arange(80), 25)
    choices = {"labels": [(1, "assistant", "content")] * 2080,
               "settings_changes": {"text": {"kind": "pairs", "sides": "both"}}}  # fmt: skip
    return [text.run(folder / name, text.lower(text.documents % 2 == 0, by), name=name, **choices).path
            for name, by in (("one", 0.0), ("two", -2.0))]  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> list[Path]:
    """Return the runs of one checkpoint on two texts, of which it knows the first one by heart."""
    folder, choices = tmp_path_factory.mktemp("texts"), {"settings_changes": {"checkpoint": {"sha256": "one"}}}
    known, other = (Planted(seed, tokens=1500, documents=15) for seed in (1, 2))
    whole = known.lower(np.ones(len(known.targets), bool), -40.0)
    return [known.run(folder / "one", whole, **choices).path, other.run(folder / "two", **choices).path]


def places(command: str, runs: list[Path], pairs: list[Path], texts: list[Path]) -> list[str]:
    """Return the runs that a command is about."""
    name = command.split()[1]
    return [str(path) for path in {"preferences": pairs, "gap": texts}.get(name, runs)]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs(runs, pairs, texts, command, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.chdir(tmp_path)
    paths = places(command, runs, pairs, texts)
    given, words = iter(paths), []
    for word in shlex.split(command):
        words += paths if word == "RUNS" else [next(given) if word == "RUN" else word]
    assert words[0] == "lossprobe"
    assert run(words[1:]) == 0, capsysbinary.readouterr().err.decode()
    assert capsysbinary.readouterr().out


@pytest.mark.parametrize(
    ("command", "told", "look"),
    [
        ("lossprobe preferences {} --reference {}", "rewards-wrong", "lossprobe preferences {} --reference {}"),
        ("lossprobe gap {} {}", "over-fitted", "lossprobe gap {} {}"),
        ("lossprobe series {1} {0}", "last-checkpoint-worse", "lossprobe series {1} {0}"),
        ("lossprobe compare {} {} --kl", "second-better", "lossprobe compare --by class {} {}"),
    ],
)
def test_what_is_told_names_the_runs(runs, pairs, texts, command, told, look, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.chdir(tmp_path)
    paths = places(command, runs, pairs, texts)
    assert run([*command.format(*paths).split()[1:], "--json"]) == 0, capsysbinary.readouterr().err.decode()
    found = {each["id"]: each["look"] for each in json.loads(capsysbinary.readouterr().out)["findings"]}
    assert found[told] == look.format(*paths)
    for each in found.values():
        assert run(shlex.split(each)[1:]) == 0, each
