"""Turns documents into a stored plan, which says for every row what it is before anything is scored.

Holds one document in memory at a time: its text, its tokens (13 bytes each), and a bounded number of rows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lossprobe.checkpoint.interface import Tokenizer, Tokens
from lossprobe.errors import CheckpointError, TextError
from lossprobe.passes.blocks import Block, blocks_of
from lossprobe.passes.known_text import read_again, skipped_of, tokens_of
from lossprobe.passes.tally import DocumentCount, Tally
from lossprobe.passes.tokenized import Tokenizing
from lossprobe.plan.rows import Rows, WindowPolicy, cut_parts, plan_pieces, row_count
from lossprobe.plan.windows import Layout
from lossprobe.run.document_table import DocumentsTable, documents_table
from lossprobe.run.files import fill_table
from lossprobe.run.schema import DOCUMENTS, VOCABULARY, VOCABULARY_COLUMNS
from lossprobe.run.store import RunStore
from lossprobe.run.token_digest import TokenDigest
from lossprobe.text.documents import Document, Source
from lossprobe.text.stage import Stage, no_stage
from lossprobe.units import format_count

LADDER_ROWS = 16_384
WAITING = 2  # parts that wait to be stored
StorePart = Callable[[int, Rows], None]


@dataclass(frozen=True)
class PlanOptions:
    """Options of planning, beside the text and the tokenizer.

    Attributes:
        policy: windows and BOS.
        vocab_size: width of the logits.
        keep_text: store the text with the documents.
        text_sha256: fingerprint of the text when the run was named.
        settings_sha256: hash of the identity of the run, which blocks of a plan that shards make carry.
    """

    policy: WindowPolicy
    vocab_size: int
    keep_text: bool
    text_sha256: str
    settings_sha256: str = ""


@dataclass(frozen=True)
class PlannedBlock:
    """What planning found of the documents of one block.

    Attributes:
        part_rows: rows of each of its parts.
        windows: number of its windows.
        tally: the counts of its documents.
    """

    part_rows: list[int]
    windows: int
    tally: Tally

    def to_json(self) -> dict[str, Any]:
        """Return the block as a JSON object."""
        return {"part_rows": self.part_rows, "windows": self.windows, "tally": self.tally.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PlannedBlock:
        """Return the block of which `to_json` made an object."""
        return cls(content["part_rows"], content["windows"], Tally.from_json(content["tally"]))


def write_plan(
    store: RunStore, source: Source, tokenizer: Tokenizer, options: PlanOptions, stage: Stage = no_stage
) -> dict[str, Any]:
    """Store the plan, the documents and the vocabulary of a run, and return what `assembled` does.

    `stage` is called with words for how far it is.

    Raises:
        TextError: the text changed since it was hashed.
        CheckpointError: the tokenizer gives an id that the model does not have.
        NothingToScoreError: no token can be scored.
    """
    store.start_plan()
    planner = Planner(source, tokenizer, options, stage)
    planned: list[PlannedBlock] = []
    parts = 0

    def store_part(index: int, rows: Rows) -> None:
        store.write_plan_part(parts + index, rows)

    with store.target(DOCUMENTS) as target, documents_table(target) as table:
        for block in blocks_of(read_again(source, options.text_sha256)):
            planned.append(planner.plan(block, table, store_part))
            parts += len(planned[-1].part_rows)
    plan = assembled(planned, source, options.policy)
    write_vocabulary(store, tokenizer, options.vocab_size)
    return plan


def assembled(blocks: Iterable[PlannedBlock], source: Source, policy: WindowPolicy) -> dict[str, Any]:
    """Return `counts`, `part_rows`, `first_windows` and `sample_every` of the plan that some blocks make together.

    The rows of a part are stored with windows that are counted from the start of its block, so that a block can be
    planned before the ones before it; `first_windows` says, for each part, how many windows come before its block.

    Args:
        blocks: all blocks, in order.
        source: the text, which has just been read.
        policy: windows and BOS.

    Raises:
        NothingToScoreError: no token can be scored.
    """
    tally, part_rows, first_windows, windows = Tally(), list[int](), list[int](), 0
    for block in blocks:
        tally.merge(block.tally)
        part_rows += block.part_rows
        first_windows += [windows] * len(block.part_rows)
        windows += block.windows
    tally.check(source, policy)
    skipped = {f"skipped_{kind}s": count for kind, count in skipped_of(source).items()}
    return {
        "counts": tally.counts() | skipped,
        "part_rows": part_rows,
        "first_windows": first_windows,
        "sample_every": max(1, sum(part_rows) // LADDER_ROWS),
    }


def _written(store_part: StorePart, parts: Iterable[Rows]) -> Iterator[Rows]:
    """Yield parts of a plan, each of which a thread then stores, in order, while the next ones are planned."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as pool:  # packing and flushing take a third of the time of a plan
        for index, rows in enumerate(parts):
            yield rows
            waiting.append(pool.submit(store_part, index, rows))
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


class Planner:
    """Plans the blocks of a text.

    Args:
        source: the text.
        tokenizer: makes its tokens.
        options: windows, BOS and what is kept.
        stage: called with words for how far it is.
    """

    def __init__(self, source: Source, tokenizer: Tokenizer, options: PlanOptions, stage: Stage) -> None:
        self._tokenizing = Tokenizing(source, tokenizer)
        self._options = options
        self._stage = stage
        self._tokens = 0
        self._begun = time.monotonic()

    def plan(self, block: Block, table: DocumentsTable, store_part: StorePart) -> PlannedBlock:
        """Plan one block, add its documents to a table, and return what was found.

        Args:
            block: the block.
            table: gets a record of each document.
            store_part: stores the rows of a part; called with its number in the block, in order, in another thread.

        Raises:
            CheckpointError: the tokenizer gives an id that the model does not have.
            TextError: a document is longer than its window, where one window must hold a whole document.
        """
        pieces = _Pieces(block, self._tokenizing, self._options, table)
        part_rows = []
        for rows in _written(store_part, cut_parts(pieces.rows())):
            part_rows.append(int(rows.own.sum()))
            self._tell(part_rows[-1])
        table.flush()
        return PlannedBlock(part_rows, pieces.windows, pieces.tally)

    def _tell(self, tokens: int) -> None:
        self._tokens += tokens
        rate = self._tokens / max(time.monotonic() - self._begun, 1e-3)
        self._stage(f"tokenizing: {self._tokens:,} tokens, {rate:,.0f} tokens/s")


class _Pieces:
    """The rows of the documents of a block, and what was counted while they were made.

    Attributes:
        windows: number of windows so far.
        tally: counts of the documents so far.
    """

    def __init__(self, block: Block, tokenizing: Tokenizing, options: PlanOptions, table: DocumentsTable) -> None:
        self._block = block
        self._tokenizing = tokenizing
        self._options = options
        self._table = table
        self.windows = 0
        self.tally = Tally()

    def rows(self) -> Iterator[Rows]:
        """Yield the rows of all documents in pieces; windows are counted from 0."""
        number = self._block.first_document
        for document, tokens in self._tokenizing.of(self._block.documents):
            count = DocumentCount(document)
            self.windows = yield from _plan_one(number, self.windows, count, tokens, self._options)
            del tokens  # frees them before the document is stored
            record = count.record(number, self._options.keep_text)
            self._table.add(record)
            self.tally.add(count, record)
            number += 1


def _plan_one(
    number: int, window: int, count: DocumentCount, tokens: Tokens, options: PlanOptions
) -> Generator[Rows, None, int]:
    """Yield the rows of one document in pieces; return the number of the window after its last one.

    Args:
        number: the document's number.
        window: number of its first window in its block.
        count: collects the counts of the document.
        tokens: its tokens.
        options: as in `write_plan`.
    """
    check_ids(tokens, options.vocab_size, f"{count.document.source}: document {number}")
    _check_length(number, count.document, tokens, options.policy)
    count.add_tokens(tokens)
    after = window
    for rows in plan_pieces(number, tokens, options.policy, window):
        count.add_rows(rows.own_rows())
        after = int(rows.window[-1]) + 1
        yield rows
    count.finish()
    return after


def check_ids(tokens: Tokens, vocab_size: int, where: str) -> None:
    """Refuse token ids that the model does not have.

    Args:
        tokens: the tokens of a document.
        vocab_size: how many ids the model has.
        where: which document it is, for the start of the message.

    Raises:
        CheckpointError: an id is outside the model's vocabulary: tokenizer and model do not belong together.
    """
    largest = int(tokens.ids.max(initial=0))
    if largest >= vocab_size:
        raise CheckpointError(
            "tokenizer.id_out_of_range",
            f"{where}: the tokenizer gave token id {largest}, the model has {vocab_size} ids, from 0",
            hint="take the tokenizer that the model was trained with; if tokens were added to it, embeddings must be "
            "resized and trained too",
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
