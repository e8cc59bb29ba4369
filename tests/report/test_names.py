"""Short names: distinct, safe to show, no longer than asked."""

from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from lossprobe.report.names import short_names
from lossprobe.units import visible


@given(st.lists(st.text("ab_漢\x1b\n#1", max_size=30), max_size=6), st.integers(16, 24))
@example(["run", "run", "run#1"], 16)
@example(["x" * 30 + "y" + "x" * 30, "x" * 61], 16)
def test_they_are_distinct_short_and_shown_whole_where_they_fit(names, width):
    short = short_names(names, width)
    assert len(set(short)) == len(short) == len(names)
    for name, shown in zip(names, short, strict=True):
        assert cell_len(shown) <= width
        assert shown.isprintable()
        if cell_len(visible(name)) <= width and names.count(name) == 1:
            assert shown == visible(name)


def test_the_middle_goes_and_no_escape_is_split():
    assert short_names(["step_of_a_run_000100", "step_of_a_run_000200"], 11) == ["step_…00100", "step_…00200"]
    assert short_names(["abc\x1bdefghijklm"], 10) == ["abc…jklm"]


def test_what_is_equal_is_numbered():
    assert short_names(["run", "run", "run#1"], 8) == ["run#2", "run#3", "run#1"]
    same = ["0123456789a0123456789", "0123456789b0123456789"]
    assert short_names(same, 11) == ["0123…6789#1", "0123…6789#2"]
