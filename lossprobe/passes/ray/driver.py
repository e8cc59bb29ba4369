"""The process that talks to Ray, between the process that plans and the workers.

Ray writes to the standard streams of its driver, handles its signals, and ends it where the head of the cluster is
gone. All that happens here, and the process that plans sees only that this one has ended. It also works in the folder
"/": Ray puts the working folder of its driver before all others on the import path of every worker, where a torch.py
beside a checkpoint would be run.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from lossprobe.passes.ray import faults
from lossprobe.passes.ray.layout import CPU, GPU, layout_of, needs_of
from lossprobe.passes.ray.pool import Message, Pool

HEAD_LOOKED_AT = 3.0  # seconds between two looks whether the head is there
HEAD_GONE = 4  # looks in a row without an answer after which it counts as gone
OBJECTS_OF_A_WORKER, OBJECTS_LEAST = 32 << 20, 256 << 20  # bytes of Ray's store that a Ray of our own reserves
RESTARTS = 2  # of one actor, by Ray; the pool then starts another. Without a limit Ray would not say why one ended
STARTED, LOST = "started", 3


class Door:
    """The class of every actor. It is sent by value, so that a node without lossprobe can still say so.

    Args:
        threads: processors that torch and its like use.
    """

    def __init__(self, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported; Ray itself sets it to another number
        self._worker: Any = None
        self._agreed = False

    def look(self) -> dict[str, Any]:
        """Return the id of the node, and the versions of what is installed there, or why lossprobe is missing."""
        import ray

        found: dict[str, Any] = {"node": ray.get_runtime_context().get_node_id()}
        try:
            from lossprobe.environment import settle_environment

            settle_environment()
            from lossprobe.passes.identity import versions
            from lossprobe.passes.worker import Worker
        except Exception as error:  # noqa: BLE001 - whatever another installation raises
            return {**found, "missing": f"{type(error).__name__}: {error}"}
        self._worker = self._worker or Worker()
        return {**found, "versions": versions()}

    def ask(self, question: str, *asked: bytes) -> tuple[bool, bytes]:
        """Return what the worker answers; see `worker.Worker.answer`.

        Raises:
            RuntimeError: Ray started this actor again, perhaps on another node, and nobody has looked at it since.
        """
        if self._worker is None or (question == "score" and not self._agreed):
            raise RuntimeError("started again, and not looked at since")
        answer: tuple[bool, bytes] = self._worker.answer(question, *asked)
        self._agreed |= question == "agreed"
        return answer


class Link:
    """The connection to the process that plans; several threads may send.

    Args:
        connection: the connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message; if nobody reads any more, the reader finds out."""
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                return

    def read_into(self, pool: Pool) -> None:
        """Turn messages into events of a pool until the other side closes the connection."""
        try:
            while True:
                pool.events.put(self._connection.recv())
        except (EOFError, OSError):
            pool.events.put(("close",))


def main(number: int) -> None:
    """Run the process, with the connection in the file descriptor `number`."""
    connection = Connection(number)
    link = Link(connection)
    settings: dict[str, Any] = connection.recv()
    os.environ.update(settings["environment"])
    import ray

    where = settings["address"] or "this machine"
    try:
        _join(ray, settings)
        pool = _pool(ray, settings, link)
    except Exception as error:  # noqa: BLE001 - Ray raises many, also plain ones
        link.send(("failed", faults.not_joined(where, error), ""))
        return
    if pool is not None:
        threading.Thread(target=link.read_into, args=(pool,), daemon=True).start()
        threading.Thread(target=_watch_head, args=(ray, link, where), daemon=True).start()
        try:
            pool.run()
        except Exception as error:  # noqa: BLE001 - a bug, which the process that plans reports
            link.send(("failed", {"kind": "RuntimeError", "reason": f"{type(error).__name__}: {error}"}, ""))
    ray.shutdown()


def _join(ray: Any, settings: dict[str, Any]) -> None:
    """Connect to the cluster, or start a Ray of our own on this machine."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical"}
    if settings["address"]:
        ray.init(address=settings["address"], **quiet)
        return
    asked = settings["asked"]
    processors = max(settings["processors"], (asked["workers"] or 1) * (asked["threads"] or 1))
    store = max(OBJECTS_LEAST, processors * OBJECTS_OF_A_WORKER)
    ray.init(
        address="local", num_cpus=processors, include_dashboard=False, object_store_memory=store,
        _temp_dir=settings["folder"], **quiet,
    )  # fmt: skip


def _pool(ray: Any, settings: dict[str, Any], link: Link) -> Pool | None:
    """Return the pool of workers for what the cluster offers; None if it has no room for one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    layout = layout_of(nodes, settings["asked"])
    if not layout.room:
        link.send(("failed", faults.no_room(needs_of(layout.threads, layout.gpus), _offered(nodes)), ""))
        return None
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    door = ray.remote(Door).options(
        num_cpus=layout.threads, num_gpus=layout.gpus, max_restarts=RESTARTS, max_task_retries=0,
        scheduling_strategy="SPREAD",
    )  # fmt: skip
    start = partial(door.remote, layout.threads)
    pool = Pool(start, layout, settings["versions"], partial(_name_of, ray), link.send)
    link.send((STARTED, layout.gpus))
    return pool


def _offered(nodes: list[dict[str, float]]) -> str:
    """Return what the nodes offer, in words."""
    each = [needs_of(node.get(CPU, 0), node.get(GPU, 0)) for node in nodes]
    return ", ".join(dict.fromkeys(each))


def _name_of(ray: Any, id: str) -> str:
    """Return the name of a node and its address."""
    for node in ray.nodes():
        if node["NodeID"] == id:
            name, address = node.get("NodeName") or node["NodeManagerHostname"], node["NodeManagerAddress"]
            return f"{node['NodeManagerHostname']} ({address})" if name == address else f"{name} ({address})"
    return id[:12]


def _watch_head(ray: Any, link: Link, where: str) -> None:
    """End this process if the head of the cluster does not answer any more: Ray itself waits for a minute."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    missed = 0
    while missed < HEAD_GONE:
        time.sleep(HEAD_LOOKED_AT)
        try:
            socket.create_connection((host.strip("[]"), int(port)), HEAD_LOOKED_AT).close()
            missed = 0
        except OSError:
            missed += 1
    link.send(("failed", faults.head_lost(where), ""))
    os._exit(LOST)
