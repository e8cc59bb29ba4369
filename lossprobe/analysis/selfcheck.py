"""Compares variants of one pass token by token: whether what must not matter changes the losses, and what else does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.shown import Shown
from lossprobe.errors import EXIT_CODES
from lossprobe.units import format_together, plural

Losses = npt.NDArray[np.float64]

MUST_NOT, MAY = "must not matter", "may matter"
SAME, BROKEN, DIFFERS, NOT_CHECKED = "same", "BROKEN", "differs", "not checked"
FAILED = 10
assert FAILED in EXIT_CODES


@dataclass(frozen=True)
class DifferenceLimits:
    """How far losses may move by rounding alone.

    Attributes:
        mean_nats: the mean over the tokens.
        token_nats: a single token.
    """

    mean_nats: float
    token_nats: float


# Rounding of the forward pass in its own dtype: a matrix product of another shape adds in another order.
ROUNDING = {"float32": DifferenceLimits(1e-5, 1e-3), "float64": DifferenceLimits(1e-9, 1e-7)}
HALF = DifferenceLimits(5e-3, 0.5)
EXACT = DifferenceLimits(0.0, 0.0)


@dataclass(frozen=True)
class Variant:
    """The same tokens scored in another way.

    Attributes:
        check: what was changed.
        setting: from what to what.
        limits: how far losses may move; None where the change may matter.
        losses: float64 [n] as the reference, NaN where this way does not score a token; None where it was not tried.
        reason: why it was not tried.
        same: for a check of the tokens themselves, whether they are the same both ways; None for a check of losses.
        tokens: how many were compared for `same`.
    """

    check: str
    setting: str
    limits: DifferenceLimits | None
    losses: Losses | None
    reason: str = ""
    same: bool | None = None
    tokens: int = 0


@dataclass(frozen=True)
class SelfCheck(Shown):
    """The variants of a pass, with how far each moved the losses.

    Attributes:
        tokens: tokens of the reference.
        mean_loss_nats: their mean loss.
        broken: checks whose invariant is broken.
        exit_code: 0, or 10 when one is.
        notes: what a reader must know, one line each.
        table: one row per check: check, kind ("must not matter" or "may matter"), setting, tokens (that both score),
            mean_loss_nats (of the variant, over them), difference_nats (of the means), largest_nats (largest difference
            of a single token), limit_nats (what rounding may do to the mean), largest_limit_nats (and to
            a single token), verdict.
    """

    tokens: int
    mean_loss_nats: float
    broken: list[str]
    exit_code: int
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        checked = self.table[self.table["verdict"].isin((SAME, BROKEN))]
        if self.broken:
            return f"BROKEN: the loss depends on {', '.join(self.broken)}, which must not matter"
        may = self.table.loc[self.table["verdict"] == DIFFERS]
        held = f"{plural(len(checked), 'invariant')} held on {plural(self.tokens, 'token')}"
        if may.empty:
            return held
        check, setting, change = max(
            zip(may["check"], may["setting"], may["difference_nats"], strict=True), key=lambda row: abs(row[2])
        )
        (size,) = format_together([change], signed=True)
        return f"{held}; what matters most is {check} ({setting}): {size} nats a token"


def judge_variants(reference: Losses, variants: Sequence[Variant], notes: Sequence[str] = ()) -> SelfCheck:
    """Return which variants moved the losses, and by how much.

    Args:
        reference: float64 [n], losses of the pass as it is; NaN where a token is not scored.
        variants: the other ways.
        notes: what a reader must know.

    >>> judge_variants(np.array([1.0, 2.0]), [Variant("order", "reversed", EXACT, np.array([1.0, 2.5]))]).broken
    ['order']
    """
    rows = [_row(reference, variant) for variant in variants]
    table = pd.DataFrame(rows).astype({"mean_loss_nats": float, "difference_nats": float, "largest_nats": float})
    broken = list(dict.fromkeys(table.loc[table["verdict"] == BROKEN, "check"]))
    scored = reference[~np.isnan(reference)]
    return SelfCheck(len(scored), float(scored.mean()), broken, FAILED if broken else 0, list(notes), table)


def _row(reference: Losses, variant: Variant) -> dict[str, object]:
    row: dict[str, object] = {
        "check": variant.check,
        "kind": MAY if variant.limits is None else MUST_NOT,
        "setting": variant.setting,
        "tokens": 0,
        "mean_loss_nats": math.nan,
        "difference_nats": math.nan,
        "largest_nats": math.nan,
        "limit_nats": math.nan if variant.limits is None else variant.limits.mean_nats,
        "largest_limit_nats": math.nan if variant.limits is None else variant.limits.token_nats,
        "verdict": f"{NOT_CHECKED}: {variant.reason}",
    }
    if variant.same is not None:
        return row | {"tokens": variant.tokens, "verdict": SAME if variant.same else BROKEN}
    if variant.losses is None:
        return row
    both = ~np.isnan(reference) & ~np.isnan(variant.losses)
    change = variant.losses[both] - reference[both]
    if not both.any():
        held = variant.limits is None or bool((np.isnan(reference) == np.isnan(variant.losses)).all())
        row["verdict"] = f"{NOT_CHECKED}: no token that both score" if held else BROKEN
        return row
    row["tokens"] = int(both.sum())
    row["mean_loss_nats"] = float(variant.losses[both].mean())
    row["difference_nats"] = float(change.mean())
    row["largest_nats"] = float(np.abs(change).max())
    row["verdict"] = _verdict(reference, variant, change)
    return row


def _verdict(reference: Losses, variant: Variant, change: Losses) -> str:
    assert variant.losses is not None
    if variant.limits is None:
        return DIFFERS if np.abs(change).max() > 0 else "no difference"
    same_tokens = bool((np.isnan(reference) == np.isnan(variant.losses)).all())
    within = abs(change.mean()) <= variant.limits.mean_nats and np.abs(change).max() <= variant.limits.token_nats
    return SAME if same_tokens and within else BROKEN
