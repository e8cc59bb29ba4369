"""Keep the state of torch's random number generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def random_numbers_kept(device: str) -> Iterator[None]:
    """Restore the state of torch's random number generators, the CPU's and the device's, after the block."""
    cuda = [torch.device(device).index or 0] if device.startswith("cuda") else []
    with torch.random.fork_rng(cuda):
        yield
