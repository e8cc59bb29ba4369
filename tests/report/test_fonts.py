"""Characters that matplotlib's fonts lack: drawn with a font of the system, or shown by their codes and named."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
from fake_runs import words
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from geometry import check_layout

from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.report import fonts
from lossprobe.report.plots.perplexity import plot_perplexity
from lossprobe.report.style import cut, drawable, in_order, in_text
from lossprobe.report.views.hardest import hardest_view
from lossprobe.report.views.perplexity import perplexity_view
from lossprobe.report.views.view import draw

ARABIC = "العربية"


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Write a font that has squares for 漢 and 字, and return its file."""
    pen = TTGlyphPen(None)
    for move, corner in zip((pen.moveTo, *[pen.lineTo] * 3), ((0, 0), (0, 900), (900, 900), (900, 0)), strict=True):
        move(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap(dict.fromkeys(map(ord, "漢字"), "square"))
    builder.setupGlyf({".notdef": square, "square": square})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares of a test", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path_factory.mktemp("fonts") / "noto squares.ttf"
    builder.save(path)
    return str(path)


@pytest.fixture(params=["without", "with"])
def found(request, squares, monkeypatch, tmp_path):
    """Let the system have a damaged font, and that with squares or not; return whether it has."""
    damaged = tmp_path / "noto damaged.ttf"
    damaged.write_bytes(b"\0" * 99)
    monkeypatch.setattr(
        fonts, "findSystemFonts", lambda: [str(damaged), *([squares] if request.param == "with" else [])]
    )
    monkeypatch.delenv("MPL_IGNORE_SYSTEM_FONTS", raising=False)
    monkeypatch.setattr(fonts.fontManager, "ttflist", list(fonts.fontManager.ttflist))
    for cached in (fonts.system_family, fonts._files):
        cached.cache_clear()
    yield request.param == "with"
    for cached in (fonts.system_family, fonts._files):
        cached.cache_clear()


def test_chinese_is_drawn_where_a_font_has_it_and_else_named(make_run, found):
    docs = [dataclasses.replace(words("first_token", 1, 2), fields={"lang": name}) for name in ("漢字", "ab", "漢龘")]
    run = make_run(docs, name="模漢")
    assert drawable("a漢龘") == ("a漢\\u9f98" if found else "a\\u6f22\\u9f98")
    figure = draw(perplexity_view(run, measure_perplexity(run, "lang")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is one
        check_layout(figure)
    shown = {text.get_text().split("  (")[0]: text for text in figure.axes[1].get_yticklabels()}
    assert set(shown) == ({"漢字", "ab", "漢\\u9f98"} if found else {"\\u6f22\\u5b57", "ab", "\\u6f22\\u9f98"})
    assert shown["ab"].get_fontfamily() == [fonts.PROPORTIONAL]
    if found:
        assert shown["漢字"].get_fontfamily() == [fonts.PROPORTIONAL, "Squares of a test"]
    missing = set("模龘") if found else set("模漢字龘")
    assert set(fonts.shown_by_code(figure)) == missing


def test_a_picture_without_such_characters_asks_for_no_font(make_run, monkeypatch):
    monkeypatch.setattr(fonts, "_files", None)
    run = make_run([words("first_token", 1, 2)] * 2)
    assert not fonts.shown_by_code(draw(hardest_view(run, find_hardest(run))))
    assert plot_perplexity(run, measure_perplexity(run)) is not None


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("found", ["with"], indirect=True)
def test_wide_characters_take_two_cells():
    assert cut("漢" * 6, 8) == "漢漢漢…"
    assert in_text("漢" * 20, "字", "ab") == f"{'漢' * 8}\u27e6字\u27e7ab      "


def test_what_stands_beside_a_name_stays_there_whichever_way_it_runs():
    assert in_order("plain") == "plain"
    marked = in_order(ARABIC)
    assert (marked[0], marked[1:-1], marked[-1]) == (fonts.LEFT_TO_RIGHT, ARABIC, fonts.LEFT_TO_RIGHT)
