"""What the pool of workers knows of each worker, and of the pass that runs."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Actor:
    """One worker.

    Attributes:
        handle: Ray's handle.
        node: where it runs, in words.
        stage: "new", "idle", "opening" (the checkpoint of the pass) or "ready" (for its parts).
        parts: ticket → number of the parts that it was given; it scores the first one.
        deaths: how often it ended since it last answered.
        starved: whether Ray ended it for lack of memory one of these times.
    """

    handle: Any
    node: str = ""
    stage: str = "new"
    parts: dict[int, int] = field(default_factory=dict)
    deaths: int = 0
    starved: bool = False


@dataclass(eq=False)
class Work:
    """The pass that runs.

    Attributes:
        number: number of the pass in the session; messages about it have it.
        count: number of its parts.
        opening: the pickled question that opens the checkpoint.
        agreed: what opening it must find.
        same: the pickled argument that all parts have.
        waiting: parts that no worker has.
        content: number → pickled part, of those that came and are not scored.
        came, asked, done: parts that came, that were asked for and have not come, and that are scored.
        losses: number → how often a worker ended that scored it.
        heard, longest_wait: when the last part was scored, and the longest time between two, in seconds.
        told: whether it was told that none has come for long.
    """

    number: int
    count: int
    opening: bytes
    agreed: dict[str, str]
    same: bytes
    waiting: deque[int] = field(default_factory=deque)
    content: dict[int, bytes] = field(default_factory=dict)
    came: int = 0
    asked: int = 0
    done: int = 0
    losses: dict[int, int] = field(default_factory=dict)
    heard: float = field(default_factory=time.monotonic)
    longest_wait: float = 0.0
    told: bool = False
