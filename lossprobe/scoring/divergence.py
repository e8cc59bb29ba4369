"""Kullback–Leibler divergence and change of probability between two models, from the logits of both.

With a = log p_A, b = log p_B and r = b − a, the divergence is

    KL(A‖B) = Σ p_A (a − b) = Σ p_A (exp(r) − 1 − r)        since Σ p_A exp(r) = Σ p_B = 1 = Σ p_A

The second sum is used. None of its terms is negative, so nothing cancels when the models are nearly alike, where the
first sum loses all its digits; and an error δ of the two log-sum-exps enters only as δ². (Schulman 2020, "Approximating
KL Divergence", uses the same terms as estimator k3; there they are sampled, here all V are added up.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from lossprobe.scoring.statistics import Workspace

BLOCK_ELEMENTS = 1 << 18  # logits at once on a CPU: four float64 buffers of 2 MiB fit into its cache
DEVICE_ELEMENTS = 1 << 22  # logits at once on other devices, which need large blocks to be fast
FAR = 1.0  # for r above this the term is q - p - p r, which does not cancel there; exp(r) could overflow


@dataclass(frozen=True)
class DivergenceRows:
    """How two models A and B differ on N rows of logits; every field is [N].

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
        """Copy all rows of another result into these rows, given as a slice or int64 [n].

        Filling one large tensor keeps the heap small: separate results of each chunk would be allocated between its
        buffers, and their memory could not be reused.
        """
        for field in fields(self):
            own = getattr(self, field.name)
            own[rows] = getattr(other, field.name).to(own.device)


def divergence_rows(
    first_logits: torch.Tensor, second_logits: torch.Tensor, targets: torch.Tensor, workspace: Workspace | None = None
) -> DivergenceRows:
    """Return how two models differ on each row of logits, on the device of the logits.

    Args:
        first_logits: [N, V] of model A in any float dtype; not modified. −inf entries are legal; NaN and +inf are not:
            they make the row's loss NaN, which the caller must refuse.
        second_logits: [N, V] of model B, on the same device.
        targets: int64 [N], token ids.
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
    """Return `count` uninitialised rows, to be filled by `DivergenceRows.put`."""
    floats = [torch.empty(count, dtype=torch.float64, device=device) for _ in range(4)]
    return DivergenceRows(floats[0], torch.empty(count, dtype=torch.bool, device=device), *floats[1:])


def _block(
    first_logits: torch.Tensor, second_logits: torch.Tensor, targets: torch.Tensor, workspace: Workspace
) -> DivergenceRows:
    """Return the result of `divergence_rows` for a few rows, whose float64 logits are in memory at once."""
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
    """Return Σ p (exp(r) − 1 − r) with r = log q − log p, float64 [N]; overwrites `log_p`, `log_q` and `q`."""
    # An entry masked (a logit of -inf) by both models has r = NaN and adds 0. Masked by the first only, r is +inf and p
    # is 0: the term is q for every finite r, so any r above FAR does.
    ratio = log_q.sub_(log_p).nan_to_num_(nan=0.0, posinf=2.0 * FAR, neginf=-torch.inf)
    excluded = torch.isneginf(ratio.amin(dim=-1))
    far = q.sub_(p).addcmul_(p, ratio, value=-1.0)
    near = torch.expm1(ratio, out=log_p).sub_(ratio).mul_(p)
    terms = torch.where(ratio > FAR, far, near, out=log_p)
    # Where the second model excludes an entry, r is -inf, and 0 · inf would be NaN if p has underflowed to 0.
    return terms.sum(dim=-1).clamp_(min=0.0).masked_fill_(excluded, torch.inf)
