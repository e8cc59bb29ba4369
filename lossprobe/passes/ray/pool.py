"""Keeps the workers of a session, gives them questions and parts, and gives the parts of lost workers to others.

A part is asked for from the process that plans only when a worker will need it, so that memory does not grow with the
number of parts. Ray starts a worker again that has ended (`max_restarts`), and repeats what the pool asks it first
(`max_task_retries`); a part is never repeated by Ray, which would wait for that worker, but goes to one that is free.
"""

from __future__ import annotations

import json
import pickle
import queue
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from lossprobe.passes.ray import faults
from lossprobe.passes.ray.layout import Layout, needs_of
from lossprobe.passes.ray.work import Actor, Work

STILL_WAITING = 10.0  # seconds without any worker after which it is told
SILENT, SILENT_TIMES = 20.0, 4  # seconds without a part, and times the longest wait before, after which it is told
AT_ONCE = 2  # parts of a worker: one that it scores, and one that lies ready
MOST_DEATHS = 5  # in a row, of one worker, or over one part
STARVED = "OutOfMemoryError"  # Ray's error for a worker that it ended for lack of memory
FOR_GOOD = ("ActorDiedError", STARVED)  # its errors for a worker that it may not start again
REPEATS = 2  # how often Ray itself repeats what a worker did not answer because it ended

Message = tuple[Any, ...]


class Pool:
    """The workers of a session, in one thread that handles one event after the other.

    Args:
        start: makes an actor of Ray, of the class `driver.Door`.
        layout: how many workers there are at most.
        versions: name → version of the libraries of the process that plans.
        name_of: returns a node in words, for its id.
        send: sends a message to the process that plans.

    Attributes:
        events: what happened: the name of a method without "on_", and its arguments; or "close".
    """

    def __init__(
        self,
        start: Callable[[], Any],
        layout: Layout,
        versions: dict[str, str],
        name_of: Callable[[str], str],
        send: Callable[[Message], None],
    ) -> None:
        self._start, self._layout, self._versions = start, layout, versions
        self._name_of, self._send = name_of, send
        self.events: queue.Queue[Message] = queue.Queue()
        self._actors: list[Actor] = []
        self._questions: deque[tuple[Any, ...]] = deque()
        self._work: Work | None = None
        self._tickets: dict[int, Any] = {}  # ticket → what Ray will give for it; tickets of lost workers are not here
        self._last_ticket = 0
        self._told = False  # that no worker has started yet

    def run(self) -> None:
        """Handle events until "close" comes."""
        while True:
            try:
                name, *values = self.events.get(timeout=STILL_WAITING)
            except queue.Empty:
                self._tell_what_is_waited_for()
                continue
            if name == "close":
                return
            getattr(self, f"on_{name}")(*values)
            self._give()

    def on_ask(self, question: str, *asked: bytes) -> None:
        """Let a worker answer a question."""
        self._questions.append((question, *asked))
        self._start_up_to(1)

    def on_begin(self, number: int, count: int, opening: bytes, agreed: dict[str, str], same: bytes) -> None:
        """Begin a pass; arguments as in `Work`."""
        self.on_end()
        self._work = Work(number, count, opening, agreed, same)
        self._start_up_to(count)

    def on_part(self, index: int, content: bytes) -> None:
        """Take a part that was asked for."""
        if self._work is not None:
            self._work.asked -= 1
            self._work.came += 1
            self._work.waiting.append(index)
            self._work.content[index] = content

    def on_end(self) -> None:
        """Forget the pass, and what workers still do for it."""
        self._work = None
        for actor in self._actors:
            actor.parts.clear()
            actor.stage = "new" if actor.stage == "new" else "idle"

    def on_done(self, ticket: int, answered: Callable[[Any], None], lost: Callable[[Exception], None]) -> None:
        """Handle what Ray gave for a ticket."""
        promise = self._tickets.pop(ticket, None)
        if promise is None:
            return
        error = promise.exception()
        if error is None:
            answered(promise.result())
        else:
            lost(error)

    def _call(
        self,
        method: Any,
        arguments: tuple[Any, ...],
        answered: Callable[[Any], None],
        lost: Callable[[Exception], None],
    ) -> int:
        """Call a method of an actor; its result is handled as an event. Returns the ticket."""
        self._last_ticket += 1
        ticket = self._last_ticket
        promise = method.remote(*arguments).future()
        self._tickets[ticket] = promise
        promise.add_done_callback(lambda _: self.events.put(("done", ticket, answered, lost)))
        return ticket

    def _start_up_to(self, count: int) -> None:
        """Start workers until there are as many as can be used."""
        while len(self._actors) < min(count, self._layout.workers):
            self._look(self._add())

    def _add(self) -> Actor:
        actor = Actor(self._start())
        self._actors.append(actor)
        return actor

    def _look(self, actor: Actor) -> None:
        """Ask a new worker where it is, and with which versions."""
        actor.stage = "new"
        method = actor.handle.look.options(max_task_retries=REPEATS)
        self._call(method, (), partial(self._looked, actor), partial(self._ended, actor, "started"))

    def _looked(self, actor: Actor, found: dict[str, Any]) -> None:
        actor.node = self._name_of(found["node"])
        missing = found.get("missing")
        if missing is not None:
            fault: Any = faults.missing_there(actor.node, missing)
        else:
            fault = faults.other_versions(actor.node, self._versions, found["versions"])
        if fault is not None:
            self._send(("failed", fault, ""))
        else:
            actor.stage = "idle"

    def _ended(self, actor: Actor, what: str, error: Exception) -> None:
        """Give back the parts of a worker that ended, and see whether Ray starts it again; if not, start another."""
        actor.deaths += 1
        actor.starved |= type(error).__name__ == STARVED
        self._give_back(actor)
        if actor.deaths >= MOST_DEATHS:
            self._send(("failed", faults.lost(what, actor.deaths, error, starved=actor.starved), actor.node))
            return
        if type(error).__name__ in FOR_GOOD:
            actor.handle = self._start()  # Ray ends the actor of the old handle, should it be there still
        self._look(actor)

    def _give_back(self, actor: Actor) -> None:
        for ticket in actor.parts:
            self._tickets.pop(ticket, None)
        if self._work is not None:
            self._work.waiting.extendleft(reversed(actor.parts.values()))
        actor.parts.clear()

    def _give(self) -> None:
        """Give questions and parts to the workers that can take them, and ask for more parts."""
        for actor in self._actors:
            if actor.stage != "new" and self._questions:
                question = self._questions.popleft()
                told = partial(self._answered, actor), partial(self._question_lost, actor, question)
                self._call(actor.handle.ask.options(max_task_retries=REPEATS), question, *told)
        work = self._work
        if work is None:
            return
        for actor in self._actors:
            if actor.stage == "idle":
                actor.stage = "opening"
                told = partial(self._opened, actor, work), partial(self._ended, actor, "opened the checkpoint")
                method = actor.handle.ask.options(max_task_retries=REPEATS)
                self._call(method, ("agreed", work.opening), *told)
        self._give_parts(work)
        ready = sum(actor.stage == "ready" for actor in self._actors)
        more = AT_ONCE * ready - self._given() - len(work.waiting) - work.asked
        more = min(more, work.count - work.came - work.asked)
        if more > 0:
            work.asked += more
            self._send(("want", work.number, more))

    def _give_parts(self, work: Work) -> None:
        """Give each worker one part, then each a second one unless a worker would go without for it."""
        given = self._given()
        without = sum(not actor.parts for actor in self._actors)
        for held in range(AT_ONCE):
            for actor in self._actors:
                if not work.waiting or actor.stage != "ready" or len(actor.parts) != held:
                    continue
                if held == 0 or work.count - work.done - given > without:
                    self._give_part(actor, work)
                    given += 1
                    without -= held == 0

    def _given(self) -> int:
        return sum(len(actor.parts) for actor in self._actors)

    def _give_part(self, actor: Actor, work: Work) -> None:
        index = work.waiting.popleft()
        arguments = "score", work.same, work.content[index]
        told = partial(self._scored, actor, work, index), partial(self._part_lost, actor, work, index)
        actor.parts[self._call(actor.handle.ask.options(max_task_retries=0), arguments, *told)] = index

    def _answered(self, actor: Actor, found: tuple[bool, bytes]) -> None:
        good, answer = found
        actor.deaths, actor.starved = 0, False
        self._send(("answer", answer) if good else ("failed", json.loads(answer), actor.node))

    def _question_lost(self, actor: Actor, question: tuple[Any, ...], error: Exception) -> None:
        self._questions.appendleft(question)
        self._ended(actor, "opened the checkpoint", error)

    def _opened(self, actor: Actor, work: Work, found: tuple[bool, bytes]) -> None:
        if work is not self._work:
            return
        good, answer = found
        fault = faults.disagreement(actor.node, work.agreed, pickle.loads(answer)) if good else json.loads(answer)
        if fault is None:
            actor.deaths, actor.starved, actor.stage = 0, False, "ready"
        else:
            self._send(("failed", fault, "" if good else actor.node))

    def _scored(self, actor: Actor, work: Work, index: int, found: tuple[bool, bytes]) -> None:
        if work is not self._work:
            return
        good, answer = found
        actor.deaths, actor.starved = 0, False
        actor.parts = {ticket: number for ticket, number in actor.parts.items() if number != index}
        del work.content[index]
        work.done += 1
        now = time.monotonic()
        work.longest_wait, work.heard = max(work.longest_wait, now - work.heard), now
        self._send(("scores", work.number, index, answer) if good else ("failed", json.loads(answer), actor.node))

    def _part_lost(self, actor: Actor, work: Work, index: int, error: Exception) -> None:
        """Note which part a worker scored when it ended; too many of them are the fault of the part."""
        if work is self._work and next(iter(actor.parts.values()), None) == index:
            work.losses[index] = work.losses.get(index, 0) + 1
            if work.losses[index] >= MOST_DEATHS:
                self._send(
                    (
                        "failed",
                        faults.lost(f"scored part {index}", MOST_DEATHS, error, starved=actor.starved),
                        actor.node,
                    )
                )
        self._ended(actor, "scored", error)

    def _tell_what_is_waited_for(self) -> None:
        """Tell once that no worker has started yet, and once in a pass that a machine with parts has gone silent."""
        work, new = self._work, [actor.stage == "new" for actor in self._actors]
        if new and all(new) and not self._told:
            self._told = True
            takes = needs_of(self._layout.threads, self._layout.gpus)
            self._send(("tell", f"Ray has started no worker yet; each takes {takes}, which others may be using"))
        elif work is not None and work.done and not work.told:
            silence = time.monotonic() - work.heard
            nodes = dict.fromkeys(actor.node for actor in self._actors if actor.parts)
            if nodes and silence > max(SILENT, SILENT_TIMES * work.longest_wait):
                work.told = True
                what = f"no part has come for {silence:.0f} s; waited for: {', '.join(nodes)}"
                self._send(("tell", f"{what}. Ray gives a machine up that has not answered for about a minute"))
