"""Steps that were written twice: by a restart, by several processes, or by several runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_logs import jsonl, points, read

from lossprobe.logs.log import LOSS, TRAIN, VALIDATION, Restart


def log_of(folder, *steps_and_losses):
    return read(folder, jsonl({"step": step, "loss": loss} for step, loss in steps_and_losses))


def test_a_restart_keeps_what_was_written_last(tmp_path):
    old = [(step, 5.0) for step in range(10, 110, 10)]
    new = [(step, 4.0) for step in range(60, 150, 10)]
    log = log_of(tmp_path, *old, *new)
    assert log.restarts == (Restart(last_step=100, next_step=60, rewritten=5),)
    assert points(log.find(TRAIN, LOSS)) == old[:5] + new
    log = log_of(tmp_path, *old, *new[:2])
    assert points(log.find(TRAIN, LOSS)) == old[:5] + new[:2], "what was given up is gone"
    assert any("3 rows" in note for note in log.notes)


def test_two_restarts(tmp_path):
    parts = [(range(1, 31), 5.0), (range(21, 51), 4.0), (range(41, 61), 3.0)]
    log = log_of(tmp_path, *[(step, loss) for steps, loss in parts for step in steps])
    assert log.restarts == (Restart(30, 21, 10), Restart(50, 41, 10))
    expected = [(step, 5.0 if step < 21 else 4.0 if step < 41 else 3.0) for step in range(1, 61)]
    assert points(log.find(TRAIN, LOSS)) == expected


def test_an_evaluation_first_after_a_restart_belongs_to_what_follows(tmp_path):
    text = "".join(
        f"step {step}: train loss 3.0, val loss {loss}\niter {step}: loss {loss}, time 3ms, mfu 1.00%\n"
        for step, loss in [(0, 4.0), (100, 3.5), (200, 3.0), (100, 3.6), (200, 3.1), (300, 2.9)]
    )
    log = read(tmp_path, text)
    assert points(log.find(VALIDATION, LOSS)) == [(0, 4.0), (100, 3.6), (200, 3.1), (300, 2.9)]
    assert log.restarts == (Restart(200, 100, 2),)


def test_processes_that_share_a_file_are_averaged(tmp_path):
    rows = [(step, loss) for step in range(10, 210, 10) for loss in (3.0, 3.5)]
    rows[4], rows[5] = rows[5], rows[4]
    rows[7], rows[8] = rows[8], rows[7]  # one process is ahead
    log = log_of(tmp_path, *rows)
    assert points(log.find(TRAIN, LOSS)) == [(step, 3.25) for step in range(10, 210, 10)]
    assert log.restarts == ()
    assert any("several processes" in note for note in log.notes)


def test_processes_that_share_a_file_and_restart(tmp_path):
    steps = [*range(10, 500, 10), *range(300, 700, 10)]
    rows = [(step, loss) for step in steps for loss in (2.0, 4.0)]
    log = log_of(tmp_path, *rows)
    assert log.restarts == (Restart(490, 300, 20),)
    assert points(log.find(TRAIN, LOSS)) == [(step, 3.0) for step in range(10, 700, 10)]


@pytest.mark.parametrize(("lengths", "chosen"), [((2, 40), 1), ((40, 2), 0), ((20, 20), 1)])
def test_of_several_runs_the_longest_is_read_and_the_others_told(tmp_path, lengths, chosen):
    log = log_of(tmp_path, *[(step, float(run)) for run, length in enumerate(lengths) for step in range(1, length + 1)])
    assert points(log.find(TRAIN, LOSS)) == [(step, float(chosen)) for step in range(1, lengths[chosen] + 1)]
    assert any(f"{lengths[1 - chosen]} rows" in note for note in log.notes)
    assert log.restarts == ()


@pytest.mark.parametrize("factor", [-1, 27])
def test_rows_in_another_order_are_put_in_order(tmp_path, factor):
    rows = [(step, 5 - step / 100) for step in range(1, 51)]
    log = log_of(tmp_path, *[rows[factor * index % 50] for index in range(1, 51)])
    assert points(log.find(TRAIN, LOSS)) == rows
    assert "order" in log.notes[0]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_every_series_has_each_step_once_and_in_order(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("logs")
    log = read(folder, jsonl({"step": step, "loss": index / 7, "epoch": step / 9} for index, step in enumerate(steps)))
    series = log.find(TRAIN, LOSS)
    assert (np.diff(series.steps) > 0).all()
    assert set(series.steps.tolist()) <= set(steps)
    assert len(series.values) == len(series.epochs) == len(series.steps)
    if steps == sorted(set(steps)):
        assert points(series) == [(step, index / 7) for index, step in enumerate(steps)]
    else:
        assert log.notes or log.restarts or len(set(steps)) < len(steps), "nothing is lost silently"


def test_bits_are_told_by_their_ratio(tmp_path):
    rows = [{"step": i, "loss": (4 - i / 10) / np.log(2), "eval_train_loss": 4 - i / 10, "val_loss": 4.1 - i / 20}
            for i in range(10)]  # fmt: skip
    log = read(tmp_path, jsonl(rows))
    assert log.find(TRAIN, LOSS).values == pytest.approx([row["eval_train_loss"] for row in rows])
    assert sum("in bits" in note for note in log.notes) == 1
    fairseq = [{"num_updates": i, "loss": str(8 - i), "ppl": str(2 ** (8 - i))} for i in range(6)]
    assert points(read(tmp_path, jsonl(fairseq)).find(TRAIN, LOSS))[0] == (0, pytest.approx(8 * np.log(2)))
    rows = [{"step": i, "loss": 4.0 - i / 5, "val_loss": 4.0 - i / 20} for i in range(10)]
    log = read(tmp_path, jsonl(rows))
    assert log.find(TRAIN, LOSS).values == pytest.approx([row["loss"] for row in rows]), "over-fitting is no unit"
    assert not log.notes
