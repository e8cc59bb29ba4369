"""The Markdown reference has a line for every term, and nothing in a cell ends it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from lossprobe.terms.catalogue import all_terms
from lossprobe.terms.reference import TABLES, reference_page, reference_table
from lossprobe.terms.term import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_term_has_a_line_with_as_many_cells_as_the_heading(kind):
    lines = reference_table(kind).splitlines()
    terms = [term for term in all_terms() if term.kind == kind]
    assert len(lines) == len(terms) + 2
    for line, term in zip(lines[2:], terms, strict=True):
        assert line.startswith(f"| `{term.name}`")
        cells = re.split(r"(?<!\\)\|", line)
        assert len(cells) == len(TABLES[kind]) + 2, line


def test_no_field_of_a_term_is_lost():
    page = reference_page().replace("\\|", "|").replace("\\*", "*").replace("&lt;", "<")
    for term in all_terms():
        for text in (term.what, term.formula, term.unit, term.how_to_read, term.remedy, term.source, term.type):
            assert text in page, (term.name, text)


def test_the_module_prints_the_page():
    done = subprocess.run([sys.executable, "-m", "lossprobe.terms.reference"], capture_output=True, check=True)
    assert done.stdout.decode() == reference_page()
