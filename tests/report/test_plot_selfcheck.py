"""The picture of a self-check: how far each change moved the loss, beside what rounding may do."""

import io

import numpy as np
import pytest
from fake_runs import words
from matplotlib.figure import Figure

from lossprobe.analysis.selfcheck import EXACT, DifferenceLimits, Variant, judge_variants
from lossprobe.report.plots.selfcheck import LEAST, plot_selfcheck
from lossprobe.report.style import BLUE, GREEN, VERMILION

REFERENCE = np.array([1.0, 2.0, 3.0, 6.0])
LIMITS = DifferenceLimits(1e-5, 1e-3)


def moved(*changes: float) -> np.ndarray:
    return REFERENCE + np.array(changes)


VARIANTS = [
    Variant("repetition", "again", EXACT, REFERENCE),
    Variant("batch size", "1", LIMITS, moved(0, -8e-5, 0, 0)),
    Variant("padding side", "left", LIMITS, None, "no mask"),
    Variant("threads", "1 $x^2$\x1b", LIMITS, moved(0, 0, 0, 1e-4)),
    Variant("BOS", "without", None, moved(0.5, np.nan, 0, 0.5)),
    Variant("stride", "4", None, REFERENCE),
]


def axes_of(figure: Figure):
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=40, metadata={"Software": None})
    (axes,) = figure.axes
    return axes


def points(axes) -> dict[tuple[str, str], list[tuple[float, float]]]:
    return {
        (line.get_marker(), line.get_color()): list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in axes.lines
    }


@pytest.fixture
def run(make_run):
    return make_run([words("first_token", 1.0, 2.0)])


def test_mean_and_largest_of_every_change_that_was_tried(run):
    axes = axes_of(plot_selfcheck(run, judge_variants(REFERENCE, VARIANTS)))
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["repetition: again", "batch size: 1", "threads: 1 $x^2$\\x1b", "BOS: without", "stride: 4"]
    assert not any(text.get_parse_math() for text in axes.get_yticklabels())
    drawn = points(axes)
    for key, expected in {
        ("o", BLUE): [
            (LEAST, -0.15),
            (2e-5, 0.85),
            (2.5e-5, 1.85),
        ],  # no change at all, and downwards, can be seen on a log scale
        ("D", BLUE): [(LEAST, 0.15), (8e-5, 1.15), (1e-4, 2.15)],
        ("o", GREEN): [(1 / 3, 2.85), (LEAST, 3.85)],
        ("D", GREEN): [(0.5, 3.15), (LEAST, 4.15)],
        ("|", VERMILION): [(1e-5, 0.85), (1e-5, 1.85)],
        ("x", VERMILION): [(1e-3, 1.15), (1e-3, 2.15)],
    }.items():
        np.testing.assert_allclose(drawn.pop(key), expected, rtol=1e-6)
    assert drawn == {}


def test_everything_is_labelled(run):
    axes = axes_of(plot_selfcheck(run, judge_variants(REFERENCE, VARIANTS)))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "mean loss, must not matter", "mean loss, may matter", "limit of the mean loss: rounding",
        "largest of a single token, must not matter", "largest of a single token, may matter",
        "limit of the largest of a single token: rounding",
    ]  # fmt: skip
    assert axes.get_xscale() == "log"
    assert 0 < axes.get_xlim()[0] < LEAST
    assert "(nats, log scale)" in axes.get_xlabel()
    bottom, top = axes.get_ylim()
    assert bottom > 4 > 0 > top, "in the order of the table"


def test_only_what_must_not_matter_and_no_limit(run):
    axes = axes_of(plot_selfcheck(run, judge_variants(REFERENCE, VARIANTS[:1])))
    assert set(points(axes)) == {("o", BLUE), ("D", BLUE)}


def test_the_same_result_gives_the_same_bytes(run):
    def drawn():
        sink = io.BytesIO()
        figure = plot_selfcheck(run, judge_variants(REFERENCE, VARIANTS))
        figure.savefig(sink, format="png", dpi=40, metadata={"Software": None})
        return sink.getvalue()

    assert drawn() == drawn()
