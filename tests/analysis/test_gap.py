"""Train against validation loss: every number against a second computation, and what each verdict and note needs."""

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, log_probabilities, write_drawn
from fake_runs import LN2, Doc, words
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_ind

from lossprobe.analysis.gap.gap import SAME_MODEL, measure_gap
from lossprobe.analysis.gap.memorised import find_memorised
from lossprobe.analysis.gap.verdict import A_GAP, NO_GAP, OVER_FITTED, UNDECIDED, judge_gap
from lossprobe.analysis.rows import unpaired
from lossprobe.analysis.rows.unpaired import (
    GroupSums,
    TextEstimate,
    estimate_ratio,
    group_rows,
    same_mix_difference,
    unpaired_difference,
)
from lossprobe.analysis.stats.interval import Estimate, Interval
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.errors import NotComparableError, OutputError
from lossprobe.run.reader import open_run

VOCABULARY = [b" w%d" % index if index % 3 else b"x%d" % index for index in range(30)] + [b"\n", b" 7", b".", b"  "]
SAME = {"checkpoint": {"sha256": "the same"}}


@pytest.fixture
def world(tmp_path):
    """Draw two texts from a seed and write their runs."""

    class World:
        def __init__(self, seed=1, rows=(900, 600), documents=(12, 9)):
            rng = np.random.default_rng(seed)
            self.runs, self.rows = [], []
            for name, count, number in zip(("train", "validation"), rows, documents, strict=True):
                logits = draw_logits(rng, count, len(VOCABULARY))
                targets, owners = draw_targets(rng, logits), document_numbers(rng, count, number)
                folder = tmp_path / f"{seed}-{name}"
                run = write_drawn(folder, logits, targets, owners, vocabulary=VOCABULARY, text_name=name,
                                  rows_per_part=250, settings_changes=SAME).run  # fmt: skip
                loss = -log_probabilities(logits)[np.arange(count), targets]
                self.runs.append(run)
                before = np.where(np.diff(owners, prepend=-1) > 0, 0, np.roll(targets, 1))
                self.rows.append(
                    pd.DataFrame(
                        {
                            "document": owners,
                            "token_id": targets,
                            "loss": loss,
                            "form": [form_of(*pair) for pair in zip(targets, before, strict=True)],
                            "correct": (logits.argmax(axis=1) == targets).astype(float),
                        }
                    )
                )

    return World


def form_of(token_id: int, before: int) -> str:
    piece = VOCABULARY[token_id]
    special = {b"\n": "newline", b" 7": "digits", b".": "punctuation", b"  ": "whitespace"}
    if piece in special:
        return special[piece]
    starts = piece.startswith(b" ") or VOCABULARY[before] in (b"\n", b"  ")
    return "word start" if starts else "word continuation"


def error_of(values, owners):
    """Return mean, standard error and number of clusters, by leaving out one document after the other."""
    values, owners = np.asarray(values), np.asarray(owners)
    rest = np.array([values[owners != owner].mean() for owner in np.unique(owners)])
    count = len(rest)
    return values.mean(), math.sqrt((count - 1) / count * ((rest - rest.mean()) ** 2).sum()), count


def welch(first, second):
    """Return second − first and its Welch–Satterthwaite interval, from the textbook formula."""
    (m1, s1, g1), (m2, s2, g2) = first, second
    freedom = (s1**2 + s2**2) ** 2 / (s1**4 / (g1 - 1) + s2**4 / (g2 - 1))
    half = student.ppf(0.975, freedom) * math.sqrt(s1**2 + s2**2)
    return [m2 - m1, m2 - m1 - half, m2 - m1 + half]


def jackknife_t(mean, error, count):
    half = student.ppf(0.975, count - 1) * error
    return [mean, mean - half, mean + half]


def number(result, name):
    """Return a number with its interval, of the gap or of one of its sides."""
    return [getattr(result, name), *getattr(result, f"{name}_interval")]


def test_the_headline_is_that_of_the_rows(world):
    drawn = world()
    result = measure_gap(*drawn.runs)
    losses = [error_of(rows["loss"], rows["document"]) for rows in drawn.rows]
    expected = welch(*losses)
    assert number(result, "gap_nats") == pytest.approx(expected, abs=1e-6)
    assert number(result, "perplexity_ratio") == pytest.approx(np.exp(expected).tolist(), abs=1e-5)
    assert result.gap_share == pytest.approx(expected[0] / losses[1][0], abs=1e-6)
    for side, rows, loss in zip(("train", "validation"), drawn.rows, losses, strict=True):
        own = jackknife_t(*loss)
        assert number(getattr(result, side), "nll_nats") == pytest.approx(own, abs=1e-6)
        assert number(getattr(result, side), "perplexity") == pytest.approx(np.exp(own).tolist(), rel=1e-5)
        right = jackknife_t(*error_of(rows["correct"], rows["document"]))
        assert number(getattr(result, side), "accuracy") == pytest.approx(right, abs=1e-12)
        assert getattr(result, side).tokens == len(rows)
        assert getattr(result, side).text == side
    assert (result.train.documents, result.validation.documents) == (12, 9)
    assert (result.train.interval_unit, result.validation.interval_unit) == ("document", "document")


def check_rows(table, kind, groups, rows):
    """Hold the rows of one kind against the tokens of both texts, whose groups are given."""
    found = table[table["kind"] == kind].set_index("group")
    assert set(found.index) == set(groups[0]) | set(groups[1])
    for name, row in found.iterrows():
        parts = [one[group == name] for one, group in zip(rows, groups, strict=True)]
        assert row[["train_tokens", "validation_tokens"]].tolist() == [len(part) for part in parts]
        sides = [error_of(part["loss"], part["document"]) if len(part) else None for part in parts]
        for side, part in zip(("train", "validation"), sides, strict=True):
            expected = [math.nan] * 3 if part is None else jackknife_t(*part)
            columns = row[[f"{side}_loss_nats", f"{side}_low", f"{side}_high"]].tolist()
            assert columns == pytest.approx(expected, abs=1e-6, nan_ok=True), (name, side)
        gap = [math.nan] * 3 if None in sides else welch(*sides)
        assert row[["gap_nats", "low", "high"]].tolist() == pytest.approx(gap, abs=1e-6, nan_ok=True), name


def test_every_class_is_that_of_its_rows(world):
    drawn = world()
    table = measure_gap(*drawn.runs).table
    check_rows(table, "class", [rows["form"] for rows in drawn.rows], drawn.rows)
    assert table["group"].tolist()[:7] == [
        "all tokens", "newline", "whitespace", "digits", "punctuation", "word start", "word continuation",
    ]  # fmt: skip
    whole = table.iloc[0]
    assert whole["kind"] == "all"
    assert whole["gap_nats"] == measure_gap(*drawn.runs).gap_nats
    for kind in ("class", "frequency"):
        part = table[table["kind"] == kind]
        for side in ("train", "validation"):
            assert part[f"{side}_tokens"].sum() == whole[f"{side}_tokens"]
            nats = (part[f"{side}_tokens"] * part[f"{side}_loss_nats"]).sum()
            assert nats / whole[f"{side}_tokens"] == pytest.approx(whole[f"{side}_loss_nats"], rel=1e-12)


def span_of(count: int) -> str:
    return "0" if count == 0 else f"{10 ** (len(str(count)) - 1)}-{10 ** len(str(count)) - 1}"


def test_every_frequency_is_counted_in_the_other_training_documents(world):
    drawn = world(rows=(400, 300), documents=(7, 5))
    train, validation = drawn.rows
    everywhere = train["token_id"].value_counts()
    own = train.groupby(["document", "token_id"]).size()
    in_train = [
        span_of(everywhere[token] - own[document, token])
        for document, token in zip(train["document"], train["token_id"], strict=True)
    ]
    in_validation = [span_of(everywhere.get(token, 0)) for token in validation["token_id"]]
    table = measure_gap(*drawn.runs).table
    check_rows(table, "frequency", [pd.Series(in_train), pd.Series(in_validation)], drawn.rows)
    assert set(in_train) == {"1-9", "10-99"}


def spread(docs: list[list[int]], losses: list[list[float]]) -> list[Doc]:
    """Return documents of the tokens " a", " b", …, and one without a loss, so that all runs have one vocabulary."""
    pieces = [b" " + bytes([97 + index]) for index in range(26)]
    every = Doc(pieces, ["masked"] * 26)
    return [
        every, *(Doc([pieces[i] for i in ids], list(bits)) for ids, bits in zip(docs, losses, strict=True)),
    ]  # fmt: skip


def frequencies(result) -> dict[str, list[int]]:
    rows = result.table[result.table["kind"] == "frequency"]
    return {row["group"]: [int(row["train_tokens"]), int(row["validation_tokens"])] for row in rows.to_dict("records")}


def test_counts_by_hand(make_run):
    train = make_run(spread([[0, 0, 1], [0, 2] + [3] * 9, [3, 3]], [[1] * 3, [1] * 11, [1] * 2]))
    validation = make_run(spread([[0, 1, 2, 3, 4]], [[2] * 5]))
    # " a": 1 elsewhere for two rows and 2 for one; " b", " c": 0 elsewhere; " d": 2 for nine rows, 9 for two.
    assert frequencies(measure_gap(train, validation)) == {"0": [2, 1], "1-9": [14, 3], "10-99": [0, 1]}


def test_in_a_single_document_the_token_itself_is_left_out(make_run):
    train = make_run(spread([[0] * 11 + [1] + [2] * 10], [[1] * 22]))
    validation = make_run(spread([[0, 1, 2, 3]], [[1] * 4]))
    assert frequencies(measure_gap(train, validation)) == {"0": [1, 1], "1-9": [10, 1], "10-99": [11, 2]}


def test_in_blocks_of_a_single_document_the_own_block_is_left_out(make_run):
    train = make_run(spread([[0] * 4091 + [1] * 5 + [2] * 5 + [0] * 4091], [[1] * 8192]))
    validation = make_run(spread([[0, 1, 3]], [[1] * 3]))
    found = measure_gap(train, validation)
    assert found.train.interval_unit == "block"
    assert frequencies(found) == {"0": [10, 1], "1-9": [0, 1], "1000-9999": [8182, 1]}
    assert any(note.startswith("train: one document: intervals resample 2 blocks") for note in found.notes)


def test_a_model_that_remembers_nothing_has_no_gap_at_any_frequency(make_run):
    """Losses are those of the true unigram: with the token itself counted, rare training tokens would be harder."""
    rng = np.random.default_rng(4)
    share = 1.0 / np.arange(1, 301) ** 1.1
    share /= share.sum()
    pieces = [b" v%d" % index for index in range(300)]
    every = Doc(pieces, ["masked"] * 300)
    runs = []
    for documents in (80, 80):
        ids = rng.choice(300, (documents, 12), p=share)
        runs.append(make_run([every, *(Doc([pieces[i] for i in row], list(-np.log2(share[row]))) for row in ids)]))
    table = measure_gap(*runs).table
    rows = table[(table["kind"] == "frequency") & (table["train_tokens"] > 50) & (table["validation_tokens"] > 50)]
    assert len(rows) >= 3
    assert ((rows["low"] <= 0) & (rows["high"] >= 0)).all()
    assert (rows["high"] - rows["low"]).max() < 0.5


def standardised(train, validation):
    """Return Σ n_k (v_k − t_k) / Σ n_k over the common classes, from the rows."""
    means = [rows.groupby("form")["loss"].mean() for rows in (train, validation)]
    weight = validation.groupby("form").size()
    difference = (means[1] - means[0]).dropna()
    return float((difference * weight[difference.index]).sum() / weight[difference.index].sum())


def without_each(rows):
    return [rows[rows["document"] != owner] for owner in rows["document"].unique()]


def test_the_gap_at_the_same_mix_is_that_of_the_rows(world):
    drawn = world()
    train, validation = drawn.rows
    estimate = standardised(train, validation)
    replicates = (
        [standardised(rest, validation) for rest in without_each(train)],
        [standardised(train, rest) for rest in without_each(validation)],
    )
    errors = [math.sqrt((len(one) - 1) * np.var(one)) for one in replicates]
    expected = welch((0.0, errors[0], len(replicates[0])), (estimate, errors[1], len(replicates[1])))
    result = measure_gap(*drawn.runs)
    assert number(result, "gap_same_mix_nats") == pytest.approx(expected, abs=1e-6)
    assert abs(result.gap_same_mix_nats - result.gap_nats) > 1e-3


def test_with_one_class_the_mix_changes_nothing(make_run):
    rng = np.random.default_rng(0)
    train, validation = (
        make_run([words("first_token", *rng.uniform(0, 9, size)) for size in sizes])
        for sizes in ((3, 5, 8, 2), (4, 1, 9))
    )
    result = measure_gap(train, validation)
    assert number(result, "gap_same_mix_nats") == pytest.approx(number(result, "gap_nats"), rel=1e-12)


def mixed(easy: int, hard: int) -> Doc:
    """Return a document of newlines that cost nothing much, and words that do, the same in every text."""
    return Doc([b"\n"] * easy + [b" a"] * hard, [1.0] * easy + [8.0] * hard)


def test_a_harder_mix_is_no_over_fitting(make_run):
    train, validation = make_run([mixed(30, 10), mixed(32, 9)]), make_run([mixed(10, 30), mixed(9, 32)])
    result = measure_gap(train, validation)
    assert result.gap_nats > 3 * LN2
    assert result.gap_nats_interval[0] > 0.1 * result.validation.nll_nats
    assert number(result, "gap_same_mix_nats") == pytest.approx([0.0] * 3, abs=1e-6)
    assert result.verdict == NO_GAP
    assert result.table.set_index("group").loc[["newline", "word start"], "gap_nats"].abs().max() < 1e-6


def test_a_class_that_the_training_text_lacks_has_no_part_in_the_mix(make_run):
    train = make_run([Doc([b" a"] * 3, [1, 2, 3]), Doc([b" a"] * 2, [2, 4]), Doc([b"\n"], ["masked"])])
    validation = make_run([Doc([b" a", b" a", b"\n"], [4, 4, 9]), Doc([b" a"], [5])])
    result = measure_gap(train, validation)
    assert result.gap_same_mix_nats == pytest.approx((13 / 3 - 12 / 5) * LN2, abs=1e-6)
    assert "gap_same_mix_nats: without 1 validation token of classes that the training text lacks" in result.notes
    row = result.table.set_index("group").loc["newline"]
    assert row["train_tokens"] == 0
    assert row[["train_loss_nats", "gap_nats", "low"]].isna().all()
    assert row["validation_loss_nats"] == pytest.approx(9 * LN2, abs=1e-6)


def test_texts_without_a_class_in_common_have_no_gap_at_the_same_mix(make_run):
    train = make_run([Doc([b" a", b"\n"], [1, "masked"]), Doc([b" a"], [2])])
    validation = make_run([Doc([b" a", b"\n"], ["masked", 4]), Doc([b"\n"], [5])])
    result = measure_gap(train, validation)
    assert (result.gap_same_mix_nats, result.gap_same_mix_nats_interval) == (None, (None, None))
    assert "same mix" not in result.finding
    assert result.verdict == judge_gap([result.gap_nats_interval], result.validation.nll_nats)


def test_a_common_class_in_one_document_only_gives_no_interval():
    train = GroupSums(np.array([[2.0, 0.0], [0.0, 5.0]]), np.array([[2.0, 0.0], [0.0, 2.0]]))
    validation = GroupSums(np.array([[3.0, 0.0], [3.0, 0.0]]), np.array([[1.0, 0.0], [2.0, 0.0]]))
    found, left_out = same_mix_difference(train, validation)
    assert found == Estimate(1.0)
    assert left_out == 0


losses = st.lists(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=6), min_size=2, max_size=6)


def sums_of(docs):
    """Return the sums of documents whose tokens belong to two classes in turn."""
    nats, tokens = np.zeros((len(docs), 2)), np.zeros((len(docs), 2))
    for row, doc in enumerate(docs):
        for index, loss in enumerate(doc):
            nats[row, index % 2] += loss
            tokens[row, index % 2] += 1
    return GroupSums(nats, tokens)


def ratio_of(docs):
    return estimate_ratio([sum(doc) for doc in docs], [len(doc) for doc in docs])


def differences(train, validation):
    mixed_sums = same_mix_difference(sums_of(train), sums_of(validation))
    return [unpaired_difference(ratio_of(train), ratio_of(validation)), mixed_sums[0]]


@given(losses, losses, st.floats(-5.0, 5.0))
def test_a_constant_moves_the_gap_and_leaves_its_interval(train, validation, constant):
    moved = [[loss + constant for loss in doc] for doc in validation]
    for before, after in zip(*(differences(train, text) for text in (validation, moved)), strict=True):
        assert after.value == pytest.approx(before.value + constant, abs=1e-9)
        if before.interval.low is not None and before.interval.high - before.interval.low > 1e-4:
            assert [after.interval.low, after.interval.high] == pytest.approx(
                [before.interval.low + constant, before.interval.high + constant], abs=1e-5
            )


@given(losses, losses)
def test_swapping_the_texts_flips_the_sign(train, validation):
    one, other = (unpaired_difference(*map(ratio_of, pair)) for pair in ((train, validation), (validation, train)))
    assert [one.value, one.interval.low, one.interval.high] == pytest.approx(
        [-other.value, -other.interval.high, -other.interval.low], abs=1e-12
    )


@given(losses)
def test_one_text_has_the_interval_of_every_other_view(docs):
    numerator, denominator = [sum(doc) for doc in docs], [len(doc) for doc in docs]
    known = jackknife_ratio(numerator, denominator)
    found = estimate_ratio([*numerator, 0.0], [*denominator, 0])
    assert [found.value, *found.interval] == pytest.approx([known.value, *known.interval], rel=1e-12)


def test_with_one_token_a_document_it_is_welchs_t_test():
    rng = np.random.default_rng(3)
    train, validation = rng.normal(3.0, 1.0, 17), rng.normal(3.4, 2.5, 8)
    found = unpaired_difference(estimate_ratio(train, np.ones(17)), estimate_ratio(validation, np.ones(8)))
    known = ttest_ind(validation, train, equal_var=False).confidence_interval(0.95)
    assert found.interval == pytest.approx([known.low, known.high], rel=1e-12)


def test_an_error_of_zero_on_one_side_leaves_the_other_sides_freedom():
    found = unpaired_difference(TextEstimate(1.0, 0.0, 3), TextEstimate(2.0, 0.5, 5))
    assert found.interval.high - 1.0 == pytest.approx(student.ppf(0.975, 4) * 0.5, rel=1e-12)
    assert unpaired_difference(TextEstimate(1.0, 0.0, 3), TextEstimate(2.0, 0.0, 5)) == Estimate(
        1.0, Interval(1.0, 1.0)
    )
    assert unpaired_difference(TextEstimate(1.0, None, 1), TextEstimate(2.0, 0.5, 5)) == Estimate(1.0)


def test_the_interval_holds_the_true_gap_at_its_rate():
    """Documents of log-normal size with a level of their own, as texts have: 95 % nominal."""
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(600):
        sides = []
        for count, mean, scale in ((25, 3.0, 0.35), (12, 3.5, 0.5)):
            tokens = np.ceil(rng.lognormal(4.0, 0.8, count))
            level = mean + scale * rng.standard_normal(count) + rng.standard_normal(count) / np.sqrt(tokens)
            sides.append(estimate_ratio(level * tokens, tokens))
        found = unpaired_difference(*sides)
        held += found.interval.low <= 0.5 <= found.interval.high
    assert 0.91 <= held / 600 <= 0.985


def test_documents_over_the_limit_are_merged_and_no_mean_changes(world, monkeypatch):
    drawn = world()
    whole = measure_gap(*drawn.runs)
    monkeypatch.setattr(unpaired, "MOST_CLUSTERS", 4)
    merged = measure_gap(*drawn.runs)
    assert len(unpaired.class_sums(drawn.runs[0]).tokens) == 4
    columns = ["train_tokens", "train_loss_nats", "validation_loss_nats", "gap_nats"]
    pd.testing.assert_frame_equal(merged.table[columns], whole.table[columns], rtol=1e-12)
    assert merged.gap_nats_interval == whole.gap_nats_interval
    assert merged.gap_same_mix_nats == pytest.approx(whole.gap_same_mix_nats, rel=1e-9)
    assert merged.gap_same_mix_nats_interval != whole.gap_same_mix_nats_interval


def test_one_document_has_no_interval_and_no_verdict(make_run):
    for sizes in ((1, 3), (3, 1)):
        train, validation = (make_run([words("first_token", bits, bits + 1)] * count)
                             for bits, count in zip((1, 6), sizes, strict=True))  # fmt: skip
        result = measure_gap(train, validation)
        assert result.verdict == UNDECIDED
        assert number(result, "gap_nats") == [pytest.approx(5 * LN2, abs=1e-6), None, None]
        assert number(result, "perplexity_ratio") == [pytest.approx(32.0, rel=1e-6), None, None]
        assert result.gap_same_mix_nats_interval == (None, None)
        assert result.table[["low", "high"]].isna().all(axis=None)
        alone = "train" if sizes[0] == 1 else "validation"
        assert any(note.startswith(f"{alone}: one document of fewer than 8,192 tokens") for note in result.notes)
        assert result.finding.startswith("cannot tell: validation − train +3.466 nats per token no interval, ")


def test_the_same_run_twice_has_no_gap(world):
    train = world().runs[0]
    result = measure_gap(train, train)
    assert result.gap_nats == result.gap_same_mix_nats == result.gap_share == 0.0
    assert result.perplexity_ratio == 1.0
    assert result.verdict == NO_GAP
    low, high = result.gap_nats_interval
    assert low == -high < 0, "an unpaired interval: it does not know that the texts are the same"
    known = result.table[result.table["kind"] != "frequency"]
    assert (known["gap_nats"] == 0.0).all()
    assert "train and validation are the same text: there is no gap to be found" in result.notes


def test_different_texts_are_not_called_the_same(world, make_run):
    assert not any("the same text" in note for note in measure_gap(*world().runs).notes)
    runs = [make_run([words("first_token", bits)] * 2) for bits in (1, 2)]
    notes = measure_gap(*runs).notes  # written without any hashes
    assert not any("the same text" in note for note in notes)
    assert any("the checkpoint has no sha256" in note for note in notes)
    assert not any("no sha256" in note for note in measure_gap(*world(2).runs).notes)


@pytest.mark.parametrize(
    ("lows", "verdict"),
    [
        ((0.3, 0.3), A_GAP),
        ((-0.1, 0.3), NO_GAP),
        ((0.3, -0.1), NO_GAP),
        ((0.03, 0.3), NO_GAP),
        ((0.031, 0.3), A_GAP),
        ((0.3, 0.4), A_GAP),
        ((0.31, 0.4), OVER_FITTED),
        ((0.4, 0.29), A_GAP),
        ((0.4, None), OVER_FITTED),
        ((None, None), UNDECIDED),
        ((None, 0.4), UNDECIDED),
    ],
)
def test_the_verdict_is_by_the_lower_ends_in_shares_of_the_validation_loss(lows, verdict):
    assert judge_gap([Interval(low, None if low is None else 2.0) for low in lows], 3.0) == verdict


def test_a_gap_of_just_a_tenth_is_not_over_fitting():
    assert judge_gap([Interval(1.0, 3.0)], 10.0) == A_GAP
    assert judge_gap([Interval(0.1, 3.0)], 10.0) == NO_GAP


def test_a_validation_loss_of_zero_is_no_gap(make_run):
    runs = [make_run([words("first_token", 0, 0), words("first_token", 0)]) for _ in range(2)]
    result = measure_gap(*runs)
    assert (result.verdict, result.gap_share, result.perplexity_ratio) == (NO_GAP, None, 1.0)
    assert "validation loss" not in result.finding


def test_the_finding_and_the_verdict_of_a_clear_case(make_run):
    train = make_run([words("first_token", *[bits] * 40) for bits in (0.1, 0.2, 3.0)], text_name="seen")
    validation = make_run([words("first_token", *[bits] * 40) for bits in (14.5, 15.0, 15.5)], text_name="new")
    result = measure_gap(train, validation)
    assert result.verdict == OVER_FITTED
    low, high = result.gap_nats_interval
    same, shown = result.gap_same_mix_nats, f"{result.validation.perplexity:,.4f}"
    decisive = min(low, result.gap_same_mix_nats_interval.low) / result.validation.nll_nats
    assert result.validation.perplexity == pytest.approx(2**15, rel=1e-6)
    assert result.finding == (
        f"over-fitted (by its lower end, {decisive:.1%} of the validation loss): "
        f"validation − train {13.9 * LN2:+.3f} nats per token [{low:+.3f}, {high:+.3f}], 92.7% of the "
        f"validation loss; {same:+.3f} at the same mix of classes; perplexity 2.1435 → {shown}; "
        "1 of 3 training documents memorised"
    )
    backwards = measure_gap(validation, train)
    assert backwards.verdict == NO_GAP
    assert any("the validation text is the easier one" in note for note in backwards.notes)
    assert not any("easier one" in note for note in result.notes)


NEARLY = 0.0999 / LN2


def test_memorised_documents_by_hand(make_run):
    docs = [
        words("first_token", *[NEARLY] * 32),  # just long enough, just below
        words("first_token", *[0.01] * 31),  # too short
        words("first_token", *[0.1001 / LN2] * 40),  # just above
        Doc([b" q"] * 51, ["first_token", *[0.02] * 50], source="b\x1b.txt", line=7),
        words("first_token", *[4.0] * 78),
    ]
    found = find_memorised(make_run(docs))
    assert (found.documents, found.tokens) == (2, 82)
    assert (found.judged_documents, found.short_documents) == (4, 1)
    assert (found.share_of_documents, found.share_of_tokens) == (0.5, 82 / 200)
    assert list(found.table) == ["document", "source", "line", "tokens", "mean_loss_nats", "begins"]
    assert found.table["document"].tolist() == [3, 0]
    assert found.table["tokens"].tolist() == [50, 32]
    assert found.table["mean_loss_nats"].tolist() == pytest.approx([0.02 * LN2, 0.0999], abs=1e-7)
    assert found.table.loc[0, ["source", "line"]].tolist() == ["b\\x1b.txt", 7]
    assert found.table.loc[0, "begins"] == " q" * 30 + "…" * (len(found.table.loc[0, "begins"]) - 60)


def test_at_most_ten_memorised_documents_are_listed(make_run):
    found = find_memorised(make_run([words("first_token", *[0.001 * (1 + index)] * 32) for index in range(12)]))
    assert found.documents == 12
    assert found.table["document"].tolist() == list(range(10))


def test_documents_too_short_to_judge_give_no_share(make_run):
    run = make_run([words("first_token", 0.01)] * 2, keep_text=False)
    found = find_memorised(run)
    assert (found.documents, found.judged_documents, found.short_documents) == (0, 0, 2)
    assert (found.share_of_documents, found.share_of_tokens) == (None, None)
    assert len(found.table) == 0
    assert "memorised: 2 train documents with fewer than 32 scored tokens not judged" in measure_gap(run, run).notes


def test_without_a_stored_text_a_memorised_document_has_no_beginning(make_run):
    found = find_memorised(make_run([words("first_token", *[0.01] * 40)], keep_text=False))
    assert found.table["begins"].tolist() == [""]


def test_training_text_in_the_validation_text_is_called_a_leak(make_run):
    seen, new = words("first_token", *[0.01] * 40), words("first_token", *[6.0] * 40)
    train = make_run([seen, seen, seen])
    clean, leaking = make_run([new, new]), make_run([new, seen, new])
    assert not any("leak" in note for note in measure_gap(train, clean).notes)
    result = measure_gap(train, leaking)
    assert result.validation.memorised.documents == 1
    assert result.validation.memorised.share_of_documents == pytest.approx(1 / 3)
    assert any(note.startswith("1 validation document of near-zero loss: a leak") for note in result.notes)


@pytest.mark.parametrize(("group", "key"), sorted(SAME_MODEL), ids=lambda word: word)
def test_runs_that_differ_in_more_than_the_text_are_refused(world, tmp_path, group, key):
    train, validation = world(rows=(40, 40), documents=(2, 2)).runs
    manifest = json.loads((validation.path / "run.json").read_text())
    manifest["settings"][group][key] = "another"
    (validation.path / "run.json").write_text(json.dumps(manifest))
    words_ = SAME_MODEL[group, key]
    with pytest.raises(NotComparableError, match=rf"only the text may differ, and they differ in {words_} \(") as error:
        measure_gap(train, open_run(validation.path))
    assert error.value.id == "runs.different"
    assert "another" in error.value.message


def test_what_makes_runs_of_one_model(world):
    assert set(SAME_MODEL.values()) == {
        "checkpoint", "dtype", "tokenizer", "context", "stride", "layout of the windows", "BOS", "second BOS",
        "unknown tokens",
    }  # fmt: skip
    train, validation = world(rows=(40, 40), documents=(2, 2)).runs
    assert train.manifest["settings"]["text"] != validation.manifest["settings"]["text"]
    assert measure_gap(train, validation).checkpoint == "model"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused_with_its_place(make_run, value):
    run = make_run([words("first_token", 1, 2), words("first_token", 3)])
    file = run.path / "tokens/part-00000.parquet"
    table = pq.read_table(file)
    column = pa.array([None, 1.0, value, None, 3.0], pa.float32())
    pq.write_table(table.set_column(table.schema.get_field_index("loss_nats"), "loss_nats", column), file)
    with pytest.raises(OutputError, match="document 0, token 2: a stored number is not finite"):
        measure_gap(run, run)


def test_groups_without_a_token_have_no_row():
    one = GroupSums(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    rows = group_rows("class", ["some", "none"], one, one)
    assert rows["group"].tolist() == ["some"]
    assert rows.loc[0, ["train_tokens", "validation_tokens", "gap_nats"]].tolist() == [2, 2, 0.0]
