"""The reference is what the code declares: no page is stale, and no name, option or key is missing."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import click
import pytest

from lossprobe.cli.main import cli
from lossprobe.cli.reference.json_keys import documented, results
from lossprobe.cli.reference.pages import PART, filled, parts
from lossprobe.cli.reference.terms import PAGES, anchor_of
from lossprobe.terms.catalogue import all_terms
from lossprobe.terms.term import KINDS

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "pages" / "reference"
TEXTS = {page.name: page.read_text("utf-8") for page in sorted(REFERENCE.glob("*.md"))}
MADE = parts()


@pytest.mark.parametrize("name", TEXTS)
def test_a_page_is_what_the_declarations_say(name):
    assert TEXTS[name] == filled(TEXTS[name], MADE), "stale: make docs writes it anew"


def test_every_part_is_on_one_page():
    assert sorted(part[1] for text in TEXTS.values() for part in PART.finditer(text)) == sorted(MADE)


def test_the_module_writes_the_pages(tmp_path):
    (tmp_path / "a.md").write_text("# A\n<!-- generated: exit codes -->\nold\n<!-- end -->\nby hand\n")
    subprocess.run([sys.executable, "-m", "lossprobe.cli.reference", str(tmp_path)], check=True)
    assert (tmp_path / "a.md").read_text("utf-8") == (
        f"# A\n<!-- generated: exit codes -->\n\n{MADE['exit codes']}\n<!-- end -->\nby hand\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_of_a_term_is_lost(kind):
    page = re.sub(r"\[(`[^`]+`)\]\(#[^)]+\)", r"\1", TEXTS[PAGES[kind]])  # names are links
    page = html.unescape(page).replace("\\*", "*").replace("`", "")
    for term in all_terms():
        if term.kind == kind and kind != "protocol":  # made from the records, not from the terms
            for text in (term.what, term.formula, term.unit, term.how_to_read, term.remedy, term.source, term.type):
                assert text.replace("`", "") in page, (term.name, text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_has_an_anchor_of_its_own(kind):
    page = TEXTS[PAGES[kind]]
    for term in all_terms():
        for name in term.names if term.kind == kind else ():
            headings = [f"### `{name}`" for heading in page.splitlines() if heading == f"### `{name}`"]
            anchors = re.findall(f'<a id="{re.escape(anchor_of(term, name))}"></a>', page)
            assert len(headings) == 1 or anchors, name


def test_a_table_has_as_many_cells_in_every_row():
    for name, text in TEXTS.items():
        for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert len({line.count("|") - 2 * len(re.findall(r"\\\|", line)) for line in table.splitlines()}) == 1, name


@pytest.mark.parametrize("kind", [kind for _, kind in results()], ids=lambda kind: kind.__name__)
def test_every_key_of_json_is_in_the_reference(kind):
    keys = [name for names in documented(kind) for name in names]
    assert sorted(keys) == sorted(field.name for field in fields(kind))
    for key in keys:
        assert f"`{'rows' if key == 'table' else key}`" in TEXTS["json.md"], key


def test_a_key_without_a_word_in_the_docstring_is_refused():
    @dataclass
    class Result:
        """A result.

        Attributes:
            mean: what it is, and `mean_interval`.
        """

        mean: float
        mean_interval: list[float]
        forgotten: int

    with pytest.raises(LookupError, match="Result: its docstring says nothing of forgotten"):
        documented(Result)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_is_in_the_reference(name):
    for option in cli.commands[name].params:
        if isinstance(option, click.Option):
            assert all(f"`{word}`" in TEXTS["options.md"] for word in option.opts), option.name
