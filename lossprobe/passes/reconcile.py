"""Makes the passes whose losses may give the number in a training log, one after the other until one explains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lossprobe.analysis.logged.recipe import Integers
from lossprobe.analysis.logged.rows import COUNTED_BEFORE_SHIFT, row_order, row_sums
from lossprobe.analysis.reconcile.balancing import balancing_of
from lossprobe.analysis.reconcile.candidates import Candidates, enumerate_recipes
from lossprobe.analysis.reconcile.feed import Balancing, Bos, Feed, Kind
from lossprobe.analysis.reconcile.logged_value import LoggedValue
from lossprobe.analysis.reconcile.reconcile import Reconciliation, reconcile_number
from lossprobe.analysis.reconcile.token_table import Flags, Labels, feeds_of, token_table
from lossprobe.checkpoint.interface import Checkpoint, Tokenizer
from lossprobe.passes.known_text import KeptTokens, KnownText, kind_of, templated, tokens_of
from lossprobe.passes.packed_stream import PackedStream, packed_feeds
from lossprobe.passes.policy import DEFAULT_CONTEXT, SHORTEST_CUT
from lossprobe.passes.protocol_tokens import checkpoint_of_tool
from lossprobe.passes.protocol_windows import LONGEST_WHOLE, own_bos
from lossprobe.passes.protocols import ended
from lossprobe.passes.rendered import rendered
from lossprobe.passes.score import Progress, score, score_policy
from lossprobe.plan.labels import LabelledTokens
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import WindowPolicy
from lossprobe.plan.windows import Layout
from lossprobe.run.reader import Run
from lossprobe.text.documents import Document, Source
from lossprobe.text.examples import DataKind

USUAL_BLOCK = 1024  # of run_clm.py, if the model's limit is not smaller
BLOCKS = (512, 2048, 4096)  # further ones, with `deep`
HALF = ("autocast", "bfloat16", "float16")
MASKS = {  # what is scored, the usual first
    Kind.PLAIN: ("all",),
    Kind.CHAT: ("all", "assistant", "last-turn"),
    Kind.COMPLETION: ("completion", "all", "last-turn"),
}
Reopen = Callable[[str], Checkpoint]


@dataclass(frozen=True)
class Pass:
    """One pass: what it was, and the ways of feeding the text that follow from it."""

    run: Run
    feeds: list[Feed]


def reconcile(  # noqa: PLR0913 - those of `score`, and the number
    logged: LoggedValue,
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    *,
    deep: bool = False,
    order: Path | None = None,
    reopen: Reopen | None = None,
    progress: Progress | None = None,
) -> tuple[Run, Reconciliation]:
    """Return the first run that was used, and which recipes give a logged number.

    A recipe that agrees, is near what a trainer does by itself, and does not agree by chance, ends the search.

    Args:
        logged: the number.
        checkpoint: the model that it was logged for.
        source: the text that it was logged for.
        options: `context` is a length of rows that is tried beside the usual ones.
        deep: also try half precision and more lengths of blocks, with a pass for each.
        order: file with the order of the rows; None for that of the text. Packed streams stay as they are.
        reopen: opens the checkpoint with another dtype; needed for half precision.
        progress: as in `passes.score.score`.

    Raises:
        UsageError: the file of the order cannot be read, or is not of these rows.
        LossprobeError: as in `passes.score.score`.
    """
    options = options or ScoreOptions()
    text = source if isinstance(source, KnownText) else KnownText(source, KeptTokens())
    numbers = row_order(order, sum(1 for _ in text.documents()))
    plan = _Passes(checkpoint, text, options, progress, numbers)
    before_shift = checkpoint.facts.family in COUNTED_BEFORE_SHIFT
    runs: list[Run] = []
    feeds: list[Feed] = []
    tried = Candidates(())
    result: Reconciliation | None = None
    for each in plan.all(deep=deep, reopen=reopen):
        runs.append(each.run)
        feeds += each.feeds
        tried += enumerate_recipes(each.feeds, before_shift=before_shift, evidence=logged.evidence)
        result = reconcile_number(feeds, logged, passes=len(runs), candidates=tried)
        if result.settled:
            break
    assert result is not None
    return runs[0], result


class _Passes:
    """The passes over one text, the one that explains most first."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        source: KnownText,
        options: ScoreOptions,
        progress: Progress | None,
        order: Integers | None,
    ) -> None:
        self._order = order
        self._plain = checkpoint
        self._checkpoint = checkpoint_of_tool("trainer", checkpoint)
        self._source, self._options, self._progress = source, options, progress
        self._text = rendered(source, self._checkpoint, "all")
        self._adds = None if templated(self._text) else own_bos("trainer", self._checkpoint)

    def all(self, *, deep: bool, reopen: Reopen | None) -> Iterator[Pass]:
        """Yield the passes; those after the last one that is taken are never made."""
        first = self._rows(self._checkpoint, self._adds, Bos.OWN)
        yield first
        if any(feed.balancing for feed in first.feeds) and any(feed.eos is False for feed in first.feeds):
            yield self._without_end()
        other = self._other_bos()
        if other is not None:
            yield self._rows(self._checkpoint, other[0], other[1])
        if templated(self._text) is None:
            yield from self._streams(deep=deep)
        if self._longest(self._text) > (self._options.context or self._limit()):
            yield from self._own_windows()
        for dtype in HALF if deep and reopen is not None else ():
            assert reopen is not None
            seen = checkpoint_of_tool("trainer", reopen(dtype))
            yield self._rows(seen, self._adds, Bos.OWN, dtype)

    def _limit(self) -> int:
        return self._checkpoint.facts.context_length or DEFAULT_CONTEXT

    def _longest(self, text: KnownText) -> int:
        """Return the tokens of the longest row."""
        tokenizer = self._checkpoint.tokenizer
        return max(len(tokens_of(text, each, tokenizer).ids) for each in text.documents())

    def _other_bos(self) -> tuple[int | None, Bos] | None:
        """Return the BOS that a trainer may have put before each row other than the tokenizer's own, if any."""
        if self._adds is not None:
            return None, Bos.LEFT_OUT
        bos = self._checkpoint.tokenizer.bos_id
        if bos is None or bos >= self._checkpoint.facts.vocab_size:
            return None
        return bos, Bos.ADDED

    def _without_end(self) -> Pass:
        """Return a pass over rows without an EOS after each text, which routers see too: only what needs it."""
        each = self._rows(self._checkpoint, self._adds, Bos.OWN, ends=False)
        return Pass(each.run, [replace(feed, eos=False) for feed in each.feeds if feed.balancing])

    def _rows(
        self, checkpoint: Checkpoint, bos_id: int | None, bos: Bos, dtype: str = "float32", *, ends: bool = True
    ) -> Pass:
        """Return a pass over whole rows, each with the EOS that a trainer may put after it if `ends`."""
        facts = checkpoint.facts
        text = ended(self._text, checkpoint.tokenizer) if ends else self._text
        limit = facts.context_length if facts.hard_limit and facts.context_length else LONGEST_WHOLE
        longest = max(SHORTEST_CUT, min(limit, self._longest(text) + (bos_id is not None)))
        policy = WindowPolicy(longest - 1, longest, bos_id, True, Layout.FIRST)
        run = score_policy(None, checkpoint, text, policy, self._options, progress=self._progress).run
        labels = replace(self._labels(checkpoint, text, bos_id is not None, ends), balancing=self._balancing(run))
        return Pass(run, feeds_of(token_table(run, self._order), labels, self._options.context, bos, dtype))

    def _balancing(self, run: Run) -> Balancing | None:
        found = balancing_of(run)
        return found if found is None or self._order is None else found.take(self._order)

    def _labels(self, checkpoint: Checkpoint, text: KnownText, lead: int, ends: bool) -> Labels:
        """Return the masks of the tokens that a pass scored, each token as what puts them before and after it."""
        tokenizer = checkpoint.tokenizer
        kind = _kind(text)
        masks = {}
        for name in MASKS[kind]:
            source = rendered(self._source, checkpoint, name)
            source = ended(source, tokenizer) if ends else source
            masks[name] = np.concatenate([_labelled(source, each, tokenizer, lead) for each in source.documents()])
        after = []
        for before, document in zip(self._text.documents(), text.documents(), strict=True):
            size = len(tokens_of(text, document, tokenizer).ids) + lead
            after.append(np.arange(size) == (size - 1 if document.text != before.text else -1))
        return Labels(kind, masks, np.concatenate(after), tokenizer.eos_id)

    def _streams(self, *, deep: bool) -> Iterator[Pass]:
        """Yield passes over the text as one stream of tokens in blocks, without and with an EOS after each text."""
        limit = self._limit()
        usual = min(USUAL_BLOCK, limit)
        further = [self._options.context, min(limit, LONGEST_WHOLE), *(BLOCKS if deep else ())]
        blocks = [usual, *(block for block in further if block and block != usual and block <= limit)]
        for block in dict.fromkeys(blocks):
            for eos in (False, True):
                text = ended(self._text, self._checkpoint.tokenizer) if eos else self._text
                if eos and text is self._text:
                    continue
                stream = PackedStream(text, self._checkpoint.tokenizer, self._adds)
                if stream.longest < block:
                    continue
                policy = WindowPolicy(block - 1, block, None, True, Layout.DISJOINT)
                run = score_policy(None, self._checkpoint, stream, policy, self._options, progress=self._progress).run
                yield Pass(run, packed_feeds(run, block, eos=eos, usual=block == usual))

    def _own_windows(self) -> Iterator[Pass]:
        """Yield lossprobe's own passes, which see the whole of long documents, one for each mask."""
        kind = _kind(self._text)
        for name in MASKS[kind]:
            run = score(self._plain, self._source, replace(self._options, score=name), progress=self._progress).run
            feed = Feed(rows=row_sums(run), kind=kind, scored=name, own_windows=True)
            yield Pass(run, [feed.take(self._order)])


def _kind(text: Source) -> Kind:
    """Return what the records are: completions are strings, or conversations that begin with a prompt."""
    if kind_of(text) is DataKind.TEXT:
        return Kind.PLAIN
    return Kind.COMPLETION if kind_of(text) is DataKind.COMPLETION else Kind.CHAT


def _labelled(source: KnownText, document: Document, tokenizer: Tokenizer, lead: int) -> Flags:
    """Return whether each token of a row has a label; what stands before the row goes with its first token."""
    tokens = tokens_of(source, document, tokenizer)
    kept = ~tokens.masked if isinstance(tokens, LabelledTokens) else np.ones(len(tokens.ids), bool)
    before = kept[:1] if len(kept) else np.ones(1, bool)
    return np.concatenate([np.repeat(before, lead), kept])
