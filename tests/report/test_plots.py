"""Pictures: what is drawn, what the axes say, and that no text can break them."""

import ast
import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_runs import BOS, LN2, Doc, words, write_run
from geometry import check_layout
from matplotlib.figure import Figure

from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.options import HARDEST_BY
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.tokens import measure_tokens
from lossprobe.report import fonts, plots
from lossprobe.report.plots.hardest import plot_hardest
from lossprobe.report.plots.perplexity import plot_perplexity
from lossprobe.report.plots.positions import plot_positions
from lossprobe.report.plots.ranges import MOST_ROWS, counted, name_rows
from lossprobe.report.plots.tokens import STRIP_COLUMNS, plot_tokens
from lossprobe.report.style import drawable, label, legend, legend_name, new_figure

HOSTILE = ["$\\frac$", "a$b$c", "漢字", "\x1b[2J", "\u202e", "\n", "⌹", "😀", "\x00", "_^{", "%"]


def rendered(figure: Figure, arranged: bool = False) -> bytes:
    """Return the PNG of a figure; arranging its axes takes most of the time, and is checked by test_picture_layout."""
    sink = io.BytesIO()
    if not arranged:
        figure.set_layout_engine("none")
    figure.savefig(sink, format="png", dpi=50, metadata={"Software": None})
    return sink.getvalue()


def placed(figure: Figure) -> Figure:
    """Return a figure after every part of it was asked where it stands, as drawing does, without making pixels."""
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    return figure


def texts_of(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def labels_of(axes) -> tuple[str, str]:
    return axes.get_xlabel(), axes.get_ylabel()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    docs = [words("first_token", *[1 + n % 3 + k for k in range(12)], fields={"lang": "ab"[n % 2]}) for n in range(4)]
    return write_run(tmp_path_factory.mktemp("plots") / "run", docs)


@pytest.fixture
def hostile(make_run):
    pieces = [BOS, *[text.encode() for text in HOSTILE], "漢".encode()[:1], "漢".encode()[1:]]
    bits = ["special", *range(1, len(pieces))]
    docs = [Doc(pieces, bits, {"$\\x$": text}) for text in HOSTILE[:3]]
    return make_run(docs, name="mo$\\frac$del漢\x1b", text_name="te\nxt⌹")


@pytest.fixture(autouse=True)
def _own_fonts_only(monkeypatch):
    """Leave out the fonts of this system, whatever other tests did."""
    monkeypatch.setenv("MPL_IGNORE_SYSTEM_FONTS", "1")
    for cached in (fonts.system_family, fonts._files):
        cached.cache_clear()


def all_plots(run, field):
    yield plot_tokens(run, measure_tokens(run))
    for by in ("context", "document-position"):
        for bins in ("geometric", "every"):
            yield plot_positions(run, measure_positions(run, by, bins))
    for by in HARDEST_BY:
        yield plot_hardest(run, find_hardest(run, by, min_count=1))
    for by in (None, "document", field):
        yield plot_perplexity(run, measure_perplexity(run, by))


@pytest.mark.thorough
def test_hostile_text_neither_raises_nor_warns(hostile):  # T19; warnings are errors here
    for figure in all_plots(hostile, "$\\x$"):
        assert rendered(figure).startswith(b"\x89PNG")
        assert figure.get_suptitle().startswith("mo$\\frac$del\\u6f22\\x1b on te\\nxt\\u2339, context 1024")


@pytest.mark.thorough
def test_hostile_names_head_every_picture(make_run):
    model, text = "m$\\foo{$", "_h$x_y$"
    run = make_run([words("first_token", 1, 2, 3, fields={"_$\\x{$": "_$a_b$"})] * 2, name=model, text_name=text)
    for figure in all_plots(run, "_$\\x{$"):
        assert placed(figure).get_suptitle().startswith(f"{model} on {text}, context 1024")


def test_a_legend_shows_every_name_as_it_is():
    axes = Figure().subplots()
    names = ["m$\\foo{$", "h$x_y$", "_hidden", "__漢\n", "plain"]
    for name in names:
        axes.plot([0, 1], label=legend_name(name))
    axes.plot([0, 1])  # without a name
    legend(axes)
    texts = axes.get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["m$\\foo{$", "h$x_y$", "_hidden", "__\\u6f22\\n", "plain"]
    assert not any(text.get_parse_math() for text in texts)
    assert rendered(axes.figure)


def test_nothing_named_has_no_legend():
    axes = Figure().subplots()
    axes.plot([0, 1])
    legend(axes)
    assert axes.get_legend() is None


def test_no_label_of_an_axis_is_a_formula():
    axes = Figure().subplots()
    label(axes, "$\\x{$ 漢", "$x_y$", "_$\\x{$\nb")
    assert labels_of(axes) == ("$\\x{$ \\u6f22", "$x_y$")
    assert rendered(axes.figure)


def test_every_picture_takes_its_legend_from_style():
    for file in Path(plots.__path__[0]).glob("*.py"):
        called = [node.func for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
        assert not [call for call in called if isinstance(call, ast.Attribute) and call.attr == "legend"], file


@pytest.fixture(scope="module")
def figures(run):
    """Return every picture of one run, drawn but not rendered."""
    return list(all_plots(run, "lang"))


@pytest.mark.thorough  # cli/test_views.py writes a picture of each view twice
def test_two_renderings_are_the_same_bytes(run, figures):
    again = {
        0: plot_tokens(run, measure_tokens(run)),
        1: plot_positions(run, measure_positions(run, "context", "geometric")),
        5: plot_hardest(run, find_hardest(run, HARDEST_BY[0], min_count=1)),
        9: plot_perplexity(run, measure_perplexity(run)),
    }
    for index, second in again.items():  # one of each command
        assert rendered(figures[index], arranged=True) == rendered(second, arranged=True)


def test_every_axis_has_its_unit(figures):
    assert labels_of(figures[0].axes[0]) == ("loss (nats per token)", "tokens (log scale)")
    assert figures[0].axes[2].get_ylabel() == "loss (nats)"  # the colour bar
    assert figures[1].axes[0].get_ylabel() == "mean loss (nats per token)"
    assert labels_of(figures[1].axes[1]) == ("tokens of context (log scale)", "tokens")
    assert figures[3].axes[1].get_xlabel() == "position in the document (tokens, log scale)"
    assert figures[5].axes[0].get_xlabel() == "loss of the token (nats)"
    assert figures[6].axes[0].get_xlabel() == "share of the total loss (%)"
    means = [figures[6].axes[1], figures[7].axes[0], *figures[8].axes]
    assert [axes.get_xlabel() for axes in means] == ["mean loss (nats per token)"] * 4
    assert {axes.get_xlabel() for figure in figures[9:] for axes in figure.axes} == {
        "mean loss (nats per token); smaller is better"
    }


def test_the_histogram_shows_counts_mean_and_quantiles(run):
    result = measure_tokens(run)
    upper = plot_tokens(run, result).axes[0]
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in upper.patches]
    expected = result.histogram[["low_nats", "count"]].to_numpy().tolist()
    assert bars == [(low, 0.25, count) for low, count in expected]
    assert upper.get_yscale() == "log"
    at = [float(line.get_xdata()[0]) for line in upper.lines]
    assert at == [*result.quantiles.values(), result.mean_loss_nats, result.quantiles["0.5"]]
    assert texts_of(upper) == [" 25%", " 50%", " 75%", " 90%", " 99%"]
    names = [text.get_text() for text in upper.get_legend().get_texts()]
    assert names == [f"mean {result.mean_loss_nats:.3f}", "quantiles"]
    assert upper.get_xlim()[1] > result.histogram["high_nats"].max()


def test_the_strip_is_the_text_coloured_by_loss(make_run):
    run = make_run([Doc([BOS, b"ab", b" ", b"cd\n", b"e"], ["special", 1, 9, "masked", 2])])
    lower = plot_tokens(run, measure_tokens(run)).axes[1]
    assert texts_of(lower) == ["<bos>", "ab", "\u00b7", "cd\\n", "e"]
    colours = [patch.get_facecolor() for patch in lower.patches]
    assert colours[0] == colours[3] == (0.85, 0.85, 0.85, 1.0)  # without a loss
    assert colours[2][0] > colours[4][0] > colours[1][0]  # cividis: more red where the loss is larger
    assert lower.patches[4].get_xy() == (0, 1)  # after a line end


def test_a_very_long_token_stays_inside_the_strip(make_run):
    run = make_run([Doc([b"a", b"-" * 500, b"b"], ["first_token", 9, 1])])
    lower = plot_tokens(run, measure_tokens(run)).axes[1]
    assert max(len(text) for text in texts_of(lower)) == STRIP_COLUMNS
    assert max(patch.get_x() + patch.get_width() for patch in lower.patches) == STRIP_COLUMNS


@pytest.fixture
def curve(make_run):
    generator = np.random.default_rng(0)
    t = np.arange(1, 200)
    losses = [np.abs(2 + 3 * (t + 1.0) ** -0.7 + generator.normal(0, 0.2, 199)) / LN2 for _ in range(8)]
    return make_run([Doc([b"a"] * 200, ["first_token", *loss]) for loss in losses])


def test_positions_show_bins_with_intervals_the_line_the_fit_and_counts(curve):
    result = measure_positions(curve)
    upper, lower = plot_positions(curve, result).axes
    names = [text.get_text() for text in lower.get_legend().get_texts()]
    assert names[0] == "mean of neighbouring positions"
    assert names[1].endswith("(descriptive)")
    assert names[2] == "mean of a bin, 95 % interval"
    points = upper.containers[0].lines[0]
    assert points.get_ydata().tolist() == result.table["mean_loss_nats"].tolist()
    assert points.get_xdata().tolist() == np.sqrt(result.table["context"] * result.table["context_last"]).tolist()
    bottom, top = upper.get_ylim()
    assert bottom < result.table["low"].min()
    assert result.table["high"].max() < top
    assert upper.get_xscale() == "log"
    assert lower.get_ylim()[0] == 0
    assert lower.lines[0].get_ydata().max() == 8


def test_every_position_has_its_band_and_near_ones_are_one_point(curve):
    result = measure_positions(curve, bins="every")
    upper, lower = plot_positions(curve, result).axes
    names = [text.get_text() for text in lower.get_legend().get_texts()]
    assert names[:2] == ["95 % interval of a position, mean of its ends", "mean of neighbouring positions"]
    line, every = upper.lines[0].get_xydata(), result.every
    np.testing.assert_allclose(line[:20, 1], every["mean_loss_nats"][:20])
    place = np.floor(32 * np.log2(every["context"])).astype(int)
    expected = (every["mean_loss_nats"] * every["count"]).groupby(place).sum() / every["count"].groupby(place).sum()
    np.testing.assert_allclose(line[:, 1], expected)
    assert upper.get_title(loc="left").startswith(f"line: mean over up to {place.value_counts().max()} neighbouring")


def test_single_losses_are_no_means(make_run):
    # One document by position in it: each "mean" would be one token's loss, so only the bins are drawn.
    run = make_run([words("first_token", *range(1, 60))])
    result = measure_positions(run, "document-position")
    upper, lower = plot_positions(run, result).axes
    assert [text.get_text() for text in lower.get_legend().get_texts()] == ["mean of a bin"]
    assert len(upper.lines) == len(upper.containers[0].lines[1]) + 1  # the points and their caps


@pytest.mark.thorough
def test_missing_intervals_draw(make_run):
    run = make_run([words("first_token", 1, 2, 3)])
    assert measure_perplexity(run).per_token.nll_nats_per_token_interval == (None, None)
    for figure in all_plots(run, "document"):
        assert placed(figure)
    axes = plot_perplexity(run, measure_perplexity(run)).axes[0]
    assert len(axes.lines) == 2, "the mean and the level of a model that knows nothing: too few tokens for unigrams"
    assert len(axes.patches) == 1, "a bar alone, no interval"


@pytest.mark.parametrize(("by", "measure"), [("token", "loss_nats"), ("document", "mean_loss_nats")])
def test_bars_are_the_rows_of_the_table(run, by, measure):
    result = find_hardest(run, by)
    axes = plot_hardest(run, result).axes[0]
    assert [bar.get_width() for bar in axes.patches] == result.table[measure].head(MOST_ROWS).astype(float).tolist()
    assert len(axes.get_yticklabels()) == len(axes.patches)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the hardest at the top


def test_types_have_a_panel_for_each_ranking_in_the_order_of_its_bars(make_run):
    pieces = [b"x", *[bytes([65 + n]) for n in range(40)] * 2]
    run = make_run([Doc(pieces, ["first_token", *[1 + n % 40 for n in range(80)]])])
    result = find_hardest(run, "type", top=25, min_count=1)
    panels = plot_hardest(run, result).axes
    for axes, kind, column, scale in zip(
        panels, ("total", "mean"), ("share_of_loss", "mean_loss_nats"), (100, 1), strict=True
    ):
        rows = result.table[result.table["hardest_by"] == kind]
        widths = [bar.get_width() for bar in axes.patches]
        np.testing.assert_allclose(widths, scale * rows[column].head(15))
        assert widths == sorted(widths, reverse=True)
        assert axes.get_title(loc="left").endswith(", 15 of 25")


def test_classes_are_sorted_with_their_intervals_on_one_scale(run):
    result = find_hardest(run, "class")
    panels = plot_hardest(run, result).axes
    assert panels[0].get_title(loc="left").startswith("first occurrences in the window, and repeats")
    assert len({axes.get_xlim() for axes in panels}) == 1
    for axes in panels:
        points = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
        assert list(points[0]) == sorted(points[0], reverse=True)
        assert len(axes.collections) == 1  # the intervals


def test_perplexity_shows_the_spread_the_mean_and_the_reference_levels(run):
    result = dataclasses.replace(measure_perplexity(run, "lang"), unigram_comparable=True)
    spread, groups = plot_perplexity(run, result).axes
    bars = [patch for patch in spread.patches if patch.get_height() > 0 and patch.get_alpha() == 0.55]
    assert sum(bar.get_height() for bar in bars) == 4, "every document is in a bar"
    at = [line.get_xdata()[0] for line in spread.lines]
    assert at == [result.per_token.nll_nats_per_token, result.unigram_nats, result.uniform_nats]
    first, last = spread.get_xlim()
    assert first < min(at) < max(at) < last
    assert groups.get_xlim() == (first, last)
    assert [label.get_text().split("  ")[0] for label in groups.get_yticklabels()] == ["a", "b"]
    names = {text.get_text() for text in spread.get_legend().get_texts()}
    assert names == {
        "documents (4)", f"mean of all tokens: {result.per_token.nll_nats_per_token:.3f}", "95 % interval of the mean",
        f"unigram: {result.unigram_nats:.3f}", f"uniform (log V): {result.uniform_nats:.3f}",
    }  # fmt: skip
    points = groups.lines[-1]
    assert points.get_xdata().tolist() == result.groups["mean_loss_nats"].tolist()


def test_long_labels_stay_beside_long_names_inside_the_picture():
    figure = new_figure(3.0, "heading")
    axes = figure.subplots()
    name_rows(axes, np.arange(2), [counted("a_very_long_va…and_on/and/on", "7,717,000"), "b $x$"], text=True)
    words = "difference of the mean loss (nats per token); above 0: a_very_long_name_step_000200000 is worse"
    axes.plot([0, 1], [0, 1], label=words)
    label(axes, words, "", words)
    legend(axes)
    check_layout(figure)


def test_the_letters_of_the_strip_fit_into_their_columns(make_run):
    for losses in ((1.0, 2.0), range(1, 90)):
        run = make_run([words("first_token", *losses)])
        figure = plot_tokens(run, measure_tokens(run))
        check_layout(figure)
        strip = figure.axes[1]
        width = strip.get_position().width * figure.get_figwidth() * 72  # points
        assert strip.texts[0].get_fontsize() * 0.602 * STRIP_COLUMNS <= width


def test_a_single_position_has_ink(make_run):
    run = make_run([words("first_token", 1)] * 3)
    upper, lower = plot_positions(run, measure_positions(run, bins="every")).axes
    assert upper.lines[0].get_marker() == lower.lines[0].get_marker() == "."
    assert "0" not in [tick.get_text() for tick in lower.get_xticklabels()]


def test_groups_without_a_row_are_mentioned(make_run):
    run = make_run([words("first_token", 1 + number % 4) for number in range(MOST_ROWS + 5)])
    axes = plot_perplexity(run, measure_perplexity(run, "document")).axes[1]
    title = axes.get_title(loc="left").replace("\n", " ")
    assert title == "by document (tokens), hardest first, 30 of 35 groups; too little text for intervals"
    assert len(axes.get_yticklabels()) == MOST_ROWS


def test_what_the_fonts_lack_is_drawn_as_its_code():
    assert drawable("aé漢⌹\x1b\u202e $x$") == "aé\\u6f22\\u2339\\x1b\\u202e $x$"


@pytest.mark.thorough  # test_layers holds the imports, and that views of a stored run load no torch
def test_pictures_and_analyses_need_no_model():
    code = (
        "import sys, pkgutil, importlib, lossprobe.analysis, lossprobe.report\n"
        "for package in (lossprobe.analysis, lossprobe.report):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print(sorted({'torch', 'click', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
