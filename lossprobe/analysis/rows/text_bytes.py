"""Puts the bytes that each token covers into streamed rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossprobe.run.texts import DocumentTexts, Readable, Vocabulary, load_vocabulary

Places = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def with_text_bytes(run: Readable, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches of rows with the column `text`, the bytes that each token covers, before `token_id`.

    Args:
        run: the run of the rows.
        batches: rows in text order, with `document`, `byte_start`, `byte_stop` and `token_id`.
    """
    entries = _Entries.of(load_vocabulary(run))
    texts = DocumentTexts(run)
    for batch in batches:
        covered = _covered(texts, entries, batch) if len(batch) else pa.array([], pa.large_binary())
        arrays, names = batch.columns, batch.schema.names
        at = names.index("token_id")
        arrays.insert(at, covered)
        names.insert(at, "text")
        yield pa.RecordBatch.from_arrays(arrays, names=names)


@dataclass(frozen=True)
class _Entries:
    """The bytes of all vocabulary entries, one after the other.

    Attributes:
        data: the bytes.
        start: int64 [V], the place in `data` where each id's bytes start; −1 for an id that has none.
        stop: int64 [V], where they end.
        special: bool [V], whether the id is that of a special token.
    """

    data: Bytes
    start: Places
    stop: Places
    special: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> _Entries:
        ids = np.fromiter(vocabulary.entries, np.int64)
        ends = np.fromiter(map(len, vocabulary.entries.values()), np.int64).cumsum()
        start = np.full(ids.max(initial=-1) + 1, -1)
        stop, special = start.copy(), np.zeros(len(start), bool)
        start[ids], stop[ids] = np.concatenate([[0], ends[:-1]]), ends
        special[list(vocabulary.special)] = True
        return cls(np.frombuffer(b"".join(vocabulary.entries.values()), np.uint8), start, stop, special)

    def places(self, ids: Places) -> tuple[Places, Places]:
        """Return where the bytes of ids start and end.

        Raises:
            KeyError: an id has no entry.
        """
        known = (ids >= 0) & (ids < len(self.start))
        known[known] = self.start[ids[known]] >= 0
        if not known.all():
            raise KeyError(int(ids[~known][0]))
        return self.start[ids], self.stop[ids]


def _covered(texts: DocumentTexts, entries: _Entries, batch: pa.RecordBatch) -> pa.Array:
    """Return what `Vocabulary.covered` says of each row."""
    document, start, stop, ids = (
        batch[name].to_numpy(zero_copy_only=False).astype(np.int64)
        for name in ("document", "byte_start", "byte_stop", "token_id")
    )
    if not texts.kept:
        return _gathered(entries.data, *entries.places(ids))
    named = np.flatnonzero(stop <= start)
    named = named[entries.special[ids[named]]]
    firsts = np.flatnonzero(np.diff(document, prepend=document[0] - 1))
    begins, ends = np.minimum.reduceat(start, firsts), np.maximum.reduceat(stop, firsts)
    pieces, shifts, lengths, size = [entries.data], [], [], len(entries.data)
    for data, begin, end in zip(texts.along(document[firsts].tolist()), begins.tolist(), ends.tolist(), strict=True):
        assert data is not None
        pieces.append(np.frombuffer(data[begin:end], np.uint8))
        shifts.append(size - begin)
        lengths.append(len(data))
        size += len(pieces[-1])
    rows = np.diff(firsts, append=len(document))
    shift = np.repeat(shifts, rows)
    start, stop = start + shift, np.minimum(stop, np.repeat(lengths, rows)) + shift
    start[named], stop[named] = entries.places(ids[named])
    return _gathered(np.concatenate(pieces), start, stop)


def _gathered(data: Bytes, start: Places, stop: Places) -> pa.Array:
    """Return the bytes of `data` from each start to its stop; none where it ends before it starts."""
    length = np.maximum(stop - start, 0)
    ends = length.cumsum()
    chosen = data[np.arange(ends[-1]) + np.repeat(start - ends + length, length)]
    offsets = np.concatenate([[0], ends])
    return pa.Array.from_buffers(pa.large_binary(), len(start), [None, pa.py_buffer(offsets), pa.py_buffer(chosen)])
