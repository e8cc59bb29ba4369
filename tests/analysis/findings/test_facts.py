"""What rules read of runs, and no view shows: against losses that each test chooses."""

from __future__ import annotations

import numpy as np
import pytest
from fake_runs import LN2, Doc, words, write_run
from scipy import stats

from lossprobe.analysis.context_contrasts import BEGINNING, END, FIRST, REACH, context_contrasts
from lossprobe.analysis.document_outlier import document_outlier
from lossprobe.analysis.findings.facts import find_facts
from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.rows.clusters import find_clusters

CLOSE = 1e-6  # losses are stored in float32


def jackknife(near: np.ndarray, far: np.ndarray) -> tuple[float, float]:
    """Return the difference of two ratios [G, 2] of sums and counts, and half of its interval, one by one."""
    ratio = lambda rows: rows[:, 0].sum() / rows[:, 1].sum()  # noqa: E731
    whole = ratio(near) - ratio(far)
    keep = [np.arange(len(near)) != left for left in range(len(near))]
    without = np.array([ratio(near[some]) - ratio(far[some]) for some in keep])
    count = len(near)
    return whole, stats.t.ppf(0.975, count - 1) * np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())


def test_contrasts_are_of_the_documents_that_have_both_ranges(tmp_path):
    """Losses in bits: 5 + k below 32 tokens of context, 2 + 2 k beyond, in documents k of 100 tokens; one is short."""
    long = [words("first_token", *[5.0 + k] * 31, *[2.0 + 2 * k] * 68) for k in range(3)]
    run = write_run(tmp_path, [*long, words("first_token", *[40.0] * 20)], context=100)
    found = {each.name: each for each in context_contrasts(run, find_clusters(run), 99)}
    near = np.array([[(5.0 + k) * 31 * LN2, 31] for k in range(3)])
    far = np.array([[(2.0 + 2 * k) * 68 * LN2, 68] for k in range(3)])
    value, half = jackknife(near, far)
    one = found[BEGINNING]
    assert (one.first, one.last, one.against_first, one.against_last, one.clusters) == (1, 31, 32, 99, 3)
    assert one.difference_nats == pytest.approx(value, rel=CLOSE)
    assert one.difference_nats_interval == pytest.approx((value - half, value + half), rel=1e-5)
    total = near[:, 0].sum() + far[:, 0].sum() + 800 * LN2
    assert one.share_of_loss == pytest.approx(value * (3 * 31 + 20) / total, rel=CLOSE)
    assert found[FIRST].difference_nats == pytest.approx(LN2 * (3 * 3 * 6 + 120) / 12 - LN2 * (28 * 18 + 17 * 40) / 101,
                                                         rel=CLOSE)  # fmt: skip
    assert found[REACH].clusters == 3
    assert (found[END].first, found[END].last, found[END].against_first, found[END].against_last) == (25, 49, 50, 99)


def test_the_end_of_a_document_is_no_end_of_a_window(tmp_path):
    run = write_run(tmp_path, [words("first_token", *[2.0] * 99)] * 3, context=1024)
    assert END not in {each.name for each in measure_positions(run).contrasts}
    assert measure_positions(run, "document-position").contrasts == []
    assert measure_positions(write_run(tmp_path / "short", [words("first_token", *[2.0] * 60)])).contrasts == []


def test_the_hardest_document_against_the_others(tmp_path):
    """Twelve documents of 64 tokens at 2.0, 2.1, … bits, and one at 9 whose pieces are equal: the others decide."""
    levels = [2.0 + 0.1 * k for k in range(12)]
    docs = [words("first_token", *[level] * 64) for level in levels]
    run = write_run(tmp_path, [*docs, words("first_token", *[9.0] * 64), words("first_token", 30.0)])
    found = document_outlier(run)
    rest = np.array(levels) * LN2
    assert (found.document, found.documents, found.clusters) == (12, 13, 12)
    assert found.difference_nats == pytest.approx(9 * LN2 - rest.mean(), rel=CLOSE)
    half = stats.t.ppf(0.975, 11) * rest.std(ddof=1) / np.sqrt(12)
    low, high = found.difference_nats_interval
    assert high - low == pytest.approx(2 * half, rel=1e-4)
    mad = np.median(np.abs(rest - np.median(rest)))
    assert found.deviations == pytest.approx((9 * LN2 - np.median(rest)) / (1.4826 * mad), rel=1e-5)
    assert found.share_of_loss == pytest.approx(9 * 64 / (9 * 64 + sum(levels) * 64 + 30), rel=CLOSE)
    assert find_hardest(run, "document").outlier == found
    few = write_run(tmp_path / "few", docs[:9])
    assert document_outlier(few) is None


def test_files_ties_and_what_is_known_by_heart(tmp_path):
    one = [Doc([b" a"] * 40, ["first_token", *[4.0] * 39], source="one.txt", line=k) for k in range(3)]
    two = [Doc([b" b"] * 40, ["first_token", *[0.01 * (k + 1)] * 39], source="two.txt", line=k) for k in range(3)]
    found = find_facts(write_run(tmp_path, [*one, *two]))
    assert (found.tokens_scored, found.tied_share, found.answers_scored) == (6 * 39, 0.0, None)
    assert found.memorised.documents == 3
    files = found.files.set_index("file")
    assert files["mean_loss_nats"].tolist() == pytest.approx([4 * LN2, 0.02 * LN2], rel=CLOSE)
    assert files["share_of_tokens"].tolist() == [0.5, 0.5]
    assert files["documents"].tolist() == [3, 3]
    assert find_facts(write_run(tmp_path / "alone", one)).files.empty


def test_the_scored_shares_of_answers_and_prompts(tmp_path):
    labels = [(0, "user", "content")] * 4 + [(1, "assistant", "content")] * 4
    doc = Doc([b" a"] * 8, ["first_token", 1.0, 1.0, 1.0, "masked", "masked", "masked", 1.0], labels=labels)
    found = find_facts(write_run(tmp_path, [doc]))
    assert (found.answers_scored, found.prompts_scored) == (0.25, 0.75)
