"""The table of how often findings are right holds what was drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

ROOT = Path(__file__).parents[3]
DRAWN = json.loads((ROOT / "tests/simulations/findings_truth.json").read_text("utf-8"))
PAGE = (ROOT / "docs/pages/explanation/findings.md").read_text("utf-8")


def rows(kind: str) -> dict[str, list[str]]:
    """Return the cells of the rows of clean or of faulty texts, by the name of the case."""
    found = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith(f"| {kind}: ")]
    return {cells[0].removeprefix(f"{kind}: "): cells[1:] for cells in found}


def bound(found: int, texts: int) -> str:
    """Return the upper end of the 95 % interval of Clopper and Pearson."""
    return f"{100 * stats.binomtest(found, texts).proportion_ci(0.95, method='exact').high:.2g} %"


def test_every_case_stands_in_the_table():
    assert rows("clean").keys() | rows("faulty").keys() == DRAWN.keys()


@pytest.mark.parametrize("name", rows("clean"))
def test_clean_texts(name):
    texts, found = DRAWN[name]["texts"], DRAWN[name]["found"].get("any", 0)
    assert rows("clean")[name] == [str(texts), str(found), bound(found, texts)]


@pytest.mark.parametrize("name", rows("faulty"))
def test_faulty_texts(name):
    texts, found = DRAWN[name]["texts"], DRAWN[name]["found"]
    cells = rows("faulty")[name]
    rule = cells[2].partition("`")[2].rstrip("`)")
    assert cells == [str(texts), str(found["any"]), f"{found[rule]} (`{rule}`)"]
    assert found[rule] == texts >= 20


def test_at_most_one_in_a_hundred_clean_texts_has_a_false_finding():
    clean = [DRAWN[name] for name in rows("clean")]
    texts, found = (sum(each) for each in zip(*((c["texts"], c["found"].get("any", 0)) for c in clean), strict=True))
    assert texts >= 500
    assert stats.binomtest(found, texts).proportion_ci(0.95, method="exact").high < 0.01
    assert f"Of {texts} clean texts {found} had a finding, so that the true share is below {bound(found, texts)}" in (
        PAGE.replace("\n", " ")
    )
