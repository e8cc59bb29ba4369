"""Join the processes that hold a model together into torch's default group."""

from __future__ import annotations

from datetime import timedelta

import torch
from torch._C._distributed_c10d import FileStore

from lossprobe.checkpoint.model.division import Division
from lossprobe.errors import UsageError
from lossprobe.units import plural

WAITS = timedelta(hours=2)  # processes that read their slices from a busy disk can be this far apart


def join_group(division: Division, device: str, meeting_file: str) -> None:
    """Join the group of all processes; each takes the GPU of its own number where the model runs on GPUs.

    Args:
        division: which process this is.
        device: "cpu" or "cuda".
        meeting_file: a path at which no file is yet, the same for all.

    Raises:
        UsageError: `tensor_parallel.devices`: there are fewer GPUs than processes.
    """
    on_gpus = device == "cuda"
    if on_gpus:
        found = torch.cuda.device_count()
        if found < division.size:
            what = f"`tensor_parallel_size` {division.size}: this machine has {plural(found, 'GPU')}"
            raise UsageError("tensor_parallel.devices", what)
        torch.cuda.set_device(division.rank)
    torch.distributed.init_process_group(
        "nccl" if on_gpus else "gloo",
        store=FileStore(meeting_file, division.size),
        rank=division.rank,
        world_size=division.size,
        timeout=WAITS,
        device_id=torch.device("cuda", division.rank) if on_gpus else None,
    )
