"""Smooth ECE against its definition, relplot, and simulated calibrated models."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct, idct

from lossprobe.analysis.calibration import smooth_ece as module
from lossprobe.analysis.calibration.smooth_ece import (
    GRID,
    fixed_bandwidth_error,
    residual_sums,
    smooth_ece,
    smooth_noise,
)
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.stats.resampling import at_most, bootstrap
from lossprobe.errors import OutputError


def in_cells(x, o, cells=GRID):
    """Return sums [cells, 3] of confidences and outcomes."""
    at = np.minimum((x * cells).astype(int), cells - 1)
    return np.stack([np.bincount(at, w, cells) for w in (np.ones_like(x), x - o, x * (1 - x))], axis=-1)


def draw(rng, count, power=1.0):
    """Return confidences about as spread as a language model's, and outcomes with the true probability x^power."""
    x = rng.beta(0.5, 0.9, count)
    return x, (rng.random(count) < x**power).astype(float)


def by_definition(x, o, bandwidth, points=4096):
    """Return ∫ |1/N Σ_i K(x_i, t) (x_i − o_i)| dt: K has the images of x_i at ±x_i + 2k, the integral is a sum."""
    t = (np.arange(points) + 0.5) / points
    smoothed = np.zeros(points)
    for image in [sign * x + 2 * k for k in range(-3, 4) for sign in (-1, 1)]:
        near = np.abs(image - 0.5) < 0.5 + 9 * bandwidth
        distance = (t - image[near, None]) / bandwidth
        smoothed += (x - o)[near] @ np.exp(-0.5 * distance**2)
    return np.abs(smoothed).sum() / points / len(x) / (bandwidth * np.sqrt(2 * np.pi))


def at_bandwidth(sums, bandwidth):
    cosines = dct(sums[:, 1] / sums[:, 0].sum())
    return float(fixed_bandwidth_error(cosines[None], np.array([bandwidth]))[0])


@pytest.mark.parametrize("bandwidth", [0.004, 0.02, 0.1, 0.4, 1.0])
def test_one_bandwidth_is_the_definition(bandwidth):
    rng = np.random.default_rng(1)
    x, o = draw(rng, 400)
    # Confidences within a cell count as its middle: that moves the error by less than 0.5 % of itself.
    assert at_bandwidth(in_cells(x, o), bandwidth) == pytest.approx(by_definition(x, o, bandwidth), rel=5e-3)
    x = (np.floor(x * GRID) + 0.5) / GRID
    # In the middle of a cell nothing is moved; left is the sum over 1,024 points for the integral of |r|.
    error = at_bandwidth(in_cells(x, o), bandwidth)
    assert error == pytest.approx(by_definition(x, o, bandwidth, GRID), abs=1e-8)
    assert error == pytest.approx(by_definition(x, o, bandwidth), abs=5e-5)


@pytest.mark.parametrize("cells", [64, GRID])
def test_cosines_that_are_left_out_would_add_nothing_at_all(cells):
    rng = np.random.default_rng(3)
    cosines = dct(rng.standard_normal((32, cells)))
    for narrowest in (1 / GRID, 0.01, 0.05, 0.3, 1.0):
        bandwidth = rng.uniform(narrowest, 1.0, 32)
        factors = np.exp(-0.5 * (bandwidth[:, None] * (np.pi * np.arange(cells))) ** 2)
        every = np.abs(idct(cosines * factors)).sum(axis=-1)
        assert fixed_bandwidth_error(cosines, bandwidth).tolist() == every.tolist()


@pytest.mark.parametrize("power", [1.0, 1.4])
@pytest.mark.parametrize("count", [500, 5000, 50_000])
def test_relplot_agrees_to_its_own_resolution(count, power):
    from relplot import smECE

    rng = np.random.default_rng(count)
    for _ in range(3):
        x, o = draw(rng, count, power)
        # It halves the range of bandwidths ten times, and draws the curve at 200 points.
        assert float(smooth_ece(in_cells(x, o))) == pytest.approx(smECE(x, o), abs=1e-3)


def test_the_result_is_its_own_bandwidth():
    rng = np.random.default_rng(2)
    for count, power in ((300, 1.0), (3000, 1.0), (3000, 2.0), (300_000, 1.0)):
        sums = in_cells(*draw(rng, count, power))
        error = float(smooth_ece(sums))
        assert at_bandwidth(sums, error) == pytest.approx(error, abs=2e-6)
    # No narrower than a cell, where the error is smaller still.
    x = np.tile([0.3, 0.3, 0.6], 1000)
    sums = in_cells(x, np.tile([0.3, 0.3, 0.6002], 1000))
    assert float(smooth_ece(sums)) == pytest.approx(at_bandwidth(sums, 1 / GRID), rel=1e-3)
    assert float(smooth_ece(sums)) == pytest.approx(0.0002 / 3, rel=0.01)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30),
    st.lists(st.floats(1 / GRID, 1), min_size=2, max_size=2).map(sorted),
)
@settings(max_examples=100, deadline=None)
def test_smoothing_keeps_the_gap_and_never_adds_error(pairs, bandwidths):
    x, o = np.array(pairs, float).T
    sums = in_cells(x, o)
    narrow, wide = (at_bandwidth(sums, bandwidth) for bandwidth in bandwidths)
    gap = abs(x.mean() - o.mean())
    cells = np.abs(sums[:, 1]).sum() / len(x)
    # A bandwidth of one cell leaves ripples of less than 1 %.
    assert gap - 1e-12 <= wide <= narrow * 1.01 + 1e-12
    assert narrow <= cells * 1.01
    assert gap - 1e-12 <= float(smooth_ece(sums)) <= cells * 1.01


def test_one_confidence_has_the_error_of_its_gap():
    for x, hits, count in ((0.25, 1, 1), (0.7, 30, 60), (1.0, 7, 10), (0.0, 2, 5)):
        sums = in_cells(np.full(count, x), np.arange(count) < hits)
        assert float(smooth_ece(sums)) == pytest.approx(abs(x - hits / count), abs=1e-12)
    assert float(smooth_ece(in_cells(np.ones(50), np.ones(50)))) == 0.0
    assert smooth_noise(in_cells(np.ones(50), np.ones(50))) == 0.0


def test_many_results_are_those_of_each_alone(monkeypatch):
    rng = np.random.default_rng(3)
    stack = np.array([in_cells(*draw(rng, 50 * (n + 1))) for n in range(10)])
    stack[4] = 0
    alone = [float(smooth_ece(sums)) for sums in stack]
    assert np.flatnonzero(np.isnan(alone)).tolist() == [4]
    for rows in (1, 3, 64):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", rows)
        together = smooth_ece(stack.reshape(2, 5, GRID, 3))
        assert together.shape == (2, 5)
        assert together.ravel().tolist() == pytest.approx(alone, rel=1e-12, nan_ok=True)
    assert np.isnan(smooth_noise(stack[4]))


@pytest.mark.parametrize(("count", "published"), [(500, 0.036), (10_000, 0.013)])
def test_the_noise_is_what_a_calibrated_model_shows(monkeypatch, count, published):
    rng = np.random.default_rng(count)
    x, _ = draw(rng, count)
    sums = np.array([in_cells(x, rng.random(count) < x) for _ in range(800)])
    simulated = smooth_ece(sums).mean()
    noise = smooth_noise(sums[0])
    assert noise == pytest.approx(published, rel=0.1)
    assert smooth_noise(sums[0]) == noise
    assert smooth_noise(sums[0], seed=1) != noise
    # The spread is about 20 %: 200 draws are good to 1.4 %, 800 to .7 %.
    assert noise == pytest.approx(simulated, rel=0.045)
    monkeypatch.setattr(module, "DRAWS", 800)
    assert smooth_noise(sums[0]) == pytest.approx(simulated, rel=0.02)


def test_the_sums_of_a_run(tmp_path):
    rng = np.random.default_rng(4)
    logits = draw_logits(rng, 900, 12)
    documents = document_numbers(rng, 900, 7)
    targets = draw_targets(rng, logits)
    logits[:3, 0] = logits[:3].max(axis=1) + 60  # stored as confidences of exactly 1
    targets[:3] = (0, 0, 1)
    run = write_drawn(tmp_path / "run", tempered_logits(logits, 0.9), targets, documents).run
    rows = run.query("SELECT document, top_prob, top_id = token_id AS o FROM tokens WHERE unscored IS NULL")
    assert rows["top_prob"].max() == 1.0
    clusters = find_clusters(run)
    sums = residual_sums(run, clusters)
    parts = [part for _, part in rows.groupby("document")]
    expected = [in_cells(part["top_prob"].to_numpy(float), part["o"].to_numpy(float)) for part in parts]
    np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-15)
    merged = residual_sums(run, at_most(clusters, 2))
    np.testing.assert_allclose(merged, [sums[0::2].sum(axis=0), sums[1::2].sum(axis=0)], atol=1e-12)
    late = (rows.groupby("document").cumcount() > 4).sum()
    assert residual_sums(run, clusters, where="token > 5")[..., 0].sum() == late
    assert residual_sums(run, clusters, "(SELECT * FROM tokens WHERE document = 2)").shape == (1, GRID, 3)
    nothing = residual_sums(run, clusters, where="FALSE")
    assert nothing.shape == (0, GRID, 3)
    assert np.isnan(float(smooth_ece(nothing.sum(axis=0))))
    found = bootstrap(sums, smooth_ece, 0.0, 1.0)
    assert 0 <= found.interval.low < found.interval.high
    assert found.value == pytest.approx(float(smooth_ece(in_cells(*rows[["top_prob", "o"]].to_numpy(float).T))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, None])
def test_numbers_that_scoring_never_writes_are_refused(tmp_path, bad):
    rng = np.random.default_rng(5)
    logits = draw_logits(rng, 3, 5)
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), np.zeros(3, int)).run
    file = run.path / "tokens/part-00000.parquet"
    table = pq.read_table(file)
    values = [None, 1e-4, 1e-4, bad]  # the others are in the first cell, so that a missing one is not alone there
    at = table.schema.get_field_index("top_prob")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, pa.float32())), file)
    with pytest.raises(OutputError, match="document 0, token 3"):
        residual_sums(run, find_clusters(run))
