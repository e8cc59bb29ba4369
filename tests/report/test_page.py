"""The page of a report: one file that loads nothing, shows text as text, and says what the terminal says."""

from __future__ import annotations

import base64
import collections
import functools
import hashlib
import importlib
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from fake_runs import Doc, write_run
from page_frame import chromium, in_browser, open_page

from lossprobe.analysis.findings import findings, text_defects
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.provenance import find_provenance
from lossprobe.errors import NotComparableError, UsageError
from lossprobe.python.report import make_report
from lossprobe.report.formats.cells import format_cell
from lossprobe.report.page.page import page_to_html
from lossprobe.report.page.section import Exhibit, Page, Section
from lossprobe.report.views.view import View

HOSTILE = "<img src=x onerror=alert(1)></script>\u202e\x07"


class Read(HTMLParser):
    """What a page holds: its elements with their attributes, and its text by element id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def a_run(folder, name="model", shift=0.0, docs=6, labels=None):
    random = np.random.default_rng(3)
    made = [
        Doc([b" ", b"a", b"b", b" c"] * 10, ["first_token", *(random.exponential(2.0, 39) + shift)],
            fields={"id": HOSTILE}, labels=None if labels is None else [labels] * 40)
        for _ in range(docs)
    ]  # fmt: skip
    return write_run(folder, made, name=name, text_name="valid")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return a_run(tmp_path_factory.mktemp("one") / "run", HOSTILE)


@pytest.fixture(scope="module")
def page(run):
    return b"".join(page_to_html(make_report(run))).decode()


@pytest.fixture(scope="module")
def read(page):
    return Read(page)


@pytest.mark.thorough
@in_browser
def test_a_browser_runs_it_under_its_policy(page, tmp_path):
    (tmp_path / "page.html").write_text(page, "utf-8")
    with chromium() as browser:
        opened = open_page(browser, tmp_path / "page.html", "#d1t3", viewport={"width": 1000, "height": 700})
        assert opened.locator(".lp-card a").inner_text() == "#d1t3"
        meaning = opened.locator("#term-0")
        assert not meaning.is_visible()
        opened.locator("[popovertarget=term-0]").first.click()
        assert meaning.is_visible()
        assert opened.evaluate("document.documentElement.scrollWidth") <= 1000, "nothing is wider than the page"
        assert opened.locator("img").first.evaluate("image => image.naturalWidth") > 500
        assert opened.faults == []


@in_browser
def test_on_paper_the_widest_table_is_no_wider_than_the_paper(tmp_path):
    heads = ["step", "model", *("minus_unigram_nats",) * 15]
    head = "".join(f'<th class="number"><button class="term">{name}</button></th>' for name in heads)
    row = "".join(f'<td class="number">{value}</td>' for value in ["1,000", "step-1000", *["-0.345678"] * 15])
    style = resources.files("lossprobe.report.page").joinpath("assets", "page.css").read_text("utf-8")
    page = f'<style>{style}</style><main><div class="scroll"><table><tr>{head}</tr><tr>{row}</tr></table></div></main>'
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{page}", "utf-8")
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": 720, "height": 1000})
        opened.emulate_media(media="print")
        opened.goto((tmp_path / "page.html").as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") <= 720


def test_it_loads_nothing(page, read):
    addresses = [value for _, attributes in read.elements for name, value in attributes.items()
                 if name in ("src", "href", "srcset", "action", "data", "poster")]  # fmt: skip
    assert addresses
    assert {re.match(r"#|data:image/svg\+xml;base64,", address).group() for address in addresses} <= {
        "#", "data:image/svg+xml;base64,"
    }  # fmt: skip
    assert "url(" not in page
    assert "@import" not in page


def test_the_policy_allows_its_own_style_and_script_by_hash_and_nothing_inline(page, read):
    policy = next(each["content"] for each in read.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
    for tag in ("style", "script"):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S).group(1)
        hashed = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{hashed}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    named = [name for _, attributes in read.elements for name in attributes]
    assert not [name for name in named if name == "style" or name.startswith("on")]


def test_text_from_files_is_text(page, read):
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert "\x07" not in page
    assert any("<img src=x onerror=alert(1)>" in text for text in read.texts), "shown, not dropped"


def test_numbers_are_those_of_the_terminal(run, read):
    table = measure_perplexity(run).table
    for value in table["value"]:
        assert any(format_cell("value", value) in text for text in read.texts)


SAID = (
    "2 findings",
    "warning (a-rule): <b>one</b>", "  told above 2 nats", "  do: mend: it", "  look: lossprobe hardest .lossprobe/one",
    "markup: two", "  such as: ab⟦c⟧", "", "all others: 3 nats",
)  # fmt: skip


def a_page(run, **shown):
    view = View("v", "", find_provenance([run]), **shown)
    return b"".join(page_to_html(Page("t", "s", (Section("a", "A", (Exhibit("", view),)),)))).decode()


def test_a_finding_and_its_details_are_one_block(run):
    page = a_page(run, findings=SAID)
    (items,) = re.findall(r'<ul class="told">(.*?)</ul>', page, re.S)
    first, second = re.findall(r"<li.*?</li>", items, re.S)
    assert first.startswith('<li class="is-warning"><p class="finding">warning (a-rule): &lt;b&gt;one&lt;/b&gt;</p>')
    assert '<p class="detail">told above 2 nats</p>' in first
    assert '<p class="detail"><b>do:</b> mend: it</p>' in first
    assert '<p class="detail"><b>look:</b> <code>lossprobe hardest .lossprobe/one</code></p>' in first
    assert second.startswith('<li><p class="finding">markup: two</p>')
    assert '<p class="detail"><b>such as:</b> ab⟦c⟧</p>' in second
    before, _, after = page.partition(items)
    assert '<p class="finding">2 findings</p>' in before
    assert '<p class="finding">all others: 3 nats</p>' in after


def test_numbers_stand_right_also_where_each_row_has_digits_of_its_own(run):
    shown = pd.DataFrame({"value": ["0.5", "1e-07", "n/a"], "unit": ["", "nats", "%"], "model": ["1", "2", "3"]})
    page = a_page(run, shown=shown)
    heads = re.findall(r'<th scope="col" class="(\w+)">', page)
    assert heads == ["number", "words", "words"], "a model may be called 1"


def test_a_table_without_rows_is_told_in_words(run):
    empty = pd.DataFrame({"token": []})
    page = a_page(run, shown=empty, more=(("tokens forgotten", empty),))
    assert "<table>" not in page
    assert '<p class="note">tokens forgotten: none</p>' in page


def test_every_explained_name_has_its_explanation(read):
    pressed = [each["popovertarget"] for each in read.of("button") if "popovertarget" in each]
    there = [each["id"] for each in read.of("div") if "popover" in each]
    assert set(pressed) == set(there)
    assert len(there) == len(set(there))
    assert "nll" in read.texts
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_sections_of_one_run(read):
    assert [each["href"] for each in read.of("a")][1:10] == [
        "#findings", "#numbers", "#lp-text", "#positions", "#hardest", "#defects", "#calibration", "#objectives",
        "#provenance",
    ]  # fmt: skip
    pictures = read.of("img")
    assert len(pictures) == 3
    assert all(each["alt"] for each in pictures)


@pytest.mark.thorough
def test_the_same_run_gives_the_same_bytes(run, page):
    assert b"".join(page_to_html(make_report(run))).decode() == page


@pytest.fixture
def made(monkeypatch):
    """Replace the views by empty ones; return the list of what was asked for: name, names of the runs, choices."""
    asked = []

    def view_of(name, runs, choices, once):
        asked.append((name, tuple(run.name for run in runs), choices))
        if choices.get("by") == "document" and len(runs) == 2:
            raise UsageError("x.y", "there is one document")
        return View(name, "", find_provenance(runs), runs)

    monkeypatch.setattr("lossprobe.python.report.view_of_runs", view_of)
    return asked


MEASURED_ONCE = {
    "lossprobe.analysis.perplexity.measure_perplexity": 2,
    "lossprobe.analysis.positions.measure_positions": 2,
    "lossprobe.analysis.defects.defects.find_defects": 2,
    "lossprobe.analysis.hardest.find_hardest": 8,  # by token, type, document and class
    "lossprobe.analysis.calibration.calibration.calibrate_model": 2,
    "lossprobe.analysis.objectives.objectives.measure_objectives": 2,
    "lossprobe.analysis.compare.compare.compare_runs": 1,
    "lossprobe.analysis.compare.compare.find_changes": 3,  # by class, document and token
}


@pytest.mark.thorough
def test_findings_and_sections_share_their_results(tmp_path, run, monkeypatch):
    calls = collections.Counter()

    def counted(name, function):
        @functools.wraps(function)
        def count(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return count

    for name in MEASURED_ONCE:
        module, _, function = name.rpartition(".")
        count = counted(name, getattr(importlib.import_module(module), function))
        monkeypatch.setattr(name, count)
        for reader in (findings, text_defects):
            if hasattr(reader, function):
                monkeypatch.setattr(reader, function, count)
    other = a_run(tmp_path / "other", "other", shift=0.5)
    page = make_report(run, other)
    assert calls == MEASURED_ONCE
    told = next(section for section in page.sections if section.id == "findings").exhibits[0].view.result
    assert told.findings == findings.find_findings([run, other]).findings


def ids(page):
    return [section.id for section in page.sections]


def test_two_runs_show_their_difference_first(tmp_path, run, made):
    page = make_report(run, a_run(tmp_path / "other", "other", shift=0.5))
    assert ids(page)[:3] == ["findings", "compare", "numbers"]
    assert made[1] == ("compare", (HOSTILE, "other"), {"by": "class"})
    assert ("calibration", (HOSTILE, "other"), {}) in made
    numbers = [(names, choices) for name, names, choices in made if name == "perplexity"]
    assert numbers == [((HOSTILE,), {}), (("other",), {})]
    assert [exhibit.title for exhibit in page.sections[2].exhibits][1] == "other"
    assert page.text.header["other"] == "other"


def test_a_view_that_a_run_cannot_have_is_told(tmp_path, made):
    page = make_report(a_run(tmp_path / "one", docs=1), a_run(tmp_path / "two", docs=1))
    assert page.sections[1].missing == ("By document: not shown, because there is one document",)


def test_three_runs_are_a_series_in_the_order_of_their_steps(tmp_path, made):
    runs = [a_run(tmp_path / name, name, docs=1) for name in ("step-300", "step-100", "step-200")]
    page = make_report(*runs)
    assert ids(page)[:3] == ["findings", "series", "numbers"]
    assert made[1][1] == ("step-100", "step-200", "step-300")
    assert [names for name, names, _ in made if name == "perplexity"] == [("step-300",)]
    assert (page.text.header["name"], page.text.header["other"]) == ("step-100", "step-300")
    assert page.text.header["steps"] == ["step 100", "step 200", "step 300"]
    for place, run in enumerate(page.sections[1].exhibits[0].view.runs):
        losses = run.tokens()["loss_nats"].to_numpy(float)
        codes = page.text.arrays[f"step_{place}"]
        assert (codes == 255).tolist() == np.isnan(losses).tolist()
        scale = page.text.header["scales"]
        values = scale["loss_unit"] * np.expm1(scale["loss_rate"] * codes[1:].astype(float))
        np.testing.assert_allclose(values, losses[1:], rtol=0.02, atol=0.02)


def test_roles_have_their_section(tmp_path, made):
    page = make_report(a_run(tmp_path / "chat", labels=(0, "user", "content")))
    roles = next(section for section in page.sections if section.id == "roles")
    assert [exhibit.title for exhibit in roles.exhibits] == ["By role", "By part", "By turn"]


def test_progress_counts_the_sections(run, made):
    told = []
    make_report(run, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 7) for done in range(7)]


def test_tables_that_two_views_share_stand_once(run):
    exhibits = [Exhibit(title, View("v", "", find_provenance([run])), False) for title in ("one", "two")]
    page = b"".join(page_to_html(Page("t", "s", (Section("a", "A", tuple(exhibits)),)))).decode()
    assert page.count("<table>") == 1


def test_runs_of_other_tokenizers_are_refused_before_anything_is_measured(tmp_path, run, made):
    other = write_run(tmp_path / "other", [Doc([b"abc"], ["first_token"])], name="other", text_name="valid")
    other.manifest["settings"]["tokenizer"] = {"sha256": "another"}
    with pytest.raises(NotComparableError, match=r"and other differ in .*tokenizer \(") as refused:
        make_report(run, other)
    assert refused.value.id == "runs.different"
    assert made == []


def test_no_run_is_refused():
    with pytest.raises(UsageError, match="one run or more, not 0"):
        make_report()
