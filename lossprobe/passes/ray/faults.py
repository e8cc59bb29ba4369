"""Why a session of Ray cannot go on, as failures that the process that plans raises; see `failures.error_of`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Failure = dict[str, Any]
HEAD = (
    "name the HOST:PORT that ray start --head prints, on a machine where ray start has joined it; where it asks for a "
    "token, set RAY_AUTH_MODE=token"
)
LONGEST = 160  # characters of Ray's own words that are told


def failure(kind: str, id: str, reason: str, hint: str | None = None) -> Failure:
    """Return a failure as JSON data."""
    return {"kind": kind, "id": id, "reason": reason, "hint": hint, "subject": "", "details": []}


def unreachable(address: str, why: str) -> Failure:
    """Return the failure for a cluster that cannot be joined."""
    return failure("UsageError", "ray.unreachable", f"Ray at {address}: {why}", HEAD)


def not_joined(address: str, error: Exception) -> Failure:
    """Return the failure for what Ray raised when it was started, or a cluster was joined."""
    told = " ".join(str(error).split())
    if "ersion mismatch" in told:
        hint = "run the driver with the Python and the Ray that the cluster was started with"
        return failure("UsageError", "ray.versions", f"Ray at {address}: {_short(told)}", hint)
    return unreachable(address, _short(told) or type(error).__name__)


def no_room(layout: str, offered: str) -> Failure:
    """Return the failure for nodes that are all too small for one worker."""
    return failure(
        "UsageError", "ray.room", f"a worker takes {layout}, and no node of the cluster has as much: {offered}"
    )


def missing_there(node: str, why: str) -> Failure:
    """Return the failure for a node on which lossprobe cannot be imported."""
    hint = "install the same lossprobe on every node, for the Python that runs Ray there"
    return failure("UsageError", "ray.versions", f"node {node}: lossprobe cannot be imported there: {why}", hint)


def other_versions(node: str, here: Mapping[str, str], there: Mapping[str, str]) -> Failure | None:
    """Return the failure for a worker with other versions than the process that plans; None if all are the same.

    >>> other_versions("b", {"torch": "2.13.0"}, {"torch": "2.12.1"})["reason"]
    'node b: torch 2.12.1 there, 2.13.0 here'
    """
    names = [name for name in sorted(here.keys() | there.keys()) if here.get(name) != there.get(name)]
    if not names:
        return None
    told = "; ".join(f"{name} {there.get(name, 'missing')} there, {here.get(name, 'missing')} here" for name in names)
    hint = "install the same versions on every node: losses differ in the last digits between them"
    return failure("UsageError", "ray.versions", f"node {node}: {told}", hint)


def disagreement(node: str, first: Mapping[str, str], found: Mapping[str, str]) -> Failure | None:
    """Return the failure for a worker that found something else than the first one; None if it found the same.

    >>> disagreement("b", {"kernels": "plain"}, {"kernels": "packed body"})["reason"]
    'node b: kernels is packed body there, plain for the first worker, so that losses would differ in the last digits'
    """
    for name in sorted(first.keys() | found.keys()):
        there, before = (of.get(name, "missing") for of in (found, first))
        if there != before:
            reason = (
                f"node {node}: {name} is {_short(there)} there, {_short(before)} for the first worker, so that losses "
                "would differ in the last digits"
            )
            return failure("UsageError", "ray.disagree", reason, "use nodes of one kind, with the same files")
    return None


def lost(what: str, times: int, error: BaseException, *, starved: bool) -> Failure:
    """Return the failure for workers that ended too often.

    Args:
        what: what they did, such as "scored part 7".
        times: how often one ended in a row.
        error: Ray's error for the last of them.
        starved: whether Ray ended one of them for lack of memory.
    """
    if starved:
        return failure("ResourceError", "memory", "out of memory", "lower `batch_size` or `context`")
    reason = f"{times} workers in a row ended while they {what}: {in_short(error)}"
    hint = "a process that is killed often had no memory left: give each worker more of its node with `ray_threads`"
    return failure("ResourceError", "ray.lost", reason, hint)


def head_lost(address: str) -> Failure:
    """Return the failure for a cluster whose head is gone."""
    hint = "finished parts are kept: repeat the command when Ray runs again"
    return failure("ResourceError", "ray.lost", f"Ray at {address}: its head does not answer any more", hint)


def in_short(error: BaseException) -> str:
    """Return the first line of an error of Ray that says something, without colours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _short(next((line for line in lines if not line.startswith("\x1b")), type(error).__name__))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
