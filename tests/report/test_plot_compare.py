"""The picture of a comparison: what stands on it, through tokens and through bytes, and that no name can break it."""

import copy
import dataclasses
import io
from functools import cache

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn
from fake_pairs import write_pair
from fake_runs import Doc, words
from matplotlib.figure import Figure

from lossprobe.analysis.compare.byte_sums import CUTS
from lossprobe.analysis.compare.compare import compare
from lossprobe.analysis.compare.measured_divergence import measure_pair
from lossprobe.report.plots.compare import plot_compare

HOSTILE = ["m$\\foo{$", "h$x_y$", "_hidden", "漢\x1b\n on x"]


def rendered(figure: Figure) -> bytes:
    """Return the PNG of a figure; arranging its axes takes most of the time, and is checked by test_picture_layout."""
    sink = io.BytesIO()
    figure.set_layout_engine("none")
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
        write_drawn(
            folder / name,
            tempered_logits(logits, scale),
            targets,
            documents,
            name=name,
            fields=[{"lang": "ab"[number % 2]} for number in range(12)],
        ).run
        for name, scale in (("one", 1.0), ("other", 0.6))
    ]


@pytest.fixture(scope="module")
def compared(runs):
    """Return groups → the comparison by them, measured once."""
    return cache(lambda by="token": compare(*runs, by))


def rows_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_yticklabels()]


@pytest.mark.thorough
def test_the_same_tokens_give_both_losses_the_change_its_context_and_the_largest(runs, compared):
    result = compared()
    comparison = result.token_comparison
    figure = plot_compare(runs[0], result)
    assert rendered(figure).startswith(b"\x89PNG")
    losses, cumulative, bar, positions, tokens = figure.axes
    assert figure.get_suptitle() == "other − one on text, context 1024\n95 % intervals over documents"
    table, difference = comparison.by_position, comparison.difference
    assert difference.mean_difference_nats > 0, "the sharpened model is worse"
    _, whole, contexts = positions.lines[:3]
    assert whole.get_xdata()[0] == difference.mean_difference_nats
    np.testing.assert_array_equal(contexts.get_xdata()[1:], table["mean_difference_nats"])
    assert rows_of(positions)[0] == "all tokens  (600)"
    assert rows_of(positions)[2].startswith("context 2-3  (")
    assert positions.get_xlabel() == "difference of the mean loss (nats per token); above 0: other is worse"
    assert (losses.get_xlabel(), losses.get_ylabel()) == ("loss of one (nats)", "loss of other (nats)")
    assert losses.get_title(loc="left") == f"each token; correlation {difference.correlation:.3f}"
    cells = losses.collections[0]
    assert cells.get_array().sum() == comparison.counts.tokens == 600
    corners = [tuple(path.vertices[0]) for path in cells.get_paths()]
    expected = comparison.scatter[["first_low_nats", "second_low_nats"]].itertuples(index=False)
    assert corners == [tuple(row) for row in expected]
    assert max(map(max, corners)) < losses.get_xlim()[1] == losses.get_ylim()[1] == tokens.get_xlim()[1]
    assert list(losses.get_xticks()) == list(losses.get_yticks())
    np.testing.assert_array_equal(cumulative.lines[0].get_xydata(), comparison.cumulative)
    assert cumulative.get_xscale() == "log"
    assert bar.get_ylabel() == "tokens (log scale)"
    changed = result.changes.table
    shown = [
        *changed[changed["difference_nats"] > 0].head(15).index,
        *changed[changed["difference_nats"] < 0].head(15).index,
    ]
    np.testing.assert_array_equal(tokens.lines[0].get_xdata(), changed["first_loss_nats"][shown])
    np.testing.assert_array_equal(tokens.lines[1].get_xdata(), changed["second_loss_nats"][shown])
    assert names_of(tokens) == ["one", "other"]


@pytest.mark.parametrize("by", ["type", "document", "context", "class", "lang"])
def test_groups_that_were_asked_for_have_their_panel(runs, compared, by):
    result = compared(by)
    axes = plot_compare(runs[0], result).axes[-1]
    changes = result.changes.table
    points = {"tested": [], "changed": [], "untested": []}
    for line in axes.lines:
        if line.get_marker() in ("o", "x"):
            of = "untested" if line.get_marker() == "x" else "tested"
            found = list(line.get_xdata()[np.isfinite(line.get_xdata())])
            points[of] += found
            points["changed"] += found if of == "tested" and line.get_markerfacecolor() != "white" else []
    untested = changes["significant"].isna()
    for of, held in (("tested", ~untested), ("untested", untested), ("changed", changes["significant"].fillna(False))):
        assert sorted(points[of]) == sorted(changes["mean_difference_nats"][held])
    title = axes.get_title(loc="left").replace("\n", " ")
    assert ("filled: changed (Holm, 5 %)" in title) == (not untested.all())
    assert ("crosses: not tested" in title) == untested.any()
    groups = [str(group) for group in changes["group"]]
    assert all(group in row for group, row in zip(groups, rows_of(axes)[1:], strict=True))
    assert axes.get_title(loc="left").startswith(f"by {by} (tokens)")


@pytest.mark.thorough  # each grouping has a panel with a title of its own: the test above
def test_every_grouping_changes_the_picture(runs, compared):
    groupings = ("token", "type", "document", "context", "class", "lang")
    assert len({rendered(plot_compare(runs[0], compared(by))) for by in groupings}) == len(groupings)


@pytest.mark.thorough
def test_the_divergence_changes_the_picture(runs, compared):
    result = compared()
    kl = np.linspace(0.0, 0.2, runs[0].counts["scored_tokens"])
    further = dataclasses.replace(
        measure_pair(write_pair(*runs, kl)), kl_percentiles={"0.5": 0.1, "0.9": 0.5, "1": 2.0}, infinite_kl_tokens=1,
        same_top_share=0.9, target_prob_change_percentiles={"0.1": -0.2, "0.5": 0.0, "1": 0.4},
    )  # fmt: skip
    figure = plot_compare(runs[0], result.with_divergence(further))
    assert rendered(figure) != rendered(plot_compare(runs[0], result))
    shares, changes, slices = figure.axes[-3:]
    assert shares.lines[0].get_xdata().tolist() == [0.1, 0.5, 2.0]
    assert shares.get_title(loc="left").replace("\n", " ") == "same first choice on 90.00%; 1 infinite"
    assert shares.get_xlabel().replace("\n", " ") == "KL(one‖other) of a token (nats, log scale)"
    assert changes.lines[0].get_xdata().tolist() == [-0.2, 0.0, 0.4]
    assert slices.get_xlabel().replace("\n", " ") == "mean KL(one‖other) (nats per token)"
    whole, each = (np.asarray(line.get_xdata(), float) for line in slices.lines[:2])
    assert whole[0] == pytest.approx(0.1)
    assert each[1:].tolist() == further.by_position["mean_kl_nats"].tolist()
    by_type = dataclasses.replace(further, by="type", slices=measure_pair(write_pair(*runs, kl), "type", top=3).slices)
    names = rows_of(plot_compare(runs[0], result.with_divergence(by_type)).axes[-1])
    assert len(names) == 4
    assert names[1].startswith("\u27e6")


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
    axes, spans = figure.axes
    named = ["one token in both", f"split by {found.first} only", f"split by {found.second} only", "split by both"]
    assert [row.split("  (")[0] for row in rows_of(axes)] == ["all bytes", *named]
    assert len(found.by_cut) == len(CUTS)
    _, whole, cuts = axes.lines[:3]
    assert whole.get_xdata()[0] == found.difference.difference_bits_per_byte
    np.testing.assert_array_equal(cuts.get_xdata()[1:], found.by_cut["difference_bits_per_byte"])
    segments = [
        segment[:, 0].tolist() for drawn in axes.collections for segment in drawn.get_segments() if len(segment)
    ]
    assert (list(found.difference.difference_bits_per_byte_interval) in segments) == (documents > 1)
    assert (found.difference.difference_bits_per_byte_interval.low is None) == (documents == 1)
    assert axes.get_xlabel() == "difference (bits per byte); above 0: other is worse"
    heading = figure.get_suptitle().replace("\n", " ")
    assert heading.startswith("other − one on text, through bytes ")
    assert "largest contexts: one 1,024 tokens" in heading
    assert names_of(spans) == ["one", "other"]


def test_identical_models_and_equal_names_draw(runs):
    result = compare(runs[0], runs[0])
    assert result.token_comparison.identical
    figure = plot_compare(runs[0], result)
    assert rendered(figure).startswith(b"\x89PNG")
    losses, _, _, positions = figure.axes
    assert not np.nansum(np.abs(positions.lines[2].get_xdata()))
    assert losses.get_xlabel() != losses.get_ylabel()


def test_one_document_has_no_intervals(make_run):
    runs = [make_run([words("first_token", *bits)], name=name) for name, bits in (("a", [1, 2, 3]), ("b", [2, 2, 1]))]
    result = compare(*runs)
    assert result.token_comparison.by_position["low"].isna().all()
    figure = plot_compare(runs[0], result)
    assert rendered(figure).startswith(b"\x89PNG")
    positions = figure.axes[3]
    assert not any(len(segment) for drawn in positions.collections for segment in drawn.get_segments())


@pytest.mark.parametrize(
    "name", [HOSTILE[0], *(pytest.param(name, marks=pytest.mark.thorough) for name in HOSTILE[1:])]
)
def test_hostile_names_are_drawn_as_they_are(make_run, make_pair, name):  # warnings are errors here
    shown = {"漢\x1b\n on x": "\\u6f22\\x1b\\n on x"}.get(name, name)
    same = [make_run([words("first_token", *bits)] * 2, name=name, text_name="te$\\x{$")
            for bits in ([1, 2, 3], [2, 2, 1])]  # fmt: skip
    figure = plot_compare(same[0], compare(*same))
    assert rendered(figure).startswith(b"\x89PNG")
    names = [text.partition("loss of ")[2] for text in (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel())]
    assert all(text.startswith(shown) for text in names)
    assert " on te$\\x{$, context 1024" in figure.get_suptitle()
    pair = make_pair(2, name, "b")
    figure = plot_compare(pair[0], compare(*pair))
    assert rendered(figure).startswith(b"\x89PNG")
    assert figure.get_suptitle().startswith(f"b − {shown} on ")


def test_long_names_stay_apart(make_run):
    long = "a_very_long_name_of_an_experiment_that_goes_on_and_on_step_000{}00000"
    runs = [make_run([words("first_token", 1, 2)] * 2, name=long.format(step)) for step in (1, 2)]
    axes = plot_compare(runs[0], compare(*runs)).axes[0]
    for text, step in ((axes.get_xlabel(), 1), (axes.get_ylabel(), 2)):
        assert text.replace("\n", " ") == f"loss of a_very_long_…p_000{step}00000 (nats)"
