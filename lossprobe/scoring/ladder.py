"""The temperature ladder: log-sum-exp(z / T) of a row, from which losses at other temperatures follow."""

from __future__ import annotations

import torch

from lossprobe.plan.part_scores import LADDER_TEMPERATURES, STEPS_PER_OCTAVE
from lossprobe.scoring import compiled
from lossprobe.scoring.kernels import OCTAVES


def temperature_ladder(logits: torch.Tensor) -> torch.Tensor:
    """Return log-sum-exp(z / T) for each temperature of the ladder.

    Halving T squares exp(z / T), so four exponentials of an entry and some products give all of them.

    Args:
        logits: [N, V] in any float dtype; −inf entries are legal.

    Returns:
        float64 [N, 17], in the order of `LADDER_TEMPERATURES`.
    """
    # Four halvings of each make 20 temperatures, of which the ladder has the 17 hottest.
    hottest = list(LADDER_TEMPERATURES[: -STEPS_PER_OCTAVE - 1 : -1])
    sums = compiled.ladder_sums if logits.device.type == "cpu" else ladder_sums
    coldest_first = sums(logits, hottest).transpose(1, 2).flatten(1).flip(1)[:, -len(LADDER_TEMPERATURES) :]
    temperatures = torch.tensor(LADDER_TEMPERATURES, dtype=torch.float64, device=logits.device)
    return logits.amax(dim=-1, keepdim=True).double() / temperatures + coldest_first.log()


def ladder_sums(logits: torch.Tensor, temperatures: list[float]) -> torch.Tensor:
    """Return what `compiled.ladder_sums` does, on any device."""
    z = logits.float()
    shifted = z - z.amax(dim=-1, keepdim=True)
    sums = []
    for temperature in temperatures:
        power = (shifted / temperature).exp_()
        for _ in range(OCTAVES):
            sums.append(power.sum(dim=-1).double())
            power.mul_(power)
    return torch.stack(sums, dim=-1).view(len(z), len(temperatures), OCTAVES)
