"""The text behind token rows: the characters around a token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossprobe.plain_table import Table
from lossprobe.run.texts import DocumentTexts, Readable, Vocabulary
from lossprobe.text.counts import next_character, this_character
from lossprobe.units import visible_bytes

AROUND_BYTES = 32


@dataclass(frozen=True)
class Surroundings:
    """A token in its text, all of it safe to print.

    Attributes:
        characters: the whole characters that the token is part of.
        before, after: the text before and after them.
    """

    characters: str
    before: str
    after: str


def surroundings(data: bytes, start: int, stop: int, width: int = 40) -> Surroundings:
    r"""Return the characters that a byte span touches, and about `width` bytes of text on either side.

    >>> surroundings("it’s".encode(), 3, 4)
    Surroundings(characters='’', before='it', after='s')
    """
    first, last = this_character(data, start), next_character(data, stop)
    before = data[next_character(data, max(0, first - width)) : first]
    after = data[last : this_character(data, min(len(data), last + width))]
    return Surroundings(visible_bytes(data[first:last]), visible_bytes(before), visible_bytes(after))


def texts_of(run: Readable, rows: Table, vocabulary: Vocabulary) -> tuple[list[str], list[Surroundings]]:
    """Return the text of each row's token and what stands around it; documents are read once each, in order.

    Args:
        run: the run.
        rows: document, byte_start, byte_stop and token_id, in any order.
        vocabulary: that of the run.
    """
    order = np.argsort(np.asarray(rows["document"]), kind="stable")
    columns = [np.asarray(rows[name])[order].tolist() for name in ("document", "byte_start", "byte_stop", "token_id")]
    texts: dict[int, str] = {}
    around: dict[int, Surroundings] = {}
    documents = DocumentTexts(run).along(columns[0])
    for at, data, start, stop, index in zip(order.tolist(), documents, *columns[1:], strict=True):
        token = visible_bytes(vocabulary.covered(data, start, stop, index))
        texts[at] = token
        around[at] = Surroundings(token, "", "") if data is None else surroundings(data, start, stop, AROUND_BYTES)
    return [texts[at] for at in range(len(order))], [around[at] for at in range(len(order))]
