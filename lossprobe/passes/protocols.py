"""A text scored as other tools score it: the windows of each protocol, and one pass for each distinct plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from lossprobe.analysis.protocols.protocols import ProtocolScore, measure_protocol
from lossprobe.analysis.protocols.table import ProtocolTable, Refusal, compare_protocols
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.errors import CheckpointError, NothingToScoreError, TextError, UsageError
from lossprobe.passes.known_text import KeptTokens, KnownText, tokens_of
from lossprobe.passes.protocol_tokens import TokenCounts, checkpoint_of_tool
from lossprobe.passes.score import (
    DEFAULT_CONTEXT,
    Progress,
    ScoreOptions,
    refuse_beyond_hard_limit,
    score,
    score_policy,
)
from lossprobe.plan.protocols import PROTOCOLS, Prefix, Protocol
from lossprobe.plan.rows import WindowPolicy, row_count
from lossprobe.plan.windows import Layout
from lossprobe.run.reader import Run
from lossprobe.text.documents import Document, Source
from lossprobe.units import format_count, plural

REQUIRED = {Prefix.BOS: "a BOS (without `bos` never)", Prefix.EOS: "an EOS", Prefix.BOS_OR_EOS: "a BOS or EOS"}
LONGEST_WHOLE = 16_384  # tokens of a document in one window where no limit is set: attention grows with its square


class JoinedSource:
    """A `Source` whose documents are one stream, joined by a blank line; a single document stays what it is.

    Args:
        source: the documents.
        strip_newline: leave out one line end at the end of the stream, as llama.cpp does when it reads a file.
    """

    def __init__(self, source: Source, *, strip_newline: bool = False) -> None:
        self.name = source.name
        self.notices = source.notices
        self._source = source
        self._strip_newline = strip_newline

    def documents(self) -> Iterator[Document]:
        """Yield the one stream."""
        documents = list(self._source.documents())
        text = "\n\n".join(document.text for document in documents)
        if self._strip_newline:
            text = text.removesuffix("\n")
        if len(documents) > 1:
            note = f"{self.name}: {plural(len(documents), 'document')} joined by blank lines"
            if note not in self.notices:
                self.notices.append(note)
            yield replace(documents[0], text=text, byte_offset=-1, fields=None)
        elif documents:
            yield replace(documents[0], text=text)


def score_protocol(
    protocol: str,
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    progress: Progress | None = None,
) -> tuple[Run, ProtocolScore]:
    """Return the run of a text with another tool's windows, and what that tool would say.

    Args:
        protocol: a name of `PROTOCOLS`.
        checkpoint: the model.
        source: the text.
        options: `context` is the tool's own length; `stride` only for the loop of transformers; `bos` "never" only for
            evaluate and lm-eval (their add_start_token=False and add_bos_token=False).
        progress: as in `passes.score.score`.

    Raises:
        UsageError: an option that the tool does not have, or a BOS that the tokenizer does not have.
        TextError: a text that the tool refuses.
        LossprobeError: as in `passes.score.score`.
    """
    checkpoint = checkpoint_of_tool(protocol, checkpoint)
    text = source if isinstance(source, KnownText) else KnownText(source, KeptTokens())
    options = options or ScoreOptions()
    source, policy = prepare_protocol(protocol, checkpoint, text, options)
    run = score_policy(None, checkpoint, source, policy, options, progress=progress).run
    return run, measure_protocol(run, protocol)


def prepare_protocol(
    protocol: str, checkpoint: Checkpoint, source: Source, options: ScoreOptions
) -> tuple[Source, WindowPolicy]:
    """Return the documents and the windows with which `passes.score.score_policy` scores what a tool scores.

    Args:
        protocol: a name of `PROTOCOLS`.
        checkpoint: from `checkpoint_of_tool`.
        source: the text; gets a notice where the tool's tokens are others than the checkpoint's own.
        options: as in `score_protocol`.

    Raises:
        UsageError: as in `protocol_policy`.
        TextError: a text that the tool refuses for its length.
    """
    about = PROTOCOLS[protocol]
    if about.joined:
        source = _joined(source, strip_newline=about.strip_newline)
    policy = protocol_policy(protocol, checkpoint, options)
    unknown, rows = False, 0
    counts = TokenCounts(checkpoint, source)
    for document in source.documents():
        tokens = tokens_of(source, document.text, checkpoint.tokenizer)
        unknown |= bool(tokens.unknown.any())
        rows += row_count(tokens, policy)
        counts.add(document.text, tokens)
    if counts.differ:
        source.notices.append(f"{protocol}: {counts}")
    after = len(getattr(checkpoint.tokenizer, "last_ids", ()))
    if after and about.scores_end and options.bos != "never":
        source.notices.append(
            f"{protocol}: scores {plural(after, 'token')} that the tokenizer puts after a text; not here"
        )
    needed = about.full_windows * (policy.context + 1)
    if rows < needed:
        raise TextError(
            "protocol.too_short",
            f"{source.name}: {plural(rows, 'token')}, {protocol} needs at least {format_count(needed)} in windows of "
            f"{format_count(policy.context + 1)}",
            hint="a smaller `context` needs fewer",
        )
    if not unknown:
        policy = replace(policy, score_unknown=False)  # the same rows, and a plan that others may share
    return source, policy


def _joined(source: Source, *, strip_newline: bool) -> Source:
    """Return the documents as one stream; of a known text it is made once, and not at all where it is the text."""
    if not isinstance(source, KnownText):
        return JoinedSource(source, strip_newline=strip_newline)
    several = len(list(islice(source.documents(), 2))) > 1
    joined = source.derived("joined", JoinedSource) if several else source
    if strip_newline and any(document.text.endswith("\n") for document in joined.documents()):
        return source.derived("stripped", lambda text: JoinedSource(text, strip_newline=True))
    return joined


def score_all_protocols(
    checkpoint: Checkpoint, source: Source, options: ScoreOptions | None = None, progress: Progress | None = None
) -> tuple[Run, ProtocolTable]:
    """Return the run with lossprobe's own windows, and what every tool would say beside it.

    A tool that refuses the text or the model is in the table with its reason. Plans that coincide share a pass.

    Raises:
        LossprobeError: as in `passes.score.score`, for the run of its own.
    """
    options = options or ScoreOptions()
    source = source if isinstance(source, KnownText) else KnownText(source, KeptTokens())
    own = score(checkpoint, source, options, progress=progress).run
    results: list[ProtocolScore | Refusal] = []
    for protocol, about in PROTOCOLS.items():
        given = replace(options, bos="auto", stride=None if about.stride is None else options.stride)
        try:
            seen = checkpoint_of_tool(protocol, checkpoint)
        except CheckpointError as error:
            results.append(Refusal(protocol, error.message))
            continue
        try:
            results.append(score_protocol(protocol, seen, source, given, progress)[1])
        except (UsageError, TextError, NothingToScoreError) as error:
            results.append(Refusal(protocol, error.told_of(protocol)))
    return own, compare_protocols(own, results)


def protocol_policy(protocol: str, checkpoint: Checkpoint, options: ScoreOptions) -> WindowPolicy:
    """Return the windows and the BOS of a protocol.

    Raises:
        UsageError: an option that the tool does not have, a context that the model cannot take, or no BOS to put first.
    """
    _refuse_options(protocol, checkpoint, options)
    about = PROTOCOLS[protocol]
    own = _own_bos(protocol, checkpoint)
    prefix = None if options.bos == "never" and not about.second_bos else _prefix(protocol, checkpoint, own)
    length = options.context or _default_length(about, checkpoint)
    if length < about.shortest:
        text = f"`context` {length}: {protocol} needs windows of at least {about.shortest} tokens"
        raise UsageError("windows.context", text)
    stride = options.stride or (None if about.stride is None else min(about.stride, length))
    if stride is not None and stride > length:
        raise UsageError("windows.stride", f"`stride` {stride}: must lie between 1 and the context, {length}")
    layout = about.layout
    if layout is Layout.WHOLE and options.context is not None:
        layout = Layout.FIRST
    elif stride == length:
        layout = Layout.DISJOINT
    context = length - 1 if about.last_is_target else length
    if stride is None:
        stride = context if layout in (Layout.ROLLING, Layout.LAST_FULL) else context + 1
    second = own if about.second_bos and options.bos != "never" else None
    return WindowPolicy(context, stride, prefix, True, layout, second)


def _default_length(about: Protocol, checkpoint: Checkpoint) -> int:
    """Return the tokens of a window where `context` is not given."""
    facts = checkpoint.facts
    if about.layout is Layout.WHOLE:
        return facts.context_length if facts.hard_limit and facts.context_length is not None else LONGEST_WHOLE
    limit = facts.context_length or DEFAULT_CONTEXT
    return limit if about.longest is None else min(limit, about.longest)


def _refuse_options(protocol: str, checkpoint: Checkpoint, options: ScoreOptions) -> None:
    """Refuse what the tool does not leave open."""
    about = PROTOCOLS[protocol]
    if options.stride is not None and about.stride is None:
        raise UsageError("protocol.option", f"`stride` {options.stride}: {protocol} has no stride of its own")
    if options.bos != "auto" and (not about.bos_never or options.bos == "always"):
        raise UsageError("protocol.option", f"`bos` {options.bos}: {protocol} decides that itself")
    given = getattr(checkpoint, "own_tokenizer", checkpoint.tokenizer)  # what the tool makes of its files has no choice
    plain = getattr(given, "special_strings", "control") == "text"
    if plain and about.special_strings == "control":
        raise UsageError("protocol.option", f"`special_strings` text: {protocol} reads special strings as control ids")
    refuse_beyond_hard_limit(checkpoint, options.context or 0)


def _own_bos(protocol: str, checkpoint: Checkpoint) -> int | None:
    """Return the id that a tokenizer puts before a text by itself, whatever its name."""
    tokenizer = checkpoint.tokenizer
    first: int | None = getattr(tokenizer, "first_id", tokenizer.bos_id if tokenizer.adds_bos else None)
    return first if first is None else _known(protocol, checkpoint, first)


def _prefix(protocol: str, checkpoint: Checkpoint, own: int | None) -> int | None:
    """Return the id that a tool puts before each document; `own` is what the tokenizer adds by itself."""
    tokenizer, kind = checkpoint.tokenizer, PROTOCOLS[protocol].prefix
    token_id = {
        Prefix.NONE: None,
        Prefix.ADDED: own,
        Prefix.BOS: tokenizer.bos_id,
        Prefix.EOS: tokenizer.eos_id,
        Prefix.BOS_OR_EOS: tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id,
        Prefix.BOS_IF_NOT_ADDED: None if tokenizer.adds_bos else tokenizer.bos_id,
    }[kind]
    if token_id is not None:
        return _known(protocol, checkpoint, token_id)
    if kind in REQUIRED:
        raise UsageError(
            "protocol.no_prefix",
            f"puts {REQUIRED[kind]} before each document, and the tokenizer of {checkpoint.facts.name} has none",
            subject=protocol,
        )
    return None


def _known(protocol: str, checkpoint: Checkpoint, token_id: int) -> int:
    """Return an id that goes before each document; refuse one that the model does not have."""
    if token_id >= checkpoint.facts.vocab_size:
        raise UsageError(
            "protocol.no_prefix",
            f"puts id {token_id} before each document, the model has {checkpoint.facts.vocab_size} ids",
            subject=protocol,
        )
    return token_id
