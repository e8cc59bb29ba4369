"""Tells whether the fused kernels measure the logit rows of a GPU; where they do not, the torch functions do.

They need Triton, which comes with torch's builds for CUDA, a C compiler, which Triton calls once, and a GPU that it
compiles for. On their first use they are compared with the torch functions on a few rows.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch

from lossprobe.scoring.histogram import MOST_ENTRIES, HistogramBins, probability_histogram
from lossprobe.scoring.statistics import Workspace, row_statistics

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PROBE_ROWS, LADDER_ROWS = 8, 2
PROBE_VOCABULARIES = (5003, 8192)  # each takes several tiles; rows of the second start at aligned addresses
SPREAD = 5.0  # nats: standard deviation of the probe's logits, about that of a trained model
TOLERANCE = 3e-6  # of statistics, in nats, relative above 1: the torch functions sum V terms in float32
MASS_TOLERANCE = 1e-5  # of the sum of p of a bin
OCTAVES = 5  # of a temperature, in the sums of a ladder
MOVED = 3  # entries of a row that rounding may move to the next bin


def fused_module(device: torch.device, dtype: torch.dtype, vocab_size: int) -> ModuleType | None:
    """Return the module `fused` where it measures logits of a dtype on a device, else None."""
    if device.type != "cuda" or dtype not in DTYPES or vocab_size > MOST_ENTRIES or why_not(device, dtype):
        return None
    from lossprobe.scoring import fused

    return fused


@cache
def why_not(device: torch.device, dtype: torch.dtype) -> str:
    """Return why the fused kernels do not measure logits of a dtype on a GPU, or "" where they do."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    try:
        different = differences(device, dtype)
    except Exception as error:  # noqa: BLE001 - Triton runs a C compiler and the driver, and raises errors of any kind
        return f"Triton fails ({type(error).__name__})"
    return f"on a probe they differ from torch in {', '.join(different)}" if different else ""


@torch.inference_mode()
def differences(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Return the names of what the fused kernels and the torch functions measure differently on a probe."""
    return sorted(set().union(*(_differences(device, dtype, vocab) for vocab in PROBE_VOCABULARIES)))


def _differences(device: torch.device, dtype: torch.dtype, vocab: int) -> set[str]:
    from lossprobe.scoring import fused

    bins, temperatures = HistogramBins(), [1.0, 4.0]
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn((PROBE_ROWS, vocab), generator=generator) * SPREAD
    logits[0, 1::3] = -torch.inf
    logits[1, 7] = 60.0  # a confident row, whose target is the top
    logits = logits.to(dtype).to(device)
    targets = logits.argmax(dim=-1)
    targets[2:] = torch.randint(0, vocab // 3, (PROBE_ROWS - 2,), generator=generator).to(device) * 3
    measured, whole = fused.measure_rows(logits, targets, bins)
    expected, centred = row_statistics(logits, targets, Workspace())
    pairs = {field.name: (getattr(measured, field.name), getattr(expected, field.name)) for field in fields(expected)}
    different = {name for name, (own, other) in pairs.items() if not _close(own, other, TOLERANCE)}
    histogram = [bins.from_whole(whole), probability_histogram(centred, targets, bins)]
    entries, mass, hits = (torch.stack([each[at].cumsum(dim=-1) for each in histogram]) for at in range(3))
    if (entries[0] - entries[1]).abs().max() > MOVED or (hits[0] - hits[1]).abs().max() > 1:
        different.add("the histogram")
    if not _close(mass[0, :, -1], mass[1, :, -1], MASS_TOLERANCE):
        different.add("the histogram")
    some = logits[2 : 2 + LADDER_ROWS]
    shifted = some.double() - some.double().amax(dim=-1, keepdim=True)
    powers = [[(shifted * 2**step / each).exp().sum(dim=-1) for step in range(OCTAVES)] for each in temperatures]
    ladder = torch.stack([torch.stack(each, dim=-1) for each in powers], dim=1)
    if not _close(fused.ladder_sums(some, temperatures).log(), ladder.log(), TOLERANCE):
        different.add("the ladder")
    return different


def _close(own: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    """Return whether whole numbers are equal, or others differ by at most the tolerance; NaN is never close."""
    if not own.dtype.is_floating_point:
        return torch.equal(own, other)
    return torch.allclose(own, other.to(own.dtype), rtol=tolerance, atol=tolerance)
