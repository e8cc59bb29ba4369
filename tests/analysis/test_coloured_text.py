"""The text of a run, packed for a page: what the arrays say is read back here and compared with the rows."""

import json
import math

import numpy as np
import pytest
from fake_runs import BOS, LN2, Doc, words

from lossprobe.analysis.coloured_text.codes import (
    decoded_differences,
    decoded_losses,
    decoded_ranks,
    difference_codes,
    loss_codes,
    rank_codes,
)
from lossprobe.analysis.coloured_text.coloured_text import coloured_text
from lossprobe.errors import NotComparableError


def pieces_of(arrays, name, lengths):
    """Return the bytes of each entry of a blob."""
    data, ends = arrays[name].tobytes(), np.cumsum(lengths)
    return [data[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]


def lengths_of(arrays):
    long = iter(arrays["long_length"].tolist())
    return np.array([next(long) if length == 255 else length for length in arrays["length"].tolist()])


def contexts_of(arrays):
    lengths, firsts = arrays["context_tokens"].tolist(), arrays["context_first"].tolist()
    return [first + step for length, first in zip(lengths, firsts, strict=True) for step in range(length)]


def choices_of(arrays):
    entries = pieces_of(arrays, "entries", arrays["entry_length"])
    planes = [arrays[name].astype(int) for name in sorted(arrays) if name.startswith("choice_") and name[7:].isdigit()]
    numbers = sum(plane << (8 * place) for place, plane in enumerate(planes))
    return [None if number == 0 else entries[number - 1] for number in numbers.tolist()]


def test_the_errors_of_the_codes_are_within_their_bounds():
    nats = np.concatenate([np.linspace(0, 1, 4001), np.geomspace(1e-6, 100, 20_000)])
    error = np.abs(decoded_losses(loss_codes(nats)) - nats)
    assert (error <= 0.0112 * (nats + 0.5)).all()
    assert (error > 0.0108 * (nats + 0.5)).any(), "the bound is not far from what happens"
    signed = np.concatenate([-nats, nats])
    assert (np.abs(decoded_differences(difference_codes(signed)) - signed) <= 0.0304 * (np.abs(signed) + 0.05)).all()
    ranks = np.unique(np.geomspace(1, 4_194_304, 50_000).astype(np.int64))
    assert (np.abs(decoded_ranks(rank_codes(ranks)) / ranks - 1) <= 0.031).all()
    assert decoded_ranks(rank_codes(np.arange(64))).tolist() == list(range(64))


@pytest.mark.parametrize("codes", [loss_codes, rank_codes])
def test_the_codes_keep_the_order_and_end_at_the_largest(codes):
    values = np.sort(np.random.default_rng(0).exponential(20, 1000))
    assert (np.diff(codes(values).astype(int)) >= 0).all()
    assert codes(np.array([1e30])).tolist() == codes(np.array([1e9])).tolist() == [239 if codes is loss_codes else 255]


def test_every_token_is_read_back(make_run):
    long = b"x" * 300
    first = Doc([BOS, b"It", b" is", b" \xe2", b"\x98\x83", b"\n", long], ["special", 1, 2, 8, 0, "masked", 3])
    second = Doc([b" is", b" a", b" is"], ["first_token", 5, 4], source="b.txt", line=7)
    run = make_run([first, second], context=4, stride=2)
    text = coloured_text(run)
    arrays, header = text.arrays, text.header
    assert pieces_of(arrays, "text", lengths_of(arrays)) == [*first.pieces, *second.pieces]
    assert arrays["long_length"].tolist() == [300]
    rows = run.tokens()
    assert contexts_of(arrays) == rows["context"].tolist()
    reasons = [header["reasons"][code - 240] if code >= 240 else None for code in arrays["loss"].tolist()]
    assert reasons == ["special", None, None, None, None, "masked", None, "first_token", None, None]
    known = rows["loss_nats"].notna().to_numpy()
    nats = rows["loss_nats"].to_numpy()[known]
    assert decoded_losses(arrays["loss"][known]) == pytest.approx(nats, abs=0.0112 * 6.1)
    assert decoded_ranks(arrays["rank"][known]).tolist() == rows["rank"][known].tolist()
    assert header["mean_loss_nats"] == pytest.approx(23 / 7 * LN2, rel=1e-6)
    forms = [header["forms"][kind & 15] for kind in arrays["kind"].tolist()]
    assert forms[:6] == ["special", "word start", "word start", "non-ascii", "non-ascii", "newline"]
    assert [bool(kind & 16) for kind in arrays["kind"].tolist()][-3:] == [False, False, True], "the third is a repeat"
    assert [bool(kind & 32) for kind in arrays["kind"].tolist()] == [True] + [False] * 9, "a BOS has a name, no bytes"
    assert choices_of(arrays)[1] == BOS, "the first choice of every token of a fake run is id 0"
    assert arrays["piece_tokens"].tolist() == [7, 3]
    assert [header["sources"][place] for place in arrays["document_source"]] == ["fake.txt", "b.txt"]
    assert arrays["document_line"].tolist() == [1, 7]
    assert arrays["document_mean"].tolist() == pytest.approx([14 / 5 * LN2, 4.5 * LN2], rel=1e-6)
    assert arrays["hard_token"].tolist() == [3, 8, 9, 6, 2, 1, 4], "hardest first"
    assert arrays["hard_loss"][0] == np.float32(8 * LN2)
    hardest = text.hardest[0]
    assert (hardest.document, hardest.token, hardest.text, hardest.before) == (0, 3, " \u2603", "It is")
    assert not text.notes
    json.dumps(header, allow_nan=False)


def test_the_first_choice_that_is_the_token_itself_takes_no_name(make_run):
    run = make_run([words("first_token", 1, 1, 1)], top_id=2)
    arrays = coloured_text(run).arrays
    assert choices_of(arrays) == [None, None, b" b", b" b"], "id 2 is ' b', the second token"
    losses = decoded_losses(arrays["choice_loss"])
    assert losses[1] == 0
    assert losses[2:] == pytest.approx(LN2, rel=0.02), "the fake probability of first choices is 1/2"


def test_turns_and_roles_are_runs_of_tokens(make_run):
    labels = [(None, None, "template"), (0, "user", "header"), (0, "user", "content"), (1, "assistant", "content")]
    run = make_run([Doc([BOS, b"a", b"b", b"c"], ["special", "masked", "masked", 2], labels=labels)])
    text = coloured_text(run)
    names = [text.header["labels"][index] for index in text.arrays["label"]]
    assert names == [[None, "template"], ["user", "header"], ["user", "content"], ["assistant", "content"]]
    assert text.arrays["label_tokens"].tolist() == [1, 1, 1, 1]
    assert text.arrays["label_turn"].tolist() == [-1, 0, 0, 1]


def test_differences_of_two_runs_are_those_of_their_rows(make_run):
    one = make_run([words("first_token", 1, 2, 3, 9)], name="one")
    other = make_run([words("first_token", 1.5, 0.5, 3, "masked")], name="other", context=3)
    text = coloured_text(one, other)
    found = decoded_differences(text.arrays["difference"])
    assert math.isnan(found[0])
    assert math.isnan(found[4])
    assert found[1:4] == pytest.approx([0.5 * LN2, -1.5 * LN2, 0], abs=0.04)
    assert text.arrays["hard_token"].tolist() == [2, 1, 3], "the largest change first"
    assert text.hardest[0].difference_nats == pytest.approx(-1.5 * LN2, rel=1e-6)
    assert text.notes == ("1 scored token without a loss in the other run: no change is shown there",)


def test_runs_of_other_tokens_are_refused(make_run):
    one, other = make_run([words("first_token", 1, 2)]), make_run([words("first_token", 1)])
    with pytest.raises(NotComparableError, match="did not score the same tokens"):
        coloured_text(one, other)


def test_runs_of_other_tokenizers_are_refused_by_name(make_run):
    one = make_run([Doc([b"ab"], ["first_token"])], name="one")
    other = make_run([Doc([b"a", b"b"], ["first_token", 1.0])], name="other")
    other.manifest["settings"]["tokenizer"] = {"sha256": "another"}
    with pytest.raises(NotComparableError, match=r"one and other differ in .*tokenizer \(") as refused:
        coloured_text(one, other)
    assert refused.value.id == "runs.different"
    assert "compare" in refused.value.hint


def test_a_run_that_is_too_long_shows_its_worst_windows_and_a_sample(make_run):
    rng = np.random.default_rng(0)
    docs = [words("first_token", *rng.exponential(1, 9).tolist()) for _ in range(40)]
    docs[17].bits[4] = 30.0  # the hardest token
    docs[31].bits[1:] = [6.0] * 9  # the most loss
    run = make_run(docs, context=16)
    text = coloured_text(run, most_tokens=120)
    documents = text.arrays["document_number"].tolist()
    assert text.header["tokens"] <= 120
    assert {17, 31} <= set(documents)
    assert text.header["chosen_windows"] == {"hardest": 3, "most": 3, "sample": 6}
    assert documents == sorted(documents)
    assert coloured_text(run, most_tokens=120).arrays["document_number"].tolist() == documents
    assert text.notes == (
        "120 of 400 tokens are shown: of 40 windows the 3 with the hardest tokens, the 3 with the most loss above the "
        "mean, and 6 drawn at random with a fixed seed",
    )
    assert np.array_equal(lengths_of(text.arrays), [2] * 120)
    other = coloured_text(run, make_run(docs, context=12), most_tokens=120)
    assert decoded_differences(other.arrays["difference"])[1] == 0
    # One window that is longer than the page is cut, here into blocks of 40 / 8 tokens.
    whole = make_run([words("first_token", *rng.exponential(1, 99).tolist())])
    text = coloured_text(whole, most_tokens=40)
    assert 0 < text.header["tokens"] <= 40
    assert set(text.arrays["piece_tokens"].tolist()) >= {5}
    assert text.arrays["piece_byte"].tolist() == [2 * first for first in text.arrays["piece_first"].tolist()]


@pytest.mark.parametrize(("normalized", "origin"), [(0, "rebuilt"), (3, "entries")])
def test_without_a_text_the_vocabulary_gives_it(make_run, monkeypatch, normalized, origin):
    run = make_run([Doc([BOS, b"It", b" is"], ["special", 1, 2])], keep_text=False)
    scalar = type(run).scalar
    monkeypatch.setattr(
        type(run), "scalar", lambda self, sql, *rest: normalized if "normalized" in sql else scalar(self, sql, *rest)
    )
    text = coloured_text(run)
    assert text.header["origin"] == origin
    assert text.arrays["text"].tobytes() == BOS + b"It is"
    assert text.notes[0].startswith("the run keeps no text")
