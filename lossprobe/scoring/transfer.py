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
    """Return a tensor on the CPU; what comes from a GPU may be read after `wait_for` of its device."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what was queued so far; other devices are never behind."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
