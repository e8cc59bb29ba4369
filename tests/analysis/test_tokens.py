"""The rows of a run, and how their losses are spread."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fake_runs import BOS, LN2, Doc, words
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.analysis.rows import text_bytes
from lossprobe.analysis.tokens import STRIP_TOKENS, loss_spread, measure_tokens, token_batches
from lossprobe.errors import NothingToScoreError, UsageError
from lossprobe.run import reader, texts
from lossprobe.run.schema import TOKEN_COLUMNS

SPANS = ("document", "byte_start", "byte_stop", "token_id")
PLACE = st.integers(0, 12)


def frame_of(run, where=()):
    return pd.concat([batch.to_pandas() for batch in token_batches(run, where)], ignore_index=True)


def test_the_spread_of_ten_losses(make_run):
    # 1 … 10 bits; the hardest tenth is one token, 10 of 55 bits.
    run = make_run([words("first_token", *range(1, 11))])
    result = measure_tokens(run)
    assert (result.tokens, result.tokens_scored, result.where) == (11, 10, "TRUE")
    # float32 storage: relative 6e-8
    assert result.mean_loss_nats == pytest.approx(5.5 * LN2, rel=1e-7)
    assert result.hard_tokens_share_of_loss == pytest.approx(10 / 55, rel=1e-7)
    # Linear interpolation between ranks: 1 + 9 q bits.
    assert result.quantiles == pytest.approx(
        {"0.25": 3.25 * LN2, "0.5": 5.5 * LN2, "0.75": 7.75 * LN2, "0.9": 9.1 * LN2, "0.99": 9.91 * LN2}, rel=1e-7
    )
    assert "10 tokens scored" in result.finding
    assert "the hardest 10% carry 18% of the total loss" in result.finding


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 501])
def test_quantiles_are_those_of_numpy_whatever_the_batches(make_run, monkeypatch, count):
    bits = np.random.default_rng(count).exponential(3, count)
    run = make_run([words("first_token", *bits)])
    losses = np.sort((bits * LN2).astype(np.float32)).astype(float)
    for rows in (7, 10**6):
        monkeypatch.setattr(reader, "BATCH_ROWS", rows)
        quantiles, hard = loss_spread(run, "FROM tokens WHERE unscored IS NULL", count)
        # The order of float64 operations differs: a few units in the last place.
        assert list(quantiles.values()) == pytest.approx(np.quantile(losses, [0.25, 0.5, 0.75, 0.9, 0.99]), rel=1e-14)
        assert hard == pytest.approx(losses[count - max(1, round(0.1 * count)) :].sum(), rel=1e-14)


def test_the_histogram_counts_every_scored_token(make_run):
    # In nats 0, .173, .347, 1.386, 1.386: bins of .25 from 0, 0, .25, 1.25, 1.25.
    run = make_run([words("first_token", 0, 0.25, 0.5, 2, "masked", 2)])
    histogram = measure_tokens(run).histogram
    assert histogram["low_nats"].tolist() == [0.0, 0.25, 1.25]
    assert histogram["high_nats"].tolist() == [0.25, 0.5, 1.5]
    assert histogram["count"].tolist() == [2, 1, 2]


def test_zero_losses_have_no_hard_share(make_run):
    result = measure_tokens(make_run([words("first_token", 0, 0)]))
    assert (result.mean_loss_nats, result.hard_tokens_share_of_loss) == (0.0, 0.0)


def test_conditions_choose_the_rows(make_run):
    run = make_run([words("first_token", 1, 5), words("first_token", 6, 2)])
    result = measure_tokens(run, ["loss > 3", "context < 9"])
    assert (result.tokens, result.tokens_scored) == (2, 2)
    assert result.table[["document", "token"]].to_numpy().tolist() == [[0, 2], [1, 1]]
    with pytest.raises(NothingToScoreError) as caught:
        measure_tokens(run, ["loss > 99"])
    assert caught.value.exit_code == 5
    with pytest.raises(UsageError):
        measure_tokens(run, ["loss > 3; DROP TABLE tokens"])


def test_the_first_rows_show_whole_numbers_and_missing_ones(make_run):
    doc = Doc([BOS, "né".encode()[:2], "né".encode()[2:], b"\n"], ["special", 2, 1, "masked"])
    table = measure_tokens(make_run([doc]), rows=3).table
    assert table["text"].tolist() == ["<bos>", "n\\xc3", "\\xa9"]
    assert table["rank"].dtype == "Int32"
    assert table["rank"].tolist() == [pd.NA, 2, 1]
    assert [None if pd.isna(text) else text for text in table["top_text"]] == [None, "<bos>", "<bos>"]
    assert table["loss_nats"].dtype == np.float32
    assert list(table.columns) == [
        "document", "token", "text", "token_id", "context", "loss_nats", "rank", "entropy_nats", "top_text", "top_prob",
    ]  # fmt: skip


def test_the_strip_stands_around_the_hardest_token(make_run):
    bits = ["first_token", *[1.0] * 500]
    bits[300] = 9.0
    run = make_run([words("first_token", 8), words(*bits)])
    strip = measure_tokens(run).strip
    assert strip["token"].tolist() == list(range(300 - STRIP_TOKENS // 2, 300 + STRIP_TOKENS // 2))
    assert measure_tokens(run, ["document = 0"]).strip["token"].tolist() == [0, 1]
    assert np.isnan(measure_tokens(run, ["document = 0"]).strip["loss_nats"][0])


def test_batches_are_the_stored_rows_with_exact_texts(make_run, monkeypatch):
    monkeypatch.setattr(reader, "BATCH_ROWS", 3)
    docs = [
        Doc([BOS, b"=1", "漢".encode()[:1], "漢".encode()[1:]], ["special", 1, 2, 3]),
        words("first_token"),
        Doc([b"a\n", b"\x1b[2J"], ["first_token", 4]),
    ]
    run = make_run(docs, rows_per_part=2)
    frame = frame_of(run)
    assert [name for name in frame.columns if name != "text"] == [column.name for column in TOKEN_COLUMNS]
    stored = run.query("SELECT * FROM tokens")
    pd.testing.assert_frame_equal(frame.drop(columns="text"), stored, check_dtype=False)
    pieces = [piece for doc in docs for piece in doc.pieces]
    assert frame["text"].tolist() == pieces
    pd.testing.assert_frame_equal(
        frame_of(run, ["loss > 2"]), frame[frame["loss_nats"] > 2].reset_index(drop=True), check_dtype=False
    )


def test_texts_are_read_a_few_documents_at_a_time(make_run, monkeypatch):
    monkeypatch.setattr(texts, "HELD_BYTES", 40)  # each document below has 20 bytes
    docs = [Doc([bytes([97 + n]) * 10, b"x" * 10], ["first_token", n]) for n in range(9)]
    run = make_run(docs)
    held, read = [], texts.DocumentTexts._read

    def watched(self, wanted):
        found = read(self, wanted)
        held.append(sorted(found))
        return found

    monkeypatch.setattr(texts.DocumentTexts, "_read", watched)
    assert len(frame_of(run)) == 18
    assert held == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    held.clear()
    assert frame_of(run, ["loss > 2"])["document"].tolist() == [3, 4, 5, 6, 7, 8]  # 3 bits are 2.08 nats
    assert held == [[3, 4], [5, 6], [7, 8]]  # documents without a row are not read


@given(st.data())
def test_any_spans_cover_what_they_cover_alone(data):
    """Also of special tokens, in any order, overlapping, empty, backwards and beyond the end."""
    vocabulary = texts.Vocabulary({0: b"<bos>", 1: b"", 2: "é".encode(), 5: b"ab"}, frozenset([0, 5]))
    stored = {1: b"", 4: b"ab\n cd", 7: b"x" * 9}
    kept = data.draw(st.booleans())
    rows = data.draw(st.lists(st.tuples(st.sampled_from(sorted(stored)), PLACE, PLACE, st.sampled_from([0, 1, 2, 5]))))
    rows.sort(key=lambda row: row[0])
    table = pa.table(
        {name: [row[place] for row in rows] for place, name in enumerate(SPANS)},
        pa.schema([(name, pa.int64()) for name in SPANS]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_bytes, "load_vocabulary", lambda _: vocabulary)
        patch.setattr(text_bytes, "DocumentTexts", lambda _: Held(stored, kept))
        found = [
            text
            for batch in text_bytes.with_text_bytes(None, table.to_batches(3))
            for text in batch["text"].to_pylist()
        ]
    expected = [vocabulary.covered(stored[row[0]] if kept else None, *row[1:]) for row in rows]
    assert found == expected


class Held:
    """The texts of documents, without a run."""

    def __init__(self, stored: dict[int, bytes], kept: bool) -> None:
        self.stored = stored
        self.kept = kept

    def along(self, documents):
        return (self.stored[number] for number in documents)


def test_an_id_without_an_entry_is_refused():
    entries = text_bytes._Entries.of(texts.Vocabulary({0: b"a", 2: b"b"}, frozenset()))
    for wrong in (1, 3, -1):
        with pytest.raises(KeyError, match=str(wrong)):
            entries.places(np.array([0, wrong]))


def test_without_stored_text_the_vocabulary_speaks(make_run):
    doc = Doc([BOS, " né".encode(), b"\n"], ["special", 2, 1])
    run = make_run([doc], keep_text=False)
    assert measure_tokens(run).table["text"].tolist() == ["<bos>", " né", "\\n"]
    assert frame_of(run)["text"].tolist() == doc.pieces
