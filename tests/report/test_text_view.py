"""The text view of the page: its pieces, and what it does in a real browser."""

from __future__ import annotations

import itertools
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources

import pytest
from fake_runs import BOS, Doc, words, write_run
from page_frame import chromium, framed, in_browser, open_page

from lossprobe.analysis.coloured_text.coloured_text import coloured_text
from lossprobe.report.page.text_view import ASSETS, text_view

HOSTILE = [
    b"<script>document.title='run'</script>", b"<img src=x onerror=alert(1)>", b"</section>", b" &amp; ",
    "\u202e".encode(), "\u200b".encode(), b"\x1b[31m", b"\x00", b"\r\n", b"\t", b"  ", "\u2028".encode(),
    b"\xe2", b"\x98\x83", "\u05e9\u05dc".encode(), "\ufeff".encode(),
]  # fmt: skip


LONG = [b" " + bytes([97 + k % 26]) * (1 + k % 9) if k % 50 else b"\n" for k in range(6000)]
TURNS = [(None, None, "template"), (0, "user", "content"), (1, "assistant", "content"), (1, "assistant", "content")]
LENIENT = "innerHTML|outerHTML|insertAdjacent|document.write|\\beval\\b|new Function|url\\(|@import|https?:"
WIDE = {"width": 1280, "height": 900}


def bits_of(count: int) -> list[float | str]:
    return ["first_token", *(1 + k % 50 / 10 for k in range(count - 1))]


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Return the text views of a long text, hostile text, a conversation and two runs of one text."""
    folder = tmp_path_factory.mktemp("runs")
    numbers = itertools.count()

    def view(*runs, **choices):
        return text_view(coloured_text(*[write_run(folder / str(next(numbers)), docs) for docs in runs], **choices))

    long = Doc(LONG, bits_of(len(LONG)))
    long.bits[4321], long.bits[77] = 40.0, 35.0
    long.bits[101], long.bits[201] = 30.0, 30.01  # of one code
    short = words("first_token", 12, 0.5, "masked", 3)
    chat = Doc([BOS, b"Hi\n", b"Hello", b" you"], ["special", "masked", 2, 9], labels=TURNS)
    other = words("first_token", 2, 0.5, "masked", 9)
    return {
        "long": view([long, short]),
        "hostile": view([Doc(HOSTILE, [30.0 - k for k in range(len(HOSTILE))], source="<b>\u202e.txt")]),
        "chat": view([chat]),
        "two": view([short], [other]),
        "sample": view([words(*bits_of(10)) for _ in range(20)], most_tokens=60),
    }


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def files(views, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, view in views.items():
        (folder / f"{name}.html").write_text(framed(view), "utf-8")
    return folder


@pytest.fixture
def show(browser, files):
    """Return a function that opens a page; at the end nothing may have been refused, and no script have failed."""
    pages = []

    def opened(name, fragment="", **context):
        pages.append(open_page(browser, files / f"{name}.html", fragment, viewport=WIDE, **context))
        return pages[-1]

    yield opened
    for page in pages:
        assert page.faults == []
        page.context.close()


def current(page):
    return page.locator(".lp-card a").inner_text()


def becomes(page, read, value):
    """Wait until `read()` is `value`: how soon a page answers depends on what else its machine does."""
    for _ in range(500):
        if read() == value:
            return
        page.wait_for_timeout(20)
    assert read() == value


def card(page):
    return dict(
        zip(page.locator(".lp-card dt").all_inner_texts(), page.locator(".lp-card dd").all_inner_texts(), strict=True)
    )


def test_the_data_is_what_the_arrays_hold(make_run):
    text = coloured_text(make_run([words("first_token", 1, 2)]))
    data = {name: zlib.decompress(packed, -15) for name, packed in text_view(text).data.items()}
    assert json.loads(data.pop("lossprobe-text-header")) == text.header
    filled = {name: values.tobytes() for name, values in text.arrays.items() if len(values)}
    assert data == {f"lossprobe-text-{name}": values for name, values in filled.items()}


def test_hostile_text_is_escaped_in_the_fragment(views):
    html = views["hostile"].html
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("</section>") == 1
    assert "\\u202e" in html
    assert not set("\u202e\u200b\x1b\x00\u2028\ufeff") & set(html)


def test_nothing_of_the_view_needs_a_lenient_policy(views):
    view = views["hostile"]
    found: list[tuple[str, str | None]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.extend(attributes)
    parser.feed(view.html)
    names = {name for name, _ in found}
    assert "href" in names
    assert not {name for name in names if name.startswith("on")} | (names & {"style", "src"})
    assert all(str(value).startswith("#") for name, value in found if name == "href")
    assert not re.search(LENIENT, view.style + view.script + view.html)


def test_every_asset_is_used_and_short():
    folder = resources.files("lossprobe.report.page").joinpath("assets")
    assert {file.name for file in folder.iterdir()} >= {*(f"{name}.js" for name in ASSETS), "text_view.css"}
    assert all(file.read_text("utf-8").count("\n") <= 300 for file in folder.iterdir())


def luminance(colour):
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_letters_stand_out_from_every_colour_and_colours_from_each_other(views):
    light, dark = (
        dict(re.findall(r"--lp-(\w+): (#\w{6})", part)) for part in views["long"].style.split("@media", 2)[:2]
    )
    dark = light | dark
    for theme, direction in ((light, -1), (dark, 1)):
        for name in [*(f"l{k}" for k in range(9)), *(f"d{k}" for k in range(7))]:
            assert contrast(theme[name], theme[f"k{name}"]) >= 4.5, name
        for ink in ("ink", "pale"):
            assert contrast(theme[ink], theme["paper"]) >= 4.5
            assert contrast(theme[ink], theme["panel"]) >= 4.5
        levels = [direction * luminance(theme[f"l{k}"]) for k in range(9)]
        assert levels == sorted(levels), "told apart by lightness alone, with any kind of colour blindness"
        assert luminance(theme["l0"]) == luminance(theme["paper"])


@in_browser
def test_the_text_is_shown_in_rows_that_are_made_when_they_are_seen(show):
    page = show("long")
    assert "6,005 tokens" in page.locator(".lp-status").inner_text()
    assert 20 < page.locator(".lp-row").count() < 150
    assert page.locator("[data-i='1']").inner_text() == " bb"
    assert current(page) == "#d0t0"
    assert card(page)["loss"] == "none: first token"
    page.locator("[data-i='3']").hover()
    shown = card(page)
    assert shown["loss"].startswith("0.83 nats, probability 43"), "1.2 bits are 0.832 nats"
    assert shown["class"] == "word start, its id is not in the context"
    assert shown["place"] == "document 0, token 3; byte 8; fake.txt, line 2; byte 8 of the file"
    page.locator("[data-i='7']").click()
    assert current(page) == "#d0t7"
    page.mouse.move(5, 5)
    assert current(page) == "#d0t7", "after the pointer has left, the card is that of the chosen token"


@in_browser
def test_keys_go_to_the_hardest_tokens_and_along_the_text(show):
    page = show("long")
    page.keyboard.press("n")
    assert current(page) == "#d0t4321"
    assert card(page)["loss"].startswith("27.726 nats"), "40 bits, exactly"
    assert "1st hardest of 6,002 tokens" in page.locator(".lp-status").inner_text()
    page.keyboard.press("n")
    assert current(page) == "#d0t77"
    page.keyboard.press("n")
    assert current(page) == "#d0t201"
    page.keyboard.press("p")
    page.keyboard.press("p")
    page.keyboard.press("ArrowRight")
    assert current(page) == "#d0t4322"
    assert page.evaluate("document.activeElement.dataset.i") == "4322"
    assert page.locator("[tabindex='0'][data-i]").count() == 1
    row = "document.activeElement.parentElement.getAttribute('aria-rowindex')"
    before = int(page.evaluate(row))
    page.keyboard.press("ArrowDown")
    assert int(page.evaluate(row)) == before + 1
    page.keyboard.press("PageDown")
    assert before + 10 < int(page.evaluate(row)) < before + 60
    token = current(page)
    rows = page.locator(".lp-scroll").get_attribute("aria-rowcount")
    page.set_viewport_size({"width": 900, "height": 700})
    becomes(page, lambda: page.locator(".lp-scroll").get_attribute("aria-rowcount") != rows, value=True)
    assert page.evaluate("`#d0t${document.activeElement.dataset.i}`") == token, "other lines, the same focus"
    page.keyboard.press("Control+End")
    assert current(page) == "#d1t4"
    page.keyboard.press("Control+Home")
    assert current(page) == "#d0t0"
    page.locator("[name=search]").focus()
    page.keyboard.press("n")
    assert current(page) == "#d0t0", "a letter in a field is a letter"


@pytest.mark.thorough
@in_browser
def test_filters_choose_tokens(show):
    page = show("long")
    status = page.locator(".lp-status")

    def finds(count, field, value, kind="fill"):
        getattr(page.locator(f"[name={field}]"), kind)(value)
        becomes(page, status.inner_text, f"{count} of 6,005 tokens match")
        page.locator("button[type=reset]").click()
        becomes(page, status.inner_text, "6,005 tokens")

    finds(4, "low", "20")
    finds(5, "document", "1")
    finds(120, "class", "newline", "select_option")
    finds(5, "rank", "tens", "select_option")  # the ranks of fake runs are rounded bits
    finds(2 * len(re.findall(b" bb ccc", b"".join(LONG))), "search", " BB ccc")  # each place lies in two tokens
    page.locator("[name=document]").fill("1")
    page.locator("[name=only]").check()
    becomes(page, page.locator(".lp-row").count, 2)  # the head of the document and its line
    page.keyboard.press("Tab")
    page.locator(".lp-next").click()
    assert current(page) == "#d1t1", "the hardest of those that match"


@pytest.mark.thorough
@in_browser
def test_a_link_opens_its_token(show):
    page = show("long", "#d0t4000")
    assert current(page) == "#d0t4000"
    assert page.evaluate("document.activeElement.dataset.i") == "4000"
    box, view = page.locator("[data-i='4000']").bounding_box(), page.locator(".lp-scroll").bounding_box()
    assert view["y"] <= box["y"] <= view["y"] + view["height"]
    page.keyboard.press("ArrowRight")
    becomes(page, lambda: page.url.endswith("#d0t4001"), value=True)
    page.evaluate("location.hash = '#d1t2'")
    becomes(page, lambda: current(page), "#d1t2")
    page.evaluate("location.hash = '#d9t9'")
    becomes(page, page.locator(".lp-status").inner_text, "token 9 of document 9 is not on this page")
    page.set_viewport_size({"width": 1280, "height": 500})
    page.locator("#lp-hardest + .lp-table a").first.click()
    becomes(page, lambda: current(page), "#d0t4321")
    box = page.locator("[data-i='4321']").bounding_box()
    assert 0 <= box["y"] <= 500 - box["height"], "the window is scrolled back from the table"


@in_browser
def test_a_link_that_is_followed_wins_over_the_address_of_the_token_before(show):
    page = show("long", "#d0t40")
    page.evaluate("location.hash = '#d1t2'; history.replaceState(null, '', '#d0t40')")
    becomes(page, lambda: current(page), "#d1t2")
    becomes(page, lambda: page.url.endswith("#d1t2"), value=True)


@in_browser
def test_hostile_text_is_shown_and_never_runs(show):
    page = show("hostile")
    assert page.title() == "text"
    assert page.locator("img").count() == 0
    shown = ["".join(page.locator(f"[data-i='{k}']").all_inner_texts()) for k in range(len(HOSTILE))]
    assert shown[:3] == [HOSTILE[0].decode(), HOSTILE[1].decode(), "</section>"]
    assert shown[3] == " &amp;\u00b7", "the last blank stands in a new line"
    assert shown[4:8] == ["\\u202e", "\\u200b", "\\x1b[31m", "\\x00"]
    assert shown[8:12] == ["\u2190\u21b5", "\u2192", "\u00b7\u00b7", "\\u2028"]
    assert shown[12:] == ["\u2603", "\u25b9", "\u05e9\u05dc", "\\ufeff"]
    page.locator("[data-i='13']").hover()
    assert page.locator(".lp-card-token").inner_text() == "\\x98\\x83"
    assert card(page)["part of"] == "“\u2603”"
    assert "<b>\\u202e.txt" in card(page)["place"]


@pytest.mark.thorough
@in_browser
def test_a_conversation_shows_who_speaks(show):
    page = show("chat")
    heads = page.locator(".lp-turn-head").all_inner_texts()
    assert heads == ["user · turn 0", "assistant · turn 1"]
    page.locator("[data-i='3']").hover()
    assert card(page)["role"] == "assistant, content, turn 1"
    assert card(page)["place"].startswith("document 0, token 3; byte 8;"), "the name of the BOS is no byte"
    page.locator("[name=role]").select_option("role user")
    becomes(page, page.locator(".lp-status").inner_text, "1 of 4 tokens match")


@pytest.mark.thorough
@in_browser
def test_two_runs_are_coloured_by_their_difference(show):
    page = show("two")
    classes = [page.locator(f"[data-i='{k}']").get_attribute("class").split()[1] for k in range(5)]
    assert classes == ["lp-u", "lp-d0", "lp-d3", "lp-u", "lp-d6"], "−10, 0 and +6 bits"
    page.keyboard.press("n")
    assert current(page) == "#d0t1"
    assert card(page)["change"].startswith("−6.931 nats: easier"), "−10 bits, exactly"
    page.locator("[name=measure]").select_option("loss")
    token = page.locator("[data-i='1']")
    becomes(page, lambda: token.get_attribute("class").split()[1], "lp-l7")  # 12 bits are 8.3 nats


@pytest.mark.thorough
@in_browser
def test_a_text_that_is_too_tall_for_a_browser_is_scrolled_by_its_share(browser, views, tmp_path):
    view = views["long"]
    low = replace(view, script=view.script.replace("MOST_HEIGHT = 8e6", "MOST_HEIGHT = 3000"))
    assert low.script != view.script
    file = tmp_path / "low.html"
    file.write_text(framed(low), "utf-8")
    page = open_page(browser, file, viewport=WIDE)
    scroller = page.locator(".lp-scroll")
    assert scroller.evaluate("element => element.scrollHeight") == 3000

    def seen(token):
        box, view = page.locator(f"[data-i='{token}']").last.bounding_box(), scroller.bounding_box()
        return view["y"] <= box["y"] and box["y"] + box["height"] <= view["y"] + view["height"] + 1

    page.keyboard.press("n")
    assert seen(4321)
    page.keyboard.press("Control+End")
    assert seen(6004)
    scroller.evaluate("element => { element.scrollTop = 0; }")
    becomes(page, page.locator("[data-i='0']").count, 1)
    assert seen(0)
    assert page.faults == []
    page.context.close()


@pytest.mark.thorough
@in_browser
def test_what_is_left_out_is_said(show):
    page = show("sample")
    assert "of 200 tokens are shown" in page.locator(".lp-note").inner_text()
    gaps = page.locator(".lp-gap").all_inner_texts()
    assert gaps
    assert all(re.fullmatch(r"… \d+ tokens are not on this page …", gap) for gap in gaps)


@pytest.mark.thorough
@in_browser
def test_the_strip_leads_to_the_worst_place(show):
    page = show("long")
    strip = page.locator(".lp-strip")
    box = strip.bounding_box()
    strip.click(position={"x": 5, "y": box["height"] - 2})
    becomes(page, page.locator("[data-i='6004']").count, 1)  # the end of the text


@pytest.mark.thorough
@in_browser
def test_print_and_forced_colours(show):
    page = show("long", forced_colors="active")
    line = page.locator("[data-i='4321']")
    page.keyboard.press("n")
    assert "underline" in line.evaluate("element => getComputedStyle(element).textDecorationLine")
    assert page.locator(".lp-scroll").evaluate("element => element.scrollWidth <= element.clientWidth")
    page.emulate_media(media="print")
    assert not page.locator(".lp-scroll").is_visible()
    assert page.locator(".lp-table tbody tr").count() == 50
    assert page.locator(".lp-table tbody tr").last.is_visible()


@pytest.mark.thorough
@in_browser
def test_a_narrow_page_does_not_scroll_sideways(browser, files):
    page = open_page(browser, files / "long.html", viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.locator(".lp-scroll").evaluate("element => element.scrollWidth <= element.clientWidth + 1")
    page.context.close()


@in_browser
def test_a_slider_shows_the_steps_of_a_series(browser, make_run, tmp_path):
    first, last = (make_run([words("first_token", bits, 8)]) for bits in (8, 0.1))
    view = text_view(coloured_text(first, last, steps={"step 10": first, "step 20": last}))
    (tmp_path / "series.html").write_text(framed(view), "utf-8")
    page = open_page(browser, tmp_path / "series.html", "#d0t1", viewport=WIDE)
    shown = page.locator('[data-i="1"]').first
    assert page.locator("[name=step]").is_hidden()
    page.select_option("[name=measure]", "step")
    for step, name, level in (("0", "step 10", "lp-l5"), ("1", "step 20", "lp-l0")):  # 5.5 and 0.07 nats
        page.locator("[name=step]").fill(step)
        assert page.locator(".lp-step").inner_text() == name
        assert level in shown.get_attribute("class").split()
    assert re.fullmatch(r"5\.[56]\d → 0\.0[678] nats", card(page)["at each step"])
    assert page.faults == []
    page.context.close()
