"""A part through two models: every scored row once, in text order, whatever order the batches had."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import ByteTokenizer, SmallModel, checkpoint

from lossprobe.plan.rows import SCORED, WindowPolicy, cut_parts, plan_documents
from lossprobe.scoring.pair import compare_part
from lossprobe.scoring.scorer import PassOptions, score_part

TEXTS = ["short", "it was a dark and stormy night", "x", "a much longer text than the others, of several windows"]


def parts(rows_at_most):
    tokens = [ByteTokenizer(unknown_byte=ord("k")).encode(text) for text in TEXTS]
    return list(cut_parts(plan_documents(tokens, WindowPolicy(16, 5, 256)), rows_at_most))


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("rows_at_most", [20, 1000])
def test_every_scored_row_once_and_in_text_order(batch_size, rows_at_most):
    pair = (checkpoint(SmallModel(0)), checkpoint(SmallModel(1)))
    found = []
    for rows in parts(rows_at_most):
        progress = []
        result = compare_part(pair, rows, PassOptions(batch_size, advance=progress.append))
        scored = rows.own & (rows.unscored == SCORED)
        assert sum(progress) == scored.sum() == len(result.kl_nats)
        for name in ("document", "token", "token_id"):
            np.testing.assert_array_equal(getattr(result, name), getattr(rows, name)[scored])
        for model, losses in zip(pair, (result.first_loss_nats, result.second_loss_nats), strict=True):
            alone = score_part(model, rows, 0, PassOptions()).columns["loss_nats"]
            np.testing.assert_allclose(losses, alone[scored[rows.own.argmax() :]], atol=2e-5)
        assert result.same_top.dtype == bool
        found.append(len(result.token))
    assert sum(found) == sum(map(len, TEXTS)) - "".join(TEXTS).count("k")


def test_a_part_without_scored_rows_gives_none():
    (rows,) = plan_documents([ByteTokenizer().encode("")], WindowPolicy(16, 16, 256))
    result = compare_part((checkpoint(SmallModel(0)), checkpoint(SmallModel(1))), rows, PassOptions())
    assert {len(values) for values in vars(result).values()} == {0}
