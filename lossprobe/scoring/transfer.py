"""Copies between the CPU and a GPU that let neither wait for the other.

A plain copy waits until the GPU has done all work before it. A pass that waits at each batch leaves the GPU idle while
the next one is prepared. Copies from and to pinned memory, which the GPU reads and writes by itself, do not wait.
"""

from __future__ import annotations

import torch


def upload(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return a tensor of the CPU on a device; work that is queued there later finds it."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def download(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the CPU; what comes from a GPU may be read after `wait_for` a later mark."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def mark(device: torch.device | str) -> torch.cuda.Event | None:
    """Return a mark behind all work that is queued on a GPU; None for other devices, where nothing is ever behind."""
    if torch.device(device).type != "cuda":
        return None
    event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def wait_for(marked: torch.cuda.Event | None) -> None:
    """Wait until a GPU has done the work before a mark."""
    if marked is not None:
        marked.synchronize()
