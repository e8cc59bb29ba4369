"""Counts of the documents of a run, made while planning: sizes, unscored tokens by reason, and unknown text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossprobe.checkpoint.interface import Tokens
from lossprobe.errors import NothingToScoreError
from lossprobe.plan.labels import LabelledTokens
from lossprobe.plan.rows import SCORED, UNSCORED, Rows, WindowPolicy
from lossprobe.plan.windows import Layout
from lossprobe.text.counts import TextCounts, count_spans, count_text, joined
from lossprobe.text.documents import Document, Source
from lossprobe.units import format_count, plural, visible

UNKNOWN_SHOWN = 5
TRUNCATED = UNSCORED.index("truncated")
SUMMED = (
    "tokens", "scored_tokens", "bytes", "characters", "words",
    "scored_bytes", "scored_characters", "scored_words", "normalized_bytes",
)  # fmt: skip


class DocumentCount:
    """The counts of one document, added one piece of its rows at a time.

    Attributes:
        document: the document.
        tokens, scored_tokens: numbers of its tokens, and of those with a loss.
        straddling: tokens that lie in two parts of a conversation or more.
        first_cut: index of the first token that would have a loss if documents were not cut; None for none.
        unknown, normalized_bytes, tiles, vanished_bytes, special_strings, in_pieces: as in `Tokens`.
        unscored, unscored_bytes: tokens without a loss, and their bytes, by reason.
        absent: bytes, characters and words of the tokens without a loss.
        unknown_text: some of the text that is not in the vocabulary.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.tokens = self.scored_tokens = 0
        self.unscored: Counter[str] = Counter()
        self.unscored_bytes: Counter[str] = Counter()
        self.absent = TextCounts(0, 0, 0)
        self.unknown = self.normalized_bytes = self.vanished_bytes = self.special_strings = 0
        self.straddling = 0
        self.first_cut: int | None = None
        self.unknown_text: list[str] = []
        self.tiles = True
        self.in_pieces = False
        self._data: bytes | None = None

    def add_tokens(self, tokens: Tokens) -> None:
        """Add the facts of the tokens that need no rows."""
        self.normalized_bytes, self.vanished_bytes = tokens.normalized_bytes, tokens.vanished_bytes
        self.tiles, self.in_pieces = tokens.tiles and not tokens.vanished_bytes, tokens.in_pieces
        self.special_strings = tokens.special_strings
        self.straddling = tokens.straddling if isinstance(tokens, LabelledTokens) else 0
        places = np.flatnonzero(tokens.unknown)
        self.unknown = len(places)
        if not tokens.tiles:  # without exact spans the text of a token is a guess, and a wrong character would mislead
            return
        for index in places[:1000].tolist():
            start = int(tokens.byte_stop[index - 1]) if index else 0
            piece = self._bytes()[start : int(tokens.byte_stop[index])].decode("utf-8", "replace")
            if piece not in self.unknown_text and len(self.unknown_text) < UNKNOWN_SHOWN:
                self.unknown_text.append(piece)

    def add_rows(self, rows: Rows) -> None:
        """Add the next rows."""
        self.tokens += len(rows)
        absent = np.flatnonzero(rows.unscored != SCORED)  # of most documents the first token alone
        self.scored_tokens += len(rows) - len(absent)
        codes, starts, stops = rows.unscored[absent], rows.byte_start[absent], rows.byte_stop[absent]
        for code in sorted(set(codes.tolist())):
            chosen = codes == code
            if code == TRUNCATED and self.first_cut is None:
                self.first_cut = int(rows.token[absent[chosen.argmax()]])
            self.unscored[UNSCORED[code]] += int(np.count_nonzero(chosen))
            self.unscored_bytes[UNSCORED[code]] += int((stops[chosen] - starts[chosen]).sum())
        wide = stops > starts
        if wide.any():
            spans = count_spans(self._bytes(), *joined(starts[wide], stops[wide]))
            self.absent = sum(spans, start=self.absent)

    def finish(self) -> None:
        """Free the memory that only `add_rows` needs."""
        self._data = None

    def record(self, number: int, keep_text: bool) -> dict[str, Any]:
        """Return the document's row of documents.parquet.

        Args:
            number: the document's number.
            keep_text: store the text with it.
        """
        document = self.document
        whole = count_text(document.text)
        scored = whole - (self.absent if self.tokens else whole)
        return {
            "document": number,
            "source": document.source,
            "line": document.line,
            "byte_offset": document.byte_offset,
            "tokens": self.tokens,
            "scored_tokens": self.scored_tokens,
            "bytes": whole.bytes,
            "characters": whole.characters,
            "words": whole.words,
            "scored_bytes": scored.bytes,
            "scored_characters": scored.characters,
            "scored_words": scored.words,
            "normalized_bytes": self.normalized_bytes,
            "tiles": self.tiles,
            "fields": document.fields,
            "text": document.text if keep_text else None,
        }

    def _bytes(self) -> bytes:
        if self._data is None:
            self._data = self.document.text.encode()
        return self._data


def merge_unknown(shown: list[str], more: list[str]) -> list[str]:
    """Return two lists of unknown text as one without repeats, cut to `UNKNOWN_SHOWN`."""
    return [*shown, *(piece for piece in more if piece not in shown)][:UNKNOWN_SHOWN]


@dataclass
class Tally:
    """Sums over all documents; `longest_prompt` is the most tokens before what a cut leaves without a loss.

    `roles` are those of the conversations.
    """

    sums: Counter[str] = field(default_factory=Counter)
    unscored: Counter[str] = field(default_factory=Counter)
    unscored_bytes: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    unknown_text: list[str] = field(default_factory=list)
    tiles: bool = True
    longest_prompt: int = 0
    roles: set[str] = field(default_factory=set)

    def add(self, count: DocumentCount, record: dict[str, Any]) -> None:
        """Add the next document."""
        self.sums["documents"] += 1
        for name in SUMMED:
            self.sums[name] += record[name]
        self.sums["vanished_bytes"] += count.vanished_bytes
        self.sums["special_strings"] += count.special_strings
        self.sums["documents_in_pieces"] += count.in_pieces
        if count.document.spans:
            self.sums["straddling_tokens"] += count.straddling
            self.roles |= {span.role for span in count.document.spans if span.role is not None}
        self.tiles &= count.tiles
        self.longest_prompt = max(self.longest_prompt, count.first_cut or 0)
        self.unscored.update(count.unscored)  # unlike +, it keeps a reason with a count of 0 bytes
        self.unscored_bytes.update(count.unscored_bytes)
        self.unknown += count.unknown
        self.unknown_text = merge_unknown(self.unknown_text, count.unknown_text)

    def merge(self, later: Tally) -> None:
        """Add the sums over documents that come after those of this tally."""
        for name in ("sums", "unscored", "unscored_bytes"):
            getattr(self, name).update(getattr(later, name))
        self.tiles &= later.tiles
        self.longest_prompt = max(self.longest_prompt, later.longest_prompt)
        self.roles |= later.roles
        self.unknown += later.unknown
        self.unknown_text = merge_unknown(self.unknown_text, later.unknown_text)

    def to_json(self) -> dict[str, Any]:
        """Return the tally as a JSON object."""
        return {**vars(self), "roles": sorted(self.roles)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Tally:
        """Return the tally of which `to_json` made an object."""
        counters = {name: Counter(content[name]) for name in ("sums", "unscored", "unscored_bytes")}
        return cls(**{**content, **counters, "roles": set(content["roles"])})

    def check(self, source: Source, policy: WindowPolicy) -> None:
        """Refuse a run without a token that can be scored, or whose only tokens stand before the text, such as BOS."""
        hint = None
        if self.sums["scored_tokens"] and self.sums["bytes"]:
            return
        total = self.sums["tokens"] - self.unscored["special"]
        reasons = {reason: count for reason, count in self.unscored.items() if reason not in ("special", "first_token")}
        if not self.sums["bytes"] or not total:
            needs = "no tokens"
        elif reasons:
            counted = ", ".join(f"{reason} {format_count(count)}" for reason, count in reasons.items())
            needs = f"none of {plural(total, 'token')} can be scored ({counted})"
            if self.roles and not self.roles & {"assistant", "completion"}:
                roles = visible(", ".join(sorted(self.roles)), 100)
                hint = f"no message has the role assistant; `score` takes others: {roles}"
            if reasons.get("truncated") and policy.layout is Layout.FIRST:
                needs += f": cut to the first {format_count(policy.context + 1)}, no document keeps what is scored"
                hint = (
                    f"`truncate` keep-end keeps the ends; up to {plural(self.longest_prompt, 'token')} stand before "
                    "what is scored, and `context` must be larger"
                )
        else:
            needs = f"{plural(total, 'token')}, needs at least 2 tokens in a document"
        raise NothingToScoreError("text.nothing_to_score", f"{source.name}: {needs}", hint=hint)

    def counts(self) -> dict[str, Any]:
        """Return the `counts` of run.json."""
        return {
            **{name: int(value) for name, value in self.sums.items()},
            "unscored_tokens": dict(self.unscored),
            "unscored_bytes": dict(self.unscored_bytes),
            "unknown_tokens": self.unknown,
            "unknown_text": self.unknown_text,
            "spans_tile": bool(self.tiles),
        }
