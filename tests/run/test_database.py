"""Queries that are stopped by a signal."""

import signal
import threading

import numpy as np
import pytest
from fake_runs import words, write_run

from lossprobe.cli.main import run
from lossprobe.run.database import new_database, reading
from lossprobe.run.reader import Run

ENDLESS = "SELECT sum(sin(i)) FROM range(1_000_000_000_000_000) AS numbers(i)"


@pytest.fixture
def send():
    """Return a function that sends a signal to this process while it does what follows."""
    timers = []

    def later(sent: signal.Signals) -> None:
        timers.append(threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, sent)))
        timers[-1].start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    yield later
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGINT, before)


def test_a_query_that_ctrl_c_stops_raises_what_ctrl_c_raises(tmp_path, send):
    """DuckDB itself raises a RuntimeError in its place."""
    connection = new_database()
    send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), reading(tmp_path):
        connection.execute(ENDLESS).fetchone()


def test_other_errors_inside_a_query_are_kept(tmp_path):
    with pytest.raises(RuntimeError, match="another one"), reading(tmp_path):
        raise RuntimeError("another one")


@pytest.mark.parametrize(
    ("sent", "code", "how"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_command_that_is_stopped_in_a_query_says_so(tmp_path, monkeypatch, capsys, send, sent, code, how):
    stored_run = write_run(tmp_path / "run", [words("first_token", 1.0, 2.0)])
    columns = Run.columns

    def endless(stored, *_given):
        send(sent)
        return columns(stored, ENDLESS)

    monkeypatch.setattr(Run, "columns", endless)
    assert run(["hardest", str(stored_run.path), "-q"]) == code
    assert capsys.readouterr().err.endswith(f"lossprobe: error[{how}]: {how}; repeat the command\n")


@pytest.mark.parametrize(
    ("value", "other", "held"),
    [
        ("0.1::FLOAT", "0.1", np.float32),
        ("0.1::DOUBLE", "0.1", float),
        ("9007199254740992::BIGINT", "9007199254740992.0", float),
        ("9007199254740993::BIGINT", "9007199254740993", object),
        ("(-9007199254740993)::BIGINT", "-9007199254740993", object),
        ("18446744073709551615::UBIGINT", "18446744073709551615", object),
        ("7::UTINYINT", "7.0", float),
        ("true", "True", object),
        ("'a'", "a", object),
        ("DATE '2020-01-02'", "2020-01-02T00:00:00.000000", "M8[us]"),
        ("INTERVAL 2 DAY", "172800000000 microseconds", "m8[us]"),
    ],
)
def test_plain_columns_hold_every_value_beside_an_absent_one(tmp_path, value, other, held):
    stored_run = write_run(tmp_path / "run", [words("first_token", 1.0, 2.0)])
    column = stored_run.columns(f"SELECT * FROM (VALUES ({value}), (NULL)) AS rows(x)")["x"]
    assert column.dtype == held
    assert str(column[0]) == other
    assert column[1] is None if held is object else bool(np.isnan(column[1]))
