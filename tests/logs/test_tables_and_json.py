"""JSON, JSON Lines, tables and the names that a user gives."""

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from written_logs import jsonl, points, read

from lossprobe.errors import UsageError
from lossprobe.logs.jsonl import _add_fast, _parsed
from lossprobe.logs.log import LEARNING_RATE, LOSS, TRAIN, VALIDATION
from lossprobe.logs.objects import Objects
from lossprobe.logs.read import read_log
from lossprobe.logs.records import Table

ROWS = [{"step": step, "loss": 3 - step / 100, "lr": 1e-3} for step in range(1, 21)]
EXPECTED = [(row["step"], row["loss"]) for row in ROWS]


def as_list(values):
    return [None if math.isnan(value) else value for _, value in values]


@pytest.mark.parametrize(
    "encoded",
    [
        jsonl(ROWS).encode(),
        jsonl(ROWS).replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + jsonl(ROWS).encode(),
        jsonl(ROWS).encode("utf-16"),
        gzip.compress(jsonl(ROWS).encode()),
        jsonl(ROWS).encode().replace(b"}\n", b"}\n\0\0"),
        b"INFO start\n" + jsonl(ROWS).encode() + b'{"step": 21, "lo',
        json.dumps(ROWS, indent=1).encode(),
        json.dumps({"log_history": ROWS}).encode(),
        json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode(),
        b"step,loss,lr\n" + b"".join(f"{r['step']},{r['loss']},1e-3\n".encode() for r in ROWS),
        b"step;loss;lr\n" + b"".join(f"{r['step']};{r['loss']};1e-3\n".replace(".", ",").encode() for r in ROWS),
    ],
)
def test_one_log_in_many_encodings(tmp_path, encoded):
    log = read(tmp_path, encoded)
    assert points(log.find(TRAIN, LOSS)) == EXPECTED
    assert points(log.find(TRAIN, LEARNING_RATE))[0] == (1, 1e-3)
    assert not log.steps_counted


def test_numbers_as_text_and_what_is_no_number(tmp_path):
    rows = [{"step": "1", "loss": "3.5"}, {"step": "2", "loss": "NaN"}, {"step": "3", "loss": "Infinity"}]
    assert as_list(points(read(tmp_path, jsonl(rows)).find(TRAIN, LOSS))) == [3.5, None, math.inf]
    bare = '{"step": 1, "loss": 3.5}\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": Infinity}\n'
    assert as_list(points(read(tmp_path, bare).find(TRAIN, LOSS))) == [3.5, None, math.inf]


def test_a_null_loss_is_nan_beside_what_stands_beside_a_loss(tmp_path):
    rows = [{"step": i, "loss": 3.0 if i < 9 else None, "grad_norm": 1.0 if i < 9 else None} for i in range(1, 12)]
    assert as_list(points(read(tmp_path, jsonl(rows)).find(TRAIN, LOSS))) == [3.0] * 8 + [None] * 3
    rows = [
        {"step": i, "loss": None if i % 5 == 0 else 3.0, "val_loss": 2.5 if i % 5 == 0 else None} for i in range(1, 11)
    ]
    log = read(tmp_path, jsonl(rows))
    assert as_list(points(log.find(TRAIN, LOSS))) == [3.0] * 8
    assert points(log.find(VALIDATION, LOSS)) == [(5, 2.5), (10, 2.5)]


def test_nan_between_validations_was_not_measured(tmp_path):
    rows = [{"step": i, "loss": 3.0, "val_loss": 2.5 if i % 5 == 0 else math.nan} for i in range(1, 21)]
    log = read(tmp_path, jsonl(rows))
    assert points(log.find(VALIDATION, LOSS)) == [(5, 2.5), (10, 2.5), (15, 2.5), (20, 2.5)]
    assert any("16 rows" in note for note in log.notes)
    rows = [{"step": i, "loss": 3.0, "val_loss": 2.5 if i < 5 else math.nan} for i in range(1, 21)]
    assert len(points(read(tmp_path, jsonl(rows)).find(VALIDATION, LOSS))) == 20, "it became NaN and stayed so"


def test_a_loss_of_zero_with_a_gradient_that_is_nan_is_nan(tmp_path):
    history = [
        {"step": 1, "loss": 3.0, "grad_norm": 1.0}, {"step": 2, "loss": 0.0, "grad_norm": math.nan},
        {"step": 3, "loss": 0.0, "grad_norm": 0.0}, {"step": 3, "train_runtime": 5.0, "train_loss": 1.0},
    ]  # fmt: skip
    log = read(tmp_path, json.dumps({"log_history": history}))
    assert as_list(points(log.find(TRAIN, LOSS))) == [3.0, None, 0.0], "0 with a gradient of 0 is a loss of 0"


def test_a_record_without_a_step_has_that_of_the_one_before(tmp_path):
    history = [
        {"step": 500, "epoch": 0.9, "loss": 1.1}, {"step": 549, "epoch": 1.0, "eval_loss": 0.66},
        {"epoch": 1.0, "predict_loss": 0.65}, {"step": 1000, "epoch": 1.8, "loss": 0.9},
    ]  # fmt: skip
    log = read(tmp_path, json.dumps({"log_history": history}))
    assert points(log.find("test", LOSS)) == [(549, 0.65)]
    assert points(log.find(VALIDATION, LOSS)) == [(549, 0.66)]
    assert log.find(TRAIN, LOSS).epochs.tolist() == [0.9, 1.8]


def test_lightning_reads_the_loss_of_the_step_and_the_validation_of_the_epoch(tmp_path):
    text = "epoch,step,train_loss_epoch,train_loss_step,val_loss\n0,49,,7.6,\n0,99,,7.5,\n0,99,,,4.1\n0,99,6.1,,\n"
    log = read(tmp_path, text)
    assert log.kind == "lightning"
    assert points(log.find(TRAIN, LOSS)) == [(49, 7.6), (99, 7.5)], "steps from 0 stay as they are"
    assert points(log.find(VALIDATION, LOSS)) == [(99, 4.1)]
    assert points(log.find(TRAIN, "train_loss_epoch")) == [(99, 6.1)]


def test_the_count_of_rows_that_pandas_writes_is_no_quantity(tmp_path):
    log = read(tmp_path, ",step,loss\n0,10,3.5\n1,20,3.25\n")
    assert [(each.key, points(each)) for each in log.series] == [("loss", [(10, 3.5), (20, 3.25)])]


def test_an_export_of_wandb_reads_one_run_without_its_ranges(tmp_path):
    text = '"Step","a - train/loss","a - train/loss__MIN","b - train/loss"\n"10","3.2","3.1","9"\n"20","3.1","3.1",""\n'
    log = read(tmp_path, text)
    assert points(log.find(TRAIN, LOSS)) == [(10, 3.2), (20, 3.1)]
    assert len(log.series) == 1
    assert any("2 runs" in note for note in log.notes)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("it,tr\n5,3.25\n6,3.0\n", {"step": "it", "loss": "tr"}),
        ('{"it": 5, "tr": 3.25}\n{"it": 6, "tr": 3.0}\n', {"step": "it", "loss": "tr"}),
        ("# it loss\n5 3.25\n6 3.0\n", {"step": "1", "loss": "2"}),
        ("5,9,3.25\n6,9,3.0\n", {"step": "1", "loss": "3"}),
        ("It 5 ... Loss: 3.25 foo\nnothing\nIt 6 ... Loss: 3.0\n", {"step": "It", "loss": "Loss:"}),
    ],
)
def test_the_user_says_what_is_what(tmp_path, text, columns):
    assert points(read(tmp_path, text, columns).find(TRAIN, LOSS)) == [(5, 3.25), (6, 3.0)]


def test_the_users_loss_goes_before_the_logs_own(tmp_path):
    log = read(tmp_path, jsonl([{"step": 1, "loss": 3.0, "ce": 2.0}]), {"loss": "ce"})
    assert [each.key for each in log.series if each.name == LOSS] == ["ce"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(
    st.sampled_from(["step", "loss", "val_loss", "grad_norm", "note"]),
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 5), st.floats(-9, 9), st.sampled_from(["a", "1.5", "nan", "1_0"]),
    ),
), max_size=12))  # fmt: skip
@example([{"step": False, "val_loss": None}, {"step": False, "val_loss": False}])
def test_the_fast_parser_and_pythons_read_the_same(rows):
    block = jsonl(rows).encode()
    fast, slow = Table(), Table()
    if not rows or not _add_fast(block, Objects(fast)):
        return
    Objects(slow).add_block(_parsed(block.splitlines()))
    one, other = fast.records("x").columns, slow.records("x").columns
    assert one.keys() == other.keys()
    for key, column in one.items():
        np.testing.assert_array_equal(column.rows, other[key].rows)
        np.testing.assert_array_equal(column.values, other[key].values)


def test_a_loss_that_is_no_number_is_told(tmp_path):
    log = read(tmp_path, jsonl([*ROWS, {"step": 21, "loss": "abc"}]))
    assert points(log.find(TRAIN, LOSS)) == EXPECTED
    assert log.notes == ("loss is 'abc' in a row, no number: such rows are left out",)


def test_a_quantity_that_is_none_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="`columns` names los, which is no quantity of a log") as error:
        read(tmp_path, jsonl(ROWS), columns={"los": "loss"})
    assert error.value.hint == "did you mean loss?"


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"vocab_size": 512}, 512),
        ({"vocab_size": 9, "text_config": {"vocab_size": 7}}, 7),
        ({}, None),
        ("no JSON", None),
    ],
)
def test_the_vocabulary_of_the_model_beside_a_trainer_state(tmp_path, config, size):
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": ROWS}))
    assert read_log(tmp_path).vocabulary == size
    assert read(tmp_path, jsonl(ROWS)).vocabulary is None


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('step,loss\n"1,000","2,345"\n"2,000","2,25"\n', [(1000, 2.345), (2000, 2.25)]),
        ("step\tloss\n1,000\t2,345\n2,000\t2,250\n", [(1000, 2.345), (2000, 2.25)]),
        ('step,loss\n"1,000","1,234.5"\n999,987.5\n', [(1000, 1234.5), (999, 987.5)]),
        ('step,loss\n"1,000","1,234"\n"2,000",987\n', [(1000, 1234), (2000, 987)]),
    ],
)
def test_commas_in_the_numbers_of_a_table(tmp_path, table, expected):
    assert sorted(points(read(tmp_path, table).find(TRAIN, LOSS))) == sorted(expected)


@pytest.mark.parametrize("cell", ["1.234,5", "1,5,7", "2.5,"])
def test_a_cell_that_is_no_number_with_commas_stays_none(tmp_path, cell):
    with pytest.raises(UsageError, match="no number"):
        read(tmp_path, f"step;loss\n1;{cell}\n2;{cell}\n")
