"""How far two models' predictions are apart, from both rows of logits at once; no logits outlive their chunk.

With a = log p_A, b = log p_B and r = b − a, the Kullback–Leibler divergence is taken term by term as

    KL(A‖B) = Σ p_A (a − b) = Σ p_A (exp(r) − 1 − r)        since Σ p_A exp(r) = Σ p_B = 1 = Σ p_A

No term of the second sum is negative, so nothing cancels when the models are nearly alike, where the first sum loses
every digit; and an error of the two log-sum-exps enters squared only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from lossprobe.scoring.statistics import Workspace

BLOCK_ELEMENTS = 1 << 18  # 2 MiB of float64 a buffer: four of them stay in the cache of a CPU
DEVICE_ELEMENTS = 1 << 22  # a GPU is fast on large pieces only
FAR = 1.0  # log ratio above which nothing cancels in the plain difference, and exp(r) may overflow


@dataclass(frozen=True)
class DivergenceRows:
    """Two models on N rows; every field is [N], on the device of the logits.

    Attributes:
        kl_nats: float64, KL(A‖B) of the predicted distributions, never negative; +inf where A gives probability to an
            entry that B excludes (a logit of −inf).
        same_top: bool, both have the same most likely entry, the first one among equals.
        target_prob_change: float64, p_B(target) − p_A(target).
        first_loss_nats, second_loss_nats: float64, −log p(target) under A and under B.
    """

    kl_nats: torch.Tensor
    same_top: torch.Tensor
    target_prob_change: torch.Tensor
    first_loss_nats: torch.Tensor
    second_loss_nats: torch.Tensor

    def put(self, rows: slice | torch.Tensor, other: DivergenceRows) -> None:
        """Copy all rows of another result into these rows, a slice or int64 [n].

        Small results that outlive their chunk would settle in the gaps that its buffers leave, and the heap would grow.
        """
        for field in fields(self):
            own = getattr(self, field.name)
            own[rows] = getattr(other, field.name).to(own.device)


def divergence_rows(
    first_logits: torch.Tensor, second_logits: torch.Tensor, targets: torch.Tensor, workspace: Workspace | None = None
) -> DivergenceRows:
    """Return how far two models are apart on each row.

    Args:
        first_logits: [N, V] of model A in any float dtype; read, never written. −inf entries are legal; NaN and +inf
            are not: they make the row's loss NaN, which the caller must refuse.
        second_logits: [N, V] of model B, on the same device.
        targets: int64 [N].
        workspace: buffers, reused from call to call.

    For p_A = (1/2, 1/4, 1/4) and p_B = (1/4, 1/2, 1/4) the divergence is log(2) / 4.

    >>> rows = divergence_rows(torch.tensor([[4.0, 2, 2]]).log(), torch.tensor([[1.0, 2, 1]]).log(), torch.tensor([1]))
    >>> round(float(rows.kl_nats), 6), bool(rows.same_top), round(float(rows.target_prob_change), 6)
    (0.173287, False, 0.25)
    """
    workspace = workspace or Workspace()
    result = empty_rows(len(targets), first_logits.device)
    elements = BLOCK_ELEMENTS if first_logits.device.type == "cpu" else DEVICE_ELEMENTS
    size = max(1, elements // first_logits.shape[-1])
    for start in range(0, len(targets), size):
        rows = slice(start, start + size)
        result.put(rows, _block(first_logits[rows], second_logits[rows], targets[rows], workspace))
    return result


def empty_rows(count: int, device: torch.device | str) -> DivergenceRows:
    """Return `count` rows to be filled by `DivergenceRows.put`."""
    floats = [torch.empty(count, dtype=torch.float64, device=device) for _ in range(4)]
    return DivergenceRows(floats[0], torch.empty(count, dtype=torch.bool, device=device), *floats[1:])


def _block(
    first_logits: torch.Tensor, second_logits: torch.Tensor, targets: torch.Tensor, workspace: Workspace
) -> DivergenceRows:
    """Return the result for as many rows as the float64 buffers are to hold at once."""
    log_p, p = _log_probabilities(first_logits, "first", workspace)
    log_q, q = _log_probabilities(second_logits, "second", workspace)
    first_loss, second_loss = (-log.gather(1, targets[:, None])[:, 0] for log in (log_p, log_q))
    gained = first_loss - second_loss
    change = torch.exp(-torch.minimum(first_loss, second_loss)) * torch.expm1(-gained.abs()) * -gained.sign()
    return DivergenceRows(
        kl_nats=_divergence(log_p, p, log_q, q),
        same_top=first_logits.argmax(dim=-1) == second_logits.argmax(dim=-1),
        target_prob_change=change,
        first_loss_nats=first_loss,
        second_loss_nats=second_loss,
    )


def _log_probabilities(logits: torch.Tensor, name: str, workspace: Workspace) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log p and p, float64 [N, V] in the workspace."""
    log_p = workspace.empty(f"{name} log p", logits, torch.float64).copy_(logits)
    log_p.sub_(log_p.amax(dim=-1, keepdim=True))
    p = torch.exp(log_p, out=workspace.empty(f"{name} p", logits, torch.float64))
    total = p.sum(dim=-1, keepdim=True)
    return log_p.sub_(total.log()), p.div_(total)


def _divergence(log_p: torch.Tensor, p: torch.Tensor, log_q: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return Σ p (exp(r) − 1 − r) with r = log q − log p, float64 [N]; all four arguments are overwritten."""
    # Masked by both, an entry says nothing (NaN becomes 0); masked by the first only, p is 0 and the term q for any r.
    ratio = log_q.sub_(log_p).nan_to_num_(nan=0.0, posinf=2.0 * FAR, neginf=-torch.inf)
    excluded = torch.isneginf(ratio.amin(dim=-1))
    far = q.sub_(p).addcmul_(p, ratio, value=-1.0)
    near = torch.expm1(ratio, out=log_p).sub_(ratio).mul_(p)
    terms = torch.where(ratio > FAR, far, near, out=log_p)
    # p may have underflown to 0 at an entry that the second excludes, and 0 · inf would be NaN.
    return terms.sum(dim=-1).clamp_(min=0.0).masked_fill_(excluded, torch.inf)
