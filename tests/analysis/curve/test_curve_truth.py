"""How often the diagnoses are right on drawn logs of known truth: the table of the docs, and a part drawn anew."""

import json
from pathlib import Path

import pytest
from simulations.curve_logs import FAULTS
from simulations.curve_truth import FAULTY, FILE, HEALTHY, HELD_OUT_FILE, simulate, simulate_parting, table

from lossprobe.analysis.curve.diagnoses import DIAGNOSES

PAGE = Path(__file__).parents[3] / "docs/pages/explanation/training-logs.md"
RESULTS = [json.loads(file.read_text("utf-8")) for file in (FILE, HELD_OUT_FILE)]


@pytest.mark.parametrize("result", RESULTS, ids=["set on", "held out"])
def test_every_diagnosis_is_right_often_enough(result):
    assert list(result["diagnoses"]) == list(FAULTS)
    assert set(FAULTS) == set(DIAGNOSES)
    assert result["healthy_logs"] == HEALTHY
    assert result["healthy_with_alarm"] <= 0.02
    for name, row in result["diagnoses"].items():
        assert row["logs"] == FAULTY, name
        assert row["precision"] >= 0.95, name
        assert row["recall"] >= 0.90, name
    assert result["parting"]["equal_told"] <= 0.02
    assert result["parting"]["parted_told"] >= 0.95


def test_the_table_of_the_docs_is_that_of_the_simulation():
    assert table(*RESULTS) in PAGE.read_text("utf-8")


@pytest.mark.thorough
def test_a_part_drawn_anew_agrees_with_the_table():
    result = simulate(faulty=40, healthy_logs=300, seed=5)
    assert result["healthy_with_alarm"] <= 0.03
    for name, row in result["diagnoses"].items():
        assert row["recall"] >= 0.8, name
        assert row["precision"] >= 0.85, name
    parting = simulate_parting(200, seed=5)
    assert parting["equal_told"] <= 0.04
    assert parting["step_within_3_percent"] >= 0.9
