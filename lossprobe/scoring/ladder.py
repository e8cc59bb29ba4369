"""The temperature ladder: log-sum-exp(z / T) of a logit row z at 17 temperatures T.

The loss at temperature T is log-sum-exp(z / T) − z_y / T, so no second pass is needed to fit a temperature.
"""

from __future__ import annotations

from functools import cache

import torch

from lossprobe.plan.part_scores import LADDER_TEMPERATURES, STEPS_PER_OCTAVE
from lossprobe.scoring.accelerated import fused_module
from lossprobe.scoring.ladder_kernels import OCTAVES


def temperature_ladder(logits: torch.Tensor) -> torch.Tensor:
    """Return log-sum-exp(z / T) of each row for each temperature of the ladder; `compiled` does it faster on a CPU.

    Args:
        logits: [N, V] in any float dtype; −inf entries are legal.

    Returns:
        float64 [N, 17], in the order of `LADDER_TEMPERATURES`.
    """
    temperatures, tops = hottest_temperatures(), logits.amax(dim=-1)
    fused = fused_module(logits.device, logits.dtype, logits.shape[-1])
    sums = ladder_sums(logits, tops, temperatures) if fused is None else fused.ladder_sums(logits, temperatures)
    return log_sums(tops, sums)


def hottest_temperatures() -> list[float]:
    """Return the four hottest temperatures of the ladder, the hottest first.

    Halving T squares exp(z / T), so four exponentials of each entry and repeated squaring give all temperatures.
    """
    return list(LADDER_TEMPERATURES[: -STEPS_PER_OCTAVE - 1 : -1])


def log_sums(tops: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """Return the ladder of N rows, float64 [N, 17].

    Args:
        tops: [N], the largest logit of each row.
        sums: what `ladder_sums` returns for `hottest_temperatures`.
    """
    # The four hottest temperatures, halved four times, make 20; the ladder has the 17 hottest of them.
    coldest_first = sums.transpose(1, 2).flatten(1).flip(1)[:, -len(LADDER_TEMPERATURES) :]
    return tops[:, None].double() / _temperatures(tops.device) + coldest_first.log()


@cache
def _temperatures(device: torch.device) -> torch.Tensor:
    """Return the temperatures, float64 [17]; they are copied to a device once, since it waits for the copy."""
    return torch.tensor(LADDER_TEMPERATURES, dtype=torch.float64, device=device)


def ladder_sums(logits: torch.Tensor, tops: torch.Tensor, temperatures: list[float]) -> torch.Tensor:
    """Return Σ exp((z − max z) / T) of each row z, for each temperature and its half, quarter, eighth and sixteenth.

    Args:
        logits: [N, V] in any float dtype; −inf entries are legal.
        tops: [N], the largest entry of each row.
        temperatures: the temperatures before halving.

    Returns:
        float64 [N, number of temperatures, 5]; the last axis is T, T/2, T/4, T/8, T/16.
    """
    z = logits.float()
    shifted = z - tops.float()[:, None]
    sums = []
    for temperature in temperatures:
        power = (shifted / temperature).exp_()
        for _ in range(OCTAVES):
            sums.append(power.sum(dim=-1).double())
            power.mul_(power)
    return torch.stack(sums, dim=-1).view(len(z), len(temperatures), OCTAVES)
