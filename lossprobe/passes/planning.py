"""Turns documents into a stored plan, which says for every row what it is before anything is scored.

Holds one document in memory at a time: its text, its tokens (13 bytes each), and a bounded number of rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe.checkpoint.interface import Tokenizer, Tokens
from lossprobe.errors import CheckpointError, TextError
from lossprobe.passes.known_text import read_again, skipped_of, templated, tokens_of
from lossprobe.passes.tally import DocumentCount, Tally
from lossprobe.passes.tokenized import tokenized
from lossprobe.plan.rows import Rows, WindowPolicy, cut_parts, plan_pieces, row_count
from lossprobe.plan.windows import Layout
from lossprobe.run.files import fill_table
from lossprobe.run.schema import DOCUMENT_COLUMNS, DOCUMENTS, VOCABULARY, VOCABULARY_COLUMNS, arrow_schema
from lossprobe.run.store import RunStore
from lossprobe.run.token_digest import TokenDigest
from lossprobe.text.documents import Document, Source
from lossprobe.units import format_count, plural, visible

FLUSH_BYTES = 4 << 20
LADDER_ROWS = 16_384
WAITING = 2  # parts that wait to be stored


@dataclass(frozen=True)
class PlanOptions:
    """Options of planning, beside the text and the tokenizer.

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
    tally = Tally()
    with _document_writer(store) as writer:
        planned = _plan_documents(source, tokenizer, options, _Sinks(writer, tally))
        part_rows = [int(rows.own.sum()) for rows in _written(store, cut_parts(planned))]
    tally.check(source, options.policy)
    write_vocabulary(store, tokenizer, options.vocab_size)
    total = sum(part_rows)
    skipped = {f"skipped_{kind}s": count for kind, count in skipped_of(source).items()}
    return {"counts": tally.counts() | skipped, "part_rows": part_rows, "sample_every": max(1, total // LADDER_ROWS)}


def _written(store: RunStore, parts: Iterable[Rows]) -> Iterator[Rows]:
    """Yield parts of a plan, each of which a thread then stores, in order, while the next ones are planned."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as pool:  # packing and flushing take a third of the time of a plan
        for index, rows in enumerate(parts):
            yield rows
            waiting.append(pool.submit(store.write_plan_part, index, rows))
            if len(waiting) > WAITING:
                waiting.popleft().result()
        for each in waiting:
            each.result()


def tokens_sha256(source: Source, tokenizer: Tokenizer, policy: WindowPolicy) -> str:
    """Return what `Run.tokens_sha256` of a run of a text would be, without scoring it."""
    digest = TokenDigest(policy.bos_id)
    for number, document in enumerate(source.documents()):
        for rows in plan_pieces(number, tokens_of(source, document, tokenizer), policy, 0):
            own = rows.own_rows()
            digest.add(own.token, own.document, own.token_id, own.byte_start, own.byte_stop)
    return digest.hexdigest()


def write_vocabulary(store: RunStore, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Store the bytes of each token id, and whether it is special."""
    ids = range(vocab_size)
    values = {
        "token_id": list(ids),
        "bytes": [tokenizer.token_bytes(index) for index in ids],
        "special": [index in tokenizer.special_ids for index in ids],
    }
    with store.target(VOCABULARY) as target:
        fill_table(target, VOCABULARY_COLUMNS, values)


def _plan_documents(source: Source, tokenizer: Tokenizer, options: PlanOptions, sinks: _Sinks) -> Iterator[Rows]:
    number = window = 0
    for document, tokens in tokenized(source, read_again(source, options.text_sha256), tokenizer):
        count = DocumentCount(document)
        window = yield from _plan_one(number, window, count, tokens, options)
        del tokens  # frees them before the document is stored
        record = count.record(number, options.keep_text)
        sinks.writer.add(record)
        sinks.tally.add(count, record)
        number += 1  # noqa: SIM113 - `enumerate` would keep the tokens


def _plan_one(
    number: int, window: int, count: DocumentCount, tokens: Tokens, options: PlanOptions
) -> Generator[Rows, None, int]:
    """Yield the rows of one document in pieces; return the number of the window after its last one.

    Args:
        number: the document's number.
        window: number of its first window in the whole run.
        count: collects the counts of the document.
        tokens: its tokens.
        options: as in `write_plan`.
    """
    check_ids(tokens, options.vocab_size)
    _check_length(number, count.document, tokens, options.policy)
    count.add_tokens(tokens)
    after = window
    for rows in plan_pieces(number, tokens, options.policy, window):
        count.add_rows(rows.own_rows())
        after = int(rows.window[-1]) + 1
        yield rows
    count.finish()
    return after


def check_ids(tokens: Tokens, vocab_size: int) -> None:
    """Refuse token ids that the model does not have.

    Raises:
        CheckpointError: an id is outside the model's vocabulary: tokenizer and model do not belong together.
    """
    largest = int(tokens.ids.max(initial=0))
    if largest >= vocab_size:
        raise CheckpointError(
            "tokenizer.id_out_of_range", f"the tokenizer gave token id {largest}, the model has {vocab_size}"
        )


def _check_length(number: int, document: Document, tokens: Tokens, policy: WindowPolicy) -> None:
    """Refuse a document that is longer than its window, where one window must hold a whole document."""
    rows = row_count(tokens, policy)
    if policy.layout is Layout.WHOLE and rows > policy.context + 1:
        raise TextError(
            "text.too_long",
            f"{document.source}: document {number} has {format_count(rows)} tokens, one window holds at most "
            f"{format_count(policy.context + 1)}",
            hint="`context` cuts documents that are longer",
        )


@contextmanager
def _document_writer(store: RunStore) -> Iterator[_DocumentWriter]:
    """Yield a writer of documents.parquet, which is put in place if the block ends without an error.

    The column of texts has no Parquet statistics: they would be copies of its first and last text in sorting order.
    """
    schema = arrow_schema(DOCUMENT_COLUMNS)
    options = {"compression": "zstd", "write_statistics": [name for name in schema.names if name != "text"]}
    with store.target(DOCUMENTS) as target, pq.ParquetWriter(target, schema, **options) as file:
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


def check_unknown(counts: dict[str, Any], source: Source, max_unknown: float) -> None:
    """Add notices of what a tokenizer did to a text, or refuse the text if too much of it is not in the vocabulary.

    Args:
        counts: the `counts` of a plan or a run. Stored runs are checked too: they may have had a looser limit.
        source: the text, for its name and its notices.
        max_unknown: largest allowed share of unknown tokens, and of bytes without a token.

    Raises:
        TextError: the share is larger.
    """
    _refuse_unknown(counts, source, max_unknown)
    _refuse_vanished(counts, source, max_unknown)
    rewritten = counts.get("normalized_bytes", 0)
    if rewritten and not counts.get("vanished_bytes", 0):
        share = rewritten / counts["bytes"]
        _note(source, f"the tokenizer dropped or rewrote {plural(rewritten, 'byte')} ({share:.2%}) of the text")
    special = counts.get("special_strings", 0)
    if special:
        what = f"{plural(special, 'token')} {'is a control id' if special == 1 else 'are control ids'}"
        how = "trainers read them so too" if templated(source) else "`special_strings` text reads such names as text"
        _note(source, f"{what}, since the text holds the names; {how}")
    straddling = counts.get("straddling_tokens", 0)
    if straddling:
        what = f"{plural(straddling, 'token')} {'lies' if straddling == 1 else 'lie'} across an edge of two parts"
        _note(
            source,
            f"{what}, such as prompt and answer; such a token counts whole to the part that is scored, as in trainers",
        )
    cut = counts.get("documents_in_pieces", 0)
    if cut:
        what = f"{plural(cut, 'long document')} tokenized in pieces, by a tokenizer that can look farther than a piece"
        _note(source, f"{what}: the tokens may be others than those of the whole; selfcheck compares a sample")


def _note(source: Source, what: str) -> None:
    text = f"{source.name}: {what}"
    if text not in source.notices:
        source.notices.append(text)


def _refuse_unknown(counts: dict[str, Any], source: Source, max_unknown: float) -> None:
    unknown = counts["unknown_tokens"]
    if not unknown:
        return
    pieces: list[str] = counts["unknown_text"]
    share = unknown / counts["tokens"]
    shown = " ".join(f"U+{ord(piece):04X}" if len(piece) == 1 else visible(piece, 20) for piece in pieces)
    text = f"{format_count(unknown)} tokens ({share:.2%}) are not in the vocabulary"
    text += f": {shown}" if shown else ""
    if share > max_unknown:
        hint = "`newlines` lf turns CRLF and CR into LF" if "\r" in "".join(pieces) else "see `max_unknown`"
        raise TextError("text.unknown", f"{source.name}: {text} (limit {max_unknown:.2%})", hint=hint)
    _note(source, text)


def _refuse_vanished(counts: dict[str, Any], source: Source, max_unknown: float) -> None:
    vanished = counts.get("vanished_bytes", 0)
    if not vanished:
        return
    share = vanished / counts["bytes"]
    text = f"{plural(vanished, 'byte')} ({share:.2%}) of the text vanished: the vocabulary has no token for them"
    if share > max_unknown:
        hint = "`max_unknown` 1 scores the tokens that are left; nothing is given per byte or per word then"
        raise TextError("text.vanished", f"{source.name}: {text} (limit {max_unknown:.2%})", hint=hint)
    _note(source, f"{text}; nothing is given per byte or per word")


@dataclass(frozen=True)
class _Sinks:
    """The two places that planning writes each document to."""

    writer: _DocumentWriter
    tally: Tally
