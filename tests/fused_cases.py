"""Rows of logits for the fused kernels of a GPU; as a program it measures them by Triton's interpreter, on the CPU.

    TRITON_INTERPRET=1 python tests/fused_cases.py FILE

writes what the kernels make of every case. It is a program, since Triton decides on import who runs its kernels.
"""

from __future__ import annotations

import sys

import torch

TILE = 256
TEMPERATURES = [4.0, 2.0**1.75, 2.0**1.5, 2.0**1.25]
LOWEST = torch.finfo(torch.float32).min

Case = tuple[torch.Tensor, torch.Tensor]


def cases() -> dict[str, Case]:
    """Return logits [N, V] and targets [N] by name."""
    found = {
        f"V = {vocab}, scale {scale}, offset {offset}": drawn(3, vocab, scale, offset)
        for vocab, scale, offset in [
            (2, 1.0, 0.0), (255, 1.0, -60.0), (256, 12.0, 0.0), (257, 0.01, 200.0), (700, 3.0, 0.0),
            (1300, 12.0, 200.0),
        ]
    }  # fmt: skip
    rows, targets = drawn(12, 600, 2.0)
    found["bfloat16 with ties"] = rows.to(torch.bfloat16), targets
    found["float16"] = rows[:3].half(), targets[:3]
    found["the target is the top"] = rows[:3], rows[:3].argmax(dim=-1)
    found["rows with a stride"] = torch.cat([rows, rows], dim=1)[:3, 7:607], targets[:3]
    found["not contiguous"] = rows[:, :3].T, torch.tensor([0, 5, 11])
    found["uniform"] = torch.full((2, 300), 7.5), torch.tensor([0, 299])
    found["confident"] = confident()
    found["masked"] = masked()
    found["one entry"] = torch.tensor([[3.0]]), torch.tensor([0])
    lowest = rows[:2].clone()
    lowest[:, ::3] = LOWEST
    found["masked by the lowest float32"] = lowest, torch.tensor([1, 500])
    return found


def broken() -> Case:
    """Return rows without a finite loss: NaN, infinity, a masked target, all masked, and targets outside the row."""
    rows, targets = drawn(7, 300, 1.0)
    targets[5:] = torch.tensor([300, -1])
    rows[0, 290] = torch.nan
    rows[1, 3] = torch.inf
    rows[2, targets[2]] = -torch.inf
    rows[3] = -torch.inf
    rows[4, targets[4]] = torch.nan
    return rows, targets


def drawn(count: int, vocab: int, scale: float, offset: float = 0.0) -> Case:
    """Return rows of normal logits, and targets."""
    generator = torch.Generator().manual_seed(vocab)
    rows = torch.randn((count, vocab), generator=generator) * scale + offset
    return rows, torch.randint(vocab, (count,), generator=generator)


def confident() -> Case:
    """Return rows whose top entry has a probability of 1 - 6e-7, 1 - 1e-12 and 1, with the top in each tile."""
    rows, _ = drawn(3, 700, 1.0)
    for row, (place, logit) in enumerate([(3, 22.0), (300, 36.0), (699, 120.0)]):
        rows[row, place] = logit
    return rows, torch.tensor([3, 300, 5])


def masked() -> Case:
    """Return rows with entries of -inf: many, a whole tile, all but two, all but one."""
    rows, _ = drawn(4, 600, 3.0)
    rows[0, 1::2] = -torch.inf
    rows[1, :256] = -torch.inf
    rows[2] = -torch.inf
    rows[2, [4, 599]] = torch.tensor([1.0, 2.0])
    rows[3, :598] = rows[3, 599] = -torch.inf
    return rows, torch.tensor([0, 300, 4, 598])


def main() -> None:
    """Measure all cases, and write what was found."""
    from lossprobe.scoring import accelerated, fused
    from lossprobe.scoring.histogram import HistogramBins

    found = {}
    for name, (rows, targets) in {**cases(), "broken": broken()}.items():
        statistics, whole = fused.measure_rows(rows, targets, HistogramBins(), TILE)
        found[name] = {**vars(statistics), "whole": whole}
    for name in ("V = 1300, scale 12.0, offset 200.0", "bfloat16 with ties", "masked"):
        found[name]["sums"] = fused.ladder_sums(cases()[name][0][:2], TEMPERATURES, TILE)
    found["nothing"] = vars(
        fused.measure_rows(torch.empty((0, 9)), torch.empty(0, dtype=torch.long), HistogramBins())[0]
    )
    probe = accelerated.differences(torch.device("cpu"), torch.bfloat16)
    torch.save({"found": found, "probe": probe}, sys.argv[1])


if __name__ == "__main__":
    main()
