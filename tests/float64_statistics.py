"""Every statistic of logit rows by its definition, in float64, from explicit probabilities."""

from __future__ import annotations

import numpy as np
import torch


def reference(rows: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return each column of `RowStatistics`."""
    z = rows.double()
    log_z = torch.logsumexp(z, -1)
    log_p = z - log_z[:, None]
    present = torch.isfinite(log_p)
    finite = log_p.masked_fill(~present, 0.0)
    p = log_p.exp()
    target = z.gather(1, targets[:, None])
    entropy = -(p * finite).sum(-1)
    others = z.scatter(1, targets[:, None], -torch.inf)
    return {
        "loss_nats": -log_p.gather(1, targets[:, None])[:, 0],
        "rank": (z > target).sum(-1),
        "ties": (z == target).sum(-1),
        "entropy_nats": entropy,
        "varentropy": (p * (finite + entropy[:, None]) ** 2).sum(-1),
        "top_id": torch.tensor([int(np.argmax(row)) for row in z.numpy()]),
        "top_prob": p.max(-1).values,
        "margin_nats": target[:, 0] - others.max(-1).values,
        "log_z": log_z,
        "uniform_loss_nats": -finite.sum(-1) / present.sum(-1),
        "sum_p2": (p * p).sum(-1),
        "masked": (~present).sum(-1),
    }


# A float32 row holds numbers of size 60 to 4e-6 each; what is combined from them is held to these limits, relative to
# the column's own size. Counts and ids must be exact.
RELATIVE = {"varentropy": 2e-6, "sum_p2": 2e-6, "uniform_loss_nats": 5e-7}


def assert_close(measured, expected: dict[str, torch.Tensor]) -> None:
    """Hold statistics to the limits above."""
    for name, value in expected.items():
        actual = getattr(measured, name)
        if value.dtype.is_floating_point:
            relative = RELATIVE.get(name, 2e-7)
            torch.testing.assert_close(actual, value, atol=1e-6, rtol=relative, msg=lambda text, n=name: f"{n}: {text}")
        else:
            assert actual.tolist() == value.tolist(), name
