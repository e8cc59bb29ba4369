"""The picture of calibration: what stands on it, for one and for several models, and for runs with little to show."""

import io

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn
from matplotlib.figure import Figure

from lossprobe.analysis.calibration import measure_calibration
from lossprobe.report.plots.calibration import MOST_MODELS, plot_calibration


def axes_of(figure: Figure) -> list:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=40)
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


def test_each_model_has_its_diagram_and_all_share_the_curves(runs):
    result = measure_calibration(runs[:2])
    axes = axes_of(plot_calibration(runs[0], result))
    assert len(axes) == 2 * 2 + 2
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
    curve, temperatures = axes[4:]
    assert curve.get_xscale() == temperatures.get_xscale() == "log"
    shown = [text.get_text() for text in temperatures.get_legend().get_texts()]
    for model, text in zip(result.models, shown, strict=True):
        assert f"best T {model.temperature.temperature:.3f} [" in text
    assert "nats" in temperatures.get_ylabel()


def test_the_hits_are_those_of_all_entries(runs):
    result = measure_calibration(runs[1:2])
    curve = axes_of(plot_calibration(runs[1], result))[2]
    bins = result.models[0].bins
    bins = bins[(bins["binning"] == "log10 p") & (bins["count"] * bins["mean_probability"] >= 5)]
    drawn = curve.lines[0].get_xydata()
    assert len(drawn) > 10
    kept = bins[bins["hit_rate"] > 0]
    np.testing.assert_allclose(drawn[:, 1], kept["hit_rate"] / kept["mean_probability"])


def test_more_models_than_fit_are_left_out(runs):
    axes = axes_of(plot_calibration(runs[0], measure_calibration(runs)))
    assert len(axes) == 2 * MOST_MODELS + 2


@pytest.mark.parametrize("rows", [1, 3])
def test_hardly_any_tokens(tmp_path, rows):
    rng = np.random.default_rng(0)
    logits = draw_logits(rng, rows, 6)
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), np.zeros(rows, int)).run
    assert len(axes_of(plot_calibration(run, measure_calibration([run])))) == 4
