"""The README, the pages of docs/, the changelog and the help say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

import lossprobe
from lossprobe.audit.settings import LIMITS
from lossprobe.cli.main import CONTEXT, cli
from lossprobe.errors import EXIT_CODES

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = ROOT / "docs" / "pages"
LINKED = [README, ROOT / "examples" / "README.md", *sorted(PAGES.rglob("*.md"))]


def page(name: str) -> str:
    return (PAGES / name).read_text("utf-8")


def test_every_exit_code_that_the_code_uses_is_documented():
    used = {kind.exit_code for kind in lossprobe.LossprobeError.__subclasses__()}
    assert used <= set(EXIT_CODES)
    assert len(used) == 7


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_with_an_example_and_is_in_the_tables_of_commands(name):
    command = cli.commands[name]
    context = click.Context(command, info_name=name, **CONTEXT)
    text = command.get_help(context)
    assert f"lossprobe {name}" in text.split("Example")[1].split("Options:")[0]
    assert "\\b" not in text
    assert f"`{name}" in README.read_text("utf-8")
    assert f"`{name}" in page("reference/commands.md")
    assert all(option.help for option in command.params if isinstance(option, click.Option)), name


def test_help_fits_a_terminal_and_cuts_no_sentence():
    text = cli.get_help(click.Context(cli, info_name="lossprobe", **CONTEXT))
    assert "..." not in text.replace("[ARGS]...", "")
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("\n") < 46, "the help of all commands fits a screen"
    for name in cli.commands:
        assert re.search(f"^  {name} ", text, re.M), name


def all_commands(command: click.Command, path: str):
    yield path, command
    for name, inner in command.commands.items() if isinstance(command, click.Group) else ():
        yield from all_commands(inner, f"{path} {name}")


@pytest.mark.parametrize(("path", "command"), list(all_commands(cli, "lossprobe")))
def test_the_help_of_every_command_fits_80_columns(path, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = command.get_help(click.Context(command, info_name=path, **CONTEXT))
    assert max(map(len, text.splitlines())) <= 80


def test_the_readme_fits_in_one_sitting():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 250
    assert len(text.split()) <= 1_500


def anchors(text: str) -> set[str]:
    """Return the anchors that a page sets, and those of headings for which GitHub and MkDocs make the same one."""
    headings = re.findall("^#+ (.*)", re.sub("^```.*?^```", "", text, flags=re.M | re.S), re.M)
    github = {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    set_by_hand = set(re.findall('<a id="([^"]+)"></a>', text))
    return set_by_hand | {anchor for anchor in github if anchor.isascii() and "--" not in anchor}


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path):
    text = re.sub("^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


def test_every_page_is_in_the_menu_of_the_site_once():
    def files(menu: object) -> list[str]:
        if isinstance(menu, str):
            return [menu]
        return [file for entry in menu for file in files(entry.values() if isinstance(entry, dict) else entry)]

    menu = yaml.safe_load((ROOT / "docs" / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert sorted(files(menu)) == sorted(path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md"))


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_of_the_repository_that_a_page_names_is_there(path):
    for name in re.findall(r"`((?:examples|tests|findings|lossprobe)/[\w./-]+)`", path.read_text("utf-8")):
        assert (ROOT / name).exists(), name


def test_the_pictures_are_small():
    assert (PAGES / "images" / "tokens.png").stat().st_size < 200_000


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_of_an_audit_is_in_the_reference(name):
    assert f"`{name.removesuffix('_pct')}`" in page("reference/metrics.md")


def test_the_changelog_has_a_place_for_changed_numbers():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in text
    assert "### Changed numbers" in text
