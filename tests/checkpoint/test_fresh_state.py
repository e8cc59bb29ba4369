"""State that a model keeps from a forward pass is restored before the next one."""

from __future__ import annotations

import torch
from torch import nn

from lossprobe.checkpoint.model.fresh_state import LARGEST_COPY, FreshState


class Config:
    def __init__(self):
        self.buckets = None


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = Config()
        self.table = nn.Buffer(torch.arange(4.0), persistent=False)
        self.large = nn.Buffer(torch.zeros(LARGEST_COPY + 1), persistent=False)
        self.weight = nn.Parameter(torch.ones(3))
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.longest, self.cache, self.named = 8, None, {"a": 1}


def changes(model):
    """Return what a pass may do to a model, and what shows it."""

    def lengthen():
        model.longest = 99

    def remember():
        model.cache = torch.ones(2)

    def replace():
        model.register_buffer("table", torch.zeros(9), persistent=False)

    def write():
        with torch.inference_mode():
            model.table.mul_(2)

    def swap():
        model.inner[1] = nn.Tanh()

    def configure():
        model.config.buckets = 4

    def enter():
        model.named["b"] = 2

    def add():
        model.extra = 1

    return [lengthen, remember, replace, write, swap, configure, enter, add]


def state(model):
    held = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    held |= {"table": model.table.tolist(), "inner": [type(layer) for layer in model.inner]}
    return held | {"named": dict(model.named), "config": dict(vars(model.config))}


def test_everything_is_as_it_was():
    model = Remembering()
    before, fresh = state(model), FreshState(model)
    for _ in range(2):
        for change in changes(model):
            change()
            assert state(model) != before, change.__name__
            fresh.restore()
            assert state(model) == before, change.__name__
    assert model.table.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_only_modules_that_changed_or_are_kept_stay_watched():
    model = Remembering()
    fresh = FreshState(model)
    model.inner[0].seen = 1
    fresh.restore()
    fresh.narrow(lambda module: isinstance(module, nn.ReLU))
    model.longest, model.inner[0].seen, model.inner[1].seen = 99, 2, 3
    fresh.restore()
    assert model.longest == 99
    assert not hasattr(model.inner[0], "seen")
    assert not hasattr(model.inner[1], "seen")


def test_changed_weights_and_what_is_too_large_to_copy_stay_and_so_does_all_that_goes_with_them():
    for tensor in ("weight", "large"):
        model = Remembering()
        fresh = FreshState(model)
        with torch.inference_mode():
            getattr(model, tensor).add_(1)
        model.scaled = True
        fresh.restore()
        assert model.scaled
        model.longest = 99
        fresh.restore()
        assert (model.longest, model.scaled) == (8, True)
