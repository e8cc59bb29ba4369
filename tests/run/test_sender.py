"""The thread that puts parts to object storage: in order, few at a time, and what fails is told at the next part."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from lossprobe.errors import OutputError
from lossprobe.run import sender
from lossprobe.run.sender import Sender

STOPPED = OutputError("output.write", "no connection")


@pytest.fixture
def made():
    senders = []

    def make(send):
        senders.append(Sender(send))
        return senders[-1]

    yield make
    for each in senders:
        each.stop()


def part(index):
    return [f"tokens/{index}", f"ladder/{index}"], f"plan/{index}"


def add_all(one, parts):
    for index in parts:
        one.add(*part(index))


def test_parts_are_sent_in_order_and_each_record_after_its_files(made):
    sent = []
    one = made(lambda names: (time.sleep(0.002), sent.append(list(names))))
    add_all(one, range(20))
    one.finish()
    assert sent == [group for index in range(20) for group in (part(index)[0], [part(index)[1]])]


def test_the_caller_goes_on_until_enough_parts_wait(made):
    free, reached, last = threading.Event(), [], threading.Event()
    one = made(lambda names: free.wait(30))

    def score():
        for index in range(sender.WAITING + 2):
            one.add(*part(index))
            reached.append(index)
            if index == sender.WAITING - 1:
                last.set()

    caller = threading.Thread(target=score)
    caller.start()
    assert last.wait(30), "as many parts as may wait do not stop the caller"
    caller.join(0.2)
    assert caller.is_alive(), "one more does"
    assert reached == list(range(sender.WAITING))
    free.set()
    caller.join(30)
    one.finish()
    assert not caller.is_alive()


def test_a_failure_is_told_at_the_next_part_and_nothing_is_sent_after_it(made):
    sent, tried = [], threading.Event()

    def send(names):
        if names == ["plan/1"]:
            tried.set()
            raise STOPPED
        sent.extend(names)

    one = made(send)
    one.add(*part(0))
    one.add(*part(1))
    assert tried.wait(30)
    with pytest.raises(OutputError, match="no connection"):
        add_all(one, range(2, 50))
    assert sent == ["tokens/0", "ladder/0", "plan/0", "tokens/1", "ladder/1"]


def test_a_failure_of_the_last_part_is_told_at_the_end(made):
    def send(names):
        raise STOPPED

    one = made(send)
    one.add(*part(0))
    with pytest.raises(OutputError, match="no connection"):
        one.finish()


def test_who_is_stopped_sends_no_more_and_waits_for_one_request_alone(made):
    """Ctrl-C while the caller waits for a store that answers slowly."""
    sent, begun, answered = [], threading.Event(), threading.Event()

    def send(names):
        sent.append(list(names))
        begun.set()
        answered.wait(30)

    one = made(send)
    add_all(one, range(sender.WAITING))
    assert begun.wait(30)

    def finish():
        threading.Timer(0.05, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
        one.finish()

    with pytest.raises(KeyboardInterrupt):
        finish()
    threading.Timer(0.05, answered.set).start()
    one.stop()
    assert sent == [part(0)[0]]
