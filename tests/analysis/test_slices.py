"""Calibration of slices: against plain loops over the rows, and against what is true of drawn runs."""

import math

import numpy as np
import pandas as pd
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn
from scipy.stats import chi2, norm

from lossprobe.analysis.calibration import slices as slices_module
from lossprobe.analysis.calibration.slices import COLUMNS, TARGETS, calibrate_slices
from lossprobe.analysis.rows import clusters as clusters_module
from lossprobe.analysis.rows.token_classes import FORMS, class_source
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.errors import UsageError

VOCABULARY = [
    b"\n", b" the", b".", b"ing", b"<|endoftext|>", b" 7", b"  ", b"er", b" a", b"<pad>", "é".encode(), b"\n\n",
    *[b" w%d" % index for index in range(20)], *[b"x%d" % index for index in range(28)],
]  # fmt: skip
SPECIAL = {4, 9}
NUMBERS = COLUMNS[4:]
Z_LIMIT = norm.isf(0.5e-4)  # 3.9


def draw(folder, rows=3000, documents=12, seed=0, **choices):
    """Return a run of a perfectly calibrated model whose documents have a field, `kind`: 0, 1, 2 or none."""
    rng = np.random.default_rng(seed)
    logits = draw_logits(rng, rows, len(VOCABULARY))
    numbers = document_numbers(rng, rows, documents)
    fields = [{} if number % 4 == 3 else {"kind": str(number % 4)} for number in range(documents)]
    given = {"vocabulary": VOCABULARY, "special": SPECIAL, "fields": fields} | choices
    return write_drawn(folder, logits, draw_targets(rng, logits), numbers, **given).run


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn") / "run", rows=30_000, documents=60, context=256)


def scored_rows(run, source=None) -> pd.DataFrame:
    """Return the scored rows with x, o and what else the formulas need, in float64."""
    rows = run.query(f"SELECT * FROM {source or 'tokens'} WHERE unscored IS NULL ORDER BY document, token")
    rows = rows.assign(x=rows["top_prob"].astype(float), o=(rows["top_id"] == rows["token_id"]).astype(float))
    return rows.astype(dict.fromkeys(("loss_nats", "entropy_nats", "varentropy", "sum_p2"), float))


def plain_measures(part: pd.DataFrame) -> dict[str, float]:
    """Return the columns of one slice from their definitions, one token after the other."""
    x, o, count = part["x"].to_numpy(), part["o"].to_numpy(), len(part)
    p = np.exp(-part["loss_nats"])
    excess = part["loss_nats"] - part["entropy_nats"]
    bins = np.minimum((x * 15).astype(int), 14)
    own = [bins == b for b in range(15)]
    sums = [group[["x", "o"]].sum() for _, group in part.groupby("document")]
    found = jackknife_ratio([s["x"] - s["o"] for s in sums], part.groupby("document").size())
    return {
        "count": count,
        "clusters": part["document"].nunique(),
        "mean_loss_nats": part["loss_nats"].mean(),
        "accuracy": o.mean(),
        "mean_confidence": x.mean(),
        "confidence_gap": (x - o).mean(),
        "low": np.nan if found.interval.low is None else found.interval.low,
        "high": np.nan if found.interval.high is None else found.interval.high,
        "gap_z": (x - o).sum() / math.sqrt((x * (1 - x)).sum()),
        "nll_minus_entropy_nats": excess.mean(),
        "excess_z": excess.sum() / math.sqrt(part["varentropy"].sum()),
        "ece": sum(abs((x - o)[b].sum()) for b in own) / count,
        "ece_noise_floor": sum(math.sqrt(2 / math.pi * (x * (1 - x))[b].sum()) for b in own) / count,
        "brier": (part["sum_p2"] - 2 * p + 1).mean(),
    }


def groups_of(rows: pd.DataFrame, by: str) -> list[str]:
    """Return the name of each row's slice, in plain Python."""
    if by == "context":
        octaves = [2 ** (int(context).bit_length() - 1) for context in rows["context"]]
        return [str(k) if k == 1 else f"{k}-{min(2 * k - 1, 100)}" for k in octaves]  # of a run with context 100
    if by == "kind":
        return ["" if number % 4 == 3 else str(number % 4) for number in rows["document"]]
    if by == "class":
        return rows["predicted_form"].tolist()
    if by == "frequency":
        pairs = list(zip(rows["document"], rows["top_id"], strict=True))
        targets = list(zip(rows["document"], rows["token_id"], strict=True))
        elsewhere = {pair: sum(pair[1] == y and pair[0] != d for d, y in targets) for pair in set(pairs)}
        counts = [elsewhere[pair] for pair in pairs]
        return ["0" if c == 0 else f"{10 ** (len(str(c)) - 1)}-{10 ** len(str(c)) - 1}" for c in counts]
    return rows["document"].astype(str).tolist()


@pytest.mark.parametrize("by", ["context", "kind", "document", "class", "frequency"])
def test_every_number_is_that_of_its_rows(tmp_path, by):
    run = draw(tmp_path / "run", context=100, rows_per_part=700)
    rows = scored_rows(run, class_source())
    names = groups_of(rows, by)
    table = calibrate_slices(run, by).table
    place = ["source", "line"] if by == "document" else []  # beside the number of the document
    assert table.columns.tolist() == [COLUMNS[0], *place, *COLUMNS[1:]]
    assert (table["count"].dtype, table["clusters"].dtype) == (np.int64, np.int64)
    known = table[table["conditioned_on"] != "target"]
    expected = rows.groupby(names)
    assert set(known["group"]) == set(names)
    assert known["count"].sum() == len(rows) == 3000
    for row in known.to_dict("records"):
        for name, value in plain_measures(expected.get_group(row["group"])).items():
            assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), (row["group"], name)
    if by == "class":
        assert set(known["group"]) == set(FORMS)
        for row in table[table["conditioned_on"] == "target"].to_dict("records"):
            plain = plain_measures(rows[rows["form"] == row["group"]])
            assert row["count"] == plain["count"] > 0
            absent = ("gap_z", "excess_z", "ece", "ece_noise_floor")
            for name in NUMBERS:
                value = np.nan if name in absent else plain[name]
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), (row["group"], name)


def test_order_and_what_chose_a_slice(calibrated):
    tables = {
        by: calibrate_slices(calibrated, by).table for by in ("context", "kind", "document", "class", "frequency")
    }
    assert tables["context"]["group"].tolist() == [
        "1", "2-3", "4-7", "8-15", "16-31", "32-63", "64-127", "128-255", "256",
    ]  # fmt: skip
    numbers = [int(group.split("-")[0]) for group in tables["frequency"]["group"]]
    assert numbers == sorted(numbers)
    assert numbers[-1] >= 1000
    for by in ("kind", "document"):
        assert tables[by]["count"].is_monotonic_decreasing
    assert tables["class"]["group"].tolist() == [*FORMS, *TARGETS]
    assert tables["class"]["conditioned_on"].tolist() == ["prediction"] * len(FORMS) + ["target"] * 3
    chosen = {"context": "context", "kind": "field", "document": "document", "frequency": "prediction"}
    for by, condition in chosen.items():
        assert set(tables[by]["conditioned_on"]) == {condition}


def test_slices_of_equal_size_are_in_the_order_of_their_names(tmp_path):
    rng = np.random.default_rng(0)
    logits = draw_logits(rng, 24, 5)
    fields = [{"kind": name} for name in ("b", "c", "a", "b")] + [{}] * 8
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), np.arange(24) // 2, fields=fields).run
    assert calibrate_slices(run, "kind").table["group"].tolist() == ["", "b", "a", "c"]  # of 16, 4, 2 and 2 tokens
    assert calibrate_slices(run, "document").table["group"].tolist() == [str(number) for number in range(12)]


@pytest.mark.parametrize("by", ["context", "kind", "document", "class", "frequency"])
def test_a_calibrated_model_has_no_gap_in_any_slice_known_before_the_token(calibrated, by):
    table = calibrate_slices(calibrated, by).table
    table = table[table["conditioned_on"] != "target"]
    for name in ("gap_z", "excess_z"):
        z = table[name].to_numpy()
        assert abs(z).max() < Z_LIMIT
        assert chi2.ppf(0.001, len(z)) < (z**2).sum() < chi2.isf(0.001, len(z))
    large = table[table["count"] > 1000]
    assert (large["ece"] < 2 * large["ece_noise_floor"]).all()


def test_slices_by_the_target_have_gaps_even_for_a_calibrated_model(calibrated):
    # Why the rule exists: the model is exactly right, and z would say that it is hopeless.
    rows = scored_rows(calibrated, class_source())
    table = calibrate_slices(calibrated, "class").table.set_index(["conditioned_on", "group"])
    plain = plain_measures(rows[rows["form"] == "newline"])
    assert plain["gap_z"] < -10
    assert plain["excess_z"] < -10
    assert table.loc["target", "newline"]["confidence_gap"] == pytest.approx(plain["confidence_gap"])
    assert abs(table.loc["prediction", "newline"]["gap_z"]) < Z_LIMIT
    assert table.loc["target"][["gap_z", "excess_z", "ece", "ece_noise_floor"]].isna().all(axis=None)
    notes = calibrate_slices(calibrated, "class").notes
    assert len(notes) == 3  # an empty cell by target is no certain prediction
    assert "chosen by the outcome" in notes[1]
    assert "no end of text is added after a document" in notes[2]


def test_a_frequency_that_counts_the_token_itself_would_be_chosen_by_the_outcome(tmp_path):
    rng = np.random.default_rng(1)
    logits = draw_logits(rng, 2000, 1000, tail=0.0)
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), np.arange(2000) // 200).run
    rows = scored_rows(run)
    never = rows[~rows["top_id"].isin(set(rows["token_id"]))]
    assert plain_measures(never)["accuracy"] == 0.0  # a first choice that comes nowhere is never right
    assert plain_measures(never)["gap_z"] > Z_LIMIT
    row = calibrate_slices(run, "frequency").table.iloc[0]
    assert row["group"] == "0"
    assert row["count"] > len(never)
    assert row["accuracy"] > 0
    assert abs(row["gap_z"]) < Z_LIMIT


def test_a_slice_that_is_not_calibrated_is_found(tmp_path):
    rng = np.random.default_rng(2)
    truth = draw_logits(rng, 12_000, len(VOCABULARY))
    documents = np.arange(12_000) // 120
    context = np.arange(12_000) % 120 + 1
    targets = draw_targets(rng, truth)

    def gaps(says, by):
        run = write_drawn(tmp_path / f"{by}-run", says, targets, documents, vocabulary=VOCABULARY, special=SPECIAL).run
        table = calibrate_slices(run, by).table
        return table[table["conditioned_on"] != "target"].set_index("group")

    far = gaps(np.where(context[:, None] >= 64, tempered_logits(truth, 0.6), truth), "context")
    assert far.loc["64-127", "gap_z"] > 10
    assert far.loc["64-127", "excess_z"] > 10
    assert far.loc["64-127", "low"] > 0
    assert far.loc["64-127", "ece"] > 3 * far.loc["64-127", "ece_noise_floor"]
    assert abs(far.drop("64-127")[["gap_z", "excess_z"]]).max(axis=None) < Z_LIMIT
    unsure = np.isin(truth.argmax(axis=1), [0, 11])[:, None]  # where a newline is expected, it says so too meekly
    newline = gaps(np.where(unsure, tempered_logits(truth, 1.7), truth), "class")
    assert newline.loc["newline", "gap_z"] < -10
    assert newline.loc["newline", "high"] < 0
    assert abs(newline.drop("newline")["gap_z"]).max() < Z_LIMIT


def three_tokens(folder, **choices):
    """Return a run with confidence 3/4 three times: right and wrong in document 0, right in document 1."""
    logits = np.log([[3.0, 1.0]] * 3)
    return write_drawn(folder, logits, np.array([0, 1, 0]), np.array([0, 0, 1]), **choices).run


def test_a_slice_worked_out_by_hand(tmp_path):
    row = calibrate_slices(three_tokens(tmp_path / "run"), "frequency").table.iloc[0]
    assert (row["group"], row["count"], row["clusters"]) == ("1-9", 3, 2)  # id 0 came once in the other document
    n = math.log(4)
    entropy = n - 0.75 * math.log(3)
    assert row["mean_loss_nats"] == pytest.approx(n - 2 / 3 * math.log(3), rel=1e-6)
    assert row["accuracy"] == pytest.approx(2 / 3)
    assert row["confidence_gap"] == pytest.approx(0.75 - 2 / 3)
    # Without document 0 the gap is -1/4, without document 1 it is 1/4: SE² = (2 - 1) · 1/16, t(1) = 12.7062.
    assert row["low"] == pytest.approx(1 / 12 - 12.706205 / 4, rel=1e-6)
    assert row["high"] == pytest.approx(1 / 12 + 12.706205 / 4, rel=1e-6)
    assert row["gap_z"] == pytest.approx(0.25 / math.sqrt(3 * 3 / 16))
    assert row["nll_minus_entropy_nats"] == pytest.approx(row["mean_loss_nats"] - entropy, rel=1e-6)
    # The logits differ by log 3: W = 3/16 · (log 3)².
    assert row["excess_z"] == pytest.approx(0.25 * math.log(3) / math.sqrt(9 / 16 * math.log(3) ** 2), rel=1e-5)
    assert row["ece"] == pytest.approx(1 / 12)
    assert row["ece_noise_floor"] == pytest.approx(math.sqrt(2 / math.pi * 9 / 16) / 3)
    assert row["brier"] == pytest.approx((2 / 8 + 9 / 8) / 3)


def test_frequencies_are_counted_in_other_documents_only(tmp_path):
    tops = [0, 0, 1, 2, 2, 0]
    targets = [0, 1, 1, 1, 0, 3]
    documents = [0, 0, 0, 0, 1, 2]
    logits = 2.0 * np.eye(4)[tops]
    run = write_drawn(tmp_path / "run", logits, np.array(targets), np.array(documents)).run
    table = calibrate_slices(run, "frequency")
    # Elsewhere: 0 once (document 1) and for document 2 twice; 1 and 2 never.
    assert table.table[["group", "count", "clusters"]].to_numpy().tolist() == [["0", 3, 2], ["1-9", 3, 2]]
    assert "counted in the other documents" in " ".join(table.notes)
    alone = calibrate_slices(
        write_drawn(tmp_path / "one", logits, np.array(targets), np.zeros(6, int)).run, "frequency"
    )
    # Beside the token itself: 0 once for the row that it came in, else twice; 1 twice; 2 never.
    assert alone.table[["group", "count", "clusters"]].to_numpy().tolist() == [["0", 2, 1], ["1-9", 4, 1]]
    assert "without the token itself" in " ".join(alone.notes)
    assert "what came once comes again" in " ".join(alone.notes)
    single = write_drawn(tmp_path / "once", logits[:1], np.array([0]), np.array([0])).run
    assert calibrate_slices(single, "frequency").table["group"].tolist() == ["0"]  # it came, but only there


def test_frequencies_in_one_long_document_are_counted_in_other_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters_module, "BLOCK_TOKENS", 10)
    rng = np.random.default_rng(4)
    logits = draw_logits(rng, 39, 20)
    targets = draw_targets(rng, logits)
    result = calibrate_slices(write_drawn(tmp_path / "run", logits, targets, np.zeros(39, int)).run, "frequency")
    block = (np.arange(39) + 1) // 10
    tops = logits.argmax(axis=1)
    elsewhere = [int(((targets == top) & (block != own)).sum()) for top, own in zip(tops, block, strict=True)]
    expected = pd.Series(["0" if n == 0 else "1-9" if n < 10 else "10-99" for n in elsewhere]).value_counts()
    assert len(expected) > 1
    assert result.table.set_index("group")["count"].to_dict() == expected.to_dict()
    assert "one document: intervals resample 4 blocks" in result.notes[0]
    assert result.table["low"].notna().any()
    text = " ".join(result.notes)
    assert "counted in the other blocks" in text
    assert "what came once comes again" in text


@pytest.mark.parametrize(
    ("by", "group"), [("context", "1"), ("document", "0"), ("kind", "a"), ("class", "word start"), ("frequency", "0")]
)
def test_one_document_of_one_token(tmp_path, by, group):
    logits = np.log([[3.0, 1.0]])
    run = write_drawn(
        tmp_path / "run", logits, np.array([0]), np.array([0]), vocabulary=[b" a", b"b"], fields=[{"kind": "a"}]
    ).run
    result = calibrate_slices(run, by)
    row = result.table.iloc[0]
    assert (row["group"], row["count"], row["clusters"]) == (group, 1, 1)
    assert row["confidence_gap"] == pytest.approx(-0.25)
    assert row["gap_z"] == pytest.approx(-0.25 / math.sqrt(3 / 16))
    assert row[["low", "high"]].isna().all()
    assert result.notes[0] == "one document of fewer than 8,192 tokens: no interval can be given"
    assert not any("slice" in note and "single" in note for note in result.notes)  # the first note has said it
    if by == "class":
        rest = result.table.iloc[1:]
        assert rest["group"].tolist() == list(TARGETS)
        assert rest[["count", "clusters"]].to_numpy().tolist() == [[0, 0]] * 3
        assert rest[list(NUMBERS)].isna().all(axis=None)
    else:
        assert len(result.table) == 1


def test_a_document_in_a_slice_of_its_own_has_no_interval_and_a_note(tmp_path):
    result = calibrate_slices(three_tokens(tmp_path / "run"), "document")
    assert result.table["group"].tolist() == ["0", "1"]
    assert result.table["low"].isna().all()
    assert result.table["gap_z"].notna().all()
    assert result.notes == ["2 slices with tokens of a single document: no interval can be given, read gap_z"]


def test_certain_predictions_have_no_z(tmp_path):
    logits = np.array([[900.0, 0.0], [900.0, 0.0], [900.0, 0.0], [1.0, 0.0]])
    run = write_drawn(tmp_path / "run", logits, np.zeros(4, int), np.array([0, 1, 1, 2]), fields=[{"a": 1}] * 2 + [{}])
    result = calibrate_slices(run.run, "a")
    certain, other = result.table.to_dict("records")
    assert (certain["group"], certain["accuracy"], certain["confidence_gap"], certain["ece"]) == ("1", 1.0, 0.0, 0.0)
    assert (certain["low"], certain["high"], certain["ece_noise_floor"]) == (0.0, 0.0, 0.0)
    assert math.isnan(certain["gap_z"])
    assert math.isnan(certain["excess_z"])
    assert other["gap_z"] < 0
    assert "gap_z, excess_z: n/a where every prediction is certain" in result.notes


@pytest.mark.parametrize("name", ["nope", "') OR TRUE --", "/kind", "Context"])
def test_a_field_that_no_document_has_is_refused(calibrated, name):
    with pytest.raises(UsageError) as caught:
        calibrate_slices(calibrated, name)
    assert (caught.value.id, caught.value.exit_code) == ("fields.missing", 2)


def test_many_documents_are_merged_where_every_slice_may_hold_them_all(tmp_path, monkeypatch):
    run = draw(tmp_path / "run")
    before = {by: calibrate_slices(run, by).table for by in ("context", "class", "frequency", "kind", "document")}
    monkeypatch.setattr(slices_module, "MOST_CLUSTERS", 2)
    for by, whole in before.items():
        table = calibrate_slices(run, by).table
        same = [name for name in COLUMNS if name not in ("low", "high", "clusters")]
        pd.testing.assert_frame_equal(table[same], whole[same], rtol=1e-12)
        if by in ("kind", "document"):
            pd.testing.assert_frame_equal(table, whole)
        else:
            assert table["clusters"].max() == 2
            assert whole["clusters"].max() == 12
            known = table["clusters"] > 1
            assert table.loc[known, "low"].notna().all()
            assert not np.isclose(table.loc[known, "low"], whole.loc[known, "low"]).any()


def test_a_reader_of_many_slices_is_told_what_chance_does(calibrated, tmp_path):
    expected = "of 60 slices, about 3 have |gap_z| > 1.96 by chance alone"
    assert expected in calibrate_slices(calibrated, "document").notes
    assert calibrate_slices(calibrated, "kind").notes == []
    assert calibrate_slices(calibrated, "context").notes == []
    assert len(calibrate_slices(calibrated, "frequency").notes) == 2
