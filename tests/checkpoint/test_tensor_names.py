"""Names of tensors without what wrappers put into them, one rule at a time; whole models are in test_exact_load."""

from pathlib import Path

import pytest

from lossprobe.checkpoint.files.tensor_names import common_start, fitted_names, holders_of, plain_names
from lossprobe.errors import CheckpointError


def plain(*stored: str) -> list[str]:
    return list(plain_names(Path("m"), stored).plain.values())


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (("module.a.w", "module.b"), ["a.w", "b"]),
        (("_orig_mod.module.a", "_orig_mod.module.b"), ["a", "b"]),
        (("h._orig_mod.w", "h.b"), ["h.w", "h.b"]),
        (("h.module.w", "h.b"), ["h.module.w", "h.b"]),  # inside, a module of the model's own may be called so
        (("model.a", "model.b"), ["model.a", "model.b"]),
    ],
)
def test_what_a_wrapper_put_there_is_taken_out_and_nothing_else(stored, expected):
    assert plain(*stored) == expected


@pytest.mark.parametrize("stored", [("module.a", "b"), ("_orig_mod.a", "b"), ("h._orig_mod.w", "h.w")])
def test_two_models_in_one_file_are_refused(stored):
    with pytest.raises(CheckpointError, match="two models in one file") as caught:
        plain(*stored)
    assert caught.value.id == "checkpoint.mixed_names"


def test_a_holder_is_taken_off_where_the_model_then_has_the_names():
    names = plain_names(Path("m"), ("model.a", "model.b"))
    (held,) = holders_of(names)
    assert list(held.plain.values()) == ["a", "b"]
    assert held.notices() == ("tensor names are read without model., which a training wrapper added",)
    assert names.notices() == ()
    assert fitted_names(names, {"a", "c"}) == held
    assert fitted_names(names, {"model.a", "a"}) is names
    assert fitted_names(names, {"c"}) is names
    assert holders_of(plain_names(Path("m"), ("model.a", "b"))) == []
    (peft,) = holders_of(plain_names(Path("m"), ("base_model.model.a", "base_model.model.b")))
    assert list(peft.plain.values()) == ["a", "b"]


def test_a_start_is_named_only_where_all_names_have_it():
    assert common_start(["x.a", "x.b"]) == "; all names start with x."
    assert common_start(["x.a", "y.b"]) == ""
