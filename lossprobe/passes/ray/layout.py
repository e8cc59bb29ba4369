"""How many workers a cluster has room for, and what each of them gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lossprobe.units import plural

CPU, GPU = "CPU", "GPU"  # Ray's names of what a node offers


@dataclass(frozen=True)
class Layout:
    """The workers of a session.

    Attributes:
        workers: most workers.
        threads: processors of each.
        gpus: GPUs of each, or the share of one.
        room: how many of them the nodes hold together.
    """

    workers: int
    threads: int
    gpus: float
    room: int


def layout_of(nodes: Sequence[dict[str, float]], asked: dict[str, Any]) -> Layout:
    """Return the workers for some nodes.

    Args:
        nodes: what each node offers, by Ray's names ("CPU", "GPU").
        asked: "workers", "threads" and "gpus", each a number or None for what suits the nodes; "device", where the
            model runs.

    Examples:
        >>> layout_of([{"CPU": 8.0}, {"CPU": 4.0}], {"workers": None, "threads": None, "gpus": None, "device": "cpu"})
        Layout(workers=3, threads=4, gpus=0.0, room=3)
        >>> layout_of([{"CPU": 8.0}, {"CPU": 8.0}], {"workers": 4, "threads": None, "gpus": None, "device": "cpu"})
        Layout(workers=4, threads=4, gpus=0.0, room=4)
        >>> layout_of([{"CPU": 8.0, "GPU": 2.0}], {"workers": None, "threads": None, "gpus": None, "device": "auto"})
        Layout(workers=2, threads=1, gpus=1.0, room=2)
    """
    on_gpus = asked["device"].startswith("cuda") or (
        asked["device"] == "auto" and any(node.get(GPU, 0) > 0 for node in nodes)
    )
    gpus = float(asked["gpus"]) if asked["gpus"] is not None else 1.0 if on_gpus else 0.0
    usable = [node for node in nodes if node.get(CPU, 0) >= 1 and node.get(GPU, 0) >= gpus]
    threads = asked["threads"] or (1 if gpus else _threads(usable, asked["workers"]))
    room = sum(_fitting(node, threads, gpus) for node in usable)
    return Layout(asked["workers"] or max(room, 1), threads, gpus, room)


def _threads(nodes: Sequence[dict[str, float]], workers: int | None) -> int:
    """Return the processors of a worker: those of the smallest node, shared by the workers that it has to hold."""
    if not nodes:
        return 1
    on_each = 1 if workers is None else -(-workers // len(nodes))
    return max(1, int(min(node[CPU] for node in nodes)) // on_each)


def _fitting(node: dict[str, float], threads: int, gpus: float) -> int:
    """Return how many workers a node holds."""
    by_threads = int(node[CPU] // threads)
    return min(by_threads, int(node.get(GPU, 0) / gpus + 1e-9)) if gpus else by_threads


def needs_of(threads: float, gpus: float) -> str:
    """Return what a worker takes or a node offers, in words.

    >>> needs_of(1, 0), needs_of(4, 0.5)
    ('1 processor', '4 processors and 0.5 GPUs')
    """
    return plural(int(threads), "processor") + (f" and {gpus:g} GPU{'' if gpus == 1 else 's'}" if gpus else "")
