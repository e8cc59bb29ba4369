"""The picture of the gap: what stands on it, what is cut, and that it draws whatever is missing."""

import io

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, write_drawn
from fake_runs import Doc, words
from matplotlib.figure import Figure

from lossprobe.analysis.gap.gap import measure_gap
from lossprobe.report.plots.gap import plot_gap
from lossprobe.report.style import BLUE, VERMILION


def axes_of(figure: Figure) -> list:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=40, metadata={"Software": None})
    return figure.axes


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    rng = np.random.default_rng(2)
    folder = tmp_path_factory.mktemp("gap")
    made = []
    for name in ("seen$x^2$", "new漢\x1b"):
        logits = draw_logits(rng, 500, 40)
        choices = {"name": "m_$1", "text_name": name, "settings_changes": {"checkpoint": {"sha256": "one"}}}
        documents = document_numbers(rng, 500, 6)
        made.append(write_drawn(folder / str(len(made)), logits, draw_targets(rng, logits), documents, **choices).run)
    return made


def test_both_losses_and_their_difference_stand_in_every_row(runs):
    result = measure_gap(*runs)
    losses, gaps = axes_of(plot_gap(runs[0], result))
    table = result.table
    rows = losses.get_yticks()
    assert len(rows) == len(table)
    for axes, value, low, high, shift in (
        (losses, "train_loss_nats", "train_low", "train_high", -0.16),
        (losses, "validation_loss_nats", "validation_low", "validation_high", 0.16),
        (gaps, "gap_nats", "low", "high", 0.0),
    ):
        points = axes.lines[1 if shift > 0 else 0].get_xydata()
        np.testing.assert_allclose(points, np.column_stack([table[value], rows + shift]))
        segments = axes.collections[1 if shift > 0 else 0].get_segments()
        ends = [[segment[0][0], segment[1][0]] for segment in segments]
        np.testing.assert_allclose(ends, table[[low, high]].to_numpy())
        np.testing.assert_allclose([segment[0][1] for segment in segments], rows + shift)
    looks = [(line.get_color(), line.get_marker()) for line in losses.lines]
    assert looks == [(BLUE, "o"), (VERMILION, "s")], "told apart without colour too"
    assert {tuple(line.get_xdata()) for line in gaps.lines[1:]} == {(0.0, 0.0), (result.gap_nats, result.gap_nats)}


def test_the_overall_loss_is_on_top_and_everything_is_labelled(runs):
    result = measure_gap(*runs)
    losses, gaps = axes_of(plot_gap(runs[0], result))
    names = [text.get_text() for text in losses.get_yticklabels()]
    assert names[0] == "all tokens  (500 / 500)"
    assert any(name.startswith("in training text 10-99×  (") for name in names)
    bottom, top = losses.get_ylim()
    assert bottom > losses.get_yticks()[-1] > losses.get_yticks()[0] > top
    assert losses.figure.get_suptitle() == f"m_$1, context 1024: {result.verdict}\n95 % intervals over documents"
    assert "nats per token" in losses.get_xlabel()
    assert "nats per token" in gaps.get_xlabel()
    assert "train / validation tokens" in losses.get_title(loc="left")
    legend = [text.get_text() for text in losses.get_legend().get_texts()]
    assert legend == ["train: seen$x^2$", "validation: new\\u6f22\\x1b"]
    assert not any(text.get_parse_math() for text in losses.get_yticklabels())


def test_an_interval_of_a_handful_of_tokens_does_not_set_the_axis(tmp_path, make_run):
    def texts(*rare):
        steady = [
            Doc([b"x", b" a", b" b", b"\n", b" c"], ["first_token", 2.0 + index / 50, 3.0, 1.0 + index / 40, 4.0])
            for index in range(9)
        ]
        return [*steady, *(Doc([b"x", b"7"], ["first_token", bits]) for bits in rare)]

    run = make_run(texts(1.0, 9.0))
    result = measure_gap(run, make_run(texts(2.0, 8.0)))
    row = result.table.set_index("group").loc["digits"]
    losses, gaps = axes_of(plot_gap(run, result))
    assert losses.get_xlim()[0] >= 0 > row["train_low"], "no loss is below 0, and no interval is drawn there"
    assert min(segment[0][0] for segment in losses.collections[0].get_segments()) >= 0
    assert losses.get_xlim()[1] < row["train_high"]
    assert losses.get_xlim()[1] > result.table["train_loss_nats"].max(), "the value itself is shown"
    assert gaps.get_title(loc="left").endswith("arrows: the interval goes on")
    arrows = [line for line in losses.lines if line.get_marker() == ">"]
    assert {line.get_xdata()[0] for line in arrows} == {losses.get_xlim()[1]}
    plain = measure_gap(run, run)
    assert plain.table["gap_nats"].notna().all()


def test_nothing_is_cut_where_intervals_are_alike(make_run):
    docs = [Doc([b"x", b" a", b"\n"], ["first_token", 2.0 + index, 3.0 - index]) for index in range(4)]
    run = make_run(docs)
    result = measure_gap(run, make_run([*docs, *docs[:2]]))
    losses, gaps = axes_of(plot_gap(run, result))
    assert gaps.get_title(loc="left") == "validation − train, unpaired"
    for axes, columns in ((losses, ["train_low", "validation_high"]), (gaps, ["low", "high"])):
        low, high = axes.get_xlim()
        assert low <= max(result.table[columns].min(axis=None), 0 if axes is losses else low + 1)
        assert high > result.table[columns].max(axis=None)


@pytest.mark.parametrize("bits", [0.0, 3.0])
def test_one_token_each(make_run, bits):
    train, validation = make_run([words("first_token", bits)]), make_run([words("first_token", bits)])
    result = measure_gap(train, validation)
    losses, gaps = axes_of(plot_gap(train, result))
    assert losses.get_xlim()[0] <= bits * np.log(2) < losses.get_xlim()[1]
    assert gaps.get_xlim()[0] < 0 < gaps.get_xlim()[1]


def test_no_gap_is_always_in_the_picture(make_run):
    train, validation = (make_run([words("first_token", bits, bits + step) for step in (0, 0.1)]) for bits in (1, 9))
    gaps = axes_of(plot_gap(train, measure_gap(train, validation)))[1]
    assert gaps.get_xlim()[0] < 0 < 8 * np.log(2) < gaps.get_xlim()[1]


def test_groups_that_one_text_lacks(make_run):
    train = make_run([Doc([b" a", b"\n"], [2, "masked"]), Doc([b" a"], [3])])
    validation = make_run([Doc([b" a", b"\n"], ["masked", 4]), Doc([b"\n"], [5])])
    losses, gaps = axes_of(plot_gap(train, measure_gap(train, validation)))
    assert np.isnan(losses.lines[0].get_xdata()).sum() == 2  # newline; and the frequency of newline
    assert np.isnan(gaps.lines[0].get_xdata()).sum() == len(losses.get_yticks()) - 1


def test_the_same_result_gives_the_same_bytes(runs):
    def drawn():
        sink = io.BytesIO()
        plot_gap(runs[0], measure_gap(*runs)).savefig(sink, format="png", dpi=40, metadata={"Software": None})
        return sink.getvalue()

    assert drawn() == drawn()
