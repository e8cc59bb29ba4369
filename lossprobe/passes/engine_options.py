"""The options that say where parts are scored: here, by processes that share a model, or by workers of Ray."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.errors import UsageError
from lossprobe.options.declare import option
from lossprobe.options.kinds import Choice, Number, Text

LOCAL, RAY = ENGINES = ("local", "ray")
MOST_WORKERS = 100_000

PORT = "([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"


@dataclass(frozen=True)
class EngineOptions:
    """Where the parts of a text are scored. They decide how fast a run is, and no more of its numbers than rounding.

    Attributes:
        tensor_parallel_size: processes of this machine among which each layer of the model is divided, on a GPU each;
            1 for a model that this process, or each worker, holds whole.
        engine: "local" (this process) or "ray".
        ray_address: HOST:PORT of the head of a Ray cluster, or "auto" for the one of this machine. None takes the
            variable RAY_ADDRESS if it is set, and otherwise starts a Ray of its own on this machine for as long as it
            is needed.
        ray_workers: most workers; None takes as many as the nodes of the cluster have room for.
        ray_threads: processors of each worker; None takes 1 where a worker has a GPU, else all those of the smallest
            node, so that each node holds the model once.
        ray_gpus: GPUs of each worker, or the share of one; None takes 1 where the model runs on GPUs, else 0.
    """

    tensor_parallel_size: int = option(
        1,
        Number(1, 64, whole=True),
        "GPUs of this machine that hold the model together, each a slice of every layer; a process runs on each.",
        in_audit_file=False,
    )
    engine: str = option(
        LOCAL, Choice(ENGINES), "Who scores: this process, or the workers of a Ray cluster.", in_audit_file=False
    )
    ray_address: str | None = option(
        None,
        Text(f"auto|([^\\s:/]+|\\[[0-9A-Fa-f:]+\\]):{PORT}", "auto or HOST:PORT, with a port up to 65535"),
        "Head of the Ray cluster; auto: that of this machine.  [default: RAY_ADDRESS, or a Ray started here]",
        metavar="HOST:PORT|auto",
        in_audit_file=False,
    )
    ray_workers: int | None = option(
        None,
        Number(1, MOST_WORKERS, whole=True),
        "Most workers, each with the model in memory.  [default: as many as have room]",
        in_audit_file=False,
    )
    ray_threads: int | None = option(
        None,
        Number(1, 4096, whole=True),
        "Processors of each worker.  [default: those of the smallest node; with a GPU: 1]",
        in_audit_file=False,
    )
    ray_gpus: float | None = option(
        None,
        Number(0, 64),
        "GPUs of each worker, or the share of one.  [default: 1 if the model runs on GPUs, else 0]",
        in_audit_file=False,
    )


def refuse_unused(options: EngineOptions) -> None:
    """Refuse options of Ray where no Ray scores, and a divided model where one does.

    Raises:
        UsageError: one is given and `engine` is not ray, or the other way round.
    """
    if options.engine != LOCAL and options.tensor_parallel_size > 1:
        what = f"`tensor_parallel_size` {options.tensor_parallel_size}: not with `engine` {options.engine}"
        hint = "`shard` divides a text among processes that each divide the model"
        raise UsageError("tensor_parallel.engine", what, hint=hint)
    if options.engine == LOCAL:
        for name, default in vars(EngineOptions()).items():
            if name == "tensor_parallel_size":
                continue
            if getattr(options, name) != default:
                raise UsageError("ray.unused", f"`{name}` is only for `engine` ray, and `engine` is {options.engine}")
