"""Statistics of logit rows, as torch functions on chunks [N, V] for every device.

On a CPU, `compiled` computes the same numbers faster.

Every statistic comes from one float32 copy of the row, centred on its largest entry, and from the weights of
`torch.softmax`, its fastest exponential. Softmax divides by a float32 sum with a relative error of about 4e-6. This
error cancels, because only ratios to the weight of the top entry are used. Scalars of a row are float64.

Formulas, with z the logits, y the target, m = max z, s = z − m, and R = Σ exp(s) over all entries but the top one:

    log Z − m  = log1p(R)                      (exact also for confident rows, where R is tiny)
    loss       = (m − z_y) + log1p(R)
    entropy    = log1p(R) − Σ p s              varentropy = Σ p (s − Σ p s)²
    mean of −log p over the vocabulary = log1p(R) − mean(s)
    Σ p²       = Σ exp(2 s) / (1 + R)²
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RowStatistics:
    """Statistics of N rows of logits; every field is [N]. Floats are float64, counts and ids int64.

    Attributes:
        loss_nats: −log p(target).
        rank: number of entries strictly more likely than the target.
        ties: number of entries exactly as likely as the target, itself included.
        entropy_nats: E[−log p] of the predicted distribution.
        varentropy: Var[log p], in nats².
        top_id: the most likely entry, the first one among equals.
        top_prob: probability of `top_id`.
        margin_nats: target logit minus the best other logit.
        log_z: log-sum-exp of the logits.
        uniform_loss_nats: mean over the (unmasked) vocabulary of −log p.
        sum_p2: Σ p².
        masked: number of entries with a logit of −inf; they have probability 0 and are not in `uniform_loss_nats`.
    """

    loss_nats: torch.Tensor
    rank: torch.Tensor
    ties: torch.Tensor
    entropy_nats: torch.Tensor
    varentropy: torch.Tensor
    top_id: torch.Tensor
    top_prob: torch.Tensor
    margin_nats: torch.Tensor
    log_z: torch.Tensor
    uniform_loss_nats: torch.Tensor
    sum_p2: torch.Tensor
    masked: torch.Tensor


@dataclass(frozen=True)
class MeasuredRows:
    """Everything that is measured of N rows of logits.

    Attributes:
        statistics: of each row.
        histogram: [3, N, bins], of the probabilities of each row: float64 as of `histogram.probability_histogram`, or
            int64 as of `HistogramBins.from_whole`.
        ladder: float64 [S, 17], the temperature ladder of the sampled rows; see `ladder.temperature_ladder`.
    """

    statistics: RowStatistics
    histogram: torch.Tensor
    ladder: torch.Tensor


@dataclass(frozen=True)
class CentredRows:
    """N rows of logits, centred on their largest entries, with their softmax weights.

    Attributes:
        shifted: float32 [N, V], s = z − max z; 0 where a logit was −inf.
        weight: float32 [N, V], proportional to the probabilities; 0 where a logit was −inf.
        scale: float64 [N]; a probability is its weight · scale.
        log_sum: float64 [N], log Σ exp(s) = log1p(R).
        masked: int64 [N], number of entries whose logit was −inf.
        workspace: holds the memory of `shifted` and `weight`, which the next call of `row_statistics` overwrites.
    """

    shifted: torch.Tensor
    weight: torch.Tensor
    scale: torch.Tensor
    log_sum: torch.Tensor
    masked: torch.Tensor
    workspace: Workspace


class Workspace:
    """Large buffers that are reused from chunk to chunk.

    New buffers for every chunk would be slower, because the system clears new pages. The heap would grow too: results
    that outlive a chunk would be allocated between its buffers, whose memory could then not be reused.
    """

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def empty(self, name: str, like: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return an uninitialised tensor with the shape and device of `like`; the next call for `name` reuses it."""
        held = self._held.get(name)
        if held is None or held.numel() < like.numel() or held.dtype != dtype or held.device != like.device:
            held = torch.empty(like.numel(), dtype=dtype, device=like.device)
            self._held[name] = held
        return held[: like.numel()].view(like.shape)


def row_statistics(
    logits: torch.Tensor, targets: torch.Tensor, workspace: Workspace
) -> tuple[RowStatistics, CentredRows]:
    """Return the statistics of each row, and the centred rows for the histogram.

    Args:
        logits: [N, V] in any float dtype; not modified. −inf entries are legal, NaN and +inf are not: they make the
            row's loss NaN or infinite, which the caller must refuse.
        targets: int64 [N], token ids.
        workspace: buffers, which hold the centred rows until the next call.

    Example: for probabilities (.1, .6, .2, .1) and target 1 the loss is .510826, the entropy 1.088900, the varentropy
    .549300, Σ p² .42 and the uniform loss 1.681358.
    """
    z = logits.float()
    rows = torch.arange(len(z), device=z.device)
    target_logit = z[rows, targets]
    shifted = workspace.empty("shifted", z)  # first holds comparisons as 0.0 and 1.0: summing booleans is slower
    rank = torch.gt(z, target_logit[:, None], out=shifted).sum(dim=-1)
    ties = torch.eq(z, target_logit[:, None], out=shifted).sum(dim=-1)
    top_id = z.argmax(dim=-1)  # the first one among equals
    top = z[rows, top_id]

    torch.sub(z, top[:, None], out=shifted)
    weight = torch.softmax(shifted, dim=-1, out=workspace.empty("weight", z))
    top_weight = weight[rows, top_id]
    weight[rows, top_id] = 0.0
    others = weight.sum(dim=-1).double() / top_weight.double()
    weight[rows, top_id] = top_weight
    log_sum = torch.log1p(others)
    margin = _target_margin(shifted, rows, top_id, targets, target_logit.double() - top.double())
    masked = _clear_masked(shifted)
    total = shifted.sum(dim=-1)

    scale = 1.0 / (top_weight.double() * (1.0 + others))
    scratch = workspace.empty("scratch", z)
    mean_shift = torch.mul(weight, shifted, out=scratch).sum(dim=-1).double() * scale
    torch.sub(shifted, mean_shift[:, None].float(), out=scratch)
    varentropy = scratch.mul_(scratch).mul_(weight).sum(dim=-1).double() * scale
    square_sum = torch.mul(weight, weight, out=scratch).sum(dim=-1).double()
    mean_all = total.double() / (shifted.shape[-1] - masked)
    statistics = RowStatistics(
        loss_nats=(top.double() - target_logit.double()) + log_sum,
        rank=rank.long(),
        ties=ties.long(),
        entropy_nats=log_sum - mean_shift,
        varentropy=varentropy,
        top_id=top_id,
        top_prob=1.0 / (1.0 + others),
        margin_nats=margin,
        log_z=top.double() + log_sum,
        uniform_loss_nats=log_sum - mean_all,
        sum_p2=square_sum * scale**2,
        masked=masked,
    )
    return statistics, CentredRows(shifted, weight, scale, log_sum, masked, workspace)


def _target_margin(
    shifted: torch.Tensor, rows: torch.Tensor, top_id: torch.Tensor, targets: torch.Tensor, below_top: torch.Tensor
) -> torch.Tensor:
    """Return the target's logit minus the largest other logit, float64 [N].

    Args:
        shifted: float32 [N, V], z − max z; unchanged on return.
        rows: int64 [N], 0 to N − 1.
        top_id: int64 [N], the largest entry of each row.
        targets: int64 [N], token ids.
        below_top: float64 [N], the target's logit minus the largest logit; the answer where the target is not the top.
    """
    shifted[rows, top_id] = -torch.inf
    second = shifted.amax(dim=-1).double()
    shifted[rows, top_id] = 0.0
    return torch.where(top_id == targets, -second, below_top)


def _clear_masked(shifted: torch.Tensor) -> torch.Tensor:
    """Replace −inf by 0 and return how many there were in each row, int64 [N]. In sums of p · s, 0 · (−inf) is NaN."""
    absent = torch.isneginf(shifted)
    shifted.masked_fill_(absent, 0.0)
    return absent.sum(dim=-1)
