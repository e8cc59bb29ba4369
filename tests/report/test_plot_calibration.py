"""The picture of calibration: what stands on it, for one and for several models, and for runs with little to show."""

import dataclasses
import io
from functools import cache

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn
from matplotlib.figure import Figure

from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.report.plots.calibration import MOST_MODELS, RATIOS, plot_calibration


def rendered_axes(figure: Figure) -> list:
    """Return the axes of a figure that was rendered; arranging them is checked by test_picture_layout."""
    figure.set_layout_engine("none")
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure.axes


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    rng = np.random.default_rng(2)
    logits = draw_logits(rng, 1500, 40)
    targets, documents = draw_targets(rng, logits), document_numbers(rng, 1500, 12)
    folder = tmp_path_factory.mktemp("plots")
    return [
        write_drawn(folder / str(index), tempered_logits(logits, scale), targets, documents, name=f"m{index}$x^").run
        for index, scale in enumerate((1.0, 0.6, 1.5, 0.8, 1.2))
    ]


@pytest.fixture(scope="module")
def measured(runs):
    """Return how many of the runs → their calibration, measured once."""
    return cache(lambda count: measure_calibration(runs[:count]))


def test_each_model_has_its_diagram_and_all_share_the_curves(runs, measured):
    result = measured(2)
    axes = plot_calibration(runs[0], result).axes
    assert len(axes) == 2 * 2 + 2 + 1, "diagrams, curves, and where the losses differ"
    for model, upper in zip(result.models, axes[:2], strict=True):
        name, gap, ece = upper.get_title(loc="left").split("\n")
        assert name == model.name
        assert f"{model.measures['confidence_gap'].value:+.3f}" in gap
        assert f"noise floor {model.measures['ece'].noise_floor:.3f}" in ece
        bins = model.bins[(model.bins["binning"] == "equal width") & (model.bins["count"] > 0)]
        points = upper.containers[0].lines[0]
        np.testing.assert_allclose(points.get_xydata()[:, 0], bins["mean_probability"])
        np.testing.assert_allclose(points.get_xydata()[:, 1], bins["hit_rate"])
    heights = [bar.get_height() for bar in axes[2].patches]
    assert sum(heights) == pytest.approx(1.0)
    assert axes[2].get_ylim() == axes[3].get_ylim(), "the histograms have one scale"
    curve, temperatures, against = axes[4:]
    found = result.smoothing.decomposition
    np.testing.assert_allclose(against.lines[1].get_xdata(), found["mean_difference_nats"])
    assert (
        against.get_xlabel()
        == f"difference of the mean loss (nats per token); above 0: worse than {result.models[0].name}"
    )
    assert curve.get_xscale() == temperatures.get_xscale() == "log"
    shown = [text.get_text() for text in temperatures.get_legend().get_texts()]
    for model, text in zip(result.models, shown, strict=True):
        assert f"best T {model.temperature.temperature:.3f} [" in text
    assert "nats" in temperatures.get_ylabel()


def test_the_hits_are_those_of_all_entries(runs):
    result = measure_calibration(runs[1:2])
    curve = plot_calibration(runs[1], result).axes[2]
    bins = result.models[0].bins
    bins = bins[(bins["binning"] == "log10 p") & (bins["count"] * bins["mean_probability"] >= 5)]
    drawn = curve.lines[0].get_xydata()
    assert len(drawn) > 10
    kept = bins[bins["hit_rate"] > 0]
    np.testing.assert_allclose(drawn[:, 1], kept["hit_rate"] / kept["mean_probability"])


def renamed(result, *names):
    """Return the same calibration of models with other names."""
    models = [dataclasses.replace(model, name=name) for model, name in zip(result.models, names, strict=True)]
    return dataclasses.replace(result, models=models)


def with_bins(result, **columns):
    """Return the calibration of one model whose bins of log10 p have other values."""
    bins = result.models[0].bins.copy()
    rows = (bins["binning"] == "log10 p") & (bins["count"] * bins["mean_probability"] >= 5)
    for name, change in columns.items():
        bins.loc[rows, name] = change(bins.loc[rows, name])
    return dataclasses.replace(result, models=[dataclasses.replace(result.models[0], bins=bins)])


def legend_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.thorough
def test_more_models_than_fit_are_left_out_and_counted(runs, measured):
    result = measured(5)
    figure = plot_calibration(runs[0], result)
    assert len(figure.axes) == 2 * MOST_MODELS + 2 + 1
    assert figure.get_suptitle().startswith("calibration of 4 of 5 models on text, context 1024\n95 % intervals")
    for lower in (*figure.axes[2:4], *figure.axes[6:8]):
        assert all(label.get_visible() for label in lower.get_xticklabels()), "each histogram has its numbers"
    fewer = dataclasses.replace(result, models=result.models[:MOST_MODELS])
    assert plot_calibration(runs[0], fewer).get_suptitle().startswith("calibration on text, context 1024\n")


@pytest.mark.thorough
def test_names_are_drawn_as_they_are(runs, measured):  # warnings are errors here
    names = ["m$\\foo{$", "h$x_y$", "_hidden", "漢\x1b on x"]
    shown = [*names[:3], "\\u6f22\\x1b on x"]
    figure = plot_calibration(runs[0], renamed(measured(4), *names))
    axes = rendered_axes(figure)
    titles = [axes[place].get_title(loc="left").split("\n")[0] for place in (0, 1, 4, 5)]
    assert titles == shown, "two beside each other, each above how common its confidences are"
    *_, vocabulary, temperatures, _ = axes
    assert legend_of(vocabulary) == shown
    assert [text.split(": best T")[0] for text in legend_of(temperatures)] == shown
    assert "calibration on text, context" in figure.get_suptitle()


def test_long_names_stay_apart(runs, measured):
    long = "the_same_beginning_of_several_checkpoints_step_000{}00"
    axes = plot_calibration(runs[0], renamed(measured(2), long.format(1), long.format(2))).axes
    for names in ([upper.get_title(loc="left").split("\n")[0] for upper in axes[:2]], legend_of(axes[4])):
        assert len(set(names)) == 2
        assert [name[-6:] for name in names] == ["000100", "000200"]
        assert max(map(len, names)) == 30


@pytest.mark.parametrize(
    "scale", [pytest.param(1.0, marks=pytest.mark.thorough), 1 / 3, pytest.param(2.7, marks=pytest.mark.thorough), 9.0]
)
def test_the_best_temperature_is_always_on_the_axis(tmp_path, scale):
    rng = np.random.default_rng(3)
    logits = draw_logits(rng, 800, 20)
    documents = document_numbers(rng, 800, 8)
    run = write_drawn(tmp_path / "run", tempered_logits(logits, scale), draw_targets(rng, logits), documents).run
    result = measure_calibration([run])
    best = result.models[0].temperature.temperature
    axes = plot_calibration(run, result).axes[-1]
    low, high = axes.get_xlim()
    assert low <= 0.5 < 2 <= high
    assert low < best < high
    filled = axes.lines[2]
    assert list(filled.get_xdata()) == [best]
    assert filled.get_markerfacecolor() == filled.get_color()
    bottom, top = axes.get_ylim()
    for marker in axes.lines[1:3]:
        assert bottom < marker.get_ydata()[0] < top
    if 0.5 < best < 2:
        assert (low, high) == (0.5, 2.0)


def test_bins_beyond_the_axis_are_marked_at_its_ends(runs, measured):
    result = measured(1)

    def far(hits):
        hits = hits.copy()
        hits.iloc[:3] = [0.0, hits.iloc[1] / 50, hits.iloc[2] * 50]
        return hits

    axes = plot_calibration(runs[0], with_bins(result, hit_rate=far)).axes[2]
    low, high = (next(line for line in axes.lines if line.get_marker() == marker) for marker in "v^")
    p = axes.lines[-2].get_xdata()
    assert list(low.get_ydata()) == [RATIOS[0]] * 2
    assert list(high.get_ydata()) == [RATIOS[1]]
    assert list(low.get_xdata()) == [low.get_xdata()[0], p[0]]
    assert list(high.get_xdata()) == [p[1]]
    assert not low.get_clip_on()
    assert axes.get_ylim() == RATIOS
    assert "triangles: beyond the axis" in axes.get_title(loc="left")
    plain = plot_calibration(runs[0], result).axes[2]
    assert "triangles" not in plain.get_title(loc="left")
    assert {line.get_marker() for line in plain.lines} == {"o", "None"}


def test_no_bin_with_a_hit_draws(runs, measured):
    axes = plot_calibration(runs[0], with_bins(measured(1), hit_rate=lambda hits: hits * 0)).axes
    assert len(axes[2].lines[0].get_xdata()) > 10


def test_markers_on_the_frame_are_whole(runs, measured):
    upper = plot_calibration(runs[0], measured(1)).axes[0]
    assert not upper.containers[0].lines[0].get_clip_on()


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [1, 3])
def test_hardly_any_tokens(tmp_path, rows):
    rng = np.random.default_rng(0)
    logits = draw_logits(rng, rows, 6)
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), np.zeros(rows, int)).run
    figure = plot_calibration(run, measure_calibration([run]))
    _, lower, vocabulary, *_ = rendered_axes(figure)
    assert figure.get_suptitle().endswith("\nno 95 % interval: a single block of tokens")
    assert legend_of(lower) == ["perfect calibration", "accuracy"]
    assert "no bin with 5 expected hits" in vocabulary.get_title(loc="left").replace("\n", " ")
