"""Sums of one reading of the scored tokens, against a SQL query for each of them: equal to the last digit."""

import numpy as np
import pandas as pd
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, write_drawn
from fake_runs import words

from lossprobe.analysis.calibration import temperature_fit
from lossprobe.analysis.calibration.measures import ErrorSums
from lossprobe.analysis.calibration.sums import COUNTS, OF_SAMPLE, numbers_of_bins, read_sums
from lossprobe.analysis.calibration.temperature_fit import sample_clusters
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.outcomes import outcome_sums
from lossprobe.analysis.stats.resampling import at_most
from lossprobe.errors import OutputError
from lossprobe.run import reader


@pytest.mark.parametrize(
    ("tokens", "documents", "limits"),
    [(3000, 30, (12, 4)), (3000, 30, (100, 4)), (3000, 30, (100, 50)), (9000, 1, (9, 3))],  # one document has blocks
)
def test_one_reading_gives_what_a_query_for_each_sum_gives(tmp_path, monkeypatch, tokens, documents, limits):
    most, sampled_most = limits
    monkeypatch.setattr(temperature_fit, "MAX_CLUSTERS", sampled_most)
    monkeypatch.setattr(reader, "BATCH_ROWS", 1024)  # so that the clusters and cells of a batch grow
    rng = np.random.default_rng(tokens + most)
    logits = draw_logits(rng, tokens, 9) * 3.0
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), document_numbers(rng, tokens, documents)).run
    clusters = at_most(find_clusters(run), most)
    found, by_bin = read_sums(run, clusters), ErrorSums.read(run, clusters)
    pd.testing.assert_frame_equal(found.outcomes, outcome_sums(run, clusters), check_dtype=False, check_exact=True)
    columns = ["cluster", *COUNTS, *OF_SAMPLE]
    sampled = outcome_sums(run, sample_clusters(run))
    pd.testing.assert_frame_equal(found.sampled[columns], sampled[columns], check_dtype=False, check_exact=True)
    assert clusters.count > 1
    for name, expected in vars(by_bin).items():
        np.testing.assert_array_equal(getattr(found.binned, name), expected, err_msg=name)


def test_copies_are_weighed_as_a_query_does(make_run):
    losses = [words("first_token", 1.0, 2.0, 0.5), words("first_token", 3.0, 0.25), words("first_token", 1.0, 2.0, 0.5)]
    run = make_run(losses, copies=True)
    clusters = find_clusters(run)
    assert run.copies.distinct == 2
    found = read_sums(run, clusters)
    pd.testing.assert_frame_equal(found.outcomes, outcome_sums(run, clusters))
    assert found.outcomes["copies"].tolist() == [12, 2]


@pytest.mark.parametrize(
    "column", ["loss_nats", "entropy_nats", "varentropy", "top_prob", "sum_p2", "rank", "ties", "top_id"]
)
def test_a_missing_number_is_refused_with_its_place(make_run, column):
    run = make_run([words("first_token", 1.0, 2.0), words("first_token", 1.0, 2.0, 3.0)])
    run._connection.execute("ALTER VIEW tokens RENAME TO kept")
    run._connection.execute(f"""
        CREATE VIEW tokens AS SELECT * REPLACE (
            CASE WHEN document = 1 AND token = 2 THEN NULL ELSE {column} END AS {column}) FROM kept""")
    with pytest.raises(OutputError, match="document 1, token 2" if column != "top_prob" else "not finite"):
        read_sums(run, find_clusters(run))


def test_a_value_on_an_edge_lies_in_the_bin_above_it():
    edges = np.arange(1, 15) / 15
    values = np.array([0.0, *edges, *np.nextafter(edges, 0), 1.0])
    assert numbers_of_bins(values, edges).tolist() == np.searchsorted(edges, values, side="right").tolist()
