"""What float16 loses of the gradient, held against casting the true gradients of drawn logits."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawn_runs import draw_logits, draw_targets, log_probabilities, write_drawn
from fake_runs import words

from lossprobe.analysis.objectives import half_precision
from lossprobe.analysis.objectives.formulas import ObjectiveOptions, scored_source
from lossprobe.analysis.objectives.half_precision import LARGEST, SCALES, measure_half_precision
from lossprobe.analysis.objectives.objectives import measure_objectives
from lossprobe.errors import OutputError
from lossprobe.run.reader import open_run

ALL = scored_source("TRUE")


def gradients(logits, targets, tokens: int) -> np.ndarray:
    """Return float64 [N, V], the gradient of the logits under a mean loss over `tokens`."""
    gradient = np.exp(log_probabilities(logits))
    rows = np.arange(len(targets))
    gradient[rows, targets] = 0.0
    gradient[rows, targets] = -gradient.sum(axis=1)  # p - 1 without cancellation
    return gradient / tokens


def near_the_limit(gradient: np.ndarray) -> np.ndarray:
    """Return float64 [scales, 3]: the same shares of entries within 0.1 decades of the limit, which one bin spans."""
    size = np.abs(gradient)
    shares = []
    for scale in SCALES:
        near = np.abs(np.log10(size * scale / 2.0**-25)) < 0.1
        shares.append((near.mean(), size[near].sum() / size.sum(), np.sqrt((size[near] ** 2).sum() / (size**2).sum())))
    return np.array(shares)


def cast_losses(gradient: np.ndarray) -> np.ndarray:
    """Return float64 [scales, 3]: share of entries, of L1, and relative L2 that a cast to float16 turns into 0."""
    size = np.abs(gradient)
    shares = []
    for scale in SCALES:
        with np.errstate(over="ignore"):
            lost = (gradient * scale).astype(np.float16) == 0
        shares.append((lost.mean(), size[lost].sum() / size.sum(), np.sqrt((size[lost] ** 2).sum() / (size**2).sum())))
    return np.array(shares)


def drawn_run(folder, logits, seed=1):
    targets = draw_targets(np.random.default_rng(seed), logits)
    return write_drawn(folder, logits, targets, np.arange(len(targets)) // 40)


@pytest.mark.parametrize(
    ("vocab", "rows", "tokens", "part"),
    [(2, 4000, 2048, 1.0), (32, 2000, 64, 0.1), (1000, 300, 2048, 0.1), (4000, 60, 1 << 19, 0.1)],
)
def test_the_shares_are_those_of_a_cast_to_float16(tmp_path, vocab, rows, tokens, part):
    drawn = drawn_run(tmp_path / "run", draw_logits(np.random.default_rng(vocab), rows, vocab))
    result = measure_half_precision(drawn.run, ALL, tokens)
    assert result.table["scale"].tolist() == list(SCALES)
    gradient = gradients(drawn.logits, drawn.targets, tokens)
    truth = cast_losses(gradient)
    found = result.table[["entries_lost_share", "l1_lost_share", "l2_lost"]].to_numpy()
    # The bin that the limit splits is interpolated: off by all of it at the most (V = 2: few entries), usually by less
    # than a tenth. A bin's sum of p^2 is low by up to 1.3 %.
    slack = part * near_the_limit(gradient) + 0.013 * truth + 1e-9
    known = 1e-12 * np.array(SCALES) <= tokens * 2.0**-25  # below, entries under 10^-12 count as lost
    assert (np.abs(found - truth)[known] <= slack[known]).all()
    assert (found[~known] >= (truth - slack)[~known]).all()
    safe = np.array(SCALES) * np.abs(gradient).max() <= LARGEST / 16
    assert result.recommended_scale == SCALES[int(((truth[:, 1] < 1e-3) & safe).argmax())]
    assert "lower bound" in result.note


def test_a_large_vocabulary_loses_entries_but_little_of_the_gradient(tmp_path):
    # Gaussian logits with a deviation of 3: about the figures that were published for V = 50,257 and 2,048 tokens
    # (97.7 % of entries, 10.6 % of L1, .27 % of L2 without a scale; 49 % and .12 % at 2^8; 3.8 % at 2^16).
    drawn = drawn_run(tmp_path / "run", 3 * np.random.default_rng(0).standard_normal((6, 50_257)))
    result = measure_half_precision(drawn.run, ALL, 2048)
    truth = cast_losses(gradients(drawn.logits, drawn.targets, 2048))
    found = result.table.set_index("scale")
    for scale, bounds in (
        (1, (0.95, 0.99, 0.04, 0.12)),
        (256, (0.4, 0.6, 4e-4, 2e-3)),
        (1 << 16, (0.02, 0.06, 0, 2e-6)),
    ):
        row = found.loc[scale]
        assert bounds[0] < row["entries_lost_share"] < bounds[1]
        assert bounds[2] < row["l1_lost_share"] < bounds[3]
    np.testing.assert_allclose(found["entries_lost_share"], truth[:, 0], atol=5e-3)
    np.testing.assert_allclose(found["l1_lost_share"], truth[:, 1], rtol=0.03, atol=1e-8)
    np.testing.assert_allclose(found["l2_lost"], truth[:, 2], rtol=0.03, atol=1e-8)
    assert result.recommended_scale == SCALES[int((truth[:, 1] < 1e-3).argmax())] == 256


def test_a_gradient_at_the_limit_rounds_to_zero(tmp_path):
    # 1 - p = N 2^-25 / 2^k exactly: lost at scales up to 2^k, as float16 says; the token's other entry is the same.
    run = drawn_run(tmp_path / "run", np.zeros((2, 2))).run
    for power in (0, 3, 24):
        miss = 64 * 2.0 ** (-25 - power)
        source = f"(SELECT {miss!r}::DOUBLE AS miss, {miss!r}::DOUBLE AS n, ({miss!r} * {miss!r})::DOUBLE AS others2)"
        lost, totals = half_precision._target_entries(run, source, 64)
        expected = [np.float16(scale * miss / 64) == 0 for scale in SCALES]
        assert lost[:, 0].tolist() == [float(scale <= 2**power) for scale in SCALES] == expected
        assert totals.tolist() == [2.0, 2 * miss, 2 * miss**2]


def test_the_tokens_themselves_are_taken_out_of_the_histogram(tmp_path):
    drawn = drawn_run(tmp_path / "run", draw_logits(np.random.default_rng(4), 500, 12))
    p = np.exp(log_probabilities(drawn.logits))
    rest = np.ones_like(p, bool)
    rest[np.arange(len(p)), drawn.targets] = False
    edges = half_precision._edges()
    found = half_precision._other_entries(drawn.run, ALL)
    np.testing.assert_array_equal(found[:, 0], np.histogram(p[rest], edges)[0])
    # The stored losses are float32.
    np.testing.assert_allclose(found[:, 1], np.histogram(p[rest], edges, weights=p[rest])[0], rtol=1e-6, atol=1e-5)
    squares = np.histogram(p[rest], edges, weights=p[rest] ** 2)[0]
    assert (found[:, 2] <= squares * (1 + 1e-6) + 1e-5).all()
    assert (found[:, 2] >= squares / 1.0134 - 1e-5).all()


@pytest.mark.parametrize("part", [-1.0, 0.0, 0.1, 0.5, 0.9, 1.0, 3.0])
def test_a_bin_that_the_limit_splits_is_even_in_log_p(part):
    # Bin 100 from 10^-2.1 to 10^-2, filled evenly over log p.
    low, high = half_precision._edges()[[100, 101]]
    p = low * (high / low) ** ((np.arange(20_000) + 0.5) / 20_000)
    others = np.zeros((121, 3))
    others[100] = len(p), p.sum(), (p**2).sum()
    limit = low * (high / low) ** part
    lost = half_precision._lost_others(others, np.array([limit]))[0]
    below = p[p <= limit]
    np.testing.assert_allclose(lost, [len(below), below.sum(), (below**2).sum()], rtol=1e-4, atol=1e-12)


def test_tokens_at_the_edge_of_a_bin_leave_no_mass_behind(tmp_path):
    # p = 10^-0.1 to the last float32 digit, on either side: the stored bin and that of the stored loss can differ.
    other = np.log(10**0.1 - 1)
    logits = np.stack([np.array([0.0, other + shift]) for shift in np.linspace(-3e-7, 3e-7, 61)])
    run = write_drawn(tmp_path / "run", logits, np.zeros(61, int), np.zeros(61, int)).run
    others = half_precision._other_entries(run, ALL)
    assert (others >= 0).all()
    assert others[:, 0].sum() == 61
    assert others[:, 1].sum() == pytest.approx(61 * (1 - 10**-0.1), rel=1e-5)


def test_a_run_without_a_histogram_has_no_section(make_run):
    run = make_run([words("first_token", 1, 2)])
    assert measure_half_precision(run, ALL, 2048) is None
    result = measure_objectives(run)
    assert (result.half_precision, result.recommended_loss_scale) == (None, None)
    assert "fp16: n/a, the run has no histogram of probabilities" in result.notes


@pytest.mark.parametrize("choice", [{"where": ("context > 1",)}, {"full_windows": True}])
def test_a_selection_has_no_section(tmp_path, choice):
    drawn = drawn_run(tmp_path / "run", draw_logits(np.random.default_rng(0), 80, 16))
    run = write_drawn(tmp_path / "short", drawn.logits, drawn.targets, drawn.documents, context=8).run
    result = measure_objectives(run, ObjectiveOptions(**choice))
    assert (result.half_precision, result.recommended_loss_scale) == (None, None)
    assert any(note.startswith("fp16: n/a for a selection") for note in result.notes)


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_a_histogram_that_is_not_finite_is_refused(tmp_path, value):
    run = drawn_run(tmp_path / "run", draw_logits(np.random.default_rng(0), 80, 8)).run
    (path,) = (run.path / "histogram").glob("*.parquet")
    table = pq.read_table(path)
    sums = table["sum_p"].to_pylist()
    sums[3] = value
    place = table.schema.get_field_index("sum_p")
    pq.write_table(table.set_column(place, table.schema.field(place), [sums]), path)
    with pytest.raises(OutputError, match="a stored number of the histogram is not finite") as caught:
        measure_objectives(open_run(run.path))
    assert caught.value.id == "run.not_finite"


def test_without_any_gradient_nothing_is_recommended(tmp_path):
    logits = np.full((3, 4), -300.0)
    logits[:, 0] = 0.0  # the loss is 3 e^-300, which float32 keeps as 0
    run = write_drawn(tmp_path / "run", logits, np.zeros(3, int), np.zeros(3, int)).run
    result = measure_half_precision(run, ALL, 2048)
    assert result.recommended_scale is None
    assert result.table["l1_lost_share"].isna().all()
    assert result.table["l2_lost"].isna().all()
    assert result.table["entries_lost_share"].tolist() == [1.0] * len(SCALES)
    assert result.note == "fp16: n/a, every loss is 0 and so is the gradient"


def test_a_scale_that_could_overflow_is_not_recommended(tmp_path, monkeypatch):
    drawn = drawn_run(tmp_path / "run", draw_logits(np.random.default_rng(0), 200, 1000))
    result = measure_half_precision(drawn.run, ALL, 2048)
    assert result.recommended_scale > 1
    largest = np.abs(gradients(drawn.logits, drawn.targets, 2048)).max()
    monkeypatch.setattr(half_precision, "HEADROOM", LARGEST / largest)  # now only the scale 1 is safe
    refused = measure_half_precision(drawn.run, ALL, 2048)
    assert refused.recommended_scale is None
    assert "no scale up to 2^24" in refused.note
