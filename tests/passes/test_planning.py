"""Planning in pieces: the same plan, documents and counts, whatever the length of a piece."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned import whole_document

from lossprobe.checkpoint.interface import Tokens
from lossprobe.errors import CheckpointError, NothingToScoreError, TextError
from lossprobe.passes import planning, tally
from lossprobe.passes.planning import PlanOptions, check_ids, write_plan
from lossprobe.passes.tally import DocumentCount
from lossprobe.passes.unknown import check_unknown
from lossprobe.plan import rows as plan
from lossprobe.plan.rows import WindowPolicy, plan_pieces
from lossprobe.run.store import RunStore
from lossprobe.text import counts
from lossprobe.text.documents import Document, StringSource
from lossprobe.text.fingerprint import fingerprint

TEXTS = ["a cat ☃ and a naïve  dog ☃☃ " * 9, "", "☃", " ", "x", "one two\u3000three four" * 20]


class Letters:
    """A tokenizer with one token for every two bytes; tokens that start with a byte above 127 are unknown."""

    kind = "letters"
    sha256 = "0" * 64
    bos_id = 0
    adds_bos = True
    special_ids = frozenset({0})

    def encode(self, text: str) -> Tokens:
        data = np.frombuffer(text.encode(), np.uint8)[::2]
        stops = np.minimum(2 * np.arange(1, len(data) + 1), len(text.encode()))
        return Tokens(data.astype(np.int32), stops, data > 127, normalized_bytes=len(text) // 7)

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])


def planned(folder: Path, policy: WindowPolicy) -> tuple[dict[str, object], dict[str, bytes]]:
    source = StringSource(TEXTS)
    with RunStore(folder) as store:
        result = write_plan(store, source, Letters(), PlanOptions(policy, 256, True, fingerprint(source)))
        store.finish_plan(result)
    return result, {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if not file.name.startswith(".") and file.is_file()
    }


@pytest.mark.parametrize("policy", [WindowPolicy(8, 8), WindowPolicy(8, 3, 0), WindowPolicy(500, 20, 0, True)])
def test_a_plan_does_not_depend_on_the_length_of_its_pieces(tmp_path, monkeypatch, policy):
    monkeypatch.setattr(planning, "cut_parts", lambda rows: plan.cut_parts(rows, 50))
    whole = planned(tmp_path / "whole", policy)
    taken = []

    def small(*arguments):
        taken.append(list(plan_pieces(*arguments, piece_rows=7)))
        return taken[-1]

    monkeypatch.setattr(planning, "plan_pieces", small)
    monkeypatch.setattr(counts.slices, "__defaults__", (5,))
    pieces = planned(tmp_path / "pieces", policy)
    assert pieces == whole
    assert max(map(len, taken)) > 1 or policy.context == 500
    assert whole[0]["counts"]["documents"] == len(TEXTS)


@pytest.mark.parametrize(("rows", "every"), [(100, 1), (2 * 16_384 - 1, 1), (2 * 16_384, 2), (3 * 16_384, 3)])
def test_the_temperature_sample_has_at_least_16384_tokens_where_there_are_as_many(tmp_path, rows, every):
    source = StringSource(["ab" * rows])  # a token for every two bytes
    options = PlanOptions(WindowPolicy(500, 500), 256, False, fingerprint(source))
    with RunStore(tmp_path / "run") as store:
        assert write_plan(store, source, Letters(), options)["sample_every"] == every


def test_counts_by_hand(tmp_path):
    result, _ = planned(tmp_path / "run", WindowPolicy(8, 8, 0))
    encoded = [text.encode() for text in TEXTS]
    tokens = [data[at : at + 2] for data in encoded for at in range(0, len(data), 2)]
    unknown = [token for token in tokens if token[0] > 127]
    got = result["counts"]
    assert got["tokens"] == len(tokens) + len(TEXTS)  # and a BOS for each
    assert got["unscored_tokens"] == {"special": len(TEXTS), "unknown": len(unknown)}
    assert got["unscored_bytes"] == {"special": 0, "unknown": sum(map(len, unknown))}
    assert got["bytes"] == sum(map(len, encoded))
    assert got["scored_bytes"] == got["bytes"] - sum(map(len, unknown))
    assert got["words"] == sum(len(text.split()) for text in TEXTS)
    assert got["unknown_tokens"] == len(unknown)
    assert got["unknown_text"] == list(dict.fromkeys(piece.decode("utf-8", "replace") for piece in unknown))[:5]


@given(st.lists(st.text("a ☃é", max_size=20), max_size=4), st.integers(1, 9), st.booleans())
@settings(max_examples=60)
def test_the_counts_of_a_document_add_up_over_its_pieces(words, piece_rows, score_unknown):
    text = " ".join(words)
    tokens = Letters().encode(text)
    policy = WindowPolicy(4, 3, None, score_unknown)
    records = []
    for pieces in ([whole_document(0, tokens, policy)], plan_pieces(0, tokens, policy, 0, piece_rows)):
        count = DocumentCount(Document(text, "x", 1, 0))
        count.add_tokens(tokens)
        for rows in pieces:
            count.add_rows(rows.take(rows.own))
        count.finish()
        records.append((count.record(3, keep_text=True), count.unscored, count.unscored_bytes, count.unknown_text))
    assert records[0] == records[1]


def test_what_is_unknown_is_shown_a_few_times_over_all_documents():
    total = tally.Tally()
    for text in ("☃é", "☃é漢字x", "ñüßø"):
        count = DocumentCount(Document(text, "x", 1, 0))
        ends = np.cumsum([len(character.encode()) for character in text])
        tokens = Tokens(np.zeros(len(text), np.int32), ends, np.array([ord(character) > 127 for character in text]))
        count.add_tokens(tokens)
        total.add(count, count.record(0, keep_text=False))
    assert total.unknown_text == ["☃", "é", "漢", "字", "ñ"]
    assert total.unknown == 10


def test_where_text_vanished_no_span_counts_and_unknown_text_is_named_all_the_same():
    count = DocumentCount(Document("aé☃", "x", 1, 0))
    unknown = np.array([False, True])
    count.add_tokens(Tokens(np.zeros(2, np.int32), np.array([1, 3]), unknown, 3, tiles=True, vanished_bytes=3))
    assert count.record(0, keep_text=False)["tiles"] is False
    assert count.unknown_text == ["é"]


def test_one_document_whose_spans_are_a_guess_is_enough_to_say_so():
    total, records = tally.Tally(), []
    for tiles in (True, False, True):
        count = DocumentCount(Document("ab", "x", 1, 0))
        count.add_tokens(Tokens(np.zeros(1, np.int32), np.array([2]), np.array([False]), tiles=tiles))
        records.append(count.record(0, keep_text=False))
        total.add(count, records[-1])
    assert [record["tiles"] for record in records] == [True, False, True]
    assert total.counts()["spans_tile"] is False


def test_tokens_of_an_empty_text_are_nothing_to_score():
    total = tally.Tally(Counter(tokens=3, scored_tokens=2), Counter(special=1))
    with pytest.raises(NothingToScoreError, match="no tokens"):
        total.check(StringSource([""]), WindowPolicy(8, 8))
    total.sums["bytes"] = 1
    assert total.check(StringSource(["a"]), WindowPolicy(8, 8)) is None


@pytest.mark.parametrize(
    ("piece", "shown", "hint"),
    [("é", "U+00E9", "see `max_unknown`"), ("\r", "U+000D", "`newlines` lf"), ("éa", "éa", "see `max_unknown`")],
)
def test_unknown_text_is_a_share_of_the_tokens(piece, shown, hint):
    known = {"unknown_tokens": 2, "tokens": 20, "bytes": 100, "unknown_text": [piece]}
    said = f"strings: 2 tokens (10.00%) are not in the vocabulary: {shown}"
    source = StringSource([])
    for _ in range(2):
        check_unknown(known, source, 0.1)
    assert source.notices == [said]
    with pytest.raises(TextError) as caught:
        check_unknown(known, source, 0.0999)
    assert caught.value.message == f"{said} (limit 9.99%)"
    assert str(caught.value.hint).startswith(hint)


def test_the_first_id_that_a_model_does_not_have_is_refused():
    tokens = Tokens(np.array([3, 7], np.int32), np.array([1, 2]), np.zeros(2, bool))
    check_ids(tokens, 8, "a.txt: document 3")
    with pytest.raises(CheckpointError) as caught:
        check_ids(tokens, 7, "a.txt: document 3")
    assert caught.value.message == "a.txt: document 3: the tokenizer gave token id 7, the model has 7 ids, from 0"
    assert "embeddings must be resized" in str(caught.value.hint)


def test_documents_keep_their_order_and_no_second_copy_of_a_text(tmp_path):
    planned(tmp_path / "run", WindowPolicy(8, 8, 0))
    file = pq.ParquetFile(tmp_path / "run" / "documents.parquet")
    table = file.read()
    assert table["document"].to_pylist() == list(range(len(TEXTS)))
    assert table["text"].to_pylist() == TEXTS
    columns = [file.metadata.row_group(0).column(index) for index in range(file.metadata.num_columns)]
    assert {column.path_in_schema for column in columns if not column.is_stats_set} == {"text"}
