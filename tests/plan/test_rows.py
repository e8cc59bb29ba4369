"""Plans: every token of every document has one row, in one part, with the context it will have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import rolling_windows, whole_document

from lossprobe.checkpoint.interface import Tokens
from lossprobe.plan.rows import (
    ARRAYS,
    SCORED,
    UNSCORED,
    Rows,
    WindowPolicy,
    cut_parts,
    plan_pieces,
    windows_of,
)
from lossprobe.plan.windows import Layout, Window
from lossprobe.scoring.batches import Batch, batch_inputs


def tokens(count: int, unknown: tuple[int, ...] = ()) -> Tokens:
    mask = np.zeros(count, bool)
    mask[list(unknown)] = True
    return Tokens(np.arange(10, 10 + count, dtype=np.int32), np.arange(1, count + 1), mask)


def test_a_document_with_bos():
    rows = whole_document(3, tokens(5), WindowPolicy(context=3, stride=3, bos_id=1), first_window=7)
    assert rows.token_id.tolist() == [1, 10, 11, 12, 13, 14]
    assert rows.token.tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.byte_start.tolist() == [0, 0, 1, 2, 3, 4]
    assert rows.byte_stop.tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.window.tolist() == [7, 7, 7, 7, 8, 8]
    assert rows.context.tolist() == [0, 1, 2, 3, 1, 2]  # the second window starts with token 3 as its only input
    assert [UNSCORED[code] if code != SCORED else None for code in rows.unscored] == ["special"] + [None] * 5


def test_without_bos_the_first_token_is_not_scored():
    rows = whole_document(0, tokens(3), WindowPolicy(context=8, stride=8), 0)
    assert UNSCORED[rows.unscored[0]] == "first_token"
    assert (rows.unscored[1:] == SCORED).all()


@pytest.mark.parametrize("score_unknown", [False, True])
def test_unknown_tokens(score_unknown):
    rows = whole_document(0, tokens(4, (0, 2)), WindowPolicy(8, 8, 1, score_unknown), 0)
    expected = ["special", None, None, None, None] if score_unknown else ["special", "unknown", None, "unknown", None]
    assert [None if code == SCORED else UNSCORED[code] for code in rows.unscored] == expected


@pytest.mark.parametrize("count", [0, 1])
def test_short_documents(count):
    rows = whole_document(0, tokens(count), WindowPolicy(4, 4), 0)
    assert len(rows) == count
    assert windows_of(next(iter(cut_parts([rows])))) == [] if count else list(cut_parts([rows])) == []


@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    context=st.integers(1, 17),
    stride=st.integers(1, 17),
    part_rows=st.integers(1, 50),
    bos=st.booleans(),
)
def test_parts_cover_every_row_once_and_hold_their_context(sizes, context, stride, part_rows, bos):
    policy = WindowPolicy(context, min(stride, context), 1 if bos else None)
    documents, window = [], 0
    for number, size in enumerate(sizes):
        rows = whole_document(number, tokens(size), policy, window)
        window = int(rows.window[-1]) + 1 if len(rows) else window
        documents.append(rows)
    parts = list(cut_parts([rows for rows in documents if len(rows)], part_rows))
    seen = []
    for part in parts:
        own = part.take(part.own)
        seen += list(zip(own.document.tolist(), own.token.tolist(), strict=True))
        scored = set()
        for offset, plan in windows_of(part):
            assert plan.stop - 1 - plan.start <= context
            ids = part.token_id[offset + plan.start : offset + plan.stop]
            document = int(part.document[offset + plan.first_scored])
            assert ids.tolist() == documents[document].token_id[plan.start : plan.stop].tolist()
            for index in range(plan.first_scored, plan.stop):
                row = offset + index
                assert part.own[row]
                assert part.context[row] == index - plan.start
                if part.unscored[row] == SCORED:
                    assert (document, index) not in scored
                    scored.add((document, index))
        expected = own.unscored == SCORED
        assert len(scored) == int(expected.sum())
    assert seen == [(number, token) for number, rows in enumerate(documents) for token in range(len(rows))]


def test_a_part_that_starts_inside_a_document_brings_its_context():
    rows = whole_document(0, tokens(20), WindowPolicy(context=4, stride=2), 0)
    parts = list(cut_parts([rows], part_rows=6))
    later = parts[1]
    assert not later.own[0]
    offset, window = windows_of(later)[0]
    assert window == Window(start=4, stop=9, first_scored=7)
    assert later.token[offset + window.start] == 4


@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    context=st.integers(1, 17),
    stride=st.integers(1, 17),
    piece_rows=st.integers(1, 40),
    part_rows=st.integers(1, 50),
    bos=st.booleans(),
)
def test_pieces_are_the_whole_and_make_the_same_parts(sizes, context, stride, piece_rows, part_rows, bos):
    policy = WindowPolicy(context, min(stride, context), 1 if bos else None)
    documents, pieces, window = [], [], 0
    for number, size in enumerate(sizes):
        content = tokens(size, tuple(range(0, size, 7)))
        rows = whole_document(number, content, policy, window)
        cut = list(plan_pieces(number, content, policy, window, piece_rows))
        assert all(piece.own.sum() < piece_rows + context + 1 + policy.stride for piece in cut)
        assert all((~piece.own).sum() <= context for piece in cut)
        window = int(rows.window[-1]) + 1 if len(rows) else window
        documents.append(rows)
        pieces += cut
        own = [piece.take(piece.own) for piece in cut]
        assert (not own and not len(rows)) or values(Rows.join(own)) == values(rows)
    assert [values(part) for part in cut_parts(pieces, part_rows)] == [
        values(part) for part in cut_parts(documents, part_rows)
    ]


def values(rows: Rows) -> list[list[int]]:
    return [getattr(rows, name).tolist() for name in ARRAYS]


@given(st.integers(0, 80), st.integers(1, 17), st.integers(1, 17))
def test_rows_are_in_the_windows_that_are_planned(count, context, stride):
    policy = WindowPolicy(context, min(stride, context))
    rows = whole_document(0, tokens(count), policy, 5)
    for index, window in enumerate(rolling_windows(count, context, policy.stride)):
        scored = slice(window.first_scored, window.stop)
        assert set(rows.window[scored].tolist()) <= {5 + index}
        assert rows.context[scored].tolist() == [token - window.start for token in range(*scored.indices(count))]


def described(policy: WindowPolicy, total: int) -> dict[int, int]:
    """Return each scored token with the first token that it sees, from what the tools say that they do."""
    size, found = policy.context + 1, {}
    if policy.layout is Layout.ROLLING:
        done, stop = 1, policy.context + 1  # the first window fills the context, each later one adds a stride
        while done < total:
            found |= dict.fromkeys(range(done, min(stop, total)), stop - 1 - policy.context)
            done, stop = stop, stop + policy.stride
        return found
    if policy.layout is Layout.LAST_FULL:
        done = 1  # all but the prefix are predicted, up to `context` a window
        while done < total:
            stop = min(done + policy.context, total)
            start = 0 if done == 1 else stop - 1 - policy.context
            found |= dict.fromkeys(range(done, stop), start)
            done = stop
        return found
    if policy.layout is Layout.LAST:
        first = max(0, total - size)  # what is left when the start is cut off; its first token is only seen
        return dict.fromkeys(range(first + 1, total), first)
    for start in range(0, total, size):
        block = range(start, min(start + size, total))
        if policy.layout is Layout.SECOND_HALF:
            scored = block[size // 2 + 1 :] if len(block) == size else block[:0]
        elif start and policy.layout in (Layout.FIRST, Layout.WHOLE):
            break
        else:
            scored = block[1:]
        found |= dict.fromkeys(scored, start)
    return found


@st.composite
def policies(draw):
    """Draw the windows of any protocol."""
    layout, context = draw(st.sampled_from(Layout)), draw(st.integers(1, 17))
    step = context + 1
    if layout in (Layout.ROLLING, Layout.LAST_FULL):
        step = context if layout is Layout.LAST_FULL else draw(st.integers(1, context))
    own_bos = draw(st.sampled_from([None, 2, 10])) if layout is Layout.LAST_FULL else None
    return WindowPolicy(context, step, draw(st.sampled_from([None, 1])), draw(st.booleans()), layout, own_bos)


@given(policies(), st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 50))
def test_pieces_and_parts_of_every_layout_see_what_is_described(policy, sizes, piece_rows, part_rows):
    documents, pieces, window = [], [], 0
    for number, size in enumerate(sizes):
        content = tokens(min(size, policy.context) if policy.layout is Layout.WHOLE else size)
        rows = whole_document(number, content, policy, window)
        cut = list(plan_pieces(number, content, policy, window, piece_rows))
        own = [piece.take(piece.own) for piece in cut]
        assert (not own and not len(rows)) or values(Rows.join(own)) == values(rows)
        window = int(rows.window[-1]) + 1 if len(rows) else window
        documents.append(rows)
        pieces += cut
    parts = list(cut_parts(pieces, part_rows))
    assert [values(part) for part in parts] == [values(part) for part in cut_parts(documents, part_rows)]
    seen = {}
    for part in parts:
        for offset, plan in windows_of(part):
            for row in range(offset + plan.first_scored, offset + plan.stop):
                document, token = int(part.document[row]), int(part.token[row])
                visible = part.token_id[offset + plan.start : row].tolist()
                assert visible == documents[document].token_id[plan.start : token].tolist()
                assert part.context[row] == len(visible) <= policy.context
                if part.unscored[row] == SCORED:
                    assert (document, token) not in seen
                    seen[document, token] = plan.start
    assert seen == {
        (number, token): start
        for number, rows in enumerate(documents)
        for token, start in described(policy, len(rows)).items()
    }


def reasons(rows: Rows) -> list[str | None]:
    return [None if code == SCORED else UNSCORED[code] for code in rows.unscored.tolist()]


def test_the_last_window_moved_back():
    rows = whole_document(0, tokens(10), WindowPolicy(4, 4, 1, layout=Layout.LAST_FULL), 0)
    assert rows.token_id.tolist() == [1, *range(10, 20)]
    assert rows.window.tolist() == [0] * 5 + [1] * 4 + [2] * 2
    assert rows.context.tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4, 3, 4]
    assert reasons(rows) == ["special"] + [None] * 10
    (part,) = cut_parts([rows])
    seen = [rows.token_id[window.start : window.stop - 1].tolist() for _, window in windows_of(part)]
    assert seen == [[1, 10, 11, 12], [13, 14, 15, 16], [15, 16, 17, 18]]


@pytest.mark.parametrize(("bos", "first"), [(1, "special"), (None, "first_token")])
def test_windows_that_share_nothing(bos, first):
    rows = whole_document(0, tokens(7 if bos is None else 6), WindowPolicy(2, 3, bos, layout=Layout.DISJOINT), 0)
    assert reasons(rows) == [first, None, None, "window_start", None, None, "window_start"]
    assert rows.context.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert rows.token_id.tolist() == ([*range(10, 17)] if bos is None else [1, *range(10, 16)])


@pytest.mark.parametrize(("bos", "starts"), [(1, ["special", "replaced"]), (None, ["first_token", "window_start"])])
@pytest.mark.parametrize("size", [4, 5])
def test_the_second_half_of_full_windows(bos, starts, size):
    total = 2 * size + 3
    content = tokens(total if bos is None else total - 1)
    rows = whole_document(0, content, WindowPolicy(size - 1, size, bos, layout=Layout.SECOND_HALF), 0)
    scored = size - 1 - size // 2  # floor(L / 2) after the first are context only
    window = ["context_only"] * (size // 2) + [None] * scored
    assert reasons(rows) == [starts[0], *window, starts[1], *window, *["tail"] * 3]
    assert reasons(rows).count(None) == total // size * scored
    assert rows.token_id.tolist() == (list(range(10, 10 + total)) if bos is None else [1, *range(10, 9 + total)])
    if bos is not None:  # the table says what the text has, the model sees a BOS
        ids, _, _ = batch_inputs(rows, Batch(windows_of(rows)), bos_id=1)
        assert ids.tolist() == [[1, *range(10, 8 + size)], [1, *range(10 + size, 8 + 2 * size)]]


def test_one_window_a_document():
    rows = whole_document(0, tokens(5), WindowPolicy(3, 4, 1, layout=Layout.FIRST), 0)
    assert reasons(rows) == ["special", None, None, None, "truncated", "truncated"]
    rows = whole_document(0, tokens(5, (1,)), WindowPolicy(9, 10, None, layout=Layout.WHOLE), 3)
    assert reasons(rows) == ["first_token", "unknown", None, None, None]
    assert (rows.window.tolist(), rows.context.tolist()) == ([3] * 5, [0, 1, 2, 3, 4])


@pytest.mark.parametrize(("first", "lead"), [(10, [1, 2]), (2, [1])])
def test_a_second_bos_unless_the_text_has_one(first, lead):
    content = tokens(4)
    content.ids[0] = first
    policy = WindowPolicy(8, 8, 1, layout=Layout.LAST_FULL, own_bos_id=2)
    assert policy.lead(content) == lead
    rows = whole_document(0, content, policy, 0)
    assert rows.token_id.tolist() == [*lead, first, 11, 12, 13]
    assert reasons(rows) == ["special"] + [None] * (len(rows) - 1), "the second one is scored like any token"
    assert rows.byte_stop.tolist() == [0] * len(lead) + [1, 2, 3, 4]
