"""Sums of what each token says about calibration, against float64 over the drawn logits."""

import math

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, measure_rows, write_drawn
from fake_runs import words

from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.outcomes import OUTCOMES, outcome_sums, standard_errors
from lossprobe.errors import OutputError
from lossprobe.run.reader import Run


def expected_outcomes(logits: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=-1, keepdims=True)
    at, rows = p[np.arange(len(p)), targets], np.arange(len(p))
    x, o, n = p.max(axis=-1), (p.argmax(axis=-1) == targets).astype(float), -np.log(at)
    log_p = np.log(p)
    entropy = -(p * log_p).sum(axis=-1)
    one_hot = np.zeros_like(p)
    one_hot[rows, targets] = 1.0
    brier = ((p - one_hot) ** 2).sum(axis=-1)
    return {
        "tokens": np.ones(len(p)), "nats": n, "entropy": entropy,
        "varentropy": (p * log_p**2).sum(axis=-1) - entropy**2,
        "confidence": x, "correct": o, "top5": ((p >= at[:, None]).sum(axis=-1) <= 5).astype(float),
        "brier": brier, "spread": x * (1 - x), "nats2": n**2, "excess2": (n - entropy) ** 2,
        "gap2": (x - o) ** 2, "brier2": brier**2, "confidence2": x**2, "confidence_correct": x * o,
        "copies": np.ones(len(p)),
    }  # fmt: skip


def test_every_sum_is_that_of_the_definition_per_document(tmp_path):
    rng = np.random.default_rng(3)
    logits = draw_logits(rng, 2000, 37)
    drawn = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), document_numbers(rng, 2000, 7))
    expected = expected_outcomes(logits, drawn.targets)
    assert expected.keys() == OUTCOMES.keys()
    sums = outcome_sums(drawn.run, find_clusters(drawn.run))
    assert sums["cluster"].tolist() == list(range(7))
    for name, values in expected.items():
        per_document = np.bincount(drawn.documents, weights=values)
        assert sums[name].to_numpy() == pytest.approx(per_document, rel=3e-6, abs=1e-5), name


def test_the_brier_score_of_a_sure_and_right_token_does_not_cancel(tmp_path):
    # Sum of p^2 and 2 p(token) agree to float32 here: the difference would be 0, the truth is 2 (1 - p)^2 = 2e-13.
    logits = np.array([[0.0, math.log(1e-7) - math.log1p(-1e-7)]])
    run = write_drawn(tmp_path / "run", logits, np.array([0]), np.array([0])).run
    brier = outcome_sums(run, find_clusters(run))["brier"].iloc[0]
    assert 0.99e-14 <= brier <= 2.02e-14
    assert measure_rows(logits, np.array([0]))["loss_nats"][0] == pytest.approx(1e-7, rel=1e-6)


def test_groups_and_conditions_pick_their_rows(tmp_path):
    rng = np.random.default_rng(4)
    logits = draw_logits(rng, 300, 11)
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), document_numbers(rng, 300, 3)).run
    clusters = find_clusters(run)
    halves = outcome_sums(run, clusters, key="token % 2")
    assert halves["tokens"].sum() == 300
    assert set(halves["key"]) == {0, 1}
    odd = outcome_sums(run, clusters, where="token % 2 = 1")
    assert odd["nats"].to_numpy() == pytest.approx(halves[halves["key"] == 1]["nats"].to_numpy())


def damage(run: Run, column: str, value: str) -> None:
    """Change what the third token of the second document of a run reads as."""
    run._connection.execute("ALTER VIEW tokens RENAME TO kept")
    run._connection.execute(f"""
        CREATE VIEW tokens AS SELECT * REPLACE (
            CASE WHEN document = 1 AND token = 2 THEN {value} ELSE {column} END AS {column}) FROM kept""")


@pytest.mark.parametrize("column", ["loss_nats", "entropy_nats", "varentropy", "top_prob", "sum_p2"])
@pytest.mark.parametrize("value", ["'NaN'::FLOAT", "'Infinity'::FLOAT", "NULL"])
def test_a_number_that_is_not_finite_is_refused_with_its_place(make_run, column, value):
    run = make_run([words("first_token", 1.0, 2.0), words("first_token", 1.0, 2.0, 3.0)])
    damage(run, column, value)
    with pytest.raises(OutputError, match="document 1, token 2"):
        outcome_sums(run, find_clusters(run))


def test_standard_errors_are_not_given_where_rounding_would_decide():
    deviation, variance = np.array([3.0, 3.0, 3.0, 3.0, -1e-7]), np.array([2.25, 1.1e-8, 1e-8, 0.0, -1e-16])
    z = standard_errors(deviation, variance, np.full(5, 100.0))
    np.testing.assert_allclose(z, [2.0, 3 / math.sqrt(1.1e-8), np.nan, np.nan, np.nan], rtol=1e-12)
