"""`Run.tokens`: a frame with one row a token."""

from __future__ import annotations

import csv
import io

import pandas as pd
import pytest
from bundled import EXAMPLES
from fakes import SmallModel, checkpoint

import lossprobe
from lossprobe.run.schema import TOKEN_COLUMNS

NAMES = [column.name for column in TOKEN_COLUMNS]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    source = lossprobe.StringSource(["abc " * 30, 'a "quote", it\nis é'])
    return lossprobe.score(checkpoint(SmallModel()), source, output=tmp_path_factory.mktemp("rows") / "run").run


def test_every_token_has_a_row_in_text_order_with_the_stored_columns(run):
    frame = run.tokens()
    assert list(frame.columns) == NAMES
    assert len(frame) == run.counts["tokens"]
    assert list(zip(frame["document"], frame["token"], strict=True)) == sorted(
        zip(frame["document"], frame["token"], strict=True)
    )
    stored = run.query("SELECT loss_nats FROM tokens")
    pd.testing.assert_series_equal(frame["loss_nats"], stored["loss_nats"])
    assert frame["rank"].dtype == "Int32"
    assert (frame["rank"].isna() == frame["unscored"].notna()).all()


def test_the_texts_of_a_document_joined_are_the_document(tmp_path):
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "some.jsonl").write_text("".join(lines[:16]), "utf-8")
    run = lossprobe.score(EXAMPLES / "jargon-plain", tmp_path / "some.jsonl", output=tmp_path / "run").run
    frame = run.tokens(text=True)
    assert list(frame.columns)[:4] == ["document", "token", "text", "token_id"]
    spans = frame[frame["byte_stop"] > frame["byte_start"]]
    joined = spans.groupby("document")["text"].sum()
    texts = run.query("SELECT document, text FROM documents ORDER BY document").set_index("document")["text"]
    plain = [number for number in joined.index if "\\x" not in joined[number]]
    assert plain
    assert all(joined[number] == texts[number] for number in plain)


def test_columns_and_conditions_select(run):
    hard = run.tokens(columns=["text", "loss_nats"], where="loss > 3 and context >= 2")
    assert list(hard.columns) == ["text", "loss_nats"]
    whole = run.tokens(text=True)
    expected = whole[(whole["loss_nats"] > 3) & (whole["context"] >= 2)]
    assert list(hard["text"]) == list(expected["text"])
    assert list(run.tokens(text=True, columns=["rank"]).columns) == ["rank", "text"]
    assert run.tokens(where=["loss > 3", "context>=2"])["loss_nats"].equals(hard["loss_nats"])
    assert run.tokens(where="loss < 0").empty
    assert len(run.tokens(columns=["text"])) == len(whole)


def test_a_frame_is_saved_as_csv_and_read_back(run):
    frame = run.tokens(text=True)
    rows = list(csv.DictReader(io.StringIO(frame.to_csv(index=False))))
    assert [row["text"] for row in rows] == list(frame["text"])


def test_what_cannot_be_selected_is_named(run):
    with pytest.raises(lossprobe.LossprobeError, match="'los' is no column") as found:
        run.tokens(columns=["los"])
    assert "loss_nats" in found.value.hint
    with pytest.raises(lossprobe.LossprobeError, match="`where` 'loss'"):
        run.tokens(where="loss")
    with pytest.raises(TypeError, match="`columns` takes a list of strings, not str"):
        run.tokens(columns="loss_nats")
