"""Verdicts on hand-made losses: the mean, a single token, the tokens themselves, and what was not tried."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lossprobe.analysis.selfcheck import EXACT, HALF, ROUNDING, DifferenceLimits, Variant, judge_variants

REFERENCE = np.array([np.nan, 1.0, 2.0, 3.0, 6.0])
LIMITS = DifferenceLimits(0.01, 0.1)


def moved(*changes: float) -> np.ndarray:
    return REFERENCE + np.array([0.0, *changes])


def judged(losses, limits=LIMITS, reason=""):
    """Return the result of one variant, and its row."""
    result = judge_variants(REFERENCE, [Variant("batch size", "1", limits, losses, reason)])
    return result, result.table.iloc[0]


@pytest.mark.parametrize(
    ("changes", "limits", "verdict"),
    [
        ((0, 0, 0, 0), EXACT, "same"),
        ((0, 0, 0, 1e-12), EXACT, "BROKEN"),
        ((1e-12, -1e-12, 0, 0), EXACT, "BROKEN"),  # the mean stays, two tokens do not
        ((0.25, 0, 0, 0), DifferenceLimits(0.0625, 0.25), "same"),  # both limits are included
        ((0.25, 0, 0, 0), DifferenceLimits(0.0624, 0.25), "BROKEN"),
        ((0.25, 0, 0, 0), DifferenceLimits(0.0625, 0.249), "BROKEN"),
        ((-0.25, 0, 0, 0), DifferenceLimits(0.0624, 0.25), "BROKEN"),  # downwards as well
        ((-0.25, 0, 0, 0), DifferenceLimits(0.0625, 0.249), "BROKEN"),
        ((0.09, -0.09, 0, 0), LIMITS, "same"),
        ((0, 0, 0, 0), None, "no difference"),
        ((1e-12, -1e-12, 0, 0), None, "differs"),
        ((5.0, 0, 0, 0), None, "differs"),
    ],
)
def test_verdicts(changes, limits, verdict):
    result, row = judged(moved(*changes), limits)
    assert row["verdict"] == verdict
    assert (result.exit_code, result.broken) == ((10, ["batch size"]) if verdict == "BROKEN" else (0, []))
    assert row["kind"] == ("may matter" if limits is None else "must not matter")
    assert row["limit_nats"] == pytest.approx(math.nan if limits is None else limits.mean_nats, nan_ok=True)
    assert row["largest_limit_nats"] == pytest.approx(math.nan if limits is None else limits.token_nats, nan_ok=True)


def test_numbers():
    result, row = judged(moved(0.5, -0.25, 0.0, 0.5), None)
    assert (result.tokens, result.mean_loss_nats) == (4, 3.0)
    assert (row["tokens"], row["mean_loss_nats"], row["difference_nats"]) == (4, 3.1875, 0.1875)
    assert row["largest_nats"] == 0.5
    assert judged(moved(0, -4.0, 1.0, 0), None)[1]["largest_nats"] == 4.0, "by size"
    assert list(result.table.columns) == [
        "check", "kind", "setting", "tokens", "mean_loss_nats", "difference_nats", "largest_nats", "limit_nats",
        "largest_limit_nats", "verdict",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "losses",
    [
        np.array([np.nan, 1.0, np.nan, 3.0, 6.0]),  # one token less
        np.array([0.5, 1.0, 2.0, 3.0, 6.0]),  # one more
        np.array([0.5, np.nan, 2.0, 3.0, 6.0]),  # as many, but others
    ],
)
def test_other_tokens_break_an_invariant_however_equal_the_losses_are(losses):
    result, row = judged(losses, DifferenceLimits(1.0, 1.0))
    assert row["verdict"] == "BROKEN"
    assert result.exit_code == 10
    both = ~np.isnan(losses[1:])
    assert row["tokens"] == both.sum()
    assert row["mean_loss_nats"] == REFERENCE[1:][both].mean()
    assert row["difference_nats"] == 0.0
    assert judged(losses, None)[1]["verdict"] == "no difference", "where it may matter, the common ones are compared"


def test_what_was_not_tried_breaks_nothing():
    for limits in (LIMITS, None):
        result, row = judged(None, limits, "one document")
        assert row["verdict"] == "not checked: one document"
        assert row["tokens"] == 0
        assert row[["mean_loss_nats", "difference_nats", "largest_nats"]].isna().all()
        assert (result.exit_code, result.broken) == (0, [])
    assert result.finding == "0 invariants held on 4 tokens"


def test_findings():
    same = Variant("threads", "1", LIMITS, moved(0, 0, 0, 0))
    worse, worst = (Variant(name, "other", LIMITS, moved(0, 0, 0, 1)) for name in ("batch size", "reductions"))
    untried = Variant("padding side", "left", LIMITS, None, "no mask")
    equal = Variant("stride", "4", None, moved(0, 0, 0, 0))
    small, large = (
        Variant("BOS", "without", None, moved(0, 0, 0, 0.5)),
        Variant("context", "8", None, moved(-1, 0, 0, 0)),
    )

    def finding(*variants):
        return judge_variants(REFERENCE, variants, ["note"]).finding

    assert finding(same, untried, equal) == "1 invariant held on 4 tokens"
    assert finding(same, same, small, large, untried) == (
        "2 invariants held on 4 tokens; what matters most is context (8): -0.2500 nats a token"
    )
    assert finding(same, large, small).endswith("context (8): -0.2500 nats a token"), "by size, not by order"
    assert finding(same, small).endswith("BOS (without): +0.1250 nats a token")
    assert finding(same, worse, large, worst) == (
        "BROKEN: the loss depends on batch size, reductions, which must not matter"
    )


def test_all_in_one():
    variants = [
        Variant("threads", "1", LIMITS, moved(0, 0, 0, 0)),
        Variant("batch size", "1", LIMITS, moved(0, 0, 0, 0.2)),
        Variant("precision", "float16", None, None, "no copy"),
    ]
    result = judge_variants(REFERENCE, variants, ["a sample"])
    assert (result.broken, result.exit_code, result.notes) == (["batch size"], 10, ["a sample"])
    assert result.table["verdict"].tolist() == ["same", "BROKEN", "not checked: no copy"]
    assert result.table.dtypes[["mean_loss_nats", "difference_nats", "largest_nats"]].eq(float).all()
    assert pd.isna(result.table["difference_nats"].iloc[2])


def test_limits_are_those_of_the_dtype():
    """Rounding of float32 moves single tokens by 1e-4 or so, that of half precision by a few hundredths."""
    assert ROUNDING["float64"].mean_nats < ROUNDING["float32"].mean_nats < HALF.mean_nats
    assert ROUNDING["float64"].token_nats < ROUNDING["float32"].token_nats < HALF.token_nats
    assert (EXACT.mean_nats, EXACT.token_nats) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("mean", "token", "verdict"), [(0.0049, 0.49, "same"), (0.0051, 0.4, "BROKEN"), (0.0, 0.51, "BROKEN")]
)
def test_half_precision_may_move_the_mean_by_5_thousandths_and_a_token_by_a_half(mean, token, verdict):
    change = np.zeros(100)
    change[:2] = token, 100 * mean - token
    reference = np.ones(100)
    result = judge_variants(reference, [Variant("threads", "1", HALF, reference + change)])
    assert result.table["verdict"].tolist() == [verdict]
