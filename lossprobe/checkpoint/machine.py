"""What of a machine decides the last digits of losses, beside the versions of the libraries."""

from __future__ import annotations

import torch


def arithmetic(device: str) -> dict[str, str]:
    """Return the instructions and the threads that torch uses on the processor and, for a device "cuda…", its GPU."""
    found = {"processor": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads())}
    return found | ({"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {})
