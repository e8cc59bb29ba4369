"""The bytes that each shown token stands for, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.run.reader import Run
from lossprobe.run.texts import DocumentTexts, Vocabulary

KEPT_TEXT, REBUILT, ENTRIES_ALONE = "kept", "rebuilt", "entries"


def token_bytes(run: Run, rows: pd.DataFrame, pieces: npt.NDArray[np.int64], vocabulary: Vocabulary) -> list[bytes]:
    """Return the bytes that each row covers in its document, by piece, joined; one entry a piece.

    A special token that covers none gives its name. Without a stored text each gives its vocabulary entry.

    Args:
        run: the run.
        rows: document, byte_start, byte_stop and token_id of consecutive tokens.
        pieces: int64 [P + 1], the first row of each piece of one document, and the number of rows.
        vocabulary: that of the run.
    """
    documents = rows["document"].to_numpy()[pieces[:-1]].tolist()
    starts, stops, ids = (rows[name].to_numpy() for name in ("byte_start", "byte_stop", "token_id"))
    named = (stops <= starts) & np.isin(ids, list(vocabulary.special))
    found = []
    for data, first, last in zip(DocumentTexts(run).along(documents), pieces[:-1], pieces[1:], strict=True):
        if data is None:
            found.append(b"".join(vocabulary.entries[index] for index in ids[first:last].tolist()))
            continue
        piece = slice(first, last)
        tiled = (starts[piece][1:] == stops[piece][:-1]).all()
        cut = _tiled if tiled else _each
        found.append(b"".join(cut(data, starts[piece], stops[piece], _names(vocabulary, ids[piece], named[piece]))))
    return found


def _names(vocabulary: Vocabulary, ids: npt.NDArray[np.int32], named: npt.NDArray[np.bool_]) -> dict[int, bytes]:
    return {int(row): vocabulary.entries[int(ids[row])] for row in np.flatnonzero(named)}


def _tiled(
    data: bytes, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], names: dict[int, bytes]
) -> Iterator[bytes]:
    """Yield the bytes of tokens that lie end to end, cut only where a name stands between them."""
    at = int(starts[0])
    for row, name in names.items():
        yield data[at : int(starts[row])]
        yield name
        at = int(starts[row])
    yield data[at : int(stops[-1])]


def _each(
    data: bytes, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], names: dict[int, bytes]
) -> Iterator[bytes]:
    """Yield the bytes of each token, or its name; spans that are a guess may overlap or leave gaps."""
    for row, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        yield names.get(row) or data[start:stop]


def shown_lengths(rows: pd.DataFrame, vocabulary: Vocabulary, *, kept: bool) -> npt.NDArray[np.int64]:
    """Return how many bytes of `token_bytes` belong to each row, int64 [N]."""
    ids = rows["token_id"].to_numpy()
    covered = (rows["byte_stop"] - rows["byte_start"]).to_numpy(np.int64).clip(0)
    entries = entry_lengths(vocabulary)[ids]
    return np.where((covered == 0) & np.isin(ids, list(vocabulary.special)), entries, covered) if kept else entries


def entry_lengths(vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
    """Return the number of bytes of each vocabulary entry, int64 [V]."""
    lengths = np.zeros(max(vocabulary.entries, default=-1) + 1, np.int64)
    for index, entry in vocabulary.entries.items():
        lengths[index] = len(entry)
    return lengths


def origin_of(run: Run, rows: pd.DataFrame, vocabulary: Vocabulary) -> str:
    """Return where the shown text comes from: "kept", "rebuilt" (exactly, from the vocabulary) or "entries".

    Without a stored text, the entries of the vocabulary are the text where the tokenizer changed no byte, and where
    each entry is as long as the span that its token covers.
    """
    if run.settings.text.kept:
        return KEPT_TEXT
    covered = (rows["byte_stop"] - rows["byte_start"]).to_numpy(np.int64)
    ids = rows["token_id"].to_numpy()
    nameless = (covered == 0) & np.isin(ids, list(vocabulary.special))
    same = bool((nameless | (entry_lengths(vocabulary)[ids] == covered)).all())
    changed = int(run.scalar("SELECT count(*) FROM documents WHERE normalized_bytes > 0 OR NOT tiles"))
    return REBUILT if same and not changed else ENTRIES_ALONE
