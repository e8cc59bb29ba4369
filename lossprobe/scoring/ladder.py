"""The temperature ladder: log-sum-exp(z / T) of a logit row z at 17 temperatures T.

The loss at temperature T is log-sum-exp(z / T) − z_y / T, so no second pass is needed to fit a temperature.
"""

from __future__ import annotations

from functools import cache

import torch

from lossprobe.plan.part_scores import LADDER_TEMPERATURES, STEPS_PER_OCTAVE
from lossprobe.scoring import compiled
from lossprobe.scoring.accelerated import fused_module
from lossprobe.scoring.ladder_kernels import OCTAVES


def temperature_ladder(logits: torch.Tensor) -> torch.Tensor:
    """Return log-sum-exp(z / T) of each row for each temperature of the ladder.

    Halving T squares exp(z / T), so four exponentials of each entry and repeated squaring give all temperatures.

    Args:
        logits: [N, V] in any float dtype; −inf entries are legal.

    Returns:
        float64 [N, 17], in the order of `LADDER_TEMPERATURES`.
    """
    # The four hottest temperatures, halved four times, make 20; the ladder has the 17 hottest of them.
    hottest = list(LADDER_TEMPERATURES[: -STEPS_PER_OCTAVE - 1 : -1])
    tops = logits.amax(dim=-1)
    coldest_first = _sums(logits, tops, hottest).transpose(1, 2).flatten(1).flip(1)[:, -len(LADDER_TEMPERATURES) :]
    return tops[:, None].double() / _temperatures(logits.device) + coldest_first.log()


@cache
def _temperatures(device: torch.device) -> torch.Tensor:
    """Return the temperatures, float64 [17]; they are copied to a device once, since it waits for the copy."""
    return torch.tensor(LADDER_TEMPERATURES, dtype=torch.float64, device=device)


def _sums(logits: torch.Tensor, tops: torch.Tensor, temperatures: list[float]) -> torch.Tensor:
    """Return the sums of `compiled.ladder_sums` by the fastest way on the device of the logits."""
    if logits.device.type == "cpu":
        return compiled.ladder_sums(logits, tops, temperatures)
    fused = fused_module(logits.device, logits.dtype, logits.shape[-1])
    if fused is None:
        return ladder_sums(logits, tops, temperatures)
    sums: torch.Tensor = fused.ladder_sums(logits, temperatures)
    return sums


def ladder_sums(logits: torch.Tensor, tops: torch.Tensor, temperatures: list[float]) -> torch.Tensor:
    """Return the sums of `compiled.ladder_sums`, computed by torch on any device."""
    z = logits.float()
    shifted = z - tops.float()[:, None]
    sums = []
    for temperature in temperatures:
        power = (shifted / temperature).exp_()
        for _ in range(OCTAVES):
            sums.append(power.sum(dim=-1).double())
            power.mul_(power)
    return torch.stack(sums, dim=-1).view(len(z), len(temperatures), OCTAVES)
