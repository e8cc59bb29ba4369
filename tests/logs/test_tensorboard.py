"""TensorBoard's event files, written by torch and by hand."""

import base64
import math
import zlib

import pytest
from written_logs import event, events, points, read, record

from lossprobe.errors import UsageError
from lossprobe.logs.log import LEARNING_RATE, LOSS, TRAIN, VALIDATION
from lossprobe.logs.read import read_log

# torch.utils.tensorboard: train/loss as simple_value, eval/loss as a tensor of float32 and float64, and a text.
BY_TORCH = (
    "c-r$|fPjCKJmzwCTkq7kcIcL)6mL>dVrHJ6YguYuiIq{19+yr@YF=@EQBr<lQHox1X>M*}QKepaQD#YMkzOiDReV}zPHH?vWY5x~UkXrjHQ%lb"
    ";Dj(g*b8uJ33CZ@ag~5f*U!l>E*52A2yoc=GiR?RRK5BCcm`zkGF(zz!cg_8iA8ytdFk;*i6yB(jSTj#jAuIxp&I8lH@}2xWN-j#RN+$M;!G_|"
    "%mLfu#KFO+#lpal;NZp0#mU89oSc}GSXBJs>%E8eP)&hA#mEL2aT#z4=H-{9>X)Qel*B_l?Ig&-F2o|l#KGvqUX+@fUzVEU#lgkK#R5{aSN%Z%"
    "7LRi{2#8?u_<?#q4T(fksQPP1W1k_b*Wgk^c0UgXlMx3@8pRLSPAg~w089{a!v"
)


def test_what_torch_writes(tmp_path):
    log = read(tmp_path, zlib.decompress(base64.b85decode(BY_TORCH)))
    assert log.kind == "tensorboard"
    (first, second) = points(log.find(TRAIN, LOSS))
    assert first == (10, 3.25)
    assert second[0] == 20
    assert math.isnan(second[1])
    assert points(log.find(VALIDATION, LOSS)) == [(10, 3.5), (20, 3.0)], "scalars that are tensors"
    assert points(log.find(TRAIN, LEARNING_RATE)) == [(10, 0.5)]


def test_the_last_event_of_a_step_counts_and_an_evaluation_may_be_out_of_step(tmp_path):
    log = read(tmp_path, events(
        (0, "eval/loss", 5.0), (500, "train/loss", 4.0), (313, "eval/loss", 4.5), (1000, "train/loss", 3.0),
        (1000, "train/train_loss", 3.5), (1000, "train/epoch", 2.0), (1000, "train/epoch", 3.0),
    ))  # fmt: skip
    assert points(log.find(TRAIN, LOSS)) == [(500, 4.0), (1000, 3.0)]
    assert points(log.find(VALIDATION, LOSS)) == [(0, 5.0), (313, 4.5)]
    assert log.find(TRAIN, LOSS).epochs[-1] == 3.0
    assert log.restarts == ()


def test_a_damaged_event_is_left_out_and_a_broken_end_told(tmp_path):
    damaged = bytearray(record(event(2, "loss", 9.0)))
    damaged[-6] ^= 1
    whole = events((1, "loss", 4.0)) + bytes(damaged) + events((3, "loss", 2.0))
    log = read(tmp_path, whole + events((4, "loss", 1.0))[:-9])
    assert points(log.find(TRAIN, LOSS)) == [(1, 4.0), (3, 2.0)]
    assert any("1 record left out: the checksum is wrong" in note for note in log.notes)
    assert any("broken off" in note for note in log.notes)


def test_a_folder_of_events_is_one_run_in_the_order_of_time(tmp_path):
    name = "events.out.tfevents.{}.host"
    (tmp_path / name.format(200)).write_bytes(events((2, "loss", 2.5), (3, "loss", 2.0)))
    (tmp_path / name.format(100)).write_bytes(events((1, "loss", 4.0), (2, "loss", 3.0)))
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / name.format(150)).write_bytes(events((2, "loss", 3.5)))
    log = read_log(tmp_path)
    assert points(log.find(TRAIN, LOSS)) == [(1, 4.0), (2, 2.5), (3, 2.0)]
    assert points(log.find(VALIDATION, LOSS)) == [(2, 3.5)]
    assert log.restarts == ()


def test_of_several_runs_in_folders_the_newest_is_read(tmp_path):
    for version, value in ((1, 4.0), (2, 3.0)):
        folder = tmp_path / f"version_{version}"
        folder.mkdir()
        (folder / f"events.out.tfevents.{version}00.host").write_bytes(events((1, "train_loss", value)))
    log = read_log(tmp_path)
    assert points(log.find(TRAIN, LOSS)) == [(1, 3.0)]
    assert any("version_2 is read" in note for note in log.notes)


def test_no_scalar_at_all(tmp_path):
    with pytest.raises(UsageError, match="no loss in 0 records"):
        read(tmp_path, record(b"\x1a\x0dbrain.Event:2"))
