"""Two tokenizers on one text: the spans partition it, and every sum is that of a cut by hand."""

import copy
import dataclasses
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_runs import BOS, LN2, Doc, words
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from lossprobe.analysis.compare import byte_spans, byte_sums
from lossprobe.analysis.compare.byte_pairs import UPPER_BOUND, compare_bytes
from lossprobe.analysis.compare.byte_spans import Spans, cut_spans, shared_text
from lossprobe.analysis.compare.byte_sums import BLOCK_BYTES, CUTS
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.paired import paired_sums
from lossprobe.errors import NotComparableError, OutputError
from lossprobe.run import texts
from lossprobe.run.reader import Run, open_run

DIFFERENCE = "difference_bits_per_byte"


def doc(pieces, *bits, **choices):
    """Return a document from its pieces, written "ab|cd|e"; "<" is a BOS."""
    parts = [BOS if piece == "<" else piece.encode() for piece in pieces.split("|")]
    return Doc(parts, list(bits), **choices)


def nats(bits):
    """Return a loss as it is stored."""
    return 0.0 if isinstance(bits, str) else float(np.float32(bits * LN2))


def cut_by_hand(one, other):
    """Return (start, stop, nats of each, scored tokens of each, why it is left out) of every span of a document."""
    sides = []
    for side in (one, other):
        stops = np.cumsum([0 if piece == BOS else len(piece) for piece in side.pieces]).tolist()
        starts = [0, *stops[:-1]]
        sides.append(list(zip(starts, stops, side.bits, strict=True)))
    ends = sorted({stop for _, stop, _ in sides[0]} & {stop for _, stop, _ in sides[1]} - {0})
    spans = []
    for start, stop in zip([0, *ends[:-1]], ends, strict=True):
        own = [[row for row in side if start < row[1] <= stop or row[1] == start == 0] for side in sides]
        why = sorted(row[2] for side in own for row in side if isinstance(row[2], str) and row[1] > row[0])
        total = [sum(nats(row[2]) for row in side) for side in own]
        tokens = [sum(not isinstance(row[2], str) for row in side) for side in own]
        spans.append((start, stop, total, tokens, why[0] if why else None))
    return spans


def spans_of(first, second):
    """Return all spans at once, however they come."""
    found = list(cut_spans(first, second, shared_text(first, second)))
    names = [field.name for field in dataclasses.fields(Spans)]
    return Spans(*(np.concatenate([getattr(spans, name) for spans in found], axis=-1) for name in names))


def places(spans):
    return list(zip(spans.document.tolist(), spans.start.tolist(), spans.stop.tolist(), strict=True))


@pytest.fixture
def pair(make_run):
    """Write two runs of the same documents."""
    return lambda one, other, **choices: (
        make_run(one, **{"name": "one", **choices}),
        make_run(other, **{"name": "other", **choices}),
    )


@pytest.fixture
def cut_batches(monkeypatch):
    """Cut the batches of every run at rows of our choice, runs in the order in which they are read."""
    whole = Run.batches

    def cut(*sizes):
        turn = iter(sizes)

        def batches(run, sql, parameters=()):
            return pieces(whole(run, sql, parameters), next(turn))

        monkeypatch.setattr(Run, "batches", batches)

    def pieces(stream, size):
        for batch in stream:
            for start in range(0, batch.num_rows, size):
                yield batch.slice(start, size)
                yield batch.slice(0, 0)

    return cut


def altered(run, name, **columns):
    """Return a run with other values in some columns of a Parquet file."""
    file = run.path / name
    table = pq.read_table(file)
    for column, values in columns.items():
        index = table.column_names.index(column)
        table = table.set_column(index, column, pa.array(values, table.schema.field(column).type))
    pq.write_table(table, file)
    return open_run(run.path)


def with_settings(run, **changes):
    manifest = copy.deepcopy(run.manifest)
    for group, values in changes.items():
        (manifest if group == "counts" else manifest["settings"])[group].update(values)
    return dataclasses.replace(run, manifest=manifest)


def leave_one_out(difference, size, groups):
    """Return the ratio with its jackknife-t interval and standard error, by leaving out one group after the other."""
    names = np.unique(groups)
    rest = np.array([difference[groups != g].sum() / size[groups != g].sum() for g in names])
    error = math.sqrt((len(names) - 1) / len(names) * ((rest - rest.mean()) ** 2).sum())
    ratio, half = difference.sum() / size.sum(), student.ppf(0.975, len(names) - 1) * error
    return [ratio, ratio - half, ratio + half], error


def test_the_text_is_cut_where_both_tokenizations_end(pair):
    runs = pair([doc("<|ab|cd|e", "special", 1, 2, 4)], [doc("<|a|bcd|e", "special", 3, 5, 1)])
    spans = spans_of(*runs)
    assert places(spans) == [(0, 0, 4), (0, 4, 5)]
    assert spans.nats == pytest.approx(LN2 * np.array([[3, 4], [8, 1]]), rel=1e-6)
    assert spans.tokens.tolist() == [[2, 1], [2, 1]]
    found = compare_bytes(*runs)
    assert (found.first, found.second) == ("one", "other")
    assert (found.counts.documents, found.counts.spans, found.counts.bytes_compared, found.counts.bytes_left_out) == (
        1,
        2,
        5,
        {},
    )
    assert [found.difference.first_bits_per_byte, found.difference.second_bits_per_byte] == pytest.approx(
        [7 / 5, 9 / 5], rel=1e-6
    )
    assert found.difference.difference_bits_per_byte == pytest.approx(2 / 5, rel=1e-6)
    assert [found.difference.first_bytes_per_token, found.difference.second_bytes_per_token] == [5 / 3, 5 / 3]
    assert found.largest["text"].tolist() == ["abcd", "e"]


def test_what_one_model_left_unscored_is_left_out_for_both(pair):
    first = doc("ab|cd|e|f", "first_token", 2, 4, 1)
    second = doc("<|a|bcd|e|f", "special", 3, 5, "unknown", 2)
    found = compare_bytes(*pair([first], [second]))
    assert found.counts.bytes_left_out == {"first_token": 4, "unknown": 1}
    assert (found.counts.spans, found.counts.bytes_compared) == (1, 1)
    assert [found.difference.first_bits_per_byte, found.difference.second_bits_per_byte] == pytest.approx(
        [1, 2], rel=1e-6
    )
    assert "5 bytes (83.33%) left out for both: first_token 4, unknown 1" in found.notes


def test_a_span_with_two_reasons_counts_once(pair):
    found = compare_bytes(*pair([doc("ab|c", "masked", 1)], [doc("a|b|c", "first_token", 2, 3)]))
    assert found.counts.bytes_left_out == {"first_token": 2}
    assert found.counts.bytes_compared == 1


def test_tokens_that_end_inside_a_character(pair):
    e = "é".encode()
    first = Doc([BOS, b"a", e[:1], e[1:], b"b"], ["special", 1, 2, 3, 4])
    second = Doc([BOS, b"a" + e[:1], e[1:] + b"b"], ["special", 5, 6])
    runs = pair([first], [second])
    assert places(spans_of(*runs)) == [(0, 0, 2), (0, 2, 4)]
    found = compare_bytes(*runs).largest
    assert found["text"].tolist() == [r"a\xc3", r"\xa9b"]
    assert found["difference_bits"].tolist() == pytest.approx([2, -1], rel=1e-6)


def test_tokens_without_bytes_belong_to_the_span_that_ends_where_they_do(pair):
    # BOS, a prefix blank of no bytes, "ab", a piece without bytes after it, "c", and another at the very end.
    first = Doc([BOS, b"", b"ab", b"", b"c", b""], ["special", 1, 2, 4, 8, 16])
    second = Doc([b"", b"ab", b"c"], ["first_token", 1, 1])
    spans = spans_of(*pair([first], [second]))
    assert spans.nats == pytest.approx(LN2 * np.array([[1 + 2 + 4, 8 + 16], [1, 1]]), rel=1e-6)
    assert spans.unscored.tolist() == [0, 0], "an unscored token without bytes leaves none out"
    assert spans.tokens.tolist() == [[3, 2], [1, 1]]


def test_documents_do_not_run_into_each_other(pair, cut_batches):
    first = [
        doc("<|ab", "special", 1),
        doc("<|", "special", 99),
        doc("<||ab|c", "special", 2, 4, 8),
        doc("<|d", "special", 1),
    ]
    second = [
        doc("a|b", "first_token", 3),
        doc("<", "special"),
        doc("<|a|bc", "special", 5, 6),
        doc("<|d", "special", 2),
    ]
    runs = pair(first, second)
    cut_batches(1, 2)
    spans = spans_of(*runs)
    assert places(spans) == [(0, 0, 2), (2, 0, 3), (3, 0, 1)]
    assert spans.nats == pytest.approx(LN2 * np.array([[1, 14, 1], [3, 11, 2]]), rel=1e-6)


TEXT = st.text(st.sampled_from("ab é‽"), min_size=1, max_size=9)
BITS = st.one_of(st.floats(0, 30, width=32), st.sampled_from(["unknown", "masked"]))


@st.composite
def tokenization(draw, data):
    """Draw pieces of some bytes, a few of them empty, and their losses."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    pieces = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    bos = draw(st.booleans())
    bits = [draw(BITS) for _ in pieces]
    return Doc([BOS, *pieces], ["special", *bits]) if bos else Doc(pieces, ["first_token", *bits[1:]])


@st.composite
def two_runs(draw):
    texts = [text.encode() for text in draw(st.lists(TEXT, min_size=1, max_size=4))]
    return [[draw(tokenization(data)) for data in texts] for _ in range(2)]


@pytest.mark.thorough
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=two_runs(), sizes=st.lists(st.integers(1, 5), min_size=2, max_size=2))
def test_spans_partition_the_text_and_sums_are_exact(pair, cut_batches, documents, sizes):
    runs = pair(*documents)
    by_hand = [(d, *span) for d, docs in enumerate(zip(*documents, strict=True)) for span in cut_by_hand(*docs)]
    compared = [span for span in by_hand if span[5] is None]
    cut_batches(*sizes * 3)
    spans = spans_of(*runs)
    assert places(spans) == [span[:3] for span in by_hand]
    assert pytest.approx(np.array([span[3] for span in by_hand]), abs=1e-12) == spans.nats.T
    whole = sum(len(one.data) for one in documents[0])
    if not compared:
        with pytest.raises(NotComparableError, match="no byte was scored by both"):
            compare_bytes(*runs)
        return
    found, swapped = compare_bytes(*runs), compare_bytes(*runs[::-1])
    assert found.counts.bytes_compared + sum(found.counts.bytes_left_out.values()) == whole
    assert found.counts.spans == len(compared)
    size = sum(stop - start for _, start, stop, *_ in compared)
    assert found.counts.bytes_compared == size
    first, second = (sum(span[3][side] for span in compared) / LN2 / size for side in (0, 1))
    assert found.difference.first_bits_per_byte == pytest.approx(first, abs=1e-12)
    assert found.difference.second_bits_per_byte == pytest.approx(second, abs=1e-12)
    assert found.difference.difference_bits_per_byte == pytest.approx(second - first, abs=1e-12)
    assert found.difference.first_bytes_per_token == pytest.approx(
        size / sum(span[4][0] for span in compared), rel=1e-15
    )
    assert found.by_cut["contribution_bits_per_byte"].sum() == pytest.approx(second - first, abs=1e-12)
    left_out = pd.Series([why for *_, why in by_hand]).dropna().unique()
    assert set(found.counts.bytes_left_out) == set(left_out)
    assert swapped.difference.difference_bits_per_byte == -found.difference.difference_bits_per_byte
    assert swapped.counts.bytes_left_out == found.counts.bytes_left_out
    assert swapped.largest["difference_bits"].tolist() == (
        (-found.largest["difference_bits"]).sort_values(key=lambda d: np.where(d > 0, -d, 1e9 + d)).tolist()
    )


def random_documents(rng, documents, letters=60):
    """Return the same random documents under two random tokenizations."""
    sides = [[], []]
    for _ in range(documents):
        data = bytes(rng.choice(list(b"abc "), letters + int(rng.integers(letters))))
        level = rng.normal(0, 0.5)
        for side in sides:
            cuts = np.flatnonzero(rng.random(len(data) - 1) < 0.4) + 1
            pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            bits = np.abs(rng.normal(3 + level * len(side) / 10, 2, len(pieces)))
            side.append(Doc([BOS, *pieces], ["special", *bits.tolist()]))
    return sides


def rows_by_hand(documents):
    spans = [(d, *span) for d, docs in enumerate(zip(*documents, strict=True)) for span in cut_by_hand(*docs)]
    document, start = (np.array([span[index] for span in spans]) for index in (0, 1))
    size = np.array([stop - start for _, start, stop, *_ in spans], float)
    bits = np.array([span[3] for span in spans]).T / LN2
    return document, start, size, bits


@pytest.fixture
def drawn(pair):
    documents = random_documents(np.random.default_rng(5), 12)
    return documents, pair(*documents)


def test_statistics_are_those_of_the_spans(drawn):
    documents, runs = drawn
    document, _, size, bits = rows_by_hand(documents)
    found = compare_bytes(*runs)
    difference = bits[1] - bits[0]
    expected, error = leave_one_out(difference, size, document)
    assert [
        found.difference.difference_bits_per_byte,
        found.difference.difference_bits_per_byte_interval.low,
        found.difference.difference_bits_per_byte_interval.high,
    ] == pytest.approx(expected, rel=1e-9)
    assert found.evidence.minimum_detectable == pytest.approx(2.8 * error, rel=1e-9)
    assert found.evidence.p_value == pytest.approx(2 * student.sf(abs(expected[0]) / error, 11), rel=1e-9)
    assert found.difference.correlation == pytest.approx(np.corrcoef(bits)[0, 1], rel=1e-9)
    residual = difference - expected[0] * size
    clustered = np.bincount(document, residual)
    effect = (12 / 11 * (clustered**2).sum()) / (len(size) / (len(size) - 1) * (residual**2).sum())
    assert found.evidence.design_effect == pytest.approx(effect, rel=1e-9)
    table = found.table.set_index("measure")
    assert table.loc[DIFFERENCE, ["value", "low", "high"]].tolist() == pytest.approx(expected, rel=1e-9)
    numbers = vars(found.difference) | vars(found.evidence)
    for name in ("minimum_detectable", "p_value", "design_effect", "correlation", "first_bytes_per_token"):
        assert table.loc[name, "value"] == numbers[name]
    assert found.table.columns.tolist() == ["measure", "value", "low", "high", "unit"]
    assert found.notes[1:] == [UPPER_BOUND]
    assert found.notes[0].startswith("largest contexts: one 1,024 tokens, about ")


def test_with_nothing_left_out_each_model_has_the_bits_per_byte_of_its_run(drawn):
    _, runs = drawn
    found = compare_bytes(*runs)
    table = found.table.set_index("measure")
    for run, side in zip(runs, ("first", "second"), strict=True):
        alone = measure_perplexity(run)
        expected = [alone.per_byte.bits_per_byte, *alone.per_byte.bits_per_byte_interval]
        assert table.loc[f"{side}_bits_per_byte", ["value", "low", "high"]].tolist() == pytest.approx(
            expected, abs=1e-12
        )
    totals = [run.scalar("SELECT sum(loss_nats::DOUBLE) FROM tokens") for run in runs]
    expected = (totals[1] - totals[0]) / LN2 / found.counts.bytes_compared
    assert found.difference.difference_bits_per_byte == pytest.approx(expected, abs=1e-12)


def test_where_the_difference_comes_from(drawn):
    documents, runs = drawn
    document, _, size, bits = rows_by_hand(documents)
    tokens = np.array([span[3] for docs in zip(*documents, strict=True) for span in cut_by_hand(*docs)])
    parts = compare_bytes(*runs).by_cut
    assert tuple(parts["cut"]) == CUTS
    for split, row in zip(([0, 0], [1, 0], [0, 1], [1, 1]), parts.to_dict("records"), strict=True):
        own = ((tokens > 1) == split).all(axis=1)
        assert (row["spans"], row["bytes"]) == (own.sum(), size[own].sum())
        assert row["share_of_bytes"] == pytest.approx(size[own].sum() / size.sum())
        expected, _ = leave_one_out((bits[1] - bits[0])[own], size[own], document[own])
        assert [row[DIFFERENCE], row["low"], row["high"]] == pytest.approx(expected, rel=1e-9)
        assert row["second_bits_per_byte"] == pytest.approx(bits[1][own].sum() / size[own].sum())
        assert row["contribution_bits_per_byte"] == pytest.approx((bits[1] - bits[0])[own].sum() / size.sum())


def test_one_tokenizer_has_its_tokens_for_spans(drawn, make_run):
    documents, (first, _) = drawn
    rng = np.random.default_rng(6)
    other = [
        dataclasses.replace(one, bits=["special", *(rng.random(len(one.bits) - 1) * 5).tolist()])
        for one in documents[0]
    ]
    second = make_run(other)
    found = compare_bytes(first, second)
    sums = paired_sums(
        [first, second],
        {"nats": "loss_nats"},
        find_clusters(first),
        lambda rows: {"nats": np.diff(rows.values["nats"], axis=0)[0]},
        (lambda rows: np.zeros(len(rows.token), int), 1),
    ).sums
    assert found.counts.spans == sums["tokens"].sum()
    assert found.difference.difference_bits_per_byte == pytest.approx(
        sums["nats"].sum() / LN2 / found.counts.bytes_compared, abs=1e-12
    )
    assert found.by_cut["spans"].tolist() == [found.counts.spans, 0, 0, 0]
    assert found.by_cut[DIFFERENCE].isna().tolist() == [False, True, True, True]


def test_a_run_against_itself_differs_in_nothing(drawn):
    _, (run, _) = drawn
    found = compare_bytes(run, run)
    assert [
        found.difference.difference_bits_per_byte,
        found.difference.difference_bits_per_byte_interval.low,
        found.difference.difference_bits_per_byte_interval.high,
        found.evidence.minimum_detectable,
    ] == [0.0] * 4
    assert (found.evidence.p_value, found.difference.correlation, found.evidence.design_effect) == (1.0, 1.0, None)
    assert found.largest.empty
    assert (
        found.finding
        == f"one #2 − one #1: +0.0000 bits per byte [+0.0000, +0.0000] over {found.counts.bytes_compared:,} bytes"
    )


def test_many_documents_are_merged_into_clusters(drawn, monkeypatch):
    documents, runs = drawn
    monkeypatch.setattr(byte_sums, "MOST_CLUSTERS", 5)
    document, _, size, bits = rows_by_hand(documents)
    expected, _ = leave_one_out(bits[1] - bits[0], size, document % 5)
    found = compare_bytes(*runs)
    assert [
        found.difference.difference_bits_per_byte,
        found.difference.difference_bits_per_byte_interval.low,
        found.difference.difference_bits_per_byte_interval.high,
    ] == pytest.approx(expected, rel=1e-9)
    assert found.counts.documents == 12


def test_a_single_document_is_resampled_in_blocks(pair):
    rng = np.random.default_rng(7)
    data = b"x" * (3 * BLOCK_BYTES + BLOCK_BYTES // 2)
    documents = []
    for width in (96, 160):
        pieces = [data[start : start + width] for start in range(0, len(data), width)]
        documents.append([Doc([BOS, *pieces], ["special", *(rng.random(len(pieces)) * 9).tolist()])])
    unscored = [Doc([b"y"], ["first_token"])]
    runs = pair(*(own + unscored for own in documents))
    _, start, size, bits = rows_by_hand(documents)
    expected, _ = leave_one_out(bits[1] - bits[0], size, np.minimum(start // BLOCK_BYTES, 2))
    found = compare_bytes(*runs)
    assert [
        found.difference.difference_bits_per_byte,
        found.difference.difference_bits_per_byte_interval.low,
        found.difference.difference_bits_per_byte_interval.high,
    ] == pytest.approx(expected, rel=1e-9)
    assert found.interval_unit == "block"
    assert found.notes[0].startswith(
        "one document: intervals resample 3 blocks of about 16 KiB of text and are a lower"
    )


def test_what_cannot_be_given_is_none_and_said(pair):
    found = compare_bytes(*pair([doc("<|ab|cd", "special", 1, 2)], [doc("<|abcd", "special", 4)]))
    assert [
        found.difference.difference_bits_per_byte_interval.low,
        found.difference.difference_bits_per_byte_interval.high,
        found.evidence.p_value,
        found.evidence.minimum_detectable,
    ] == [None] * 4
    assert (found.evidence.design_effect, found.difference.correlation) == (None, None)
    assert found.table.set_index("measure").loc[DIFFERENCE, ["low", "high"]].isna().all()
    assert found.notes[0] == "a single block of text was scored by both: no interval can be given"
    assert found.finding == "other − one: +0.2500 bits per byte no interval over 4 bytes (no test was possible)"


def test_one_document_of_several_with_compared_bytes_gives_no_interval(pair):
    documents = [doc("<|a", "special", 1), doc("a|b", "unknown", 1), doc("ab|c", "first_token", 2)]
    others = [doc("<|a", "special", 2), doc("ab", "first_token"), doc("a|bc", "first_token", 2)]
    found = compare_bytes(*pair(documents, others))
    assert (
        found.counts.documents,
        found.counts.bytes_compared,
        found.difference.difference_bits_per_byte_interval.low,
        found.interval_unit,
    ) == (1, 1, None, "document")
    assert found.counts.bytes_left_out == {"first_token": 5}
    assert found.notes[0] == "a single document of text was scored by both: no interval can be given"


def test_the_finding_names_the_lower_model_where_it_is_clear(pair):
    one = [doc(f"<|a{last}", "special", bits) for last, bits in zip("bcd", (4, 4.1, 4.2), strict=True)]
    other = [doc(f"<|a|{last}", "special", 0.5, bits) for last, bits in zip("bcd", (0.5, 0.6, 0.7), strict=True)]
    runs = pair(one, other)
    assert compare_bytes(*runs).finding.endswith("over 6 bytes (other is lower)")
    assert compare_bytes(*runs[::-1]).finding.endswith("over 6 bytes (other is lower)")


def test_rounding_names_no_model(pair):
    one, other = ([doc(f"<|abc{bits}", "special", bits + step) for bits in (2, 3, 4)] for step in (0, 1e-6))
    found = compare_bytes(*pair(one, other))
    low, high = found.difference.difference_bits_per_byte_interval
    assert 0.0 < low <= high < 1e-6
    assert found.finding.endswith("(not clear which is lower)")


def test_the_largest_changes(pair, cut_batches, monkeypatch):
    monkeypatch.setattr(texts, "HELD_BYTES", 1)  # one document at a time
    changes = [3, -1, 0, 3, 5, -4, -4, 1]
    first = [words("special", *[5] * 8, pieces=[BOS, *(b"%d" % n for n in range(8))]) for _ in range(2)]
    second = [words("special", *(5 + c for c in changes), pieces=one.pieces) for one in first]
    runs = pair(first, second)
    cut_batches(3, 4)
    found = compare_bytes(*runs, top=3).largest
    assert found["difference_bits"].tolist() == pytest.approx([5, 5, 3, -4, -4, -4], rel=1e-6)
    assert found["document"].tolist() == [0, 1, 0, 0, 0, 1]
    assert found["text"].tolist() == ["4", "4", "0", "5", "6", "5"], "equal changes stand in text order"
    assert found["byte_start"].tolist() == [4, 4, 0, 5, 6, 5]
    assert found["byte_stop"].tolist() == [5, 5, 1, 6, 7, 6]
    assert found.loc[0, ["first_bits", "second_bits"]].tolist() == pytest.approx([5, 10], rel=1e-6)
    cut_batches(*[100] * 4)
    assert compare_bytes(*runs, top=3).largest.equals(found)
    assert compare_bytes(*runs, top=0).largest.empty


def test_text_comes_from_the_run_that_has_it(make_run):
    documents = [doc("<|" + "é" * 200, "special", 1)], [doc("<|" + "é" * 200, "special", 2)]
    for kept, expected in (((False, True), "é" * 119 + "…"), ((False, False), "")):
        runs = [make_run(docs, keep_text=keep) for docs, keep in zip(documents, kept, strict=True)]
        found = compare_bytes(*runs)
        assert found.largest["text"].tolist() == [expected]
        assert ("no text of the spans: both runs were made with `keep_text=False`" in found.notes) == (expected == "")


def test_a_document_whose_spans_are_a_guess_is_left_out(pair):
    documents = [doc("<|ab", "special", 1), doc("<|c", "special", 2), doc("<|d", "special", 3)]
    first, second = pair(documents, documents)
    second = altered(second, "documents.parquet", tiles=[False, True, True])
    found = compare_bytes(first, second)
    assert found.counts.bytes_left_out == {"spans_are_a_guess": 2}
    assert (found.counts.bytes_compared, found.counts.documents) == (2, 2)
    everything = altered(second, "documents.parquet", tiles=[False] * 3)
    with pytest.raises(NotComparableError, match=r"\(spans_are_a_guess 4\)") as caught:
        compare_bytes(first, everything)
    assert caught.value.id == "runs.no_common_bytes"


def test_a_document_of_which_one_tokenizer_makes_nothing_is_left_out(pair):
    first, second = pair(
        [doc("<|ab", "special", 1), doc("<|  ", "special", 2), doc("<|d", "special", 3)],
        [doc("<|ab", "special", 1), Doc([], []), doc("<|d", "special", 3)],
    )
    second = altered(second, "documents.parquet", bytes=[2, 2, 1])
    found = compare_bytes(first, second)
    assert found.counts.bytes_left_out == {"no_tokens": 2}
    assert found.difference.first_bits_per_byte == pytest.approx(4 / 3, rel=1e-6)


def test_different_texts_are_refused(pair):
    first, second = pair([doc("<|ab", "special", 1)], [doc("<|abc", "special", 1)])
    with pytest.raises(NotComparableError) as caught:
        compare_bytes(first, second)
    assert caught.value.id == "runs.different_text"
    assert caught.value.message == "one and other did not score the same text: document 0 has 2 bytes and 3"
    first, second = pair([doc("<|ab", "special", 1)], [doc("<|ab", "special", 1)] * 2)
    with pytest.raises(NotComparableError, match="1 document and 2 documents"):
        compare_bytes(first, second)
    hashed = [with_settings(first, text={"sha256": digest * 64}) for digest in "ab"]
    with pytest.raises(NotComparableError, match="sha256 aaaaaaaaaaa… and bbbbbbbbbbb…"):
        compare_bytes(*hashed)
    assert compare_bytes(hashed[0], hashed[0]).counts.bytes_compared == 2


def test_rewritten_text_is_said(pair):
    first, second = pair([doc("<|ab", "special", 1)], [doc("<|ab", "special", 1)])
    found = compare_bytes(first, with_settings(second, counts={"normalized_bytes": 1}))
    assert "other: its tokenizer dropped or rewrote 1 byte of the text, which cost it nothing" in found.notes


def test_damaged_runs_are_refused(pair):
    documents = [doc("<|ab|c", "special", 1, 2), doc("<|d", "special", 1)]
    first, second = pair(documents, documents)
    short = altered(second, "tokens/part-00000.parquet", byte_stop=[0, 2, 2, 0, 1])
    with pytest.raises(OutputError, match="token spans do not tile the text"):
        compare_bytes(first, short)
    broken = altered(pair(documents, documents)[1], "tokens/part-00000.parquet", loss_nats=[None, 1, math.inf, None, 1])
    for runs in ((first, broken), (broken, first)):
        with pytest.raises(OutputError, match="document 0, token 2: a stored number is not finite"):
            compare_bytes(*runs)


def test_memory_does_not_grow_with_a_document(pair, cut_batches, monkeypatch):
    """A document without a common boundary is folded into sums; no more than two batches of each run are held."""
    data = b"x" * 401
    one = [b"x", *(b"xx" for _ in range(200))]
    other = [*(b"xx" for _ in range(200)), b"x"]
    assert b"".join(one) == b"".join(other) == data
    runs = pair([Doc([BOS, *one], ["special", *[1] * 201])], [Doc([BOS, *other], ["special", *[2] * 201])])
    held = []
    advance = byte_spans._Side.advance

    def watched(side):
        advance(side)
        held.append(len(side._held[0]))

    monkeypatch.setattr(byte_spans._Side, "advance", watched)
    cut_batches(10, 7)
    found = compare_bytes(*runs)
    assert (found.counts.spans, found.counts.bytes_compared) == (1, 401)
    assert found.difference.second_bits_per_byte == pytest.approx(402 / 401, rel=1e-6)
    assert max(held) <= 20
