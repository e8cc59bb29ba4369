"""The command that each finding names runs, on a run of the kind that the finding is about."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from planted_runs import Planted

from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.cli.main import run

# `series` and `gap` compare other things than two models on one text, `preferences` needs pairs, and a divergence is
# looked up where it was measured.
OTHERS = ("series", "gap", "preferences", "--kl")
COMMANDS = sorted(
    {rule.command for rule in FINDING_RULES.values() if not set(rule.command.split()) & set(OTHERS)}
    | {"lossprobe hardest RUN"}
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Return two runs of conversations of one text, with ties, ends of turns and a field."""
    folder, text = tmp_path_factory.mktemp("runs"), Planted(tokens=1500, documents=15)
    sizes = np.bincount(text.documents) + 1
    labels = [(1, "assistant", "end_of_turn" if place == size - 1 else "content") for size in sizes.tolist()
              for place in range(size)]  # fmt: skip
    fields = [{"FIELD": str(place % 2)} for place in range(15)]
    for name, logits in (("one", np.round(text.logits)), ("two", text.logits)):
        text.run(folder / name, logits, name=name, labels=labels, fields=fields)
    return [folder / "one", folder / "two"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs(runs, command, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.chdir(tmp_path)
    given = iter(runs)
    words = [str(next(given)) if word == "RUN" else word for word in shlex.split(command)]
    assert words[0] == "lossprobe"
    assert run(words[1:]) == 0, capsysbinary.readouterr().err.decode()
    assert capsysbinary.readouterr().out
