"""One shape of an interval everywhere: a number `x` has `x_interval`, an `Interval`."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections import Counter

import pytest

from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval

ROOMS = ("analysis", "audit", "report", "run", "scoring")


def classes():
    """Return every class of the rooms with its module."""
    for room in ROOMS:
        package = importlib.import_module(f"lossprobe.{room}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            yield from (kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == info.name)


RESULTS = [kind for kind in classes() if dataclasses.is_dataclass(kind)]


def test_an_interval_is_a_pair_that_unpacks():
    low, high = interval = Interval(1.0, 2.0)
    assert (low, high) == interval == (1.0, 2.0)
    assert interval[1] == interval.high
    assert Interval(None, 2.0).map(lambda end: -end) == (None, -2.0)
    assert NO_INTERVAL.within(0.0, 1.0) == NO_INTERVAL
    assert Estimate(3.0, interval).map(lambda value: value + 1) == Estimate(4.0, Interval(2.0, 3.0))
    assert Estimate(1.5, interval).within(1.25, 1.75) == Estimate(1.5, Interval(1.25, 1.75))


@pytest.mark.parametrize("kind", RESULTS, ids=lambda kind: kind.__name__)
def test_an_interval_stands_beside_its_number(kind):
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    assert not {"low", "high"} & set(fields), "the ends are an Interval"
    for name, shape in fields.items():
        if name.endswith("_interval"):
            assert shape == "Interval", name
            number = name.removesuffix("_interval")
            assert number in fields or hasattr(kind, number), name
        elif shape == "Interval":
            assert name == "interval", name
            assert "value" in fields, name


def test_a_class_name_stands_for_one_class():
    counts = Counter(kind.__name__ for kind in classes())
    assert not [name for name, count in counts.items() if count > 1]
