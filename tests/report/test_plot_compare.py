"""The picture of a comparison: what stands on it, through tokens and through bytes, and that no name can break it."""

import copy
import dataclasses
import io

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn
from fake_runs import Doc, words
from matplotlib.figure import Figure

from lossprobe.analysis.compare.byte_sums import CUTS
from lossprobe.analysis.compare.compare import compare
from lossprobe.report.plots.compare import plot_compare

HOSTILE = ["m$\\foo{$", "h$x_y$", "_hidden", "漢\x1b\n on x"]


def rendered(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=50, metadata={"Software": None})
    return sink.getvalue()


def names_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    rng = np.random.default_rng(4)
    logits = draw_logits(rng, 600, 40)
    targets, documents = draw_targets(rng, logits), document_numbers(rng, 600, 12)
    folder = tmp_path_factory.mktemp("compare")
    return [
        write_drawn(folder / name, tempered_logits(logits, scale), targets, documents, name=name).run
        for name, scale in (("one", 1.0), ("other", 0.6))
    ]


def test_the_same_tokens_give_three_panels(runs):
    result = compare(*runs)
    comparison = result.token_comparison
    figure = plot_compare(runs[0], result)
    assert rendered(figure).startswith(b"\x89PNG")
    positions, losses, cumulative, bar = figure.axes
    assert figure.get_suptitle() == "other − one\non text, context 1024"
    table = comparison.by_position
    np.testing.assert_array_equal(positions.lines[0].get_ydata(), table["mean_difference_nats"])
    np.testing.assert_allclose(np.square(positions.lines[0].get_xdata()), table["context"] * table["context_last"])
    assert comparison.difference.mean_difference_nats > 0, "the sharpened model is worse"
    assert list(positions.lines[2].get_ydata()) == [comparison.difference.mean_difference_nats] * 2
    assert names_of(positions) == ["95 % interval", "mean by context",
                                   f"all tokens: {comparison.difference.mean_difference_nats:+.4f}"]  # fmt: skip
    assert positions.get_xscale() == cumulative.get_xscale() == "log"
    assert positions.get_title(loc="left").endswith("over documents")
    assert (losses.get_xlabel(), losses.get_ylabel()) == ("loss of one (nats)", "loss of other (nats)")
    assert losses.get_title(loc="left") == f"each token; correlation {comparison.difference.correlation:.3f}"
    cells = losses.collections[0]
    assert cells.get_array().sum() == comparison.counts.tokens == 600
    corners = [tuple(path.vertices[0]) for path in cells.get_paths()]
    expected = comparison.scatter[["first_low_nats", "second_low_nats"]].itertuples(index=False)
    assert corners == [tuple(row) for row in expected]
    assert max(map(max, corners)) < losses.get_xlim()[1] == losses.get_ylim()[1]
    np.testing.assert_array_equal(cumulative.lines[0].get_xydata(), comparison.cumulative)
    assert bar.get_ylabel() == "tokens (log scale)"


@pytest.fixture
def make_pair(make_run):
    """Write two runs of one text that is tokenized differently, of this many documents."""

    def make(documents, first="one", second="other"):
        fine = [Doc([b"a", b"b", b" c", b"d", b" e"], ["first_token", 1 + n, 2, 1, 3]) for n in range(documents)]
        coarse = [Doc([b"a", b"b c", b"d e"], ["first_token", 4, 3 + n % 2]) for n in range(documents)]
        runs = make_run(fine, name=first), make_run(coarse, name=second)
        manifest = copy.deepcopy(runs[1].manifest)
        manifest["settings"]["tokenizer"] = {"kind": "fake", "sha256": "coarse"}
        return runs[0], dataclasses.replace(runs[1], manifest=manifest)

    return make


@pytest.mark.parametrize("documents", [1, 6])
def test_different_tokens_are_drawn_through_bytes(make_pair, documents):
    runs = make_pair(documents)
    result = compare(*runs)
    found = result.byte_comparison
    figure = plot_compare(runs[0], result)
    assert rendered(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["all bytes", *found.by_cut["cut"]]
    assert len(found.by_cut) == len(CUTS)
    points = [line for line in axes.lines if line.get_marker() in ("D", "o")]
    values = [found.difference.difference_bits_per_byte, *found.by_cut["difference_bits_per_byte"]]
    np.testing.assert_array_equal([line.get_xdata()[0] for line in points], values)
    assert [line.get_ydata()[0] for line in points] == list(range(len(values)))
    intervals = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"]
    assert (
        [
            found.difference.difference_bits_per_byte_interval.low,
            found.difference.difference_bits_per_byte_interval.high,
        ]
        in intervals
    ) == (documents > 1)
    assert (found.difference.difference_bits_per_byte_interval.low is None) == (documents == 1)
    assert axes.get_xlabel() == "difference (bits per byte); above 0: the second is worse"
    assert axes.get_title(loc="left") == "other − one\non text, through bytes"


def test_identical_models_and_equal_names_draw(runs):
    result = compare(runs[0], runs[0])
    assert result.token_comparison.identical
    figure = plot_compare(runs[0], result)
    assert rendered(figure).startswith(b"\x89PNG")
    positions, losses, *_ = figure.axes
    assert not np.any(positions.lines[0].get_ydata())
    assert losses.get_xlabel() != losses.get_ylabel()


def test_one_document_has_no_intervals(make_run):
    runs = [make_run([words("first_token", *bits)], name=name) for name, bits in (("a", [1, 2, 3]), ("b", [2, 2, 1]))]
    result = compare(*runs)
    assert result.token_comparison.by_position["low"].isna().all()
    figure = plot_compare(runs[0], result)
    assert rendered(figure).startswith(b"\x89PNG")
    assert names_of(figure.axes[0]) == [
        "mean by context",
        f"all tokens: {result.token_comparison.difference.mean_difference_nats:+.4f}",
    ]
    assert not figure.axes[0].collections


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_drawn_as_they_are(make_run, make_pair, name):  # warnings are errors here
    shown = {"漢\x1b\n on x": "\\u6f22\\x1b\\n on x"}.get(name, name)
    same = [make_run([words("first_token", *bits)] * 2, name=name, text_name="te$\\x{$")
            for bits in ([1, 2, 3], [2, 2, 1])]  # fmt: skip
    figure = plot_compare(same[0], compare(*same))
    assert rendered(figure).startswith(b"\x89PNG")
    names = [text.partition("loss of ")[2] for text in (figure.axes[1].get_xlabel(), figure.axes[1].get_ylabel())]
    assert all(text.startswith(shown) for text in names)
    assert figure.get_suptitle().split("\n")[1] == "on te$\\x{$, context 1024"
    pair = make_pair(2, name, "b")
    figure = plot_compare(pair[0], compare(*pair))
    assert rendered(figure).startswith(b"\x89PNG")
    assert figure.axes[0].get_title(loc="left").split("\n")[0] == f"b − {shown}"


def test_long_names_stay_apart(make_run):
    long = "a_very_long_name_of_an_experiment_that_goes_on_and_on_step_000{}00000"
    runs = [make_run([words("first_token", 1, 2)] * 2, name=long.format(step)) for step in (1, 2)]
    axes = plot_compare(runs[0], compare(*runs)).axes[1]
    assert axes.get_xlabel() == "loss of a_very_long_…p_000100000 (nats)"
    assert axes.get_ylabel() == "loss of a_very_long_…p_000200000 (nats)"
