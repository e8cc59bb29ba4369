"""A session of Ray without Ray: the real pool and the real worker, whose actors are threads that a test can let die."""

from __future__ import annotations

import itertools
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from lossprobe.passes.engine_options import EngineOptions
from lossprobe.passes.ray.layout import Layout
from lossprobe.passes.ray.pool import Pool
from lossprobe.passes.ray.session import RaySession
from lossprobe.passes.worker import Worker

VERSIONS = {"torch": "2.13.0"}


class ActorUnavailableError(Exception):
    """Has the name of Ray's error for an actor that is being started again."""


class ActorDiedError(Exception):
    """Has the name of Ray's error for an actor that is not started again."""


class OutOfMemoryError(Exception):
    """Has the name of Ray's error for a worker that it ended for lack of memory."""


class ThreadActor:
    """An actor that works in a thread.

    Args:
        number: how many there were before.
        answer: what answers its questions: the `answer` of a `Worker`.
        dies: called with the actor's number, the question and how often any was asked; returns the error with which
            the actor ends at this question, or None.
        versions: what is installed there.
    """

    def __init__(self, number, answer, dies, versions):
        self.number, self._answer, self._dies, self._versions = number, answer, dies, versions
        self._thread = ThreadPoolExecutor(1)
        self.look, self.ask = _Method(self, self._look), _Method(self, self._ask)

    def _look(self):
        return {"node": f"node-{self.number}", "versions": self._versions}

    def _ask(self, question, *asked):
        return self._answer(self.number, question, *asked)


class _Method:
    def __init__(self, actor, function):
        self._actor, self._function = actor, function

    def options(self, **choices):
        return self

    def remote(self, *arguments):
        def work():
            error = self._actor._dies(self._actor.number, arguments[0] if arguments else "look")
            if error is not None:
                raise error
            return self._function(*arguments)

        return _Reference(self._actor._thread.submit(work))


class _Reference:
    def __init__(self, future: Future):
        self._future = future

    def future(self) -> Future:
        return self._future


def never(number, question):
    return None


class StandInSession(RaySession):
    """A session whose pool runs in a thread of this process.

    Attributes:
        started: number of actors that were started.
        most: most parts that were outside of this side at once.
    """

    def __init__(self, workers=2, *, dies=never, versions=VERSIONS, answer=None):
        super().__init__(EngineOptions("ray"), lambda line: None)
        self._to_us: queue.Queue = queue.Queue()
        self._numbers = itertools.count()
        self._workers: dict[int, Worker] = {}
        self._answer = answer or self._by_worker
        self._dies, self._there = dies, versions
        self.sent = self.got = self.most = 0
        layout = Layout(workers, 1, 0.0, workers)
        self.pool = Pool(self._start_actor, layout, VERSIONS, lambda id: id, self._to_us.put)
        threading.Thread(target=self.pool.run, daemon=True).start()

    @property
    def started(self) -> int:
        return len(self._workers)

    def _start_actor(self):
        number = next(self._numbers)
        self._workers[number] = Worker()
        return ThreadActor(number, self._answer, self._dies, self._there)

    def _by_worker(self, number, question, *asked):
        return self._workers[number].answer(question, *asked)

    def begin(self, device):
        self._link = self  # `receive` reads from it

    def recv(self):
        message = self._to_us.get(timeout=30)
        self.got += message[0] == "scores"
        return message

    def send(self, message):
        self.sent += message[0] == "part"
        self.most = max(self.most, self.sent - self.got)
        self.pool.events.put(message)

    def close(self):
        self.pool.events.put(("close",))
