"""What is no log: one line each, with an id and what it shows."""

import io
import json
import sys
from pathlib import Path

import pytest
from written_logs import jsonl, points, read

from lossprobe.errors import UsageError
from lossprobe.logs.log import LOSS, TRAIN
from lossprobe.logs.read import read_log


@pytest.mark.parametrize(
    ("content", "id", "says"),
    [
        (b"", "log.empty", "0 bytes"),
        (b"\n \n", "log.kind", "no training log"),
        (b"once upon a time\n" * 9, "log.kind", "no line has a step"),
        (json.dumps({"model_type": "llama"}).encode(), "log.kind", "without a log_history"),
        (b'{"a":' * 100_000, "log.unreadable", "nested too deeply"),
        (b'{"a": 1, "b": [1, 2\n', "log.unreadable", "is no JSON"),
        (b"[" * 100_000, "log.kind", "no training log"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "log.kind", "a PNG picture"),
        (b"PK\x03\x04" + bytes(100), "log.kind", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n", "log.kind", "Git LFS pointer"),
        ((40).to_bytes(8, "little") + b'{"__metadata__":{}}' + bytes(range(99)), "log.kind", "safetensors"),
        (bytes(range(256)) * 20, "log.kind", "control codes"),
        (b"x" * (17 << 20), "log.line", "16,777,216"),
        (b'{"step": 1, "acc": 0.5}\n{"step": 2, "acc": 0.6}\n', "log.no_loss", "step, acc"),
        (b'{"step": 1, "loss": "bad"}\n{"step": 2, "loss": "worse"}\n', "log.number", "'bad', no number"),
        (b"step,loss\n1,abc\n", "log.number", "'abc', no number"),
        (json.dumps({"log_history": []}).encode(), "log.no_loss", "0 records"),
    ],
)
def test_each_gets_its_error(tmp_path, content, id, says):
    with pytest.raises(UsageError, match=says) as error:
        read(tmp_path, content, name="the.log")
    assert error.value.id == id
    assert "the.log" in error.value.message
    assert "\n" not in error.value.message


def test_names_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="no number named nope") as error:
        read(tmp_path, jsonl([{"step": 1, "loss": 3.0}] * 2), {"loss": "nope"})
    assert error.value.id == "log.columns"
    assert "step, loss" in error.value.hint


def test_a_missing_file_and_a_folder_without_a_log(tmp_path):
    with pytest.raises(UsageError, match="No such file") as error:
        read_log(tmp_path / "nothing")
    assert error.value.id == "log.unreadable"
    (tmp_path / "a.bin").write_bytes(b"1")
    with pytest.raises(UsageError, match=r"1 file \(a\.bin\)") as error:
        read_log(tmp_path)
    assert error.value.id == "log.no_files"


def test_the_newest_checkpoint_of_a_folder(tmp_path):
    for step in (500, 1500):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        history = [{"step": each, "loss": 3.0} for each in range(500, step + 1, 500)]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    log = read_log(tmp_path)
    assert len(points(log.find(TRAIN, LOSS))) == 3
    assert log.path == tmp_path / "checkpoint-1500" / "trainer_state.json"
    assert len(points(read_log(tmp_path / "checkpoint-500").find(TRAIN, LOSS))) == 1


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Epoch 1: Loss = 4.234\n")))
    assert points(read_log(Path("-")).find(TRAIN, LOSS)) == [(1, 4.234)]
    sys.stdin.close()
    with pytest.raises(UsageError, match="pipe a log into it"):
        read_log(Path("-"))


def test_an_empty_log_history_is_said_to_be_empty(tmp_path):
    with pytest.raises(UsageError, match="its log_history has 0 records") as error:
        read(tmp_path, json.dumps({"log_history": [], "global_step": 5}))
    assert "logging steps" in error.value.hint


def test_one_scalar_that_tensorboard_exported_says_how_it_is_read(tmp_path):
    table = "Wall time,Step,Value\n1700000000.5,10,3.5\n1700000001.5,20,3.25\n"
    with pytest.raises(UsageError) as error:
        read(tmp_path, table)
    assert "`columns` step=Step,loss=Value" in error.value.hint
    assert points(read(tmp_path, table, {"step": "Step", "loss": "Value"}).find(TRAIN, LOSS)) == [(10, 3.5), (20, 3.25)]
