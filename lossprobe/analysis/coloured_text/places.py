"""Where the shown tokens stand: documents, pieces, turns, in runs instead of a value for each token."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.run.reader import Run
from lossprobe.units import visible

Arrays = dict[str, npt.NDArray[Any]]
Integers = npt.NDArray[np.int64]


def segments(values: npt.NDArray[Any]) -> tuple[Integers, Integers]:
    """Return the lengths of the runs of equal values, int64 [R], and the place where each begins, int64 [R].

    >>> [found.tolist() for found in segments(np.array([7, 7, 7, 0, 0, 7]))]
    [[3, 2, 1], [0, 3, 5]]
    """
    first = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])[: len(values)].astype(np.int64)
    return np.diff(np.concatenate([first, [len(values)]])), first


def document_arrays(run: Run, rows: pd.DataFrame, pieces: Integers) -> tuple[Arrays, list[str]]:
    """Return the arrays piece_… and document_… of `coloured_text.ColouredText`, and the names of the sources.

    Args:
        run: the run.
        rows: the shown tokens.
        pieces: int64 [P + 1], the first row of each piece, and the number of rows.
    """
    starts = pieces[:-1]
    numbers = rows["document"].to_numpy()[starts]
    used, index = np.unique(numbers, return_inverse=True)
    found = run.query(
        """
        SELECT document, source, line, byte_offset, tokens, scored_tokens, mean FROM documents
        JOIN (SELECT unnest(?::INTEGER[]) AS document) USING (document)
        LEFT JOIN (SELECT document, avg(loss_nats::DOUBLE) AS mean FROM tokens WHERE unscored IS NULL GROUP BY document)
        USING (document) ORDER BY document""",
        (used.tolist(),),
    )
    sources = sorted(set(found["source"]))
    places = {source: place for place, source in enumerate(sources)}
    arrays: Arrays = {
        "piece_tokens": np.diff(pieces).astype("<u4"),
        "piece_document": index.astype("<u4"),
        "piece_first": rows["token"].to_numpy()[starts].astype("<u4"),
        "piece_byte": rows["byte_start"].to_numpy()[starts].astype("<f8"),
        "piece_why": rows["why"].to_numpy()[starts].astype(np.uint8),
        "document_number": found["document"].to_numpy().astype("<u4"),
        "document_source": np.array([places[source] for source in found["source"]], "<u4"),
        "document_line": found["line"].to_numpy().astype("<u4"),
        "document_offset": found["byte_offset"].to_numpy().astype("<f8"),
        "document_tokens": found["tokens"].to_numpy().astype("<u4"),
        "document_scored": found["scored_tokens"].to_numpy().astype("<u4"),
        "document_mean": found["mean"].to_numpy(np.float64).astype("<f4"),
    }
    return arrays, _short(sources)


def _short(sources: list[str]) -> list[str]:
    """Return paths without the folder that all of them lie in, for display: a page is shown to others."""
    paths = [PurePath(source) for source in sources]
    if not paths or not all(path.is_absolute() for path in paths):
        return [visible(source) for source in sources]
    folder = os.path.commonpath([path.parent for path in paths])
    return [visible(str(path.relative_to(folder))) for path in paths]


def label_arrays(rows: pd.DataFrame, roles: list[str]) -> tuple[Arrays, list[list[str | None]]]:
    """Return the arrays label_… of `coloured_text.ColouredText`, and the labels: [role or None, part]; none for text.

    Args:
        rows: the shown tokens.
        roles: names of the roles.
    """
    if "role" not in rows:
        return {}, []
    turn, role = rows["turn"].to_numpy(np.int64), rows["role"].to_numpy(np.int64)
    part, parts = pd.factorize(rows["part"], sort=True)
    label = (role + 1) * len(parts) + part
    known, number = np.unique(label, return_inverse=True)
    _, first = segments((turn + 1) * len(known) + number)
    lengths = np.diff(np.concatenate([first, [len(rows)]]))
    names: list[list[str | None]] = [
        [None if value < len(parts) else visible(roles[value // len(parts) - 1]), str(parts[value % len(parts)])]
        for value in known.tolist()
    ]
    return {
        "label_tokens": lengths.astype("<u4"),
        "label": number[first].astype("<u2"),
        "label_turn": turn[first].astype("<i4"),
    }, names
