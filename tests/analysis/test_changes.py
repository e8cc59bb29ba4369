"""Where two runs differ: every slice against a loop over its rows, every token against a sorted list."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, log_probabilities, smoothed_logits, write_drawn
from fake_runs import LN2, Doc, words
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from lossprobe.analysis.compare import changed_slices as slices_module
from lossprobe.analysis.compare.changes import COLUMNS, find_changes
from lossprobe.analysis.rows.differences import TESTED_CLUSTERS, mean_changes
from lossprobe.analysis.rows.token_classes import FORMS, class_source
from lossprobe.analysis.stats.significance import holm
from lossprobe.errors import OutputError, UsageError
from lossprobe.run import reader
from lossprobe.run.reader import open_run

ROWS, VOCAB, DOCUMENTS = 1500, 24, 25
PIECES = [b"\n", b" ", b"1", b".", b"\xc3\xa9", *(b" w%d" % i if i % 2 else b"c%d" % i for i in range(5, VOCAB))]
SLICES = ("type", "document", "context", "class", "kind")
NUMBERS = ["mean_difference_nats", "low", "high", "contribution_nats"]


class Pair:
    """Two runs of the same drawn tokens, a little different."""

    def __init__(self, folder):
        rng = np.random.default_rng(1)
        self.documents = document_numbers(rng, ROWS, DOCUMENTS)
        logits = draw_logits(rng, ROWS, VOCAB)
        self.targets = draw_targets(rng, logits)
        scale = np.where(np.arange(ROWS) % 10, 0.8, 4.0)[:, None]
        other = smoothed_logits(logits, 0.1) + scale * rng.standard_normal(logits.shape)
        other[np.arange(5, ROWS, 50), self.targets[5::50]] += 9.0  # some tokens are learned
        other[self.targets == 7] -= 3.0 * np.eye(VOCAB)[7]  # one entry is forgotten
        self.logits = logits, other
        self.fields = [{"kind": "abc"[n % 3]} if n % 4 else {} for n in range(DOCUMENTS)]
        self.runs = tuple(
            write_drawn(
                folder / name, z, self.targets, self.documents, name=name, fields=self.fields, vocabulary=PIECES
            ).run
            for name, z in (("old", logits), ("new", other))
        )
        self.token = 1 + np.arange(ROWS) - np.searchsorted(self.documents, self.documents)
        self.losses = np.stack([self.loss(z) for z in self.logits])
        self.d = self.losses[1] - self.losses[0]

    def loss(self, logits):
        nats = -log_probabilities(logits)[np.arange(ROWS), self.targets]
        return nats.astype(np.float32).astype(float)

    def groups(self, by):
        """Return the slice of each token, under the name in the table."""
        if by == "type":
            return np.array([PIECES[index].decode().replace("\n", "\\n") for index in self.targets])
        if by == "document":
            return self.documents.astype(str)
        if by == "context":
            octave = np.floor(np.log2(self.token)).astype(int)
            return np.array(["1" if k == 0 else f"{2**k}-{2 ** (k + 1) - 1}" for k in octave])
        if by == "kind":
            return np.array([self.fields[number].get("kind", "") for number in self.documents])
        frame = self.runs[0].query(f"SELECT document, token, {by} AS name FROM {class_source()} WHERE unscored IS NULL")
        return frame.sort_values(["document", "token"])["name"].to_numpy(str)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("pair"))


def leave_one_out(numbers, groups):
    """Return mean, interval and p of no difference, by leaving out one group after the other."""
    names = np.unique(groups)
    if len(names) < 2:
        return numbers.mean(), math.nan, math.nan, math.nan
    rest = np.array([numbers[groups != name].mean() for name in names])
    error = math.sqrt((len(rest) - 1) / len(rest) * ((rest - rest.mean()) ** 2).sum())
    half = student.ppf(0.975, len(rest) - 1) * error
    p = 2 * student.sf(abs(numbers.mean()) / error, len(rest) - 1)
    return numbers.mean(), numbers.mean() - half, numbers.mean() + half, p


def check_rows(pair, table, names):
    assert sorted(table["group"]) == sorted(set(names))
    for row in table.to_dict("records"):
        chosen = names == row["group"]
        mean, low, high, p = leave_one_out(pair.d[chosen], pair.documents[chosen])
        clusters = len(np.unique(pair.documents[chosen]))
        assert [row["tokens"], row["clusters"]] == [chosen.sum(), clusters]
        expected = [mean, low, high, pair.d[chosen].sum() / ROWS]
        assert [row[name] for name in NUMBERS] == pytest.approx(expected, abs=1e-7, nan_ok=True)
        tested = clusters >= TESTED_CLUSTERS
        assert row["p_value"] == pytest.approx(p if tested else math.nan, rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("by", [by for by in SLICES if by != "class"])
def test_every_slice_is_that_of_its_rows(pair, by):
    found = find_changes(*pair.runs, by, top=1000)
    check_rows(pair, found.table, pair.groups(by))
    assert set(found.table) - set(COLUMNS) == {"type": {"token_id"}, "document": {"source", "line", "begins"}}.get(
        by, set()
    )
    assert found.groups == len(found.table)
    check_family(found)
    check_whole(pair, found, found.table)


def test_classes_are_two_partitions_and_one_family(pair):
    found = find_changes(*pair.runs, "class")
    for kind, names in (("occurrence", ["first", "repeat"]), ("form", FORMS)):
        part = found.table[found.table["kind"] == kind]
        assert part["group"].tolist() == [name for name in names if name in set(part["group"])]
        check_rows(pair, part, pair.groups(kind))
        check_whole(pair, found, part)
    assert len(found.table) >= 8
    check_family(found)


def check_family(found):
    """Hold adjusted p-values against the definition, over all tests."""
    p = found.table["p_value"].to_numpy()
    existing = np.flatnonzero(~np.isnan(p))
    assert found.tests == len(existing)
    for index in existing:
        below = [p[j] * (p[existing] >= p[j]).sum() for j in existing if p[j] <= p[index]]
        assert found.table["p_holm"].iloc[index] == pytest.approx(min(1.0, max(below)), rel=1e-12)
    below_level = [pd.NA if math.isnan(value) else value < 0.05 for value in found.table["p_holm"]]
    assert found.table["significant"].astype(object).equals(pd.Series(below_level, dtype=object))


def check_whole(pair, found, table):
    assert (found.first, found.second, found.by) == ("old", "new", found.by)
    assert (found.tokens, found.left_out, table["tokens"].sum()) == (ROWS, 0, ROWS)
    assert found.mean_difference_nats == pytest.approx(pair.d.mean(), abs=1e-8)
    assert table["contribution_nats"].sum() == pytest.approx(found.mean_difference_nats, rel=1e-12)


def test_slices_come_with_the_largest_contribution_first_and_the_family_is_whole(pair):
    whole, found = find_changes(*pair.runs, "type", top=1000), find_changes(*pair.runs, "type", top=3)
    sizes = whole.table["contribution_nats"].abs()
    assert sizes.is_monotonic_decreasing
    pd.testing.assert_frame_equal(found.table, whole.table.head(3))
    assert (found.tests, found.groups) == (whole.tests, whole.groups) == (VOCAB, VOCAB)
    assert (
        f"p_holm: adjusted over {VOCAB} tests, one for each slice tested, those that are not shown included (Holm 1979)"
        in (found.notes)
    )
    forgotten = whole.table.set_index("group").loc[" w7"]
    assert forgotten["significant"]
    assert forgotten["token_id"] == 7
    assert forgotten["low"] > 0.5


def test_contexts_and_classes_are_all_shown_in_their_order(pair):
    assert find_changes(*pair.runs, "context", top=1).table["group"].tolist()[:4] == ["1", "2-3", "4-7", "8-15"]
    assert len(find_changes(*pair.runs, "class", top=1).table) > 1


def test_a_document_is_a_single_cluster(pair):
    found = find_changes(*pair.runs, "document", top=2)
    assert found.tests == 0
    assert found.table["low"].isna().all()
    assert not found.table["significant"].any()
    assert any(note.startswith("25 slices with tokens of fewer than 5 documents: not tested") for note in found.notes)
    assert not any("Holm" in note for note in found.notes)
    assert found.finding.startswith("new − old: no slice could be tested; largest contribution by document: “")
    row = found.table.iloc[0]
    assert (row["source"], row["line"]) == ("drawn.jsonl", int(row["group"]) + 1)
    assert row["begins"].startswith("\\n")


def test_a_long_document_alone_has_blocks(tmp_path):
    rng = np.random.default_rng(3)
    logits = draw_logits(rng, 9000, 6)
    targets, documents = draw_targets(rng, logits), np.zeros(9000, int)
    runs = [
        write_drawn(tmp_path / str(index), z, targets, documents, fields=[{"kind": "x"}]).run
        for index, z in enumerate((logits, smoothed_logits(logits, 0.3)))
    ]
    for by, name in (("document", "0"), ("kind", "x")):
        found = find_changes(*runs, by)
        assert found.interval_unit == "block"
        row = found.table.iloc[0]
        assert (row["group"], row["tokens"], row["clusters"]) == (name, 9000, 2)
        assert row["low"] < row["mean_difference_nats"] < row["high"]
        assert math.isnan(row["p_value"]), "two blocks are too few to test"


def test_many_slices_share_fewer_clusters(pair, monkeypatch):
    monkeypatch.setattr(slices_module, "MOST_CELLS", 10 * VOCAB)
    found = find_changes(*pair.runs, "type", top=1000)
    assert "intervals resample 10 groups of the 25 documents" in found.notes
    names = pair.groups("type")
    for row in found.table.to_dict("records"):
        chosen = names == row["group"]
        mean, low, high, _ = leave_one_out(pair.d[chosen], pair.documents[chosen] % 10)
        assert [row[name] for name in NUMBERS[:3]] == pytest.approx([mean, low, high], abs=1e-7, nan_ok=True)


@pytest.mark.parametrize("by", [*SLICES, "token"])
def test_where_batches_end_does_not_matter(pair, by, monkeypatch):
    whole = find_changes(*pair.runs, by, top=50)
    monkeypatch.setattr(reader, "BATCH_ROWS", 7)
    found = find_changes(*pair.runs, by, top=50)
    assert found.table.shape == whole.table.shape
    for name in whole.table:
        one, other = whole.table[name], found.table[name]
        if one.dtype.kind == "f":
            assert other.tolist() == pytest.approx(one.tolist(), rel=1e-9, abs=1e-12, nan_ok=True)
        else:
            assert other.tolist() == one.tolist()


@pytest.mark.parametrize("by", SLICES)
def test_a_run_against_itself_differs_in_nothing(pair, by):
    found = find_changes(pair.runs[0], pair.runs[0], by, top=1000)
    assert (found.first, found.second) == ("old #1", "old #2")
    several = found.table[found.table["clusters"] > 1]
    assert (several[NUMBERS] == 0.0).all(axis=None)
    assert (several.loc[several["clusters"] >= TESTED_CLUSTERS, ["p_value", "p_holm"]] == 1.0).all(axis=None)
    assert not found.table["significant"].any()
    assert found.finding == f"old #2 − old #1: no slice by {by} changed on average"


@pytest.mark.parametrize("by", SLICES)
def test_swapping_the_runs_flips_the_signs(pair, by):
    one, other = (find_changes(*runs, by, top=1000).table for runs in (pair.runs, pair.runs[::-1]))
    assert one["group"].tolist() == other["group"].tolist()
    for name, opposite in zip(NUMBERS, ["mean_difference_nats", "high", "low", "contribution_nats"], strict=True):
        assert one[name].tolist() == pytest.approx((-other[opposite]).tolist(), abs=1e-13, nan_ok=True)
    assert one["p_holm"].tolist() == pytest.approx(other["p_holm"].tolist(), rel=1e-9, nan_ok=True)


def test_the_largest_changes_of_single_tokens(pair):
    found = find_changes(*pair.runs, "token", top=30)
    order = np.argsort(-pair.d, kind="stable")
    expected = [*order[:30], *np.argsort(pair.d, kind="stable")[:30]]
    table = found.table
    assert table["direction"].tolist() == ["worse"] * 30 + ["better"] * 30
    assert table["document"].tolist() == pair.documents[expected].tolist()
    assert table["token"].tolist() == table["context"].tolist() == pair.token[expected].tolist()
    assert table["difference_nats"].tolist() == pytest.approx(pair.d[expected].tolist(), abs=1e-6)
    for number, name in enumerate(("first", "second")):
        assert table[f"{name}_loss_nats"].tolist() == pytest.approx(pair.losses[number][expected].tolist(), abs=1e-6)
        tops = [PIECES[index].decode().replace("\n", "\\n") for index in pair.logits[number][expected].argmax(axis=1)]
        assert table[f"{name}_top_text"].tolist() == tops
    assert table["text"].tolist() == pair.groups("type")[expected].tolist()
    assert (found.groups, found.tests, found.tokens) == (None, None, ROWS)
    assert found.mean_difference_nats == pytest.approx(pair.d.mean(), abs=1e-8)


def test_forgotten_and_learned(pair):
    one, other = pair.losses
    forgotten, learned = (one < 1) & (other > 3), (one > 3) & (other < 1)
    found = find_changes(*pair.runs, "token", top=4)
    assert (found.forgotten, found.learned) == (forgotten.sum(), learned.sum())
    assert found.forgotten > 4
    assert found.learned > 4
    assert found.examples["transition"].tolist() == ["forgotten"] * 4 + ["learned"] * 4
    assert found.examples["direction"].tolist() == ["worse"] * 4 + ["better"] * 4
    assert found.examples["difference_nats"].tolist() == pytest.approx(
        [*np.sort(pair.d[forgotten])[::-1][:4], *np.sort(pair.d[learned])[:4]], abs=1e-6
    )
    whole = find_changes(*pair.runs, "token", top=ROWS).table
    assert whole["transition"].value_counts().to_dict() == {
        "": len(whole) - forgotten.sum() - learned.sum(), "forgotten": forgotten.sum(), "learned": learned.sum()
    }  # fmt: skip
    assert "forgotten: from below 1 nat to above 3; learned: the other way round" in found.notes


def test_tokens_that_did_not_change_are_not_shown(make_run):
    runs = [
        make_run([words("first_token", 1, 4, 4), words("first_token", 1, last, 9)], name=name, copies=True)
        for name, last in (("old", 1), ("new", 6))
    ]
    found = find_changes(*runs, "token")
    assert found.table[["direction", "document", "token", "transition"]].to_numpy().tolist() == [
        ["worse", 1, 2, "forgotten"]
    ]
    row = found.table.iloc[0]
    assert (row["before"], row["characters"], row["after"]) == (" a b", " c", " d")
    assert row["difference_nats"] == pytest.approx(5 * LN2, rel=1e-6)
    assert found.finding == ("new − old: 1 token forgotten, 0 learned; largest change: “ c” from 0.69 to 4.16 nats")
    itself = find_changes(runs[0], runs[0], "token")
    assert list(itself.table) == list(itself.examples) == list(found.table)
    assert len(itself.table) == len(itself.examples) == 0
    assert itself.finding == "old #2 − old #1: no token changed"


def test_among_equal_changes_the_earlier_token_comes_first(make_run, monkeypatch):
    monkeypatch.setattr(reader, "BATCH_ROWS", 2)
    runs = [make_run([words("first_token", *[bits] * 6)] * 2) for bits in (1, 3)]
    table = find_changes(*runs, "token", top=3).table
    assert table[["document", "token"]].to_numpy().tolist() == [[0, 1], [0, 2], [0, 3]]


def test_a_run_without_text_shows_the_vocabulary(make_run):
    runs = [make_run([words("first_token", bits)], keep_text=False) for bits in (1, 3)]
    row = find_changes(*runs, "token").table.iloc[0]
    assert (row["text"], row["before"], row["characters"], row["after"]) == (" b", "", " b", "")
    assert find_changes(*runs, "document").table["begins"].tolist() == [""]


def test_bytes_of_a_character_stand_in_it(make_run):
    docs = [[Doc([b" a", b"\xe2\x80", b"\x99", b"s"], ["first_token", bits, 1, 1])] for bits in (1, 3)]
    row = find_changes(*(make_run(doc) for doc in docs), "token").table.iloc[0]
    assert (row["text"], row["before"], row["characters"], row["after"]) == ("\\xe2\\x80", " a", "’", "s")


@pytest.mark.parametrize("by", [*SLICES, "token"])
def test_only_tokens_that_both_scored_count(make_run, by):
    fields = {"kind": "x"}
    runs = [
        make_run([words("first_token", 1, hidden, 3, 4, fields=fields), words("first_token", 2, other, fields=fields)])
        for hidden, other in (("masked", 5), (2, "masked"))
    ]
    found = find_changes(*runs, by)
    assert (found.tokens, found.left_out) == (4, 2)
    assert "2 tokens that only one of them scored left out" in found.notes
    if by not in ("token", "class"):
        assert found.table["tokens"].sum() == 4


@pytest.mark.parametrize("by", [*SLICES, "token"])
def test_nothing_in_common_is_no_number(make_run, by):
    fields = {"kind": "x"}
    found = find_changes(
        *(make_run([words("first_token", *bits, fields=fields)]) for bits in ((1, "masked"), ("masked", 2))), by
    )
    assert (found.tokens, found.mean_difference_nats) == (0, None)
    assert found.table.empty
    assert "no token that both scored" in found.finding


def test_a_field_that_no_document_has_is_refused(pair):
    with pytest.raises(UsageError, match="no document has this field"):
        find_changes(*pair.runs, "nothing")


def test_a_token_without_a_vocabulary_entry_is_refused_by_class(make_run):
    runs = [make_run([words("first_token", 1, bits, 3)]) for bits in (1, 2)]
    file = runs[0].path / "vocabulary.parquet"
    table = pq.read_table(file)
    pq.write_table(table.filter(pa.compute.not_equal(table["token_id"], 3)), file)
    with pytest.raises(OutputError, match="a token's id is missing from the stored vocabulary"):
        find_changes(open_run(runs[0].path), runs[1], "class")


@pytest.mark.parametrize("by", ["token", "type", "class"])
def test_numbers_that_are_not_finite_are_refused(make_run, by):
    runs = [make_run([words("first_token", 1, 2)]) for _ in range(2)]
    file = runs[1].path / "tokens/part-00000.parquet"
    table = pq.read_table(file)
    losses = pa.array([None, 1.0, math.nan], pa.float32())
    pq.write_table(table.set_column(table.column_names.index("loss_nats"), "loss_nats", losses), file)
    with pytest.raises(OutputError, match="document 0, token 2"):
        find_changes(runs[0], open_run(runs[1].path), by)


def test_other_windows_are_said(pair, tmp_path):
    other = write_drawn(
        tmp_path / "short",
        pair.logits[1],
        pair.targets,
        pair.documents,
        fields=pair.fields,
        vocabulary=PIECES,
        context=8,
    ).run
    notes = find_changes(pair.runs[0], other, "context").notes
    assert notes[0].startswith("the runs differ in context (1024 and 8)")


def test_holm_as_in_a_list_by_hand():
    p = np.array([0.0125, math.nan, 0.05, 0.001, 0.02, 0.9])
    # sorted 0.001, 0.0125, 0.02, 0.05, 0.9, times 5, 4, 3, 2, 1: 0.005, 0.05, 0.06, 0.1, 0.9
    assert holm(p).tolist() == pytest.approx([0.05, math.nan, 0.1, 0.005, 0.06, 0.9], nan_ok=True)
    assert holm(np.array([0.4, 0.3])).tolist() == [0.6, 0.6]
    assert holm(np.array([math.nan])).tolist() == pytest.approx([math.nan], nan_ok=True)
    assert len(holm(np.zeros(0))) == 0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30), st.floats(0.001, 0.999))
def test_holm_rejects_what_stepping_down_rejects(p_values, level):
    """The rule as published: reject the smallest while p_(i) ≤ level / (m − i + 1), then stop."""
    p = np.array(p_values)
    rejected = np.zeros(len(p), bool)
    for step, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (len(p) - step) > level:
            break
        rejected[index] = True
    assert (holm(p) <= level).tolist() == rejected.tolist()


def test_groups_without_tokens_are_left_out():
    tokens = np.array([[0.0, 0.0], [2.0, 1.0], [0.0, 4.0]])
    found = mean_changes(np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 2.0]]), tokens)
    assert found["key"].tolist() == [1, 2]
    assert found["clusters"].tolist() == [2, 1]
    assert found["contribution_nats"].tolist() == pytest.approx([3 / 7, 2 / 7])
    assert mean_changes(np.zeros((2, 3)), np.zeros((2, 3))).empty


def test_a_change_that_is_the_same_everywhere_is_certain():
    found = mean_changes(np.full((1, 6), 0.5), np.ones((1, 6)))
    assert found[["mean_difference_nats", "low", "high", "p_value"]].iloc[0].tolist() == [0.5, 0.5, 0.5, 0.0]
