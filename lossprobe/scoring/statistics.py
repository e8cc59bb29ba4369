"""Everything that is kept of one logit row: pure tensor functions on chunks [N, V] that fit the cache.

All of it comes from one float32 copy of the row, centred on its largest entry, and one exponential per
entry. Scalars of a row are combined in float64. Formulas: with z the logits, y the target, m = max z,
s = z − m, R = Σ exp(s) over all entries but the top one:

    log Z − m  = log1p(R)                      (exact also for confident rows, where R is tiny)
    loss       = (m − z_y) + log1p(R)
    entropy    = log1p(R) − Σ p s              varentropy = Σ p (s − Σ p s)²
    mean of −log p over the vocabulary = log1p(R) − mean(s)
    Σ p²       = Σ exp(2 s) / (1 + R)²
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

LN10 = math.log(10.0)


@dataclass(frozen=True)
class RowStatistics:
    """Statistics of N rows; every field is [N]. Floats are float64, counts and ids int64.

    Attributes:
        loss_nats: −log p(target).
        rank: entries strictly more likely than the target.
        ties: entries exactly as likely as the target, itself included.
        entropy_nats: E[−log p] of the predicted distribution.
        varentropy: Var[log p], in nats².
        top_id: the most likely entry, the first one among equals.
        top_prob: its probability.
        margin_nats: target logit minus the best other logit.
        log_z: log-sum-exp of the logits.
        uniform_loss_nats: mean over the (unmasked) vocabulary of −log p.
        sum_p2: Σ p².
        masked: entries with a logit of −inf; they have probability 0 and are left out of the mean above.
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
class CentredRows:
    """N rows made ready once, so that every statistic reads the same numbers.

    Attributes:
        shifted: float32 [N, V], s = z − max z, 0 where a logit was −inf.
        exponential: float32 [N, V], exp(z − max z), 0 where a logit was −inf.
        log_sum: float64 [N], log Σ exp(s) = log1p(R).
        masked: int64 [N], number of entries whose logit was −inf.
        workspace: where the large ones live; valid until the next call of `row_statistics`.
    """

    shifted: torch.Tensor
    exponential: torch.Tensor
    log_sum: torch.Tensor
    masked: torch.Tensor
    workspace: Workspace

    def take(self, rows: torch.Tensor) -> CentredRows:
        """Return the rows of an ascending int64 index."""
        if len(rows) == len(self.log_sum):
            return self
        return CentredRows(
            self.shifted[rows], self.exponential[rows], self.log_sum[rows], self.masked[rows], self.workspace
        )


class Workspace:
    """Large buffers that are reused from chunk to chunk.

    Fresh ones for every chunk would be slower (the system clears new pages) and would let the heap grow: small results
    that outlive a chunk settle in the gaps that its buffers leave.
    """

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def empty(self, name: str, like: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return an uninitialised tensor of the shape and device of `like`, valid until `name` is asked for again."""
        held = self._held.get(name)
        if held is None or held.numel() < like.numel() or held.dtype != dtype or held.device != like.device:
            held = torch.empty(like.numel(), dtype=dtype, device=like.device)
            self._held[name] = held
        return held[: like.numel()].view(like.shape)


def row_statistics(
    logits: torch.Tensor, targets: torch.Tensor, workspace: Workspace
) -> tuple[RowStatistics, CentredRows]:
    """Return the statistics of each row, and the centred rows for the histogram and the ladder.

    Args:
        logits: [N, V] in any float dtype; read, never written. −inf entries are legal, NaN and +inf are
            not: they make the row's loss NaN or infinite, which the caller must refuse.
        targets: int64 [N].
        workspace: buffers; the centred rows live in them until the next call.

    A worked row: for probabilities (.1, .6, .2, .1) and target 1 the loss is .510826, the entropy 1.088900,
    the varentropy .549300, Σ p² .42 and the uniform loss 1.681358.
    """
    z = logits.float()
    rows = torch.arange(len(z), device=z.device)
    target_logit = z[rows, targets]
    shifted = workspace.empty("shifted", z)  # until then for comparisons: summing booleans casts and is slower
    rank = torch.gt(z, target_logit[:, None], out=shifted).sum(dim=-1)
    ties = torch.eq(z, target_logit[:, None], out=shifted).sum(dim=-1)
    top_id = z.argmax(dim=-1)
    top = z[rows, top_id]

    torch.sub(z, top[:, None], out=shifted)
    exponential = torch.exp(shifted, out=workspace.empty("exponential", z))
    exponential[rows, top_id] = 0.0
    others = exponential.sum(dim=-1).double()
    exponential[rows, top_id] = 1.0
    log_sum = torch.log1p(others)
    margin = _target_margin(shifted, rows, top_id, targets, target_logit.double() - top.double())
    shifted, masked = _without_masked(shifted)

    partition = 1.0 + others
    scratch = workspace.empty("scratch", z)
    mean_shift = torch.mul(exponential, shifted, out=scratch).sum(dim=-1).double() / partition
    torch.sub(shifted, mean_shift[:, None].float(), out=scratch)
    varentropy = scratch.mul_(scratch).mul_(exponential).sum(dim=-1).double() / partition
    square_sum = torch.mul(exponential, exponential, out=scratch).sum(dim=-1).double()
    mean_all = shifted.sum(dim=-1).double() / (shifted.shape[-1] - masked)
    statistics = RowStatistics(
        loss_nats=(top.double() - target_logit.double()) + log_sum,
        rank=rank.long(),
        ties=ties.long(),
        entropy_nats=log_sum - mean_shift,
        varentropy=varentropy,
        top_id=top_id,
        top_prob=1.0 / partition,
        margin_nats=margin,
        log_z=top.double() + log_sum,
        uniform_loss_nats=log_sum - mean_all,
        sum_p2=square_sum / partition**2,
        masked=masked,
    )
    return statistics, CentredRows(shifted, exponential, log_sum, masked, workspace)


def _target_margin(
    shifted: torch.Tensor, rows: torch.Tensor, top_id: torch.Tensor, targets: torch.Tensor, below_top: torch.Tensor
) -> torch.Tensor:
    """Return the target's logit minus the best other one: the top one, or where the target is the top, the second."""
    shifted[rows, top_id] = -torch.inf
    second = shifted.amax(dim=-1).double()
    shifted[rows, top_id] = 0.0
    return torch.where(top_id == targets, -second, below_top)


def _without_masked(shifted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows with −inf replaced by 0, and the int64 [N] number of such entries.

    0 · (−inf) would be NaN in every sum of p · s. Masked rows are rare, so the search runs only where a
    row's sum says that there is one.
    """
    masked = torch.zeros(len(shifted), dtype=torch.long, device=shifted.device)
    touched = torch.nonzero(torch.isneginf(shifted.sum(dim=-1))).flatten()
    if len(touched):
        part = shifted[touched]
        absent = torch.isneginf(part)
        masked[touched] = absent.sum(dim=-1)
        shifted[touched] = part.masked_fill(absent, 0.0)
    return shifted, masked


def probability_histogram(
    centred: CentredRows, targets: torch.Tensor, groups: torch.Tensor, group_count: int, bins: HistogramBins
) -> torch.Tensor:
    """Return how all N · V probabilities are spread over log10 p, per group of rows.

    Args:
        centred: the rows.
        targets: int64 [N].
        groups: int64 [N], group (document) of each row, below `group_count`.
        group_count: number of groups.
        bins: the bins.

    Returns:
        float64 [3, group_count, bins.count]: pairs (row, entry), sum of p, and hits (targets) per bin. Summed
        over bins, a group of n rows has n · V pairs, a probability mass of n and n hits.
    """
    spare = centred.workspace.empty
    scratch = torch.sub(centred.shifted, centred.log_sum.float()[:, None], out=spare("scratch", centred.shifted))
    bin_ = bins.index(scratch.div_(LN10))
    if bool(centred.masked.any()):
        bin_.masked_fill_(centred.exponential == 0.0, 0.0)
    bin_.add_((groups * bins.count).float()[:, None])
    index = spare("index", bin_, torch.long).copy_(bin_)
    probability = spare("probability", bin_, torch.float64).copy_(centred.exponential)
    probability.mul_(torch.exp(-centred.log_sum)[:, None])
    size = group_count * bins.count
    flat = index.flatten()
    hits = index.gather(1, targets[:, None]).flatten()
    counted = [
        torch.bincount(flat, minlength=size).double(),
        torch.bincount(flat, weights=probability.flatten(), minlength=size),
        torch.bincount(hits, minlength=size).double(),
    ]
    return torch.stack(counted).reshape(3, group_count, bins.count)


@dataclass(frozen=True)
class HistogramBins:
    """Bins over log10 p: `per_decade` bins a decade from 10^`lowest` to 1, and one below them.

    Bin 0 holds everything under 10^`lowest`, zero included; bin b ≥ 1 holds
    lowest + (b − 1) / per_decade ≤ log10 p < lowest + b / per_decade, the last one also p = 1.
    """

    lowest: int = -12
    per_decade: int = 10

    @property
    def count(self) -> int:
        """Number of bins, 121 by default."""
        return -self.lowest * self.per_decade + 1

    def index(self, log10_p: torch.Tensor) -> torch.Tensor:
        """Return the bin of each value of log10 p, as whole floats; works in place."""
        bins = log10_p.sub_(self.lowest).mul_(self.per_decade).floor_().add_(1.0)
        return bins.clamp_(0.0, self.count - 1.0)


# 2^(j/4) from T = 1/4 to 4: with every T its half is on the ladder too, so Σ p² is known at each T ≥ 1/2.
STEPS_PER_OCTAVE = 4
LADDER_TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (step / STEPS_PER_OCTAVE) for step in range(-8, 9))


def temperature_ladder(centred: CentredRows, top: torch.Tensor) -> torch.Tensor:
    """Return log-sum-exp(z / T) for each temperature of the ladder.

    Halving T squares exp(s / T), so four exponentials and some products give all 17 sums.

    Args:
        centred: the rows.
        top: float64 [N], max z.

    Returns:
        float64 [N, 17], in the order of `LADDER_TEMPERATURES`.
    """
    sums: dict[int, torch.Tensor] = {}
    count = len(LADDER_TEMPERATURES)
    scratch = centred.workspace.empty("scratch", centred.shifted)
    present = centred.exponential.sign() if bool(centred.masked.any()) else None
    for hottest in range(count - STEPS_PER_OCTAVE, count):
        power = torch.mul(centred.shifted, 1.0 / LADDER_TEMPERATURES[hottest], out=scratch).exp_()
        if present is not None:
            power.mul_(present)
        for step in range(hottest, -1, -STEPS_PER_OCTAVE):
            sums[step] = top / LADDER_TEMPERATURES[step] + power.sum(dim=-1).double().log()
            power.mul_(power)
    return torch.stack([sums[step] for step in range(count)], dim=-1)
