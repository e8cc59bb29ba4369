"""Find out how much memory is free: of the machine, of the control groups of this process, and of a GPU."""

from __future__ import annotations

from pathlib import Path

import torch

from lossprobe.control_groups import groups_of, read_text


def free_memory(device: str = "cpu", root: Path = Path("/")) -> int | None:
    """Return how many bytes more this process can use on a device; None where that is not known.

    Args:
        device: "cpu", "cuda:0" and the like.
        root: the folder with `proc` and `sys`.
    """
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    known = [_available(root), *(_left_of(folder) for folder in groups_of("memory", root))]
    return min((each for each in known if each is not None), default=None)


def _available(root: Path) -> int | None:
    """Return what the machine can give without swapping, caches that it can drop included."""
    for line in read_text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _left_of(folder: Path) -> int | None:
    """Return what one control group leaves, by its files of version 2 or 1; None for no limit."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        words = read_text(folder / limit).strip(), read_text(folder / used).strip()
        if all(word.isdecimal() for word in words):
            return max(0, int(words[0]) - int(words[1]) + _cached(folder))
    return None


def _cached(folder: Path) -> int:
    """Return the bytes of files that a control group keeps in memory, and drops when it needs the room."""
    lines = (line.split() for line in read_text(folder / "memory.stat").splitlines())
    return sum(int(words[1]) for words in lines if len(words) == 2 and words[0] in ("inactive_file", "active_file"))
