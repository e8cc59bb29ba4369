"""A record of a protocol says what its numbers are, and which of them the tool prints first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lossprobe.plan.protocol import NUMBERS_OF, Measure
from lossprobe.plan.protocols import PROTOCOLS


def test_every_measure_has_numbers():
    assert set(NUMBERS_OF) == set(Measure)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_headline_that_is_no_number_of_the_measure_is_refused(name):
    with pytest.raises(ValueError, match="headline word_count is none of the numbers of its measure: "):
        replace(PROTOCOLS[name], headline="word_count")
