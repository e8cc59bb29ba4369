"""Scores a text as other tools do: windows by protocol, and one pass for each distinct plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

from lossprobe.analysis.options import LoggedOptions
from lossprobe.analysis.protocols.measures import TRAINERS
from lossprobe.analysis.protocols.protocols import ProtocolScore, measure_protocol
from lossprobe.analysis.protocols.table import ProtocolTable, Refusal, compare_protocols
from lossprobe.checkpoint.deferred import opened
from lossprobe.checkpoint.interface import Checkpoint, Tokenizer
from lossprobe.errors import CheckpointError, NothingToScoreError, TextError, UsageError
from lossprobe.passes.known_protocol import ProtocolNote, own_notices
from lossprobe.passes.known_text import KeptTokens, KnownText, MadeOf, skipped_of, templated, tokens_of
from lossprobe.passes.protocol_tokens import TokenCounts, checkpoint_of_tool
from lossprobe.passes.protocol_windows import protocol_policy
from lossprobe.passes.rendered import rendered
from lossprobe.passes.score import PassResult, Progress, score, score_policy
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.protocol import Prefix
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.plan.rows import WindowPolicy, row_count
from lossprobe.run.reader import Run
from lossprobe.text.documents import Document, Source
from lossprobe.text.spans import Part
from lossprobe.units import format_count, plural


class JoinedSource:
    """A `Source` that joins all documents into one by blank lines, as plain text; a single document is not changed.

    Args:
        source: the documents.
        strip_newline: drop one line end at the end of the text, as llama.cpp does when it reads a file.
    """

    def __init__(self, source: Source, *, strip_newline: bool = False) -> None:
        self.name = source.name
        self.notices = source.notices
        self.templated = templated(source)
        self.skipped = skipped_of(source)  # and after each reading
        self._source = source
        self._strip_newline = strip_newline

    def documents(self) -> Iterator[Document]:
        """Yield the joined document."""
        documents = list(self._source.documents())
        self.skipped = skipped_of(self._source)
        text = "\n\n".join(document.scorable() for document in documents)
        if self._strip_newline:
            text = text.removesuffix("\n")
        if len(documents) > 1:
            note = f"{self.name}: {plural(len(documents), 'document')} joined by blank lines"
            if note not in self.notices:
                self.notices.append(note)
            yield replace(documents[0], text=text, byte_offset=-1, fields=None, example=None, spans=())
        elif documents:
            yield replace(documents[0], text=text, spans=())


class EndedSource(MadeOf):
    """A `Source` whose documents end with a name, such as that of an EOS, which a document may already do.

    Args:
        source: the documents.
        end: the name.
    """

    def __init__(self, source: Source, end: str) -> None:
        self.name = source.name
        self.notices = source.notices
        self.source, self._end = source, end

    def documents(self) -> Iterator[Document]:
        """Yield the documents; the name belongs to what comes last in a document."""
        for document in self.source.documents():
            if document.text.endswith(self._end):
                yield document
                continue
            text = document.text + self._end
            after = tuple(
                replace(span, byte_stop=len(text.encode()), part=Part.END_OF_TURN) for span in document.spans[-1:]
            )
            yield replace(document, text=text, spans=(*document.spans, *after))


def score_protocol(
    protocol: str,
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    progress: Progress | None = None,
) -> tuple[Run, ProtocolScore]:
    """Return the run of a text with another tool's windows, and the number that the tool would print.

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
    scored = score_as_tool(protocol, checkpoint, source, options or ScoreOptions(), progress=progress)
    return scored.run, measure_protocol(scored.run, protocol)


def score_as_tool(  # noqa: PLR0913 - those of `score_protocol`, and where the run goes
    protocol: str,
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PassResult:
    """Return the run of a text with another tool's windows; arguments and errors as in `score_protocol` and `score`."""
    note = ProtocolNote(protocol, checkpoint, source, options)
    with own_notices(source):
        found = note.find(output)
        if found is not None:
            return PassResult(found, reused=True)
        seen = checkpoint_of_tool(protocol, checkpoint)
        return _score_seen(note, seen, source, options, output=output, overwrite=overwrite, progress=progress)


def _score_seen(
    note: ProtocolNote, seen: Checkpoint, source: Source, options: ScoreOptions, **choices: Any
) -> PassResult:
    """Return the run of a text under the checkpoint as a tool sees it, and write a note of it."""
    text = source if isinstance(source, KnownText) else KnownText(source, KeptTokens())
    prepared, policy = prepare_protocol(
        note.protocol, seen, rendered(text, seen, _scored_by(note.protocol, options)), options
    )
    said = list(source.notices)
    scored = score_policy(choices.pop("output", None), seen, prepared, policy, options, **choices)
    note.keep_run(scored.run, said)
    return scored


def _scored_by(protocol: str, options: ScoreOptions) -> str:
    """Return which tokens of conversations a tool scores: what the options ask for, or all where it knows no masks.

    Raises:
        UsageError: some tokens are asked for, and the tool scores all.
    """
    if PROTOCOLS[protocol].masks:
        return options.score
    if options.score not in ("auto", "all"):
        raise UsageError("protocol.option", f"`score` {options.score}: {protocol} scores all tokens")
    return "all"


def prepare_protocol(
    protocol: str, checkpoint: Checkpoint, source: Source, options: ScoreOptions
) -> tuple[Source, WindowPolicy]:
    """Return the documents and windows with which `passes.score.score_policy` scores a text as a tool does.

    Args:
        protocol: a name of `PROTOCOLS`.
        checkpoint: from `checkpoint_of_tool`.
        source: the text; gets a notice if the tool's tokens differ from the checkpoint's own.
        options: as in `score_protocol`.

    Raises:
        UsageError: as in `protocol_policy`.
        TextError: a text that the tool refuses for its length.
    """
    about = PROTOCOLS[protocol]
    if about.joined:
        source = _joined(source, strip_newline=about.strip_newline)
    if about.appends_eos:
        source = ended(source, checkpoint.tokenizer)
    policy = protocol_policy(protocol, checkpoint, options)
    if templated(source) and about.prefix is Prefix.ADDED:
        policy = replace(policy, bos_id=None)  # a chat template alone decides, as in `passes.score.window_policy`
    unknown, rows = False, 0
    counts = TokenCounts(checkpoint, source)
    for document in source.documents():
        tokens = tokens_of(source, document, checkpoint.tokenizer)
        unknown |= bool(tokens.unknown.any())
        rows += row_count(tokens, policy)
        counts.add(document, tokens)
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
        policy = replace(policy, score_unknown=False)  # gives the same rows, and other protocols can share the plan
    return source, policy


def _joined(source: Source, *, strip_newline: bool) -> Source:
    """Return the documents joined into one: made once for a known text, or the text itself if it has one document."""
    if not isinstance(source, KnownText):
        return JoinedSource(source, strip_newline=strip_newline)
    several = len(list(islice(source.documents(), 2))) > 1
    joined = source.derived("joined", JoinedSource) if several else source
    if strip_newline and any(document.text.endswith("\n") for document in joined.documents()):
        return source.derived("stripped", lambda text: JoinedSource(text, strip_newline=True))
    return joined


@overload
def ended(source: KnownText, tokenizer: Tokenizer) -> KnownText: ...
@overload
def ended(source: Source, tokenizer: Tokenizer) -> Source: ...
def ended(source: Source, tokenizer: Tokenizer) -> Source:
    """Return the documents with the name of the EOS at their end; rendered conversations end as their template says."""
    if tokenizer.eos_id is None or templated(source):
        return source
    name = tokenizer.token_bytes(tokenizer.eos_id).decode()
    if not isinstance(source, KnownText):
        return EndedSource(source, name)
    return source.derived(f"ended by {name}", lambda text: EndedSource(text, name))


def score_all_protocols(
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    progress: Progress | None = None,
    logged: LoggedOptions | None = None,
) -> tuple[Run, ProtocolTable]:
    """Return the run with lossprobe's own windows, and the number that every tool would print.

    The table has a reason for each tool that refuses the text or the model. Protocols with the same plan share a pass.

    Raises:
        LossprobeError: as in `passes.score.score`, for the run of its own.
    """
    options = options or ScoreOptions()
    source = source if isinstance(source, KnownText) else KnownText(source, KeptTokens())
    own = score(checkpoint, source, options, progress=progress).run
    results = []
    for protocol, about in PROTOCOLS.items():
        given = replace(options, bos="auto", stride=None if about.stride is None else options.stride)
        trains = about.measure in TRAINERS
        results.append(_score_or_refuse(protocol, checkpoint, source, given, progress, logged if trains else None))
    return own, compare_protocols(own, results)


def _score_or_refuse(
    protocol: str,
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions,
    progress: Progress | None,
    logged: LoggedOptions | None,
) -> ProtocolScore | Refusal:
    """Return the number that a tool would print, or the reason why it refuses the text."""
    note = ProtocolNote(protocol, checkpoint, source, options)
    refused = note.why_refused()
    if refused is not None:
        return Refusal(protocol, refused)
    with own_notices(source):
        try:
            run = note.find(None)
            if run is None:
                seen = _as_seen(protocol, checkpoint)
                if isinstance(seen, Refusal):
                    note.keep_refusal(seen.reason, [])
                    return seen
                run = _score_seen(note, seen, source, options, progress=progress).run
            return measure_protocol(run, protocol, logged)
        except (UsageError, TextError, NothingToScoreError) as error:
            refused = error.told_of(protocol)
            note.keep_refusal(refused, list(source.notices))
    return Refusal(protocol, refused)


def _as_seen(protocol: str, checkpoint: Checkpoint) -> Checkpoint | Refusal:
    """Return a checkpoint as a tool sees it, or the reason why the tool cannot read the tokenizer's files."""
    checkpoint = opened(checkpoint)
    try:
        return checkpoint_of_tool(protocol, checkpoint)
    except CheckpointError as error:
        return Refusal(protocol, error.message)
