"""Scores a sample of a text in several ways, and measures which of them change the loss. Stores only one run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from lossprobe.analysis.options import SelfCheckOptions
from lossprobe.analysis.selfcheck import EXACT, HALF, ROUNDING, Losses, SelfCheck, Variant, judge_variants
from lossprobe.checkpoint.deferred import opened
from lossprobe.checkpoint.interface import PADDED, Checkpoint, LeftPadding, PiecewiseTokenizer, Tokenizer, Tokens
from lossprobe.errors import LossprobeError, ResourceError
from lossprobe.passes.known_text import MadeOf, tokens_of
from lossprobe.passes.rendered import rendered
from lossprobe.passes.score import Progress, score_into, window_policy
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import SCORED, Rows, WindowPolicy, cut_parts, plan_documents
from lossprobe.run.reader import Run
from lossprobe.scoring.head import ROW_STEP
from lossprobe.scoring.measure import PassOptions
from lossprobe.scoring.reference import other_threads, reference_losses
from lossprobe.scoring.scorer import score_part
from lossprobe.text.documents import Document, Source
from lossprobe.text.spans import cut_spans
from lossprobe.units import format_count, plural

DTYPES = ("float32", "bfloat16", "float16")
WHOLE_BYTES = 1 << 20  # bytes of a long document that are tokenized whole for comparison
LOOKED_THROUGH = 10_000  # documents searched for one that is long enough
SEVERAL = 4  # windows per batch, compared with batches of one
Reopen = Callable[..., Checkpoint]
LossOf = Callable[[Rows], Losses]


class SampleSource(MadeOf):
    """The first documents of a source, up to a number of tokens; the last document is cut there.

    Args:
        source: the documents.
        tokenizer: the tokenizer that counts the tokens.
        tokens: number of tokens.

    Attributes:
        whole: whether the sample is the whole source.
    """

    def __init__(self, source: Source, tokenizer: Tokenizer, tokens: int) -> None:
        self.name = source.name
        self.notices = source.notices
        self.source = source
        self.whole = True
        self._documents: list[Document] = []
        left = tokens
        for document in source.documents():
            if left <= 0:
                self.whole = False
                break
            stops = tokenizer.encode(document.scorable()).byte_stop
            if len(stops) > left:
                self.whole = False
                text = document.text.encode()[: stops[left - 1]].decode(errors="ignore")
                document = replace(document, text=text, spans=cut_spans(document.spans, len(text.encode())))
            left -= len(stops)
            self._documents.append(document)

    def documents(self) -> Iterator[Document]:
        """Yield the documents."""
        yield from self._documents


@dataclass(frozen=True)
class _Sample:
    """The documents of the sample with their tokens."""

    tokens: list[Tokens]

    def losses(self, policy: WindowPolicy, loss_of: LossOf, order: Iterable[int] | None = None) -> Losses:
        """Return the loss of every token of the text, NaN without one; documents may be planned in any order."""
        found = [np.full(len(tokens.ids), np.nan) for tokens in self.tokens]
        numbers = list(order) if order is not None else list(range(len(found)))
        for part in cut_parts(plan_documents((self.tokens[number] for number in numbers), policy)):
            scored = part.take(part.own & (part.unscored == SCORED))
            losses = loss_of(part)
            for place in np.unique(scored.document).tolist():
                number = numbers[place]
                here = scored.document == place
                lead = len(policy.lead(self.tokens[number]))
                found[number][scored.token[here] - lead] = losses[here]
        return np.concatenate(found)


def run_selfcheck(
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    *,
    reopen: Reopen | None = None,
    tokens: int = SelfCheckOptions.tokens,
    progress: Progress | None = None,
) -> tuple[Run, SelfCheck]:
    """Return the run of a sample of a text, and how much its losses change when it is scored in other ways.

    Args:
        checkpoint: the model.
        source: the text.
        options: windows, BOS and batch size of the pass that is checked.
        reopen: opens the same checkpoint with other load options, given by name (`dtype`, `merge`); None if that is not
            possible.
        tokens: number of tokens in the sample.
        progress: called with the number of checks done and the number of all checks.

    Raises:
        LossprobeError: as in `passes.score.score`, for the pass that is checked.
    """
    options, checkpoint = options or ScoreOptions(), opened(checkpoint)
    source = rendered(source, checkpoint, options.score)
    sampled = SampleSource(source, checkpoint.tokenizer, tokens)
    scored = score_into(None, checkpoint, sampled, options)
    sample = _Sample([tokens_of(sampled, document, checkpoint.tokenizer) for document in sampled.documents()])
    policy = window_policy(checkpoint, options, source)
    reference = sample.losses(policy, _fast(checkpoint, PassOptions(options.batch_size)))
    checks = [
        *_invariants(checkpoint, sample, policy, options),
        *_pieces_against_whole(checkpoint.tokenizer, source),
        *_sensitivities(checkpoint, sample, policy),
        *_opened_otherwise(checkpoint, sample, policy, reopen),
    ]
    variants = []
    for number, check in enumerate(checks):
        variants.append(check())
        if progress is not None:
            progress(number + 1, len(checks))
    if scored.reused:  # a stored run may have another batch size or number of threads
        stored = _stored_losses(scored.run, sample)
        limits = ROUNDING.get(checkpoint.facts.compute_dtype, HALF)
        variants.insert(0, Variant("stored run", "as it is on disk", limits, stored))
    notes = [] if sampled.whole else [f"a sample: the first {plural(len(reference), 'token')} of {source.name}"]
    return scored.run, judge_variants(reference, variants, notes)


def _stored_losses(run: Run, sample: _Sample) -> Losses:
    """Return the stored losses of the run, in the order of `_Sample.losses`."""
    frame = run.query("SELECT document, loss_nats::DOUBLE AS loss FROM tokens ORDER BY document, token")
    parts = []
    for number, tokens in enumerate(sample.tokens):
        losses = frame.loc[frame["document"] == number, "loss"].to_numpy(dtype=float, na_value=np.nan)
        parts.append(losses[len(losses) - len(tokens.ids) :])
    return np.concatenate(parts)


VariantCheck = Callable[[], Variant]


def _fast(checkpoint: Checkpoint, options: PassOptions) -> LossOf:
    """Return a function that scores the rows of a part as the pass itself does."""

    def losses(part: Rows) -> Losses:
        own = part.take(part.own)
        columns = score_part(checkpoint, part, 0, options).columns
        return np.asarray(columns["loss_nats"][own.unscored == SCORED], dtype=np.float64) if columns else np.empty(0)

    return losses


def _invariants(
    checkpoint: Checkpoint, sample: _Sample, policy: WindowPolicy, options: ScoreOptions
) -> Iterator[VariantCheck]:
    """Yield the variants that must not change the losses beyond rounding."""
    limits = ROUNDING.get(checkpoint.facts.compute_dtype, HALF)
    size = options.batch_size

    def variant(check: str, setting: str, loss_of: LossOf, order: Iterable[int] | None = None) -> Variant:
        try:
            return Variant(check, setting, limits, sample.losses(policy, loss_of, order))
        except ResourceError as error:
            return Variant(check, setting, limits, None, error.message)

    def fast(batch_size: int | None = size, chunk_rows: int | None = None) -> LossOf:
        return _fast(checkpoint, PassOptions(batch_size, chunk_rows=chunk_rows))

    def repeated() -> Variant:
        limit = EXACT if checkpoint.facts.device == "cpu" else limits  # a GPU may sum in another order each time
        return Variant("repetition", "the same again", limit, sample.losses(policy, fast()))

    def threads() -> Variant:
        with other_threads() as (number, before):
            return variant("threads", f"{number} in place of {before}", fast())

    def left_padding() -> Variant:
        setting = f"left, {SEVERAL} windows a batch"
        reason = _no_left_padding(checkpoint)
        if reason:
            return Variant("padding side", setting, limits, None, reason)
        return variant(
            "padding side", setting, lambda part: reference_losses(checkpoint, part, SEVERAL, left_padded=True)
        )

    def order() -> Variant:
        numbers = range(len(sample.tokens))
        if len(numbers) < 2:
            return Variant("order of documents", "reversed", limits, None, "one document")
        return variant("order of documents", "reversed", fast(), reversed(numbers))

    yield repeated
    yield lambda: variant("batch size", "1 window a batch", fast(1))
    yield lambda: variant("batch size", f"{SEVERAL} windows a batch", fast(SEVERAL))
    yield left_padding
    yield lambda: variant("chunk size", f"{ROW_STEP - 1} rows of logits at once", fast(chunk_rows=ROW_STEP - 1))
    yield threads
    yield lambda: variant("reductions", "plain float64", lambda part: reference_losses(checkpoint, part, size))
    yield order


def _no_left_padding(checkpoint: Checkpoint) -> str:
    """Return the reason why rows padded on the left cannot be compared; "" if they can."""
    if checkpoint.facts.batching != PADDED:
        return "no window of this model is ever padded"
    if isinstance(checkpoint, LeftPadding):
        return ""
    return f"a {checkpoint.facts.family} checkpoint of this kind takes no padding on the left"


def _pieces_against_whole(tokenizer: Tokenizer, source: Source) -> Iterator[VariantCheck]:
    """Yield whether a document tokenized in pieces has the tokens of the whole; nothing if none is that long."""
    if not isinstance(tokenizer, PiecewiseTokenizer):
        return
    for number, document in enumerate(islice(source.documents(), LOOKED_THROUGH)):
        data = document.text.encode()
        if len(data) > tokenizer.longest_whole_bytes:
            text = data[: max(WHOLE_BYTES, 2 * tokenizer.longest_whole_bytes)].decode(errors="ignore")
            yield functools.partial(_in_pieces, tokenizer, text, number)
            return


def _in_pieces(tokenizer: PiecewiseTokenizer, text: str, number: int) -> Variant:
    one, other = tokenizer.encode(text), tokenizer.encode_whole(text)
    same = np.array_equal(one.ids, other.ids) and np.array_equal(one.byte_stop, other.byte_stop)
    setting = f"whole in place of pieces: {plural(len(text.encode()), 'byte')} of document {number}"
    return Variant("tokens in pieces", setting, EXACT, None, same=same, tokens=len(one.ids))


def _sensitivities(checkpoint: Checkpoint, sample: _Sample, policy: WindowPolicy) -> Iterator[VariantCheck]:
    """Yield the variants that may change the losses, to measure by how much."""
    bos_id = checkpoint.tokenizer.bos_id
    half = max(1, policy.context // 2)

    def other(check: str, setting: str, changed: WindowPolicy) -> Variant:
        return Variant(check, setting, None, sample.losses(changed, _fast(checkpoint, PassOptions())))

    def bos() -> Variant:
        setting = "without" if policy.bos_id is not None else "with one before each document"
        if bos_id is None and policy.bos_id is None:
            return Variant("BOS", setting, None, None, "the tokenizer has none")
        return other("BOS", setting, replace(policy, bos_id=bos_id if policy.bos_id is None else None))

    def context(length: int) -> VariantCheck:
        changed = replace(policy, context=length, stride=min(length, policy.stride))
        return lambda: other("context", f"{format_count(length)} in place of {format_count(policy.context)}", changed)

    yield bos
    stride = half if half != policy.stride else policy.context
    if half < policy.context:
        yield context(half)
        words = f"{format_count(stride)} in place of {format_count(policy.stride)}"
        yield lambda: other("stride", words, replace(policy, stride=stride))


def _opened_otherwise(
    checkpoint: Checkpoint, sample: _Sample, policy: WindowPolicy, reopen: Reopen | None
) -> Iterator[VariantCheck]:
    """Yield the variants for which the checkpoint is opened again: other precisions, and an adapter merged or not."""

    def variant(check: str, setting: str, **changed: object) -> Variant:
        if reopen is None:
            return Variant(check, setting, None, None, "the checkpoint cannot be opened again")
        try:
            again = opened(reopen(**changed))
            return Variant(check, setting, None, sample.losses(policy, _fast(again, PassOptions())))
        except LossprobeError as error:
            return Variant(check, setting, None, None, error.message)

    for dtype in (each for each in DTYPES if each != checkpoint.facts.compute_dtype):
        yield functools.partial(variant, "precision", dtype, dtype=dtype)
    adapter = checkpoint.facts.adapter
    if adapter is not None:
        setting = "beside the base in place of merged" if adapter.merged else "merged in place of beside the base"
        yield functools.partial(variant, "adapter", setting, merge=not adapter.merged)
