"""Which part of a conversation each token belongs to, and whether it is masked."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lossprobe.checkpoint.interface import Tokens
from lossprobe.text.spans import Part, Span

NO_TURN = -1

Words = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Labels:
    """The labels of some rows; every field is [N].

    Attributes:
        turn: int64, number of the message, or `NO_TURN`.
        role: who speaks, a string, or None.
        part: what the token is, a `text.spans.Part` as a string.
    """

    turn: npt.NDArray[np.int64]
    role: Words
    part: Words

    def __len__(self) -> int:
        return len(self.turn)

    def __getitem__(self, index: Any) -> Labels:
        """Return the labels of the rows that a slice or a mask selects."""
        return Labels(self.turn[index], self.role[index], self.part[index])

    @staticmethod
    def join(pieces: Sequence[Labels]) -> Labels:
        """Return the labels of several pieces, in order."""
        return Labels(*(np.concatenate([getattr(p, name) for p in pieces]) for name in Labels.__dataclass_fields__))

    def after(self, count: int) -> Labels:
        """Return these labels after those of `count` tokens that were put before the document, such as a BOS."""
        if not count:
            return self
        before = Labels(np.full(count, NO_TURN), _words([None] * count), _words([Part.TEMPLATE.value] * count))
        return Labels.join([before, self])


@dataclass(frozen=True, kw_only=True)
class LabelledTokens(Tokens):
    """The tokens of a rendered document, each with its labels.

    Attributes:
        labels: of each token.
        masked: bool [N], whether the token lies in no span that is scored.
        straddling: number of tokens that lie in two spans or more.
    """

    labels: Labels
    masked: npt.NDArray[np.bool_]
    straddling: int


def label_tokens(tokens: Tokens, spans: Sequence[Span], special_ids: Set[int] = frozenset()) -> Tokens:
    """Return the tokens of a document with their labels; those of plain text, which has no spans, as they are.

    A token that lies in several spans belongs to the first of them that is scored, and otherwise to the one in which
    it begins. Trainers decide in the same way: a token that overlaps a scored span counts whole
    (return_assistant_tokens_mask of transformers), and a completion begins with the first token that the prompt alone
    does not have (TRL).

    Args:
        tokens: the tokens of the document.
        spans: the spans of the document, which tile it; none for plain text.
        special_ids: ids of special tokens. Those in the content of messages are names that the text holds; the others
            were written by the template.

    >>> spans = [Span(4, 0, "user", Part.CONTENT, False), Span(9, 1, "assistant", Part.CONTENT, True)]
    >>> tokens = Tokens(np.zeros(3, np.int32), np.array([3, 6, 9]), np.zeros(3, bool))
    >>> found = label_tokens(tokens, spans)  # the second token has one byte of the user's
    >>> found.labels.role.tolist(), found.masked.tolist(), found.straddling
    (['user', 'assistant', 'assistant'], [True, False, False], 1)
    """
    if not spans:
        return tokens
    byte_stop = tokens.byte_stop
    starts = np.concatenate([[0], byte_stop[:-1]])[: len(byte_stop)]
    edges = np.array([span.byte_stop for span in spans])
    last_span = len(spans) - 1
    first = np.minimum(np.searchsorted(edges, starts, side="right"), last_span)
    last = np.minimum(np.searchsorted(edges, byte_stop, side="left"), last_span)
    chosen = first.copy()
    straddling = np.flatnonzero(last > first)
    for token in straddling.tolist():
        inside = range(first[token], last[token] + 1)
        chosen[token] = next((index for index in inside if spans[index].scored), first[token])
    turns = np.array([NO_TURN if span.turn is None else span.turn for span in spans])
    roles, parts = _words([span.role for span in spans]), _words([span.part.value for span in spans])
    masked = ~np.array([span.scored for span in spans])
    labels = Labels(turns[chosen], roles[chosen], parts[chosen])
    written = (labels.part == Part.CONTENT.value) & np.isin(tokens.ids, list(special_ids))
    facts = {**vars(tokens), "special_strings": int(written.sum()) if tokens.special_strings else 0}
    return LabelledTokens(**facts, labels=labels, masked=masked[chosen], straddling=len(straddling))


def _words(values: Sequence[str | None]) -> Words:
    return np.array([*values, None], object)[:-1]  # with None at the end, no array of characters is made
