"""Every token but the first is a target exactly once, with as much context as the stride promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import rolling_windows

from lossprobe.errors import UsageError
from lossprobe.plan.windows import Layout, Window, check_window_options, window_end, window_of


@st.composite
def plans(draw):
    context = draw(st.integers(1, 40))
    stride = draw(st.none() | st.integers(1, context))
    return draw(st.integers(0, 200)), context, stride


@given(plans())
def test_every_token_but_the_first_is_scored_once_in_order(plan):
    tokens, context, stride = plan
    targets = [t for w in rolling_windows(tokens, context, stride) for t in range(w.first_scored, w.stop)]
    assert targets == list(range(1, tokens))


@given(plans())
def test_windows_stay_within_the_context_and_the_document(plan):
    tokens, context, stride = plan
    for window in rolling_windows(tokens, context, stride):
        assert 0 <= window.start < window.first_scored <= window.stop <= tokens
        assert len(range(window.start, window.stop - 1)) <= context  # the last token is only a target


@given(plans())
def test_every_target_has_the_promised_context(plan):
    tokens, context, stride = plan
    promised = 1 if stride is None else context - stride + 1
    for window in rolling_windows(tokens, context, stride):
        for target in range(window.first_scored, window.stop):
            assert min(target, promised) <= target - window.start <= context


@given(st.integers(0, 200), st.integers(1, 40))
def test_no_stride_is_a_stride_of_the_whole_context(tokens, context):
    assert list(rolling_windows(tokens, context)) == list(rolling_windows(tokens, context, context))


@given(plans())
def test_no_window_is_planned_for_nothing(plan):
    tokens, context, stride = plan
    windows = list(rolling_windows(tokens, context, stride))
    scoring = [window for window in windows if window.stop > window.first_scored]
    assert len(scoring) == len(windows) or (tokens == 1 and windows == [Window(0, 1, 1)])
    # The first window scores `context` tokens, each later one `stride`: a division, rounded up.
    step = stride or context
    assert len(scoring) == (0 if tokens < 2 else 1 + max(0, -(-(tokens - 1 - context) // step)))


@pytest.mark.parametrize(
    ("tokens", "context", "stride", "windows"),
    [
        (0, 4, None, []),
        (1, 4, None, [(0, 1, 1)]),
        (2, 4, None, [(0, 2, 1)]),
        (5, 4, None, [(0, 5, 1)]),  # 4 inputs: one window is enough
        (6, 4, None, [(0, 5, 1), (4, 6, 5)]),  # token 4 is carried over
        (10, 4, None, [(0, 5, 1), (4, 9, 5), (8, 10, 9)]),
        (10, 4, 4, [(0, 5, 1), (4, 9, 5), (8, 10, 9)]),
        # Stride 2: each later window scores 2 new tokens with 3 and 4 tokens of context.
        (10, 4, 2, [(0, 5, 1), (2, 7, 5), (4, 9, 7), (6, 10, 9)]),
        (7, 4, 1, [(0, 5, 1), (1, 6, 5), (2, 7, 6)]),  # stride 1: full context for each
        (4, 1, None, [(0, 2, 1), (1, 3, 2), (2, 4, 3)]),  # a bigram model
    ],
)
def test_hand_made_tables(tokens, context, stride, windows):
    planned = list(rolling_windows(tokens, context, stride))
    assert [(window.start, window.stop, window.first_scored) for window in planned] == windows


@pytest.mark.parametrize(
    ("context", "stride", "id", "limit"),
    [
        (0, None, "windows.context", "at least 1"),
        (-3, None, "windows.context", "at least 1"),
        (8, 0, "windows.stride", "between 1 and the context, 8"),
        (8, 9, "windows.stride", "between 1 and the context, 8"),
    ],
)
def test_impossible_options(context, stride, id, limit):
    with pytest.raises(UsageError) as caught:
        check_window_options(context, stride)
    assert (caught.value.id, caught.value.exit_code) == (id, 2)
    assert limit in caught.value.message


def placed(tokens: int, context: int, stride: int, layout: Layout) -> list[tuple[int, int]]:
    """Return each token's window and its first token."""
    number, start = window_of(np.arange(tokens), context, stride, layout, tokens)
    return list(zip(number.tolist(), start.tolist(), strict=True))


@pytest.mark.parametrize(
    ("layout", "tokens", "context", "stride", "windows"),
    [
        # A prefix and the ten tokens of a document, 4 inputs a window: [P] 0 1 2 → 0-3, [3] 4 5 6 → 4-7, [5 6 7 8] → 9.
        (Layout.LAST_FULL, 11, 4, 4, [(0, 0)] * 5 + [(1, 4)] * 4 + [(2, 6)] * 2),
        (Layout.LAST_FULL, 9, 4, 4, [(0, 0)] * 5 + [(1, 4)] * 4),  # full without being moved
        (Layout.LAST_FULL, 5, 4, 4, [(0, 0)] * 5),
        (Layout.LAST_FULL, 3, 4, 4, [(0, 0)] * 3),  # there is nothing before the only window
        (Layout.LAST_FULL, 6, 4, 4, [(0, 0)] * 5 + [(1, 1)]),
        (Layout.DISJOINT, 7, 2, 3, [(0, 0)] * 3 + [(1, 3)] * 3 + [(2, 6)]),
        (Layout.SECOND_HALF, 7, 2, 3, [(0, 0)] * 3 + [(1, 3)] * 3 + [(2, 6)]),
        (Layout.FIRST, 4, 3, 4, [(0, 0)] * 4),
        (Layout.WHOLE, 4, 3, 4, [(0, 0)] * 4),
    ],
)
def test_hand_made_tables_of_other_layouts(layout, tokens, context, stride, windows):
    assert placed(tokens, context, stride, layout) == windows


@given(st.integers(2, 200), st.integers(1, 40))
def test_only_the_last_window_is_moved_back_and_it_is_full(tokens, context):
    rolling, moved = (placed(tokens, context, context, each) for each in (Layout.ROLLING, Layout.LAST_FULL))
    last = rolling[-1][0]
    for token in range(tokens):
        assert moved[token][0] == rolling[token][0]
        if moved[token][0] < last:
            assert moved[token][1] == rolling[token][1]
        else:
            assert tokens - 1 - moved[token][1] == min(context, tokens - 1)  # inputs of the last window


@given(st.sampled_from(Layout), st.integers(1, 90), st.integers(1, 12), st.integers(1, 12))
def test_a_window_ends_where_the_next_token_is_in_another_one(layout, at_least, context, stride):
    stride = min(stride, context) if layout in (Layout.ROLLING, Layout.LAST_FULL) else context + 1
    number = [window for window, _ in placed(at_least + context + stride + 2, context, stride, layout)]
    expected = next(size for size in range(at_least, len(number)) if number[size] != number[size - 1])
    assert window_end(at_least, context, stride, layout) == expected
