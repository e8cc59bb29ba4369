"""From documents to a stored plan: what every row is, before any of it is scored. One document in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe.checkpoint.interface import Tokenizer, Tokens
from lossprobe.errors import CheckpointError, NothingToScoreError, TextError
from lossprobe.run.files import atomic_target, write_table
from lossprobe.run.schema import DOCUMENT_COLUMNS, VOCABULARY_COLUMNS, arrow_schema
from lossprobe.run.store import RunStore
from lossprobe.scoring.plan import SCORED, UNSCORED, Rows, WindowPolicy, cut_parts, plan_document
from lossprobe.text.counts import TextCounts, count_spans, count_text
from lossprobe.text.documents import Document, Fingerprint, Source
from lossprobe.units import format_count, visible

FLUSH_BYTES = 4 << 20
LADDER_ROWS = 16_384
UNKNOWN_SHOWN = 5
SUMMED = (
    "tokens", "scored_tokens", "bytes", "characters", "words",
    "scored_bytes", "scored_characters", "scored_words", "normalized_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class PlanOptions:
    """What planning needs to know beside the text and the tokenizer.

    Attributes:
        policy: windows and BOS.
        vocab_size: width of the logits.
        keep_text: store the text with the documents.
        text_sha256: fingerprint of the text when the run was named.
    """

    policy: WindowPolicy
    vocab_size: int
    keep_text: bool
    text_sha256: str


def write_plan(store: RunStore, source: Source, tokenizer: Tokenizer, options: PlanOptions) -> dict[str, Any]:
    """Store the plan, the documents and the vocabulary of a run, and return its `counts` and `part_rows`.

    Raises:
        TextError: the text changed since it was hashed.
        CheckpointError: the tokenizer gives an id that the model does not have.
        NothingToScoreError: no token can be scored.
    """
    store.start_plan()
    tally = _Tally()
    seen = Fingerprint()
    part_rows = []
    with _document_writer(store.path / "documents.parquet") as writer:
        planned = _plan_documents(source, tokenizer, options, _Sinks(writer, tally, seen))
        for index, rows in enumerate(cut_parts(planned)):
            store.write_plan_part(index, rows)
            part_rows.append(int(rows.own.sum()))
    if seen.hexdigest() != options.text_sha256:
        raise TextError("text.changed", f"{source.name}: the text changed while it was read (sha256 differs)")
    tally.check(source)
    write_vocabulary(store.path / "vocabulary.parquet", tokenizer, options.vocab_size)
    total = sum(part_rows)
    return {"counts": tally.counts(), "part_rows": part_rows, "sample_every": max(1, total // LADDER_ROWS)}


def write_vocabulary(path: Path, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Store what each id stands for."""
    ids = range(vocab_size)
    values = {
        "token_id": list(ids),
        "bytes": [tokenizer.token_bytes(index) for index in ids],
        "special": [index in tokenizer.special_ids for index in ids],
    }
    write_table(path, VOCABULARY_COLUMNS, values)


def _plan_documents(source: Source, tokenizer: Tokenizer, options: PlanOptions, sinks: _Sinks) -> Iterator[Rows]:
    window = 0
    for number, document in enumerate(source.documents()):
        sinks.fingerprint.add(document)
        tokens = tokenizer.encode(document.text)
        largest = int(tokens.ids.max(initial=0))
        if largest >= options.vocab_size:
            raise CheckpointError(
                "tokenizer.id_out_of_range",
                f"the tokenizer gave token id {largest}, the model has {options.vocab_size}",
            )
        rows = plan_document(number, tokens, options.policy, window)
        record = _document_record(number, document, tokens, rows, options.keep_text)
        sinks.writer.add(record)
        sinks.tally.add(document, tokens, rows, record)
        if len(rows):
            window = int(rows.window[-1]) + 1
            yield rows


@contextmanager
def _document_writer(path: Path) -> Iterator[_DocumentWriter]:
    """Yield a writer of documents.parquet, which is put in place when the block ends well."""
    schema = arrow_schema(DOCUMENT_COLUMNS)
    with atomic_target(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as file:
        writer = _DocumentWriter(file, schema)
        yield writer
        writer.flush()


class _DocumentWriter:
    """Writes documents in pieces of a few megabytes."""

    def __init__(self, file: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._file = file
        self._schema = schema
        self._pending: list[dict[str, Any]] = []
        self._size = 0

    def add(self, record: dict[str, Any]) -> None:
        """Add the record of the next document."""
        self._pending.append(record)
        self._size += record["bytes"] + 200
        if self._size > FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending:
            self._file.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending, self._size = [], 0


def _document_record(number: int, document: Document, tokens: Tokens, rows: Rows, keep_text: bool) -> dict[str, Any]:
    """Return a document's row of documents.parquet."""
    whole = count_text(document.text)
    scored = whole - _unscored_counts(document, rows)
    return {
        "document": number,
        "source": document.source,
        "line": document.line,
        "byte_offset": document.byte_offset,
        "tokens": len(rows),
        "scored_tokens": int((rows.unscored == SCORED).sum()),
        "bytes": whole.bytes,
        "characters": whole.characters,
        "words": whole.words,
        "scored_bytes": scored.bytes,
        "scored_characters": scored.characters,
        "scored_words": scored.words,
        "normalized_bytes": tokens.normalized_bytes,
        "tiles": tokens.tiles,
        "fields": document.fields,
        "text": document.text if keep_text else None,
    }


def _unscored_counts(document: Document, rows: Rows) -> TextCounts:
    """Return the bytes, characters and words that unscored tokens hold."""
    absent = (rows.unscored != SCORED) & (rows.byte_stop > rows.byte_start)
    if not len(rows):
        return count_text(document.text)
    if not absent.any():
        return TextCounts(0, 0, 0)
    spans = count_spans(document.text, rows.byte_start[absent], rows.byte_stop[absent])
    return TextCounts(sum(s.bytes for s in spans), sum(s.characters for s in spans), sum(s.words for s in spans))


@dataclass
class _Tally:
    """Sums over all documents."""

    sums: Counter[str] = field(default_factory=Counter)
    unscored: Counter[str] = field(default_factory=Counter)
    unscored_bytes: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    unknown_text: list[str] = field(default_factory=list)
    tiles: bool = True

    def add(self, document: Document, tokens: Tokens, rows: Rows, record: dict[str, Any]) -> None:
        self.sums["documents"] += 1
        for name in SUMMED:
            self.sums[name] += record[name]
        self.tiles &= tokens.tiles
        widths = rows.byte_stop - rows.byte_start
        for code, reason in enumerate(UNSCORED):
            chosen = rows.unscored == code
            if chosen.any():
                self.unscored[reason] += int(chosen.sum())
                self.unscored_bytes[reason] += int(widths[chosen].sum())
        self.unknown += int(tokens.unknown.sum())
        if tokens.unknown.any() and len(self.unknown_text) < UNKNOWN_SHOWN:
            self._note_unknown(document, tokens)

    def _note_unknown(self, document: Document, tokens: Tokens) -> None:
        data = document.text.encode()
        starts = np.concatenate([[0], tokens.byte_stop[:-1]])
        for index in np.flatnonzero(tokens.unknown)[:1000]:
            piece = data[int(starts[index]) : int(tokens.byte_stop[index])].decode("utf-8", "replace")
            if piece not in self.unknown_text and len(self.unknown_text) < UNKNOWN_SHOWN:
                self.unknown_text.append(piece)

    def check(self, source: Source) -> None:
        """Refuse a run without a single token that can be scored."""
        if self.sums["scored_tokens"] == 0:
            total = self.sums["tokens"] - self.unscored["special"]
            needs = "no tokens" if total == 0 else f"{format_count(total)} token, needs at least 2 tokens in a document"
            raise NothingToScoreError("text.nothing_to_score", f"{source.name}: {needs}")

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


def check_unknown(counts: dict[str, Any], source: Source, max_unknown: float) -> None:
    """Note the tokens that stand for text outside the vocabulary, or refuse the text for them.

    Args:
        counts: the `counts` of a plan or a run, new or stored: a looser limit once is none for ever.
        source: the text, for its name and its notices.
        max_unknown: largest share of its tokens that may be unknown.

    Raises:
        TextError: a larger share is.
    """
    unknown = counts["unknown_tokens"]
    if not unknown:
        return
    pieces: list[str] = counts["unknown_text"]
    share = unknown / counts["tokens"]
    shown = " ".join(f"U+{ord(piece):04X}" if len(piece) == 1 else visible(piece, 20) for piece in pieces)
    text = f"{source.name}: {format_count(unknown)} tokens ({share:.2%}) are not in the vocabulary: {shown}"
    if share > max_unknown:
        hint = "--newlines lf turns CRLF and CR into LF" if "\r" in "".join(pieces) else "see --max-unknown"
        raise TextError("text.unknown", f"{text} (limit {max_unknown:.2%})", hint=hint)
    if text not in source.notices:
        source.notices.append(text)


@dataclass(frozen=True)
class _Sinks:
    """Where planning puts what it learns of each document."""

    writer: _DocumentWriter
    tally: _Tally
    fingerprint: Fingerprint
