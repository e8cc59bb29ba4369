"""The steps of `gpu` that need no model: the machine, and the kernels against the torch functions."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any
from unittest import mock

import torch
from float64_statistics import reference

from lossprobe.scoring import accelerated, ladder
from lossprobe.scoring.histogram import HistogramBins, probability_histogram
from lossprobe.scoring.statistics import RowStatistics, Workspace, row_statistics

BINS = HistogramBins()
TEMPERATURES = [4.0, 2.0**1.75, 2.0**1.5, 2.0**1.25]
VOCABULARIES = {"gpt2": 50_257, "llama-1b": 32_000, "llama-8b": 128_256}
# Standard deviation of logits in nats: of a trained model, and of an untrained one, whose entries share a few bins.
SPREADS = {"trained": 3.0, "untrained": 0.5}
ROWS = 2048
TORCH_ROWS = 256  # the torch functions make float64 copies
COMPARED = 16  # rows that are compared with float64
DENSE_BF16_FLOPS = {  # of a GPU by a part of its name, the longest that fits; by their makers, without sparsity
    "GB200": 2.5e15, "B200": 2.25e15, "H200": 9.89e14, "H100 PCIe": 7.56e14, "H100 NVL": 8.35e14, "H100": 9.89e14,
    "A100": 3.12e14, "L40S": 3.62e14, "L40": 1.81e14, "L4": 1.21e14, "A10": 1.25e14, "A10G": 7.0e13, "A40": 1.497e14,
    "RTX 4090": 1.65e14, "RTX 3090": 7.1e13,
}  # fmt: skip

Step = Callable[..., AbstractContextManager[dict[str, Any]]]


@dataclass(frozen=True)
class Place:
    """Where the steps run.

    Attributes:
        device: of the models.
        tiny: whether sizes are cut down, to try the program out.
        left: returns the seconds that are left for all steps.
    """

    device: str
    tiny: bool
    left: Callable[[], float]

    @property
    def on_gpu(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device.startswith("cuda")

    def wait(self) -> None:
        """Wait until the device has done its work."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def time(self, work: Callable[[], object], least: int = 3, seconds: float = 0.3) -> dict[str, float]:
        """Return the median, smallest and largest seconds of a piece of work, after one call to warm up."""
        work()
        self.wait()
        least, seconds = (1, 0.0) if self.tiny else (least, seconds)
        times: list[float] = []
        while len(times) < least or (sum(times) < seconds and len(times) < 50):
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        times.sort()
        return {"median_s": times[len(times) // 2], "min_s": times[0], "max_s": times[-1], "times": len(times)}


def peak_flops(device: str) -> float | None:
    """Return the most bfloat16 operations a second of a GPU by its maker; None for others."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    fitting = [part for part in DENSE_BF16_FLOPS if part in name]
    return DENSE_BF16_FLOPS[max(fitting, key=len)] if fitting else None


def measure_machine(place: Place, found: dict[str, Any]) -> None:
    """Tell what this machine is, and how fast its matrix products and copies are."""
    found |= {"python": platform.python_version(), "argv": sys.argv[1:]}
    for name in ("torch", "triton", "transformers", "numpy", "numba", "duckdb"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    found["device"] = torch.cuda.get_device_name(place.device) if place.on_gpu else platform.machine()
    found["peak_flops"] = peak_flops(place.device)
    size = 256 if place.tiny else 8192
    left, right = (torch.randn(size, size, device=place.device).bfloat16() for _ in range(2))
    found["product_flops"] = 2 * size**3 / place.time(lambda: left @ right)["median_s"]
    source = torch.empty(1 << (16 if place.tiny else 30), dtype=torch.int32, device=place.device)
    target = torch.empty_like(source)
    found["copy_bytes_per_s"] = 2 * source.nbytes / place.time(lambda: target.copy_(source))["median_s"]
    start = time.perf_counter()
    found["why_not_fused"] = accelerated.why_not(torch.device(place.device), torch.bfloat16)
    found["probe_s"] = round(time.perf_counter() - start, 2)


def draw(place: Place, vocab: int, spread: float, count: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits in bfloat16 and targets, on the device; a tenth of the targets are the top entries."""
    vocab, count = (vocab // 100, 8) if place.tiny else (vocab, count)
    generator = torch.Generator(place.device).manual_seed(0)
    logits = torch.randn((count, vocab), generator=generator, device=place.device) * spread
    targets = torch.randint(vocab, (count,), generator=generator, device=place.device)
    targets[::10] = logits[::10].argmax(dim=-1)
    return logits.bfloat16(), targets


def fused_module(place: Place, found: dict[str, Any]) -> Any:
    """Return the module `fused`, or None where the kernels cannot run; `found` then says why."""
    runs = place.on_gpu or os.environ.get("TRITON_INTERPRET") == "1"
    reason = accelerated.why_not(torch.device(place.device), torch.bfloat16) if runs else "no GPU"
    if reason.startswith(("Triton", "no GPU")):
        found["skipped"] = reason
        return None
    from lossprobe.scoring import fused

    return fused


def by_torch(logits: torch.Tensor, targets: torch.Tensor, workspace: Workspace) -> tuple[RowStatistics, torch.Tensor]:
    """Return what the torch functions measure."""
    measured, centred = row_statistics(logits, targets, workspace)
    return measured, probability_histogram(centred, targets, BINS)


def measure_kernels(place: Place, step: Step) -> None:
    """Measure the kernels on logits of several vocabularies."""
    for name, vocab in VOCABULARIES.items():
        for kind, spread in SPREADS.items():
            with step("kernel", vocab=vocab, logits=f"{kind}, {name}") as found:
                logits, targets = draw(place, vocab, spread)
                measure_torch(place, logits[:TORCH_ROWS], targets[:TORCH_ROWS], found)
                measure_fused(place, logits, targets, found)


def measure_torch(place: Place, logits: torch.Tensor, targets: torch.Tensor, found: dict[str, Any]) -> None:
    """Time the torch functions, and compare them with float64 on the CPU."""
    workspace, few, micro = Workspace(), slice(0, COMPARED), 1e6 / len(logits)
    found["torch_us_per_row"] = place.time(lambda: by_torch(logits, targets, workspace))["median_s"] * micro
    ladder_time = place.time(lambda: ladder.ladder_sums(logits, logits.amax(dim=-1), TEMPERATURES))["median_s"]
    found["torch_ladder_us_per_row"] = ladder_time * micro
    found["torch_apart"] = apart(by_torch(logits[few], targets[few], workspace)[0], logits[few], targets[few])


def measure_fused(place: Place, logits: torch.Tensor, targets: torch.Tensor, found: dict[str, Any]) -> None:
    """Time the kernels, compare them with float64, and see whether histograms depend on the order of rows."""
    fused = fused_module(place, found)
    if fused is None:
        return
    few, micro = slice(0, COMPARED), 1e6 / len(logits)
    took = place.time(lambda: fused.measure_rows(logits, targets, BINS))
    found["fused_us_per_row"] = took["median_s"] * micro
    found["fused_us_per_row_spread"] = [took["min_s"] * micro, took["max_s"] * micro]
    from gpu_first_visit import first_visits

    first = place.time(lambda: first_visits(logits, targets, fused.TILE, fused.WARPS))
    found["first_visit_us_per_row"] = first["median_s"] * micro
    found["fused_read_bytes_per_s"] = 2 * logits.nbytes / took["median_s"]
    found["fused_ladder_us_per_row"] = place.time(lambda: fused.ladder_sums(logits, TEMPERATURES))["median_s"] * micro
    found["fused_apart"] = apart(fused.measure_rows(logits[few], targets[few], BINS)[0], logits[few], targets[few])
    one, other = (fused.measure_rows(logits, targets, BINS)[1] for _ in range(2))
    order = torch.randperm(len(logits), device=place.device)
    moved = fused.measure_rows(logits[order], targets[order], BINS)[1]
    found["histogram_repeats"] = torch.equal(one, other)
    found["histogram_of_other_order"] = torch.equal(one.sum(dim=1), moved.sum(dim=1))
    found["entries_counted_once"] = bool((one[0].sum(dim=-1) == logits.shape[1]).all())


def apart(own: RowStatistics, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Return the largest difference of each statistic from the definitions, in float64 on the CPU."""
    expected = reference(logits.cpu(), targets.cpu())
    pairs = {name: (getattr(own, name).cpu().double(), value.double()) for name, value in expected.items()}
    return {name: float((one - other).abs().max()) for name, (one, other) in pairs.items()}


def measure_variants(place: Place, step: Step) -> None:
    """Time the kernel with other tiles, warps and copies of the bins, on the largest vocabulary."""
    usual = {"tile": 2048, "warps": 8, "copies": 4}
    others = [("tile", 1024), ("tile", 4096), ("warps", 4), ("warps", 16), ("copies", 1), ("copies", 16)]
    for kind, spread in SPREADS.items():
        logits, targets = draw(place, VOCABULARIES["llama-8b"], spread)
        for name, value in [("tile", 2048), *others]:
            chosen = usual | {name: value}
            with step("variant", logits=kind, **chosen) as found:
                fused = fused_module(place, found)
                if fused is None:
                    continue
                with mock.patch.multiple(fused, WARPS=chosen["warps"], COPIES=chosen["copies"]):
                    took = place.time(partial(fused.measure_rows, logits, targets, BINS, chosen["tile"]))
                found["us_per_row"] = took["median_s"] / len(logits) * 1e6
