"""Says which windows and which BOS a pass has."""

from __future__ import annotations

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.errors import UsageError
from lossprobe.passes.known_text import templated
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import WindowPolicy
from lossprobe.plan.windows import Layout, check_window_options
from lossprobe.text.documents import Source
from lossprobe.units import format_count

TRUNCATIONS = {"none": Layout.ROLLING, "keep-start": Layout.FIRST, "keep-end": Layout.LAST}
SHORTEST_CUT = 2  # one token to see and one to predict
DEFAULT_CONTEXT = 2048  # for the few families without a limit


def window_policy(checkpoint: Checkpoint, options: ScoreOptions, source: Source) -> WindowPolicy:
    """Return the windows and the BOS of a pass.

    A chat template alone decides about the BOS of a conversation, as in transformers, which adds none to what a
    template renders. With `bos` "always" one is put before it unless the template wrote it.

    Raises:
        UsageError: a context that the model cannot take, a bad stride, or a BOS that the tokenizer does not have.
    """
    limit = checkpoint.facts.context_length
    context = options.context or limit or DEFAULT_CONTEXT
    refuse_beyond_hard_limit(checkpoint, context)
    check_window_options(context, options.stride)
    tokenizer = checkpoint.tokenizer
    if options.bos == "always" and tokenizer.bos_id is None:
        raise UsageError("windows.bos", f"`bos` always: the tokenizer of {checkpoint.facts.name} has no BOS token")
    if options.bos == "always" and (tokenizer.bos_id or 0) >= checkpoint.facts.vocab_size:
        raise UsageError(
            "windows.bos",
            f"`bos` always: BOS is id {tokenizer.bos_id}, the model has {checkpoint.facts.vocab_size} ids",
        )
    with_bos = options.bos == "always" or (options.bos == "auto" and tokenizer.adds_bos)
    bos_id, written = (tokenizer.bos_id if with_bos else None), None
    if templated(source):
        bos_id, written = None, (tokenizer.bos_id if options.bos == "always" else None)
    layout = TRUNCATIONS[options.truncate]
    if layout is not Layout.ROLLING:
        context = _cut_context(context, options)  # as in trainers, the length counts the last token, a target only
    stride = context if options.stride is None or layout is not Layout.ROLLING else options.stride
    return WindowPolicy(context, stride, bos_id, options.score_unknown, layout, written)


def _cut_context(length: int, options: ScoreOptions) -> int:
    """Return the most input tokens of a window that holds what is left of a document of `length` tokens.

    Raises:
        UsageError: a stride, or a length without a token to predict.
    """
    if options.stride is not None:
        raise UsageError("windows.stride", f"`stride` {options.stride}: `truncate` leaves one window a document")
    if length < SHORTEST_CUT:
        raise UsageError("windows.context", f"`context` {length}: `truncate` needs at least {SHORTEST_CUT} tokens")
    return length - 1


def refuse_beyond_hard_limit(checkpoint: Checkpoint, context: int) -> None:
    """Refuse a context for which the model has no positions.

    Raises:
        UsageError: `windows.context`, with the limit.
    """
    facts = checkpoint.facts
    if facts.hard_limit and facts.context_length is not None and context > facts.context_length:
        raise UsageError("windows.context", f"`context` {context}: the model's limit is {facts.context_length}")


def tell_beyond_trained(checkpoint: Checkpoint, context: int, source: Source) -> None:
    """Add a notice to a text where the context is above the length that the model's configuration states.

    Args:
        checkpoint: the model.
        context: most input tokens of a window.
        source: the text.
    """
    limit = checkpoint.facts.context_length
    if limit is not None and context > limit:
        notice = (
            f"{checkpoint.facts.name}: a context of {format_count(context)} is above the model's own, "
            f"{format_count(limit)}: its positions go on, but may not have been trained so far"
        )
        if notice not in source.notices:
            source.notices.append(notice)
