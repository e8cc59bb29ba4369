"""The picture of the objectives: which curves, which axes, and that it draws whatever is missing."""

import io

import numpy as np
import pytest
from drawn_runs import draw_logits, draw_targets, write_drawn
from fake_runs import words
from matplotlib.figure import Figure

from lossprobe.analysis.objectives.formulas import ObjectiveOptions
from lossprobe.analysis.objectives.objectives import measure_objectives
from lossprobe.report.plots.objectives import CURVES, LEAST, plot_objectives


def rendered(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=50, metadata={"Software": None})
    return sink.getvalue()


def names_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rng = np.random.default_rng(2)
    logits = draw_logits(rng, 400, 200)
    folder = tmp_path_factory.mktemp("runs") / "run"
    targets = draw_targets(rng, logits)
    return write_drawn(folder, logits, targets, np.arange(400) // 80, name="mo$\\frac$del漢\x1b").run


def test_the_curves_are_the_shares_of_the_result(run):
    result = measure_objectives(run, ObjectiveOptions(smoothing=0.05, focal=1.5, margin=0.5))
    axes = plot_objectives(run, result).axes[0]
    assert len(axes.lines) == len(CURVES)
    for line, (name, *_) in zip(axes.lines, CURVES, strict=True):
        rows = result.weights[result.weights["objective"] == name]
        assert line.get_ydata().tolist() == rows["share_of_objective"].tolist()
        assert line.get_xdata().tolist() == (rows["loss_low_nats"] + 0.25).tolist()
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches]
    expected = rows[["loss_low_nats", "share_of_tokens"]].to_numpy().tolist()
    assert bars == [(low, 0.5, share) for low, share in expected]
    assert axes.get_xlim() == (0.0, rows["loss_low_nats"].max() + 0.5)
    assert set(names_of(axes)) == {
        "tokens", "hard loss", "smoothed (torch), eps 0.05", "focal, gamma 1.5", "margin ranking, delta 0.5 nats",
        "z-loss, alpha 0.0001", "gradient (L2) of the hard loss", "gradient (L2) of the smoothed loss",
    }  # fmt: skip


def test_curves_differ_in_more_than_colour(run):
    axes = plot_objectives(run, measure_objectives(run)).axes[0]
    looks = {(line.get_color(), str(line.get_linestyle()), line.is_dashed()) for line in axes.lines}
    assert len(looks) == len(CURVES)
    colours = [line.get_color() for line in axes.lines]
    for colour in set(colours):
        styles = [line.get_linestyle() for line in axes.lines if line.get_color() == colour]
        assert len(set(styles)) == len(styles)


@pytest.mark.parametrize(("bits", "shown"), [(28, False), (28.9, True), (60, True)])
def test_the_open_last_bin_says_so(make_run, bits, shown):  # from 20 nats, 28.85 bits, on
    run = make_run([words("first_token", 1, 5, bits)] * 2, name="_m$\\foo{$")
    figure = plot_objectives(run, measure_objectives(run, ObjectiveOptions(where=("loss > 0",))))
    assert rendered(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    labels = dict(zip(axes.get_xticks(), [text.get_text() for text in axes.get_xticklabels()], strict=True))
    assert ("≥ 20" in labels.values()) == shown
    if shown:
        assert labels == {0: "0", 5: "5", 10: "10", 15: "15", 20.25: "≥ 20"}
        assert axes.get_xlim() == (0.0, 20.5)


def test_the_loss_scale_is_marked(run):
    result = measure_objectives(run, ObjectiveOptions(batch_tokens=1 << 15))
    assert result.recommended_loss_scale > 1
    axes = plot_objectives(run, result).axes[1]
    entries, l1, l2, limit, scale = axes.lines
    frame = result.half_precision
    for line, name in ((entries, "entries_lost_share"), (l1, "l1_lost_share"), (l2, "l2_lost")):
        shown = np.asarray(line.get_ydata(), float)
        np.testing.assert_array_equal(shown, frame[name].where(frame[name] > 0))
        assert line.get_xdata().tolist() == frame["scale"].tolist()
    assert list(limit.get_ydata()) == [1e-3, 1e-3]
    assert list(scale.get_xdata()) == [result.recommended_loss_scale] * 2
    assert f"least scale that will do: {result.recommended_loss_scale:,}" in names_of(axes)
    assert "limit of L1: 0.001" in names_of(axes)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlim()[0] < 1 < 2**24 < axes.get_xlim()[1]
    assert axes.get_ylim()[0] == LEAST
    assert axes.get_title(loc="left") == "float16, mean loss over 32,768 tokens"


def test_a_curve_ends_where_nothing_is_lost_and_the_scales_do_not(tmp_path):
    flat = write_drawn(tmp_path / "flat", np.zeros((5, 3)), np.zeros(5, int), np.zeros(5, int)).run
    axes = plot_objectives(flat, measure_objectives(flat, ObjectiveOptions(batch_tokens=1 << 26))).axes[1]
    for line in axes.lines[:3]:
        shares = np.asarray(line.get_ydata(), float)
        assert shares[0] == pytest.approx(1)
        assert np.isnan(shares[-1])
    assert axes.get_xlim()[0] < 1 < 2**24 < axes.get_xlim()[1]


def test_axes_have_their_units_and_the_title_its_text(run):
    left, right = plot_objectives(run, measure_objectives(run)).axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("loss of the token (nats)", "share of the total per bin")
    assert (right.get_xlabel(), right.get_ylabel()) == ("loss scale S (log scale)", "lost share (log scale)")
    assert left.figure.get_suptitle() == "mo$\\frac$del\\u6f22\\x1b on text, context 1024"
    title, batches = left.get_title(loc="left").split("\n", 1)
    assert title == "what each objective weights"
    assert batches.startswith("hard loss: mean ")


def test_a_selection_has_one_panel(run):
    figure = plot_objectives(run, measure_objectives(run, ObjectiveOptions(where=("loss > 1",))))
    assert len(figure.axes) == 1
    assert rendered(figure).startswith(b"\x89PNG")


@pytest.mark.thorough
def test_missing_numbers_draw(tmp_path, make_run):
    silent = np.full((3, 4), -300.0)
    silent[:, 0] = 0.0  # no loss, no gradient: no shares, no scale
    for shown in (write_drawn(tmp_path / "silent", silent, np.zeros(3, int), np.zeros(3, int)).run,
                  make_run([words("first_token", 1)])):  # fmt: skip
        figure = plot_objectives(shown, measure_objectives(shown, ObjectiveOptions(z_weight=0)))
        assert rendered(figure).startswith(b"\x89PNG")


@pytest.mark.thorough  # cli/test_views.py writes a picture of each view twice
def test_two_renderings_are_the_same_bytes(run):
    result = measure_objectives(run)
    assert rendered(plot_objectives(run, result)) == rendered(plot_objectives(run, result))
