"""The README, the changelog and the help say what the code does."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path

import click
import pytest

import lossprobe
from lossprobe.analysis.calibration import measures as calibration_measures
from lossprobe.audit.settings import LIMITS, METRICS
from lossprobe.cli.main import CONTEXT, cli
from lossprobe.errors import EXIT_CODES
from lossprobe.run.schema import DOCUMENT_COLUMNS, TOKEN_COLUMNS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PLAIN_TYPE = "dictionary of strings"


@pytest.mark.parametrize("column", [*TOKEN_COLUMNS, *DOCUMENT_COLUMNS], ids=lambda column: column.name)
def test_every_column_is_in_the_readme_as_the_code_has_it(column):
    kind = PLAIN_TYPE if str(column.type).startswith("dictionary") else str(column.type)
    assert f"| `{column.name}` | {kind} | {column.meaning} |" in README


@pytest.mark.parametrize("code", EXIT_CODES)
def test_every_exit_code_is_in_the_readme(code):
    assert f"| {code} | {EXIT_CODES[code]} |" in README


def test_every_exit_code_that_the_code_uses_is_documented():
    used = {kind.exit_code for kind in lossprobe.LossprobeError.__subclasses__()}
    assert used <= set(EXIT_CODES)
    assert len(used) == 7


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_with_an_example_and_is_in_the_readme(name):
    command = cli.commands[name]
    context = click.Context(command, info_name=name, **CONTEXT)
    text = command.get_help(context)
    assert f"lossprobe {name}" in text.split("Example")[1].split("Options:")[0]
    assert "\\b" not in text
    assert f"`{name}" in README
    assert all(option.help for option in command.params if isinstance(option, click.Option)), name


def test_help_fits_a_terminal_and_cuts_no_sentence():
    text = cli.get_help(click.Context(cli, info_name="lossprobe", **CONTEXT))
    assert "..." not in text.replace("[ARGS]...", "")
    assert max(map(len, text.splitlines())) <= 100


def test_the_files_that_the_readme_shows_are_there():
    headings = {
        re.sub(r"[^a-z -]", "", line.lower()).strip().replace(" ", "-") for line in re.findall("^#+ (.*)", README, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
            continue
        assert target.startswith("https://") or (ROOT / target).is_file(), target


@pytest.mark.parametrize("name", [*METRICS, *LIMITS])
def test_every_metric_and_limit_of_an_audit_is_in_the_readme(name):
    section = README.split("### What can be limited")[1].split("## What is safe")[0]
    assert f"`{name.removesuffix('_pct')}`" in section


def test_the_changelog_has_a_place_for_changed_numbers():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in text
    assert "### Changed numbers" in text


@pytest.mark.parametrize("name", ["TokenLosses", "PositionLosses", "Hardest", "Perplexity", "Calibration",
                                  "ModelCalibration", "Temperature", "EffectiveSmoothing", "SmoothingPanel",
                                  "Objectives", "Compared", "Comparison", "Changes", "ByteComparison",
                                  "Divergence", "Gap", "Memorised", "ProtocolScore", "ProtocolTable",
                                  "SelfCheck"])  # fmt: skip
def test_every_json_key_is_in_the_readme(name):
    homes = ("tokens", "positions", "hardest", "perplexity", "calibration.calibration", "calibration.temperature",
             "calibration.effective_smoothing", "calibration.smoothing", "objectives.objectives", "compare.compare",
             "compare.tokens", "compare.changes", "compare.byte_pairs", "compare.divergence", "gap.gap",
             "gap.memorised", "protocols.protocols", "protocols.table", "selfcheck")  # fmt: skip
    modules = [importlib.import_module(f"lossprobe.analysis.{home}") for home in homes]
    kind = next(getattr(module, name) for module in modules if hasattr(module, name))
    section = README.split("## JSON")[1].split("## Exit codes")[0]
    for field in dataclasses.fields(kind):
        base = field.name.removesuffix("_interval")
        assert f"`{field.name}`" in section or f"`{base}`" in section or field.name == "table", field.name


def test_every_measure_of_calibration_is_explained_in_the_readme():
    section = README.split("## How to read each number")[1].split("## Columns")[0]
    for measure in calibration_measures.MEASURES:
        assert f"`{measure}`" in section, measure
