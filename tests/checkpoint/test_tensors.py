"""Missing, unexpected and non-finite tensors are refused."""

import pytest
import torch

from lossprobe.checkpoint.files.tensors import check_finite, check_tensors, compute_dtype
from lossprobe.checkpoint.files.torch_file import dtypes
from lossprobe.errors import CheckpointError, UsageError

EXPECTED = {"a": (2, 3), "b": (4,), "c": (1,), "d": (1,), "e": (1,)}
ACTUAL = {name: torch.zeros(shape) for name, shape in EXPECTED.items()}


def test_the_exact_set_of_tensors_passes(tmp_path):
    assert check_tensors(tmp_path, ACTUAL, EXPECTED) is None
    assert check_finite(tmp_path, ACTUAL) is None


@pytest.mark.parametrize(
    ("actual", "id", "message"),
    [
        ({k: v for k, v in ACTUAL.items() if k != "b"}, "missing_tensor", "tensor b is missing (4 of 5 present)"),
        ({"e": ACTUAL["e"]}, "missing_tensor", "tensors a, b, c and 1 more are missing (1 of 5 present)"),
        (ACTUAL | {"x\x1b": ACTUAL["a"]}, "unexpected_tensor", r"unexpected tensor x\x1b (6 stored, 5 expected)"),
        (
            ACTUAL | {"a": torch.zeros(3, 2)},
            "wrong_shape",
            "tensor a has shape [3, 2], the configuration asks for [2, 3]",
        ),
    ],
)
def test_another_set_of_tensors_is_refused(tmp_path, actual, id, message):
    with pytest.raises(CheckpointError) as caught:
        check_tensors(tmp_path, actual, EXPECTED)
    assert caught.value.id == f"checkpoint.{id}"
    assert caught.value.message == f"{tmp_path}: {message}"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, float("nan")], "ln_f.weight: 1 non-finite value"),
        ([float("inf"), float("-inf")], "ln_f.weight: 2 non-finite values"),
    ],
)
def test_non_finite_values_are_counted(tmp_path, values, message):
    with pytest.raises(CheckpointError) as caught:
        check_finite(tmp_path, {"a": torch.zeros(2), "ln_f.weight": torch.tensor(values)})
    assert (caught.value.id, caught.value.message) == ("checkpoint.non_finite", f"{tmp_path}: {message}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(tmp_path, dtype, value):
    for size in (1, 7, 33, 1000):
        for place in {0, size // 2, size - 1}:
            tensor = torch.linspace(-1, 1, size).to(dtype)
            tensor[place] = value
            with pytest.raises(CheckpointError, match="w: 1 non-finite value"):
                check_finite(tmp_path, {"w": tensor})
    assert check_finite(tmp_path, {"none": torch.zeros(0)}) is None


def test_a_dtype_that_is_not_offered_is_a_usage_error():
    assert compute_dtype("float16", "auto") is torch.float16
    assert compute_dtype("float64", "auto") is torch.float32
    with pytest.raises(UsageError, match="must be one of float32, bfloat16, float16, auto"):
        dtypes({"a": torch.zeros(1)}, "int8")
