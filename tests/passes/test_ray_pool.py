"""The pool of a Ray session, with actors that are threads: no part is lost or kept back, whatever ends."""

import json
import pickle
import random
import threading
import time

import pytest
from ray_stand_in import ActorDiedError, ActorUnavailableError, OutOfMemoryError, StandInSession

from lossprobe.errors import ResourceError, UsageError
from lossprobe.passes.ray import pool
from lossprobe.passes.ray.session import scores_of

AGREED = {"kernels": "plain"}


def answers(number, question, *asked):
    """Answer as a worker would, with the number of a part as its scores."""
    found = AGREED if question == "agreed" else pickle.loads(asked[-1])
    return True, pickle.dumps(found)


def scored(session, count):
    """Return the numbers of the parts in the order in which their scores came."""
    session.begin("cpu")
    work = count, pickle.dumps(None), AGREED, pickle.dumps(None)
    found = list(scores_of(session, work, ((index, pickle.dumps(index)) for index in range(count))))
    session.close()
    assert all(index == scores for index, scores in found)
    return [index for index, _ in found]


@pytest.fixture
def session():
    made = []

    def make(workers=2, **choices):
        made.append(StandInSession(workers, answer=choices.pop("answer", answers), **choices))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_every_part_comes_back_once_and_few_are_outside_at_once(session):
    one = session(3)
    assert sorted(scored(one, 500)) == list(range(500))
    assert one.started == 3
    assert one.most <= 3 * 2, "memory does not grow with the number of parts"


def test_there_are_no_more_workers_than_parts(session):
    one = session(8)
    assert sorted(scored(one, 3)) == [0, 1, 2]
    assert one.started == 3


def test_no_worker_gets_a_second_part_while_another_is_without(session):
    """The second worker is slow to open the checkpoint; the first must leave a part to it."""
    by_worker: dict[int, list[int]] = {}
    opening = threading.Event()

    def slow(number, question, *asked):
        if question == "agreed" and number == 1:
            opening.wait(0.3)
        if question == "score":
            by_worker.setdefault(number, []).append(pickle.loads(asked[-1]))
            opening.wait(0.5)
        return answers(number, question, *asked)

    scored(session(2, answer=slow), 2)
    assert {number: len(parts) for number, parts in by_worker.items()} == {0: 1, 1: 1}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [ActorUnavailableError, ActorDiedError, OutOfMemoryError])
def test_parts_of_workers_that_end_go_to_others(session, kind, seed):
    draw, lives = random.Random(seed), {}

    def dies(number, question):
        # A worker answers eight questions between two ends, so that it never ends too often in a row.
        lives[number] = lives.get(number, 8) - 1
        if lives[number] > 0 or draw.random() < 0.5:
            return None
        lives[number] = 8
        return kind("gone")

    assert sorted(scored(session(4, dies=dies), 60)) == list(range(60))


def test_a_part_that_ends_every_worker_stops_the_pass(session):
    def dies(number, question):
        return ActorUnavailableError("Socket closed") if question == "score" else None

    with pytest.raises(
        ResourceError, match="5 workers in a row ended while they scored part 0: Socket closed"
    ) as raised:
        scored(session(1, dies=dies), 4)
    assert raised.value.id == "ray.lost"


def test_workers_that_end_for_lack_of_memory_are_told_as_here(session):
    with pytest.raises(ResourceError, match=r"^out of memory$") as raised:
        scored(session(2, dies=lambda number, question: OutOfMemoryError("1 worker(s) were killed")), 4)
    assert raised.value.id == "memory"


def test_other_versions_are_refused_by_name(session):
    with pytest.raises(UsageError, match=r"node-0: torch 2\.12\.1 there, 2\.13\.0 here") as raised:
        scored(session(1, versions={"torch": "2.12.1"}), 4)
    assert raised.value.id == "ray.versions"


def test_a_worker_of_another_kind_is_refused_by_name(session):
    def other(number, question, *asked):
        return (
            (True, pickle.dumps({"kernels": "packed body"}))
            if number == 1 and question == "agreed"
            else answers(number, question, *asked)
        )

    with pytest.raises(UsageError, match="node node-1: kernels is packed body there, plain for the first") as raised:
        scored(session(2, answer=other), 400)
    assert raised.value.id == "ray.disagree"


def test_a_failure_of_a_part_is_raised_here(session):
    told = {"kind": "CheckpointError", "id": "a.b", "reason": "loss is nan", "hint": "x", "subject": "m", "details": []}

    def failing(number, question, *asked):
        good = question != "score" or pickle.loads(asked[-1]) != 7
        return answers(number, question, *asked) if good else (False, json.dumps(told).encode())

    with pytest.raises(Exception, match="m: loss is nan") as raised:
        scored(session(2, answer=failing), 40)
    assert (raised.value.id, raised.value.hint, raised.value.exit_code) == ("a.b", "x", 3)


def test_two_passes_one_after_the_other_and_one_given_up(session):
    one = session(2)
    one.begin("cpu")
    work = 50, pickle.dumps(None), AGREED, pickle.dumps(None)
    parts = ((index, pickle.dumps(index)) for index in range(50))
    given_up = scores_of(one, work, parts)
    next(given_up)
    given_up.close()
    assert sorted(scored(one, 20)) == list(range(20))


def test_a_machine_that_goes_silent_is_told_once_and_by_name(session, monkeypatch):
    """A machine without its network answers nothing, and Ray takes a minute to give it up."""
    monkeypatch.setattr(pool, "STILL_WAITING", 0.05)
    monkeypatch.setattr(pool, "SILENT", 0.3)
    told, back, begun = [], threading.Event(), threading.Event()

    def cut_off(number, question, *asked):
        if question == "score":
            if number == 1:
                begun.set()
                back.wait(30)
            else:
                begun.wait(30)
        return answers(number, question, *asked)

    def tell(line):
        told.append(line)
        back.set()

    one = session(2, answer=cut_off)
    monkeypatch.setattr(one, "_tell", tell)
    assert sorted(scored(one, 20)) == list(range(20))
    (line,) = told
    assert "no part has come for 0 s; waited for: node-1. " in line


def test_a_model_that_is_slow_is_not_called_silent(session, monkeypatch):
    monkeypatch.setattr(pool, "STILL_WAITING", 0.02)
    monkeypatch.setattr(pool, "SILENT", 0.05)
    told = []

    def slow(number, question, *asked):
        if question == "score":
            time.sleep(0.2)
        return answers(number, question, *asked)

    one = session(1, answer=slow)
    monkeypatch.setattr(one, "_tell", told.append)
    scored(one, 4)
    assert told == []
