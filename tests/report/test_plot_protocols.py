"""The picture of all protocols: each loss beside the default's, its tokens, and what has no number."""

import io

import numpy as np
import pytest
from fake_runs import Doc
from matplotlib.figure import Figure

from lossprobe.analysis.protocols.protocols import measure_protocol
from lossprobe.analysis.protocols.table import Refusal, compare_protocols
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.report.plots.protocols import plot_protocols
from lossprobe.report.style import BLUE, VERMILION


def axes_of(figure: Figure):
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=40, metadata={"Software": None})
    (axes,) = figure.axes
    return axes


@pytest.fixture
def measured(make_run):
    """The run with the default's windows, and a table in which most tools refuse."""
    own = make_run([Doc([b" a", b" b", b"\n"], [1.0, 2.0, 6.0])], name="m_$x^2$\x1b")
    other = make_run([Doc([b" a", b" b", b"\n"], [2.0, 3.0, 7.0])])
    scored = {"paloma": own, "levanter": other, "transformers-corrected": other}
    results = [
        measure_protocol(scored[name], name) if name in scored else Refusal(name, "too short") for name in PROTOCOLS
    ]
    return own, compare_protocols(own, results)


def test_a_row_for_every_tool_with_a_number(measured):
    run, result = measured
    known = result.table.dropna(subset=["nats_per_token"])
    assert len(known) == 4
    axes = axes_of(plot_protocols(run, result))
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert [name.partition("\n")[0].partition(":")[0] for name in names] == result.table["protocol"].tolist()
    assert (
        names[0] == "lossprobe: token_perplexity 8\n3 tokens, context 1"
    )  # 0, 1 and 2 tokens: a document of these fakes has no BOS
    assert not any(text.get_parse_math() for text in axes.get_yticklabels())
    points = [line for line in axes.lines if line.get_marker() != "None"]
    np.testing.assert_allclose([line.get_xdata()[0] for line in points], known["nats_per_token"])
    assert [line.get_ydata()[0] for line in points] == known.index.tolist()
    missing = {text.get_position()[1]: text.get_text() for text in axes.texts}
    assert missing == dict.fromkeys(sorted(set(range(len(names))) - set(known.index)), "no number: too short")
    looks = [(line.get_marker(), line.get_color()) for line in points]
    assert looks == [("s", VERMILION)] + [("o", BLUE)] * 3, "told apart without colour too"


def test_differences_start_at_the_default(measured):
    run, result = measured
    axes = axes_of(plot_protocols(run, result))
    base = result.table["nats_per_token"][0]
    assert base == pytest.approx(3 * np.log(2))
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [tuple(line.get_xdata()) for line in dashed] == [(base, base)]
    strokes = [line for line in axes.lines if len(line.get_xdata()) == 2 and line not in dashed]
    losses = result.table["nats_per_token"].dropna()
    np.testing.assert_allclose([line.get_xdata() for line in strokes], [[base, loss] for loss in losses])
    assert [tuple(line.get_ydata()) for line in strokes] == [(row, row) for row in losses.index]
    bottom, top = axes.get_ylim()
    assert bottom > len(result.table) - 1 > 0 > top, "the default on top"
    assert "nats per token" in axes.get_xlabel()
    assert axes.figure.get_suptitle().startswith("m_$x^2$\\x1b on text, context ")


def test_no_tool_has_a_number(make_run):
    run = make_run([Doc([b" a"], [1.0])])
    result = compare_protocols(run, [Refusal(name, "too short") for name in PROTOCOLS])
    axes = axes_of(plot_protocols(run, result))
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["lossprobe: token_perplexity 2\n1 token, context 0", *PROTOCOLS]
    assert result.finding.count("(lossprobe)") == 2


def test_the_same_result_gives_the_same_bytes(measured):
    def drawn():
        sink = io.BytesIO()
        plot_protocols(*measured).savefig(sink, format="png", dpi=40, metadata={"Software": None})
        return sink.getvalue()

    assert drawn() == drawn()
