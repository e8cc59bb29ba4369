"""Models beside each other in one table."""

import math

import pandas as pd
import pytest

from lossprobe.report.formats.columns import fitted
from lossprobe.report.formats.side_by_side import side_by_side

NAN = math.nan


def test_one_column_a_model_and_one_row_a_measure():
    table = pd.DataFrame(
        [
            ("a", "ece", 0.1, 0.05, 0.15, 0.01),
            ("a", "accuracy", 0.5, NAN, NAN, NAN),
            ("b\x1b", "ece", NAN, NAN, NAN, 0.02),
            ("b\x1b", "accuracy", 0.25, 0.2, 0.3, NAN),
        ],
        columns=["model", "measure", "value", "low", "high", "noise_floor"],
    )
    shown = side_by_side(table)
    assert shown.to_dict("list") == {
        "measure": ["ece", "accuracy"],
        "a": ["0.1000 [0.0500, 0.1500] floor 0.0100", "0.5000"],
        "b\\x1b": ["n/a", "0.2500 [0.2000, 0.3000]"],
    }


def test_models_with_long_names_that_begin_alike_keep_their_columns():
    names = [f"a_very_long_model_name_that_goes_on_and_on_and_on_step_{step}" for step in ("000100", "000200")]
    rows = [(name, "ece", value, NAN, NAN, NAN) for name, value in zip(names, (0.1, 0.2), strict=True)]
    table = pd.DataFrame(rows, columns=["model", "measure", "value", "low", "high", "noise_floor"])
    shown = side_by_side(table)
    assert shown.iloc[0].tolist() == ["ece", "0.1000", "0.2000"]
    assert all(name.endswith(step) for name, step in zip(shown.columns[1:], ("000100", "000200"), strict=True))


@pytest.mark.parametrize(("models", "columns"), [(2, 3), (3, 4), (5, 4)])
def test_as_many_as_three_models_fit_into_a_terminal(models, columns):
    names = [f"a_very_long_model_name_that_goes_on_and_on_step_{number}" for number in range(models)]
    measures = [("nll_minus_entropy_nats", -0.2577, -0.3192, -0.1962, NAN), ("ece", 0.1234, 0.0123, 0.2345, 0.0456)]
    rows = [(name, *measure) for name in names for measure in measures]
    shown = side_by_side(pd.DataFrame(rows, columns=["model", "measure", "value", "low", "high", "noise_floor"]))
    found = fitted(shown, 80, list(reversed(shown.columns[2:])))
    assert len(found.columns) == columns
    assert found.left_out == list(reversed(shown.columns[columns:])), "the last ones go first"
