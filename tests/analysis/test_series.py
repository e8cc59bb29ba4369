"""A series of runs whose every token's state is known: what is counted, listed and tested, against plain loops."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from fake_runs import LN2, Doc, words

from lossprobe.analysis.options import STATES, SeriesOptions
from lossprobe.analysis.rows import token_slices
from lossprobe.analysis.series import ngrams
from lossprobe.analysis.series.ngrams import measure_ngrams
from lossprobe.analysis.series.series import measure_series
from lossprobe.analysis.series.states import token_states
from lossprobe.errors import NotComparableError, UsageError
from lossprobe.logs.checkpoint_order import StepOrder

STEPS = [100, 200, 400, 800]
ORDER = StepOrder((0, 1, 2, 3), tuple(STEPS), "step", ("one", "two", "three", "four"))
# Losses in bits at the four steps; the threshold is 1 nat, 1.44 bits.
LEARNED = [5.0, 1.0, 0.5, 0.25]
KNOWN = [1.0, 1.0, 1.0, 1.0]
UNSTABLE = [1.0, 4.0, 1.0, 0.5]
FORGOTTEN = [4.0, 0.5, 3.0, 6.0]
NEVER = [9.0, 8.0, 7.0, 6.5]
TWICE = [1.0, 4.0, 1.0, 4.0]


@pytest.fixture
def make_series(make_run):
    """Return a function that writes one run a step from documents of tokens, each token a list of losses in bits."""

    def make(documents, fields=None, pieces=None, **choices):
        def one(number, step):
            own = ["first_token", *(token[step] for token in documents[number])]
            return words(*own, fields=fields[number] if fields else None, pieces=pieces[number] if pieces else None)

        steps = len(documents[0][0])
        return [
            make_run(
                [one(number, step) for number in range(len(documents))], name=f"checkpoint-{STEPS[step]}", **choices
            )
            for step in range(steps)
        ]

    return make


def naive_state(bits: list[float], below: float = 1.0) -> tuple[str, int | None, int]:
    """Return state, place from which on it is below, and forgetting events of one token, by a loop."""
    known = [value * LN2 < below for value in bits]
    events = sum(one and not other for one, other in pairwise(known))
    if not known[-1]:
        return ("forgotten" if any(known) else "never"), None, events
    at = len(known) - 1
    while at and known[at - 1]:
        at -= 1
    return ("unstable" if events else "learned"), at, events


def drawn(rng, documents=6, tokens=40, steps=4) -> list[list[list[float]]]:
    return [[np.round(rng.exponential(1.5, steps), 3).tolist() for _ in range(tokens)] for _ in range(documents)]


def test_hand_made_tokens_are_in_the_states_that_were_made(make_series):
    documents = [[LEARNED, KNOWN, UNSTABLE], [FORGOTTEN, NEVER, TWICE], [NEVER, LEARNED]]
    found = measure_series(make_series(documents), ORDER)
    assert found.states == {"learned": 3, "unstable": 1, "forgotten": 2, "never": 2}
    assert found.tokens == sum(found.states.values()) == 8
    assert found.known_from_start == 1
    assert found.forgettings == 1 + 1 + 2
    shares = found.table[[f"{state}_share" for state in STATES]].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    # At step 100 KNOWN, UNSTABLE and TWICE are below; nothing is lost yet.
    np.testing.assert_allclose(shares[0] * 8, [3, 0, 0, 5])
    # At step 200 UNSTABLE and TWICE are lost, LEARNED (twice) and FORGOTTEN are below.
    np.testing.assert_allclose(shares[1] * 8, [4, 0, 2, 2])
    assert found.table["mean_loss_nats"].tolist() == pytest.approx(
        [np.mean([token[step] for document in documents for token in document]) * LN2 for step in range(4)]
    )


def test_counts_partition_and_equal_a_loop_over_random_tokens(make_series):
    documents = drawn(np.random.default_rng(5))
    found = measure_series(make_series(documents, rows_per_part=17), ORDER, SeriesOptions(by="document"))
    states = [naive_state(token) for document in documents for token in document]
    assert found.states == {state: Counter(each[0] for each in states)[state] for state in STATES}
    assert found.forgettings == sum(each[2] for each in states)
    groups = found.groups.set_index("document") if "document" in found.groups else found.groups.set_index("group")
    for number, document in enumerate(documents):
        own = [naive_state(token) for token in document]
        row = groups.loc[str(number)]
        assert row["forgettings"] == sum(each[2] for each in own)
        for state in STATES:
            assert row[f"{state}_share"] * len(own) == pytest.approx(sum(each[0] == state for each in own))
        learned = sorted(math.inf if each[1] is None else each[1] for each in own)
        median = learned[math.ceil(len(own) / 2) - 1]  # the place at which half of the tokens are learned
        assert (
            pd.isna(row["median_step_learned"]) if math.isinf(median) else row["median_step_learned"] == STEPS[median]
        )


@pytest.mark.parametrize("state", STATES)
def test_listed_tokens_are_those_of_the_state_the_clearest_first(make_series, state):
    documents = drawn(np.random.default_rng(7), documents=3)
    found = measure_series(make_series(documents, rows_per_part=11), ORDER, SeriesOptions(state=state, top=5))
    rank = {
        "learned": lambda bits: bits[0] - bits[-1],
        "forgotten": lambda bits: bits[-1] - min(bits),
        "never": lambda bits: bits[-1],
        "unstable": lambda bits: (
            naive_state(bits)[2],
            max(after - min(bits[: at + 1]) for at, after in enumerate(bits)),
        ),
    }[state]
    own = [
        (number, place, bits)
        for number, document in enumerate(documents)
        for place, bits in enumerate(document, 1)
        if naive_state(bits)[0] == state
    ]
    own.sort(key=lambda each: rank(each[2]), reverse=True)
    listed = found.listed
    assert listed[["document", "token"]].to_numpy().tolist() == [[number, place] for number, place, _ in own[:5]]
    assert set(listed["state"]) <= {state}
    for row, (_, place, bits) in zip(listed.to_dict("records"), own, strict=False):
        assert row["losses_nats"] == pytest.approx([value * LN2 for value in bits], rel=1e-6)
        assert row["lowest_at_step"] == STEPS[int(np.argmin(bits))]
        assert row["text"] == f" {chr(97 + place % 26)}"
        at = naive_state(bits)[1]
        assert pd.isna(row["learned_at_step"]) if at is None else row["learned_at_step"] == STEPS[at]


@pytest.mark.parametrize("by", ["context", "class", "frequency", "type", "lang", "document"])
def test_slices_cover_every_token_once_and_have_the_mean_of_their_tokens(make_series, by):
    rng = np.random.default_rng(3)
    documents = drawn(rng)
    fields = [{"lang": "de" if number % 3 else "en"} for number in range(len(documents))]
    runs = make_series(documents, fields)
    found = measure_series(runs, ORDER, SeriesOptions(by=by, top=1000))
    groups, curves = found.groups, found.curves
    if by == "class":
        assert groups.groupby("kind")["tokens"].sum().tolist() == [found.tokens] * 2
        groups, curves = (table[table["kind"] == "form"] for table in (groups, curves))
    assert groups["tokens"].sum() == found.tokens
    for state in STATES:
        assert (groups[f"{state}_share"] * groups["tokens"]).sum() == pytest.approx(found.states[state])
    assert groups["forgettings"].sum() == found.forgettings
    whole = curves.assign(nats=curves["mean_loss_nats"] * curves["tokens"]).groupby("step")["nats"].sum() / found.tokens
    assert whole.tolist() == pytest.approx(found.table["mean_loss_nats"].tolist())
    if by == "lang":
        for name in ("de", "en"):
            own = [token for document, record in zip(documents, fields, strict=True) if record["lang"] == name
                   for token in document]  # fmt: skip
            shown = curves[curves["group"] == name]["mean_loss_nats"].tolist()
            assert shown == pytest.approx((np.mean(own, axis=0) * LN2).tolist(), rel=1e-6)


def test_classes_are_the_same_however_many_documents_are_sorted_at_once(make_series, monkeypatch):
    runs = make_series(drawn(np.random.default_rng(3)))
    whole = measure_series(runs, ORDER, SeriesOptions(by="class"))
    monkeypatch.setattr(token_slices, "RANGE_TOKENS", 60)
    assert len(token_slices.document_ranges(runs[0])) > 3
    pd.testing.assert_frame_equal(whole.groups, measure_series(runs, ORDER, SeriesOptions(by="class")).groups)


def test_a_slice_has_the_interval_that_a_jackknife_over_its_documents_gives(make_series):
    documents = drawn(np.random.default_rng(11), documents=7)
    fields = [{"lang": "de" if number % 2 else "en"} for number in range(7)]
    curves = measure_series(make_series(documents, fields), ORDER, SeriesOptions(by="lang")).curves
    row = curves[(curves["group"] == "de") & (curves["step"] == 400)].iloc[0]
    own = np.array([np.mean([token[2] for token in documents[number]]) for number in (1, 3, 5)]) * LN2
    without = np.array([np.delete(own, at).mean() for at in range(3)])
    half = 4.302652729911275 * math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert [row["low"], row["high"]] == pytest.approx([own.mean() - half, own.mean() + half], rel=1e-5)


def settling(rng, documents=30, tokens=60):
    """Return documents whose loss falls by much until the third step, and then only varies around its level."""
    made = []
    for _ in range(documents):
        hard = rng.normal(0, 0.4)
        made.append([(np.array([6.0, 4.0, 3.0, 3.0]) + hard + rng.normal(0, 0.3, 4)).tolist() for _ in range(tokens)])
    return made


def test_the_step_after_which_nothing_improves_is_the_one_that_was_made(make_series):
    rng = np.random.default_rng(4)
    found = measure_series(make_series(settling(rng)), ORDER)
    assert found.settled_at_step == 400
    assert not found.worse_at_end
    assert found.table["significant"].tolist()[1:] == [True, True, False]
    assert "nothing improves beyond noise after step 400" in found.finding
    up = [[[*token[:3], token[3] + 0.5] for token in document] for document in settling(rng)]
    worse = measure_series(make_series(up), ORDER)
    assert (worse.best_at_step, worse.worse_at_end) == (400, True)
    assert "best at step 400, and worse since beyond noise" in worse.finding
    down = [[[*token[:3], token[3] - 0.5] for token in document] for document in settling(rng)]
    assert measure_series(make_series(down), ORDER).settled_at_step == 800


def test_a_slow_fall_that_no_neighbours_show_is_found_over_all_pairs(make_series):
    """Each step gains 1.3 standard errors of a difference of two steps, and all eleven of them fourteen."""
    from lossprobe.analysis.series.improvement import find_improvements

    rng = np.random.default_rng(0)
    tokens = np.full(20, 100.0)
    nats = np.array([tokens * (3.0 - 0.01 * step) + rng.normal(0, 2.5, 20) for step in range(12)])
    found = find_improvements(nats, tokens)
    assert not found.neighbours["significant"].any()
    assert found.settled > 3
    assert found.tests == 66


def test_equal_checkpoints_are_called_better_in_no_more_than_a_twentieth_of_the_series():
    from lossprobe.analysis.series.improvement import find_improvements

    rng = np.random.default_rng(1)
    tokens = np.full(20, 100.0)
    settled = [find_improvements(100 * rng.normal(3, 0.1, (6, 20)), tokens).settled for _ in range(200)]
    assert np.mean(np.array(settled) > 0) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def naive_ngrams(documents: list[list[int]], folds: list[int], entries: int) -> np.ndarray:
    """Return the summed losses of the unigram and the bigram model, [2], token by token in float64.

    The first token of a document is not scored, but stands before the second one.
    """
    total = np.zeros(2)
    for number, document in enumerate(documents):
        rest = [other for other, fold in zip(documents, folds, strict=True) if fold != folds[number]]
        single = Counter(token for other in rest for token in other[1:])
        pairs = Counter(pair for other in rest for pair in pairwise(other))
        for before, token in pairwise(document):
            kinds = len(single)
            p = (single[token] + kinds / entries) / (single.total() + kinds)
            after = {pair[1]: count for pair, count in pairs.items() if pair[0] == before}
            n = sum(after.values())
            q = (after.get(token, 0) + len(after) * p) / (n + len(after)) if n else p
            total -= np.log([p, q])
    return total


def text_of(rng, documents: int, tokens: int, kinds: int) -> list[Doc]:
    """Return documents of a random text in which some tokens follow others more often."""
    made = []
    for number in range(documents):
        ids = [int(rng.integers(kinds))]
        while len(ids) < tokens + number:
            ids.append((ids[-1] * 3 + 1) % kinds if rng.random() < 0.6 else int(rng.integers(kinds)))
        made.append(Doc([b" " + bytes([97 + each]) for each in ids], ["first_token", *[1.0] * (len(ids) - 1)]))
    return made


@pytest.mark.parametrize(("documents", "kinds"), [(2, 5), (7, 9), (13, 20)])
def test_ngram_references_equal_a_loop_in_float64(make_run, documents, kinds):
    docs = text_of(np.random.default_rng(documents), documents, 30, kinds)
    run = make_run(docs, vocab_size=50, rows_per_part=16, copies=True)
    found = measure_ngrams(run)
    wanted = naive_ngrams([[piece[1] for piece in doc.pieces] for doc in docs], [n % 10 for n in range(documents)], 50)
    np.testing.assert_allclose(found.nats.sum(axis=1), wanted, rtol=1e-12)
    assert found.tokens.sum() == sum(len(doc.pieces) - 1 for doc in docs)


@pytest.mark.parametrize("memory", ["1KB", "32MB"])
def test_ngram_references_in_little_memory_are_the_same_and_leave_the_run_its_own(make_run, memory, monkeypatch):
    run = make_run(text_of(np.random.default_rng(7), 7, 30, 9), vocab_size=50, copies=True)
    whole, limit = measure_ngrams(run), run.scalar("SELECT current_setting('memory_limit')")
    monkeypatch.setattr(ngrams, "MEMORY", memory)
    np.testing.assert_array_equal(measure_ngrams(run).nats, whole.nats)
    assert run.scalar("SELECT current_setting('memory_limit')") == limit


def test_an_ngram_reference_by_hand(make_run):
    """Two documents "x a a" and "y a b": in each the other one's counts predict.

    From "y a b" (a and b once, T = 2, N = 2, V = 4) p(a) = (1 + 2/4) / 4 = 3/8; "a" after "x" never came, so it has
    p(a); "a" after "a": only b came after a there (N(a) = T(a) = 1), so (0 + 3/8) / 2 = 3/16.
    From "x a a" (a twice, T = 1, N = 2) p(a) = (2 + 1/4) / 3 = 3/4, p(b) = (1/4) / 3 = 1/12; "a" after "y": p(a);
    "b" after "a": one a came after a there: (0 + 1/12) / 2 = 1/24.
    """
    docs = [Doc([b"x", b"a", b"a"], ["first_token", 1.0, 1.0]), Doc([b"y", b"a", b"b"], ["first_token", 1.0, 1.0])]
    found = measure_ngrams(make_run(docs, vocab_size=4, copies=True))
    unigram = -np.log([3 / 8 * 3 / 8, 3 / 4 * 1 / 12])
    bigram = -np.log([3 / 8 * 3 / 16, 3 / 4 * 1 / 24])
    np.testing.assert_allclose(found.nats[:, :2], [unigram, bigram], rtol=1e-12)


def test_the_step_at_which_a_model_is_better_than_an_ngram_model(make_run):
    docs = text_of(np.random.default_rng(4), 20, 40, 20)
    run = make_run(docs, vocab_size=30, copies=True)
    bigram = (measure_ngrams(run).nats.sum(axis=1) / measure_ngrams(run).tokens.sum())[1] / LN2
    rng = np.random.default_rng(0)
    runs = [
        make_run(
            [Doc(doc.pieces, ["first_token", *rng.normal(bigram + step, 0.1, len(doc.bits) - 1)]) for doc in docs],
            name=f"m{step}", vocab_size=30, copies=True,
        )
        for step in (1.0, 0.4, -0.5, -0.6)
    ]  # fmt: skip
    found = measure_series(runs, ORDER)
    reference = found.references[1]
    assert (reference.name, reference.better_from_step) == ("bigram", 400)
    assert found.table["minus_bigram_nats"].to_numpy() == pytest.approx(
        np.array([1.0, 0.4, -0.5, -0.6]) * LN2, abs=0.02
    )
    assert "better than a bigram model" in found.finding


def test_what_is_no_series_is_refused(make_run):
    one = make_run([words("first_token", 1.0, 2.0)])
    with pytest.raises(UsageError, match="two checkpoints or more, not 1"):
        measure_series([one])
    other = make_run([words("first_token", 1.0, 2.0)], context=64)
    with pytest.raises(NotComparableError, match="context"):
        measure_series([one, other])
    different = make_run([words("first_token", 1.0, 2.0, 3.0)])
    with pytest.raises(NotComparableError, match="same tokens"):
        measure_series([one, different])


def test_one_short_document_has_states_but_no_test_and_no_reference(make_series):
    found = measure_series(make_series([[LEARNED, FORGOTTEN, NEVER]]), ORDER)
    assert found.states == {"learned": 1, "unstable": 0, "forgotten": 1, "never": 1}
    assert found.settled_at_step is None
    assert found.references == []
    assert found.table["low"].isna().all()
    assert "no test of its improvement was possible" in found.finding


def test_the_strip_is_around_the_clearest_forgotten_token(make_series):
    found = measure_series(make_series([[LEARNED] * 3, [KNOWN, FORGOTTEN, NEVER]]), ORDER)
    assert found.strip["state"].tolist() == ["", "learned", "forgotten", "never"]
    assert found.strip["learned_at_step"].tolist()[1] == 100
    assert found.strip["learned_at_step"].isna().tolist() == [True, False, True, True]


def test_steps_are_counted_where_nothing_says_them(make_series):
    found = measure_series(make_series([[LEARNED, NEVER]] * 3))
    assert (found.unit, found.steps) == ("checkpoint", [1, 2, 3, 4])


@pytest.mark.parametrize("by", ["role", "turn", "part"])
def test_labels_of_conversations_are_slices(make_run, by):
    labels = [(None, None, "template"), (0, "user", "content"), (1, "assistant", "content"), (1, "assistant", "end")]
    bits = {"user": [4.0, 4.0], "assistant": [4.0, 1.0]}
    runs = [
        make_run(
            [
                Doc([b" a", b" b", b" c", b" d"], ["first_token", bits["user"][step], *[bits["assistant"][step]] * 2],
                    labels=labels)
                for _ in range(3)
            ]
        )
        for step in range(2)
    ]  # fmt: skip
    groups = measure_series(runs, None, SeriesOptions(by=by)).groups.set_index("group")
    wanted = {
        "role": {"assistant": (6, 1.0), "user": (3, 0.0)},
        "turn": {"0": (3, 0.0), "1": (6, 1.0)},
        "part": {"content": (6, 0.5), "end": (3, 1.0)},
    }[by]
    assert {name: (row["tokens"], row["learned_share"]) for name, row in groups.iterrows()} == wanted


def test_a_prompt_that_all_conversations_share_is_one_text_without_an_interval(make_run):
    labels = [(0, "system", "content"), (0, "system", "content"), (1, "user", "content")]
    rng = np.random.default_rng(2)
    runs = [
        make_run(
            [Doc([b" S", b" T", b" %d" % number], ["first_token", 3.0 - step, rng.normal(4 - step, 0.3)], labels=labels)
             for number in range(6)],
            copies=True,
        )
        for step in range(2)
    ]  # fmt: skip
    found = measure_series(runs, None, SeriesOptions(by="role"))
    curves = found.curves.set_index(["group", "step"])
    assert curves.loc["system", "clusters"].tolist() == [1, 1]
    assert curves.loc["system", ["low", "high"]].isna().all(axis=None)
    assert curves.loc["system", "mean_loss_nats"].tolist() == pytest.approx([3 * LN2, 2 * LN2])
    assert curves.loc["user", "clusters"].tolist() == [6, 6]
    assert curves.loc["user", ["low", "high"]].notna().all(axis=None)
    assert "role system: 1 text in all 6 documents" in " ".join(found.notes)


def test_a_loss_at_the_threshold_is_not_below_it():
    """2 nats exactly, and the next smaller float: only that one is below 2."""
    under = np.nextafter(2.0, 0.0)
    losses = np.array([[2.0, under, under, 2.0], [2.0, under, 2.0, under]])
    found = token_states(losses, 2.0)
    assert [STATES[state] for state in found.last] == ["never", "learned", "forgotten", "learned"]
    assert found.learned_at.tolist() == [-1, 0, -1, 1]
    assert found.forgettings.tolist() == [0, 0, 1, 0]
