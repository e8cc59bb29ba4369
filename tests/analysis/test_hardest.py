"""The hardest tokens, entries, documents and classes."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from fake_runs import BOS, LN2, Doc, words

from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.texts import surroundings
from lossprobe.analysis.rows.token_classes import FORMS, class_source
from lossprobe.errors import UsageError
from lossprobe.text.documents import Document
from lossprobe.text.fields import refuse_missing_field

CLOSE = 1e-7  # relative: losses are stored as float32


def test_tokens_are_ordered_by_loss_then_document_then_token(make_run):
    docs = [words("first_token", 2, 5, 5), words("first_token", 5, 7), words("first_token", 1, 5)]
    result = find_hardest(make_run(docs, rows_per_part=2), "token", top=5)
    assert result.table[["document", "token"]].to_numpy().tolist() == [[1, 2], [0, 2], [0, 3], [1, 1], [2, 2]]
    assert result.table["loss_nats"].tolist() == pytest.approx([7 * LN2, *[5 * LN2] * 4], rel=CLOSE)
    assert result.total_nats == pytest.approx(30 * LN2, rel=CLOSE)
    assert result.finding.startswith("the hardest 5 tokens carry 90.00% of the total loss; hardest: “ c” at 4.85 nats")
    one = find_hardest(make_run(docs, rows_per_part=2), "token", top=1)
    assert one.finding.startswith("the hardest 1 token carries 23.33% of the total loss; ")


def test_a_token_stands_in_its_text(make_run):
    mojibake = "caf\u00c3\u00a9 au lait"
    pieces = [BOS, b"caf", "\u00c3".encode(), "\u00a9".encode(), b" au", b" lait"]
    result = find_hardest(make_run([Doc(pieces, ["special", 1, 9, 2, 1, 1])]), "token", top=1)
    row = result.table.iloc[0]
    assert (row["before"], row["characters"], row["after"]) == ("caf", "\u00c3", "\u00a9 au lait")
    assert row["before"] + row["characters"] + row["after"] == mojibake


@pytest.mark.parametrize(("cut", "text"), [(1, "\\xe6"), (2, "\\xe6\\xbc")])
def test_a_token_that_ends_inside_a_character_shows_the_whole_character(make_run, cut, text):
    kanji = "漢".encode()
    doc = Doc([b"a", kanji[:cut], kanji[cut:], b"b"], ["first_token", 9, 8, 1])
    rows = find_hardest(make_run([doc]), "token", top=2).table
    assert rows["characters"].tolist() == ["漢", "漢"]
    assert (rows["before"].tolist(), rows["after"].tolist()) == (["a", "a"], ["b", "b"])
    assert rows["text"][0] == text


def test_surroundings_stop_at_characters_and_at_the_ends():
    data = "ééé漢ééé".encode()  # é: 2 bytes each, 漢: bytes 6 to 9
    assert surroundings(data, 6, 9, width=3) == surroundings(data, 7, 8, width=3)
    found = surroundings(data, 6, 9, width=3)  # 3 bytes on each side hold one é
    assert (found.before, found.characters, found.after) == ("é", "漢", "é")
    assert surroundings(data, 0, 2).before == ""
    assert surroundings(data, 13, 15).after == ""
    assert surroundings(data, 4, 4).characters == ""  # a token without bytes
    assert surroundings(b"a\x1b[2J\n", 1, 2) == surroundings(b"a\x1b[2J\n", 1, 2, 99)
    assert surroundings(b"a\x1b[2J\n", 1, 2).characters == "\\x1b"


def test_texts_of_many_documents_belong_to_their_tokens(make_run):
    docs = [Doc([b"s", f"<{number}>".encode()], ["first_token", number * 7 % 10 + 1]) for number in range(10)]
    rows = find_hardest(make_run(docs), "token", top=10).table
    expected = [f"<{number}>" for number in rows["document"]]
    assert rows["characters"].tolist() == rows["text"].tolist() == expected
    assert rows["loss_nats"].is_monotonic_decreasing


def test_without_stored_text_a_token_is_its_vocabulary_entry(make_run):
    row = find_hardest(make_run([words("first_token", 1, 2)], keep_text=False), "token", top=1).table.iloc[0]
    assert (row["before"], row["characters"], row["after"], row["text"]) == ("", " c", "", " c")


def test_types_are_ranked_by_total_and_by_mean(make_run):
    # " a" 4 times 2 bits, " b" twice 3 bits, " c" once 9 bits: 23 bits.
    pieces = [b"x", *[b" a"] * 4, *[b" b"] * 2, b" c"]
    run = make_run([Doc(pieces, ["first_token", 2, 2, 2, 2, 3, 3, 9])])
    result = find_hardest(run, "type", top=2, min_count=2)
    table = result.table
    assert table["text"].tolist() == [" c", " a", " b", " a"]
    assert table["hardest_by"].tolist() == ["total", "total", "mean", "mean"]
    assert table["count"].tolist() == [1, 4, 2, 4]  # " c" is too rare for the second ranking
    assert table["mean_loss_nats"].tolist() == pytest.approx([9 * LN2, 2 * LN2, 3 * LN2, 2 * LN2], rel=CLOSE)
    assert table["share_of_loss"].tolist() == pytest.approx([9 / 23, 8 / 23, 6 / 23, 8 / 23], rel=CLOSE)
    assert result.finding == "2 vocabulary entries carry 73.9% of the total loss"
    one = find_hardest(run, "type", top=1)
    assert one.finding == "1 vocabulary entry carries 39.1% of the total loss"
    rare = find_hardest(run, "type", top=2, min_count=99)
    assert rare.table["hardest_by"].tolist() == ["total", "total"]
    assert rare.notes == ["ranked by mean: entries that occur at least 99 times"]


def test_equal_types_keep_the_order_of_their_ids(make_run):
    table = find_hardest(make_run([words("first_token", 2, 2, 2)]), "type", top=2, min_count=1).table
    assert table["token_id"].tolist() == [2, 3, 2, 3]


def test_documents_are_ranked_by_their_mean(make_run):
    docs = [
        Doc([b"one\n", b" a", b" a"], ["first_token", 3, 3], source="a.txt", line=1),
        Doc([b"two\x1b[2J", b" b", b" c"], ["first_token", 5, 9], source="b\x1b.txt", line=7),
        Doc([b"unscored"], ["first_token"]),
        Doc(["é".encode() * 80, b" d", b" d"], ["first_token", 3, 3]),
        Doc([b"x", b" z"], ["first_token", 99]),
    ]
    found = find_hardest(make_run(docs), "document", top=9)
    table = found.table
    assert found.notes == ["1 document of a single scored token not ranked"]
    assert table["document"].tolist() == [1, 0, 3]
    assert table["tokens"].tolist() == [2, 2, 2]
    assert table["mean_loss_nats"].tolist() == pytest.approx([7 * LN2, 3 * LN2, 3 * LN2], rel=CLOSE)
    assert table["share_of_loss"].tolist() == pytest.approx([14 / 125, 6 / 125, 6 / 125], rel=CLOSE)
    assert table["source"].tolist() == ["b\\x1b.txt", "a.txt", "fake.txt"]
    assert table["begins"].tolist() == ["two\\x1b[2J b c", "one\\n a a", "é" * 60]
    hidden = find_hardest(make_run(docs, keep_text=False), "document", top=1)
    assert hidden.table["begins"].tolist() == [""]
    assert "hardest document: 1 (line 7 of b\\x1b.txt), 4.852 nats" in hidden.finding


def test_a_document_is_named_by_its_record(make_run):
    fields = [{"id": "a-1", "source": "web\x1b"}, {"id": 7}, {"other": 1}]
    docs = [words("first_token", 9 - number, 1, fields=field) for number, field in enumerate(fields)]
    found = find_hardest(make_run(docs), "document")
    assert found.table["record_id"].tolist() == ["a-1", "7", ""]
    assert found.table["record_source"].tolist() == ["web\\x1b", "", ""]
    assert found.finding.startswith("hardest document: 0 (line 1 of fake.txt, id a-1), ")
    without = find_hardest(make_run([words("first_token", 1, 2, fields={"other": 1})]), "document")
    assert not {"record_id", "record_source"} & set(without.table)


def test_every_table_by_document_says_where_a_document_stands(make_run):
    fields = [{"id": "a-1", "source": "web"}, {"id": 7}]
    run = make_run([words("first_token", 9 - number, 1, 2, fields=field) for number, field in enumerate(fields)])
    losses = measure_perplexity(run, "document").groups
    slices = measure_calibration([run], by="document").slices
    for table in (losses, slices.drop(columns="model")):
        places = table.sort_values("group")[["group", "source", "line", "record_id", "record_source"]]
        assert places.iloc[:, 1:].to_numpy().tolist() == [["fake.txt", 1, "a-1", "web"], ["fake.txt", 1, "7", ""]]
        assert list(table.columns[:5]) == list(places.columns)


def test_documents_of_one_token_leave_nothing_to_rank(make_run):
    found = find_hardest(make_run([words("first_token", 3), words("first_token", 4)]), "document")
    assert (len(found.table), found.finding) == (0, "no document of two scored tokens")


def test_values_of_a_field_are_ranked_by_their_mean(make_run):
    bits = ((1, 1), (3,), (6,), (2, 1))
    docs = [words("first_token", *given, fields={"kind": kind}) for kind, given in zip("aabb", bits, strict=True)]
    found = find_hardest(make_run([*docs, words("first_token", 9)]), "kind", top=2)
    assert found.table[["group", "documents", "count"]].to_numpy().tolist() == [["", 1, 1], ["b", 2, 3]]
    assert found.table["mean_loss_nats"].tolist() == pytest.approx([9 * LN2, 3 * LN2], rel=CLOSE)
    assert found.table["share_of_loss"].tolist() == pytest.approx([9 / 23, 9 / 23], rel=CLOSE)
    assert found.table["low"].isna().tolist() == [True, False]
    assert found.finding.startswith("hardest kind: “b”, "), "one document is no group"
    two = find_hardest(make_run([*docs, *[words("first_token", 9)] * 2]), "kind")
    assert two.finding.startswith("hardest kind: documents without kind, ")
    with pytest.raises(UsageError) as caught:
        find_hardest(make_run(docs), "nothing")
    assert caught.value.id == "fields.missing"


def test_dots_lead_to_a_field_inside_an_object(make_run):
    fields = [{"data": {"lang": "en"}}, {"data": {"lang": "de"}, "a.b": 1}, {"data": 3, "a": {"b": 2}}]
    run = make_run([words("first_token", 9 - number, fields=field) for number, field in enumerate(fields)])
    assert find_hardest(run, "data.lang").table["group"].tolist() == ["en", "de", ""]
    assert find_hardest(run, "a.b").table["group"].tolist() == ["", "1", "2"], "a field of this name, or inside one"
    documents = [Document("x", "a", 1, -1, json.dumps(field)) for field in fields]
    for name in ("data.lang", "a.b", "data"):
        refuse_missing_field(documents, name)
    for name in ("data.text", "lang", "data.lang.x"):
        with pytest.raises(UsageError, match="no document has this field"):
            refuse_missing_field(documents, name)
        with pytest.raises(UsageError, match="no document has this field"):
            find_hardest(run, name)


def test_equal_cases_are_one_row_with_their_number(make_run):
    boilerplate = [Doc([b"click", b" here", b" now"], ["first_token", 1, 8 + number / 4]) for number in range(30)]
    other = Doc([b"quite", b" another", b" now"], ["first_token", 1, 7])
    found = find_hardest(make_run([*boilerplate, other], copies=True), "token", top=2)
    assert found.table[["document", "characters", "count"]].to_numpy().tolist() == [[29, " now", 30], [30, " now", 1]]
    total = 30 * 8 + sum(range(30)) / 4 + 7
    share = total / (total + 31)
    assert found.finding.startswith(f"the hardest 31 tokens (2 different ones) carry {share:.2%} of the total loss")
    without_text = find_hardest(make_run([*boilerplate, other], copies=True, keep_text=False), "token", top=2)
    assert without_text.table["document"].tolist() == [29, 28]


def test_classes_stand_hardest_first(make_run):
    pieces = [b"x", b" a", b"\n", b"7", b" a"]
    table = find_hardest(make_run([Doc(pieces, ["first_token", 1, 5, 9, 1])]), "class").table
    for _, part in table.groupby("kind"):
        assert part["mean_loss_nats"].is_monotonic_decreasing


KINDS = {
    " the": "word start", "\nNew": "word start", "ing": "word continuation", "a1": "word continuation",
    " ": "whitespace", "\n\t": "whitespace", "\n": "newline", "\r\n\r": "newline", " \n": "whitespace",
    "7": "digits", " 42": "digits", "  7": "word start", ".": "punctuation",
    " (": "punctuation", "`~": "punctuation", "@{": "punctuation", "é": "non-ascii", " naïve": "non-ascii",
    "\x00": "word continuation",
}  # fmt: skip


@pytest.mark.parametrize(("piece", "form"), KINDS.items())
def test_forms(make_run, piece, form):
    run = make_run([Doc([b"x", b"y", piece.encode()], ["first_token", 1, 1])])
    frame = run.query(f"SELECT form FROM {class_source()} WHERE token = 2")
    assert frame["form"].tolist() == [form]


def test_a_word_starts_after_white_space_or_nothing(make_run):
    pieces = [BOS, b"a", b"b", b"\n", b"c", b" ", b"d", b" 7", b"e", "é".encode(), b"f"]
    run = make_run([Doc(pieces, ["special", *[1] * 10]), Doc([b"g", b"h"], ["first_token", 1])])
    frame = run.query(f"SELECT form FROM {class_source()} ORDER BY document, token")
    start, inside = "word start", "word continuation"
    assert frame["form"].tolist() == [
        "special", start, inside, "newline", start, "whitespace", start, "digits", inside, "non-ascii", inside,
        start, inside,
    ]  # fmt: skip
    half = make_run([Doc(["é".encode()[:1], "é".encode()[1:]], ["first_token", 1])])
    assert half.query(f"SELECT form FROM {class_source()}")["form"].tolist() == ["non-ascii", "non-ascii"]


@pytest.mark.parametrize(("context", "stride"), [(4, None), (4, 1), (7, 3), (1000, None)])
def test_repeats_are_those_among_the_tokens_the_model_saw(make_run, context, stride):
    generator = np.random.default_rng(5)
    docs = [
        Doc([bytes([97 + n]) for n in generator.integers(0, 6, size)], ["first_token", *[1] * (size - 1)])
        for size in (2, 9, 60)
    ]
    run = make_run(docs, context=context, stride=stride, rows_per_part=13)
    frame = run.query(f"SELECT document, token, context, occurrence FROM {class_source()} ORDER BY document, token")
    for row in frame.to_dict("records"):
        pieces = docs[row["document"]].pieces
        seen = pieces[row["token"] - row["context"] : row["token"]]
        assert row["occurrence"] == ("repeat" if pieces[row["token"]] in seen else "first")
    assert set(frame["occurrence"]) == {"first", "repeat"}


def test_a_token_that_was_only_context_or_masked_is_still_seen(make_run):
    run = make_run([Doc([b"a", b"b", b"a", b"b"], ["first_token", "masked", 1, 1])])
    frame = run.query(f"SELECT occurrence FROM {class_source()} ORDER BY token")
    assert frame["occurrence"].tolist() == ["first", "first", "repeat", "repeat"]


def test_classes_are_two_partitions_of_the_scored_tokens(make_run):
    pieces = [piece.encode() for piece in KINDS]
    docs = [
        Doc([BOS, *chosen], ["special", *itertools.islice(itertools.cycle([1, 2, "masked", 4]), len(chosen))])
        for chosen in (pieces, pieces[::2], pieces[3:9], pieces * 2)
    ]
    run = make_run(docs)
    result = find_hardest(run, "class")
    scored = int(run.scalar("SELECT count(*) FROM tokens WHERE unscored IS NULL"))
    for _, part in result.table.groupby("kind"):
        assert part["count"].sum() == scored
        assert part["share_of_tokens"].sum() == pytest.approx(1.0, abs=1e-12)
        assert part["share_of_loss"].sum() == pytest.approx(1.0, abs=1e-12)
        nats = (part["mean_loss_nats"] * part["count"]).sum()
        assert nats == pytest.approx(result.total_nats, rel=1e-12)
    assert set(result.table.loc[result.table["kind"] == "form", "class"]) <= set(FORMS)
    brute = run.query(
        f"SELECT form, avg(loss_nats::DOUBLE) AS mean FROM {class_source()} WHERE unscored IS NULL GROUP BY 1"
    )
    joined = result.table.merge(brute, left_on="class", right_on="form")
    pd.testing.assert_series_equal(joined["mean_loss_nats"], joined["mean"], check_names=False, rtol=1e-12)
    assert find_clusters(run).unit == "document"
    assert "hardest class:" in result.finding


def test_a_run_without_loss_has_no_shares(make_run):
    run = make_run([words("first_token", 0, 0), words("first_token", 0)])
    for by in ("type", "document", "class"):
        assert (find_hardest(run, by).table["share_of_loss"] == 0.0).all()
    assert "carry 0.00% of the total loss" in find_hardest(run, "token").finding
