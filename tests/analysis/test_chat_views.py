"""Views of conversations by role, turn, part and place in the answer, against sums of losses chosen by hand."""

import dataclasses
import math

import numpy as np
import pytest
from fake_runs import Doc, words

from lossprobe.analysis.calibration.slices import calibrate_slices
from lossprobe.analysis.compare.changed_slices import changed_slices
from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.objectives.formulas import ObjectiveOptions
from lossprobe.analysis.objectives.objectives import measure_objectives
from lossprobe.analysis.perplexity import group_losses, measure_perplexity
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.tokens import measure_tokens
from lossprobe.errors import NothingToScoreError, UsageError
from lossprobe.report.formats.terminal import view_to_terminal
from lossprobe.report.plots.tokens import plot_tokens
from lossprobe.report.views.tokens import tokens_view
from lossprobe.run.filters import where_sql

LN2 = math.log(2)
SIDES = [(0, "user", "content"), (None, None, "template"), (1, "assistant", "header"), (1, "assistant", "content"),
         (1, "assistant", "end_of_turn"), (10, "user", "content"), (2, "tool", "content")]  # fmt: skip
BITS = [[2.0, 9.0, 1.0, 4.0, 6.0, 3.0, 5.0], [1.0, 9.5, 2.0, 3.0, 8.0, 2.0, 4.5], [2.5, 8.0, 1.5, 1.0, 7.0, 2.0, 4.0]]


def chat(bits, masked=()):
    """Return a conversation of seven tokens, of which those at some places are masked."""
    values = ["masked" if place in masked else value for place, value in enumerate(bits)]
    pieces = [b"%c%d" % (97 + place, round(2 * sum(bits))) for place in range(len(bits))]
    return Doc(pieces, values, labels=SIDES)


@pytest.fixture
def run(make_run):
    """Three conversations, every token scored."""
    return make_run([chat(bits) for bits in BITS])


def means(name):
    """Return the mean loss of each value of a label, in float64."""
    at = ("turn", "role", "part").index(name)
    found = {}
    for bits in BITS:
        for side, value in zip(SIDES, bits, strict=True):
            found.setdefault("(none)" if side[at] is None else str(side[at]), []).append(value * LN2)
    return {key: float(np.mean(values)) for key, values in found.items()}


@pytest.mark.parametrize("name", ["role", "turn", "part"])
def test_every_view_has_the_mean_of_each_label(run, name):
    wanted = means(name)
    tables = (
        group_losses(run, name, tiles=True),
        find_hardest(run, name, top=20).table,
        calibrate_slices(run, name).table,
    )
    for table in tables:
        assert dict(zip(table["group"], table["mean_loss_nats"], strict=True)) == pytest.approx(wanted, abs=1e-6)


def test_a_turn_that_is_the_same_in_every_conversation_has_no_interval(make_run):
    """The first turn is the same in all three conversations, the second in two of them, the third in none."""
    turns = [(0, "system", "content"), (0, "system", "content"), (1, "user", "content"), (2, "assistant", "content")]
    docs = [
        Doc([b"be", b"kind", asked, said], [1.0, 2.0, bits, bits + 1], labels=turns)
        for asked, said, bits in ((b"a", b"x", 3.0), (b"a", b"y", 3.0), (b"b", b"y", 5.0))
    ]
    run = make_run(docs, copies=True)
    groups = measure_perplexity(run, "turn").groups.set_index("group")
    hard = find_hardest(run, "turn").table.set_index("group")
    for table in (groups, hard):
        assert math.isnan(table.loc["0", "low"])
        assert math.isnan(table.loc["0", "high"])
        wanted = jackknife_ratio([6 * LN2, 5 * LN2], [2, 1])  # two copies, and another text
        assert table.loc["1", ["low", "high"]].tolist() == pytest.approx(list(wanted.interval))
        wanted = jackknife_ratio([4 * LN2, 4 * LN2, 6 * LN2], [1, 1, 1])
        assert table.loc["2", ["low", "high"]].tolist() == pytest.approx(list(wanted.interval))
    sliced = calibrate_slices(run, "turn").table.set_index("group")
    assert sliced["clusters"].to_dict() == {"0": 1, "1": 2, "2": 3}
    other = make_run([dataclasses.replace(doc, bits=[bits + 1 for bits in doc.bits]) for doc in docs], copies=True)
    changed = changed_slices(run, other, "turn").table.set_index("group")
    assert changed["clusters"].to_dict() == {"0": 1, "1": 2, "2": 3}
    assert changed.loc["1", "mean_difference_nats"] == pytest.approx(LN2)
    for notes in (measure_perplexity(run, "turn").notes, find_hardest(run, "turn").notes):
        assert "turn 0: 1 text in all 3 documents, the same up to there, so that it has no interval" in notes
        assert "turn 1: 2 different texts in 3 documents; its interval resamples these" in notes
        assert not any(note.startswith("turn 2") for note in notes)


def test_turns_come_in_the_order_of_their_numbers(run):
    order = ["(none)", "0", "1", "2", "10"]
    assert group_losses(run, "turn", tiles=True)["group"].tolist() == order
    assert calibrate_slices(run, "turn").table["group"].tolist() == order


def test_the_finding_names_the_hardest_role(run):
    assert find_hardest(run, "role").finding.startswith("hardest role: “(none)”")
    assert find_hardest(run, "role").finding.endswith("in 3 documents")


@pytest.mark.parametrize("name", ["role", "turn", "part"])
def test_two_runs_are_compared_label_by_label(make_run, run, name):
    rng = np.random.default_rng(1)
    moved = [[value + round(rng.uniform(-1, 1), 3) for value in bits] for bits in BITS]
    made = [Doc(chat(old).pieces, list(bits), labels=SIDES) for bits, old in zip(moved, BITS, strict=True)]
    table = changed_slices(run, make_run(made), name).table.set_index("group")
    at = ("turn", "role", "part").index(name)
    for value in means(name):
        named = ["(none)" if side[at] is None else str(side[at]) for side in SIDES]
        places = [place for place, label in enumerate(named) if label == value]
        changes = [(new[place] - old[place]) * LN2 for new, old in zip(moved, BITS, strict=True) for place in places]
        assert table.loc[value, "mean_difference_nats"] == pytest.approx(np.mean(changes), abs=1e-6)
        assert table.loc[value, "tokens"] == len(changes)


@pytest.mark.parametrize(
    ("condition", "places"),
    [
        ("role = 'assistant'", [2, 3, 4]), ('role == "user" and turn > 0', [5]), ("role = tool", [6]),
        ("part != content", [1, 2, 4]), ("role != 'assistant'", [0, 1, 5, 6]), ("role = '(none)'", [1]),
        ("turn >= 2", [5, 6]),
    ],
)  # fmt: skip
def test_conditions_on_labels_choose_tokens(run, condition, places):
    found = measure_tokens(run, [condition])
    assert found.tokens_scored == 3 * len(places)
    wanted = np.mean([bits[place] for bits in BITS for place in places]) * LN2
    assert found.mean_loss_nats == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    "text", ["role > 'a'", "role = 'a' or 1 = 1", "role = 'a''b'", "role", "role = ", "part = 'a\"'"]
)
def test_other_conditions_on_words_are_refused(text):
    with pytest.raises(UsageError) as caught:
        where_sql([text])
    assert caught.value.id == "where.syntax"


def test_an_and_inside_a_word_joins_nothing():
    assert where_sql(["role = 'you and me' and turn = 1"]) == '"role" = \'you and me\' AND "turn" = 1.0'


@pytest.mark.parametrize("masked", [(), (0, 1, 2, 5), (3,)])
def test_positions_in_the_answer_begin_after_its_header_whatever_is_scored(make_run, masked):
    run = make_run([chat(bits, masked) for bits in BITS])
    table = measure_positions(run, "answer-position", "every").table.set_index("position")
    wanted = {place: token for place, token in {1: 3, 2: 4}.items() if token not in masked}  # of the assistant's turn
    assert table["count"].to_dict() == dict.fromkeys(wanted, 3)
    for place, token in wanted.items():
        mean = np.mean([bits[token] for bits in BITS]) * LN2
        assert table.loc[place, "mean_loss_nats"] == pytest.approx(mean, abs=1e-6)


def test_without_a_scored_answer_there_are_no_positions_in_it(make_run):
    run = make_run([chat(bits, masked=(2, 3, 4)) for bits in BITS])
    with pytest.raises(NothingToScoreError, match="no token of an answer has a loss"):
        measure_positions(run, "answer-position")


def test_plain_text_has_no_labels(make_run):
    run = make_run([words("first_token", 1.0, 2.0)])
    with pytest.raises(UsageError, match="answer-position") as caught:
        measure_positions(run, "answer-position")
    assert caught.value.id == "positions.plain_text"
    with pytest.raises(UsageError, match="conversations only") as caught:
        measure_tokens(run, ["role = 'assistant'"])
    assert caught.value.id == "where.plain_text"
    for view in (lambda: group_losses(run, "role", tiles=True), lambda: changed_slices(run, run, "turn")):
        with pytest.raises(UsageError, match="field"):
            view()
    assert not {"turn", "role", "part"} & set(measure_tokens(run).table)


def test_a_field_of_that_name_is_still_a_field_of_plain_text(make_run):
    run = make_run(
        [words("first_token", 1.0, fields={"role": "author"}), words("first_token", 2.0, fields={"role": "x"})]
    )
    assert set(group_losses(run, "role", tiles=True)["group"]) == {"author", "x"}


def test_the_table_of_a_conversation_begins_with_scored_tokens(make_run):
    run = make_run([chat(bits, masked=(0, 1, 2, 5)) for bits in BITS])
    result = measure_tokens(run)
    assert result.table["token"].tolist() == [3, 4, 6] * 3
    assert result.table["role"].tolist() == ["assistant", "assistant", "tool"] * 3
    assert "12 of 21 tokens have no loss" in result.notes[0]
    page = view_to_terminal(tokens_view(run, result, ()), 80)
    assert max(map(len, page.splitlines())) <= 80
    assert "assistant" in page


def test_without_any_scored_token_the_option_is_named(make_run):
    run = make_run([chat(bits, masked=(0, 1, 2, 5)) for bits in BITS])
    with pytest.raises(NothingToScoreError) as caught:
        measure_tokens(run, ["role = 'user'"])
    assert "`score` all" in caught.value.hint
    for view in (measure_tokens, lambda run, where: measure_objectives(run, ObjectiveOptions(where=tuple(where)))):
        with pytest.raises(NothingToScoreError) as caught:
            view(run, ["role = 'asistant' and loss > 1"])
        assert caught.value.hint == (
            "did you mean assistant? no token has the role 'asistant': there are assistant, tool, user"
        )


def test_the_finding_of_chosen_tokens_names_the_condition(run):
    finding = measure_tokens(run, ["role = 'assistant' and loss > 1"]).finding
    assert " scored where role = 'assistant' AND loss_nats > 1.0, mean loss " in finding
    assert " where " not in measure_tokens(run).finding


def test_the_picture_names_the_role_of_each_turn_and_shows_the_hardest_token(make_run):
    turns = [(turn, ("user", "assistant")[turn % 2], "content") for turn in range(30)]
    bits = [1.0 if turn % 2 else "masked" for turn in range(30)]
    bits[29] = 9.0
    run = make_run([Doc([b" w%d" % turn for turn in range(30)], bits, labels=turns)])
    strip = plot_tokens(run, measure_tokens(run)).axes[1]
    shown = [text.get_text().strip() for text in strip.texts]
    assert "w29" in shown
    assert "w0" not in shown
    assert shown.count("assistant") + shown.count("user") == len([text for text in shown if text.startswith("w")])
