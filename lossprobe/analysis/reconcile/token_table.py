"""Makes the ways in which a trainer may have fed a text to the model out of one pass over its rows.

In a causal model the loss of a token depends on nothing after it. So rows that are cut at their end, rows without the
EOS at their end, and any mask need no pass of their own: they are sums over other tokens of the same pass.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.logged.recipe import Floats, Integers, RowSums
from lossprobe.analysis.reconcile.feed import Balancing, Bos, Feed, Kind, Packing
from lossprobe.run.reader import Run

Flags = npt.NDArray[np.bool_]
LENGTHS = tuple(1 << power for power in range(2, 14))  # 4 to 8,192: at which rows are cut, and into which packed
PACKED_AT_ONCE = 1000  # rows that datasets.map gives to a packing function


@dataclass(frozen=True)
class TokenTable:
    """The tokens of rows, each row scored as one window; every field but `size` is [N], in the order of the text.

    Attributes:
        row: number of its row.
        token: its number in the row, from 0; 0 is never predicted.
        token_id: its id.
        loss_nats: its loss; 0 where it has none.
        uniform_loss_nats: the mean of −log p over the vocabulary there; 0 where it has none.
        scored: whether it has a loss.
        seen: whether the model saw it: not what was cut off.
        size: number of rows.
    """

    row: Integers
    token: Integers
    token_id: Integers
    loss_nats: Floats
    uniform_loss_nats: Floats
    scored: Flags
    seen: Flags
    size: int

    def sums(self, kept: Flags) -> RowSums:
        """Return the sums of each row over the tokens whose labels are kept."""
        counted = kept & self.scored
        loss, uniform = (self._sum(values * counted) for values in (self.loss_nats, self.uniform_loss_nats))
        labels, tokens = (self._sum(flags).astype(np.int64) for flags in (kept & self.seen, counted))
        return RowSums(loss, uniform, np.zeros(self.size), tokens, labels, np.zeros(self.size, np.int64))

    def lengths(self, present: Flags) -> Integers:
        """Return the number of tokens of each row."""
        return np.bincount(self.row[present & self.seen], minlength=self.size)

    def _sum(self, values: Floats | Flags) -> Floats:
        return np.bincount(self.row, values, minlength=self.size).astype(np.float64)


@dataclass(frozen=True)
class Labels:
    """What is known of the tokens of a table beside their losses.

    Attributes:
        kind: what the records are.
        masks: whether each token has a label, under each name of `Feed.scored`, the usual one first.
        ended: whether a token is an EOS that was put after a text.
        eos_id: id of the EOS; None without one.
        balancing: the load-balancing loss of the rows as they were run; None without one.
    """

    kind: Kind
    masks: Mapping[str, Flags]
    ended: Flags
    eos_id: int | None
    balancing: Balancing | None = None


def token_table(run: Run, order: Integers | None = None) -> TokenTable:
    """Return the tokens of a run whose documents are rows, numbered in an order of the rows; None for the text's."""
    frame = run.query("""
        SELECT document, token, token_id, loss_nats, uniform_loss_nats, unscored IS NULL AS scored,
               coalesce(unscored <> 'truncated', true) AS seen
        FROM tokens ORDER BY document, token""")
    whole = {name: frame[name].to_numpy(np.int64) for name in ("document", "token", "token_id")}
    losses = {name: frame[name].fillna(0).to_numpy(np.float64) for name in ("loss_nats", "uniform_loss_nats")}
    row = whole["document"] if order is None else np.argsort(order)[whole["document"]]
    return TokenTable(
        row=row, token=whole["token"], token_id=whole["token_id"], **losses,
        scored=frame["scored"].to_numpy(bool), seen=frame["seen"].to_numpy(bool), size=int(run.counts["documents"]),
    )  # fmt: skip


def feeds_of(table: TokenTable, labels: Labels, context: int | None, bos: Bos, dtype: str) -> list[Feed]:
    """Return the ways in which a trainer may have fed the rows of a table.

    Args:
        table: one pass over the rows, each with the EOS that a trainer may put after it.
        labels: masks and the like.
        context: a length that the user names, at which rows are cut and into which they are packed too.
        bos: what stands before the rows.
        dtype: of the forward pass.
    """
    feeds: list[Feed] = []
    lengths = sorted({*LENGTHS, *([context] if context else [])})
    for eos, present in _endings(table, labels):
        rows = table.lengths(present)
        longest = int(rows.max(initial=0))
        packed = {block: best_fit(np.minimum(rows, block), block) for block in _blocks(rows, lengths)}
        for scored, masked, kept in _kept(table, labels, present):
            feed = Feed(
                rows=table.sums(kept), kind=labels.kind, bos=bos, eos=eos, eos_masked=masked, scored=scored,
                longest=longest, dtype=dtype, lengths=rows, balancing=labels.balancing if present.all() else None,
            )  # fmt: skip
            feeds.append(feed)
            for cut in (each for each in lengths if each < longest):
                shorter = table.sums(kept & (table.token < cut))
                feeds.append(replace(feed, rows=shorter, cut=cut, lengths=np.minimum(rows, cut), balancing=None))
            if eos is not False and not masked:
                feeds += _packed(table, feed, kept, packed)
    return feeds


def _endings(table: TokenTable, labels: Labels) -> Iterator[tuple[bool | None, Flags]]:
    """Yield whether an EOS ends each text, and which tokens are there then."""
    if not labels.ended.any():
        yield None, np.ones(len(table.row), bool)
        return
    yield False, ~labels.ended
    yield True, np.ones(len(table.row), bool)


def _kept(table: TokenTable, labels: Labels, present: Flags) -> Iterator[tuple[str, bool, Flags]]:
    """Yield every different mask: its name, whether every EOS is masked, and which tokens have a label."""
    seen: set[bytes] = set()
    is_eos = table.token_id == (-1 if labels.eos_id is None else labels.eos_id)
    for masked in (False, True):
        for name, mask in labels.masks.items():
            kept = mask & present & (~is_eos if masked else True)
            key = np.packbits(kept).tobytes()
            if key not in seen and (kept & table.scored).any():
                seen.add(key)
                yield name, masked, kept


def _blocks(rows: Integers, lengths: Sequence[int]) -> list[int]:
    """Return the lengths into which rows may have been packed."""
    return [block for block in lengths if rows.min() <= block <= 2 * rows.sum()]


def _packed(table: TokenTable, feed: Feed, kept: Flags, packed: Mapping[int, Integers]) -> Iterator[Feed]:
    """Yield the rows packed into rows of several lengths, as TRL does by default: none sees another.

    Args:
        table: the tokens of the rows.
        feed: the rows as they are.
        kept: whether each token has a label.
        packed: of each length, into which packed row each row goes.
    """
    for block, row_of in packed.items():
        rows = table.sums(kept & (table.token < block) & (table.token > 0))
        joined = _joined(rows, row_of)
        yield replace(
            feed, rows=joined, packing=Packing.BEST_FIT, block=block, usual_block=block == USUAL_BLOCK, lengths=None,
            balancing=None,
        )  # fmt: skip


USUAL_BLOCK = 1024  # max_length of TRL's SFTConfig


def _joined(rows: RowSums, row_of: Integers) -> RowSums:
    """Return the sums of packed rows; the first token of each row in them has no label."""
    loss, uniform, tokens = (
        np.bincount(row_of, values.astype(np.float64)).astype(np.float64)
        for values in (rows.loss_nats, rows.uniform_loss_nats, rows.tokens)
    )
    counts = tokens.astype(np.int64)
    return RowSums(loss, uniform, np.zeros(len(loss)), counts, counts, np.zeros_like(counts))


def best_fit(lengths: Integers, block: int) -> Integers:
    """Return into which packed row each row goes: the longest first, each into the fullest packed row that has room.

    Of packed rows with equally much room, the one that has had it longest is taken. Rows are packed a thousand at a
    time, as `datasets` maps them.

    >>> best_fit(np.array([5, 3, 6, 2]), 8).tolist()
    [1, 1, 0, 0]
    """
    placed = np.zeros(len(lengths), np.int64)
    used = 0
    for start in range(0, len(lengths), PACKED_AT_ONCE):
        here = lengths[start : start + PACKED_AT_ONCE]
        with_room: dict[int, deque[int]] = {}
        rooms: list[int] = []  # the keys, ascending
        for row in np.argsort(-here, kind="stable").tolist():
            at = bisect_left(rooms, int(here[row]))
            if at < len(rooms):
                room = rooms[at]
                packed = with_room[room].popleft()
                if not with_room[room]:
                    del with_room[room], rooms[at]
            else:
                room, packed, used = block, used, used + 1
            placed[start + row] = packed
            left = room - int(here[row])
            if left not in with_room:
                with_room[left] = deque()
                insort(rooms, left)
            with_room[left].append(packed)
    return placed
