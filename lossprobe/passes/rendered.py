"""Makes texts of conversations, completions and pairs: by the checkpoint's chat template, with the parts of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import overload

from lossprobe.checkpoint.interface import ChatTokenizer, Checkpoint
from lossprobe.checkpoint.templates.renderer import Renderer
from lossprobe.checkpoint.templates.template import ChatTemplate
from lossprobe.errors import BadTextError, CheckpointError, UsageError
from lossprobe.passes.known_text import KnownText, kind_of, skipped_of, skips_bad, templated
from lossprobe.text.documents import Document, Source
from lossprobe.text.examples import Completion, Conversation, DataKind, Example, Pair
from lossprobe.text.faults import LISTED, Faults
from lossprobe.text.spans import Part, Span, choose_scored
from lossprobe.units import plural, visible

PROMPT, COMPLETION = "prompt", "completion"  # roles of records that are plain text
WHOLE = ("auto", "all")
NO_ROLES = (*WHOLE, "assistant", "last-turn", "completion")  # of `score`; any other word names roles
EXAMPLES = 3  # records listed where the template refuses all, for what is mostly one reason
TEMPLATE_DATE = "26 July 2024"
BOTH = "both"  # both sides of a pair are documents, in place of the chosen one
HELD = {
    DataKind.TEXT: "plain text",
    DataKind.CHAT: "conversations",
    DataKind.COMPLETION: "prompts with completions",
}
HOW_TO_GET_A_TEMPLATE = (
    "copy chat_template.jinja from the model that it was trained from, or name a file with `chat_template`"
)


@overload
def rendered(source: KnownText, checkpoint: Checkpoint, score: str = "auto") -> KnownText: ...
@overload
def rendered(source: Source, checkpoint: Checkpoint, score: str = "auto") -> Source: ...
def rendered(source: Source, checkpoint: Checkpoint, score: str = "auto") -> Source:
    """Return a source whose documents have texts: those of conversations are rendered, plain text is left as it is.

    Of a pair, the chosen side is taken.

    Args:
        source: the text.
        checkpoint: its tokenizer has the chat template.
        score: which tokens get a loss, as in `ScoreOptions.score`.

    Raises:
        UsageError: `score` asks for a part that plain text does not have.
        CheckpointError: conversations, but no chat template.
    """
    if templated(source) is not None:
        return source
    if kind_of(source) is DataKind.TEXT:
        if score not in WHOLE:
            raise UsageError(
                "score.plain_text", f"`score` {visible(score, 40)}: {source.name} is plain text, which has no roles"
            )
        return source
    return _made(source, checkpoint, score)


def both_sides(source: KnownText, checkpoint: Checkpoint, score: str = "auto") -> KnownText:
    """Return a source of both sides of each pair: document 2 i is the chosen side of pair i, 2 i + 1 the rejected one.

    Args:
        source: pairs.
        checkpoint: its tokenizer has the chat template.
        score: which tokens get a loss, as in `ScoreOptions.score`.

    Raises:
        UsageError: the text holds no pairs.
    """
    kind = kind_of(source)
    if kind is not DataKind.PAIRS:
        raise UsageError(
            "preferences.no_pairs", f"{source.name}: holds {HELD[kind]}, no pairs",
            hint="each record needs chosen and rejected, with or without prompt; where it holds messages too, in files "
            "that are not named .jsonl, and on standard input, `data_kind` pairs reads them",
        )  # fmt: skip
    return _made(source, checkpoint, score, BOTH)


@overload
def _made(source: KnownText, checkpoint: Checkpoint, score: str, sides: str = "") -> KnownText: ...
@overload
def _made(source: Source, checkpoint: Checkpoint, score: str, sides: str = "") -> Source: ...
def _made(source: Source, checkpoint: Checkpoint, score: str, sides: str = "") -> Source:
    """Return the rendered source; a known text makes it once for equal templates, scored tokens and sides.

    Raises:
        UsageError: control tokens are to be read as text, and the chat template writes them.
    """
    template = checkpoint.tokenizer.chat_template if isinstance(checkpoint.tokenizer, ChatTokenizer) else None

    def make(text: Source) -> Source:
        return RenderedSource(text, template, checkpoint.facts.name, score, sides)

    key = f"rendered {'' if template is None else template.sha256} {score}{sides}"
    made = source.derived(key, make) if isinstance(source, KnownText) else make(source)
    if templated(made) and getattr(checkpoint.tokenizer, "special_strings", "control") == "text":
        what = "would also take the control tokens that the chat template writes for text"
        raise UsageError("score.special_strings", f"`special_strings` text: {what}", hint="leave it out")
    return made


class RenderedSource:
    """A `Source` of another source's records as texts.

    Args:
        source: yields documents with examples.
        template: the chat template; None without one.
        model: name of the checkpoint, for messages.
        score: which tokens get a loss.
        sides: `BOTH` for both sides of each pair as documents; "" for the chosen one.
    """

    def __init__(self, source: Source, template: ChatTemplate | None, model: str, score: str, sides: str = "") -> None:
        self.name = source.name
        self.notices = source.notices
        self.kind = kind_of(source)
        self.sides = sides
        self._source = source
        self._template, self._model, self._score = template, model, score
        self._renderer: Renderer | None = None
        self._skipped: dict[str, int] = {}
        self._dated, self._dropping = False, 0
        self._roles: set[str] = set()
        self._templated: bool | None = None

    @property
    def templated(self) -> bool:
        """Whether the chat template makes the texts, as the first record says; else they are plain strings."""
        if self._templated is None:
            first = next(iter(self._source.documents()), None)
            self._templated = first is not None and isinstance(_sides(first)[0], Conversation)
        return self._templated

    @property
    def skipped(self) -> dict[str, int]:
        """Numbers of bad records and files that were left out, also of those that the template refused."""
        read = skipped_of(self._source)
        return {name: read.get(name, 0) + self._skipped.get(name, 0) for name in (read.keys() | self._skipped.keys())}

    def documents(self) -> Iterator[Document]:
        """Yield every document with its text and spans.

        Raises:
            BadTextError: the template refuses records; raised after the last one, for all of them together.
        """
        faults, read, self._dropping = Faults(), 0, 0
        for document in self._source.documents():
            try:
                made = [self._document(document, side) for side in self._wanted(document)]
            except BadTextError as fault:
                faults.add(fault, "record", document.source)
                continue
            yield from made
            read += 1
        self._tell_of_template()
        self._refuse_unknown_roles()
        if not faults.total:
            return
        if not skips_bad(self._source):
            raise faults.error(others=read > 0, listed=LISTED if read else EXAMPLES)
        self._skipped = dict(faults.counts)
        left_out = f"{self.name}: {faults} refused by the template and left out; the first: {faults.first.message}"
        if left_out not in self.notices:
            self.notices.append(left_out)

    def _wanted(self, document: Document) -> tuple[Conversation | Completion, ...]:
        """Return the sides of a record that are rendered."""
        sides = _sides(document)
        return sides if self.sides == BOTH else sides[:1]

    def _document(self, document: Document, side: Conversation | Completion) -> Document:
        where = f"{document.source}: line {document.line}"
        if isinstance(side, Conversation) is not self.templated:
            raise BadTextError("text.mixed_forms", f"{where}: messages and plain strings in one text")
        if isinstance(side, Completion):
            text, spans = side.prompt + side.completion, _completion_spans(side)
        else:
            made = self._with_renderer().render(side, where)
            self._dated |= made.dated
            self._dropping += bool(made.dropped_turns)
            text, spans = made.text, made.spans
        self._roles |= {span.role for span in spans if span.role is not None}
        prompt_turns = 1 if isinstance(side, Completion) else side.prompt_messages
        return replace(document, text=text, spans=choose_scored(spans, self._score, prompt_turns), example=None)

    def _refuse_unknown_roles(self) -> None:
        """Refuse a role to score that no record has.

        Raises:
            UsageError: the message has the role, its hint those of the text.
        """
        asked = () if self._score in NO_ROLES else self._score.split(",")
        unknown = next((role for role in asked if role not in self._roles), None)
        if unknown is not None and self._roles:
            what = f"`score` {visible(self._score, 40)}: no record of {self.name} has the role {visible(unknown, 40)}"
            roles = visible(", ".join(sorted(self._roles)), 200)
            raise UsageError("score.unknown_role", what, hint=f"roles of the text: {roles}")

    def _tell_of_template(self) -> None:
        """Add notices of what the template did to the conversations."""
        told = []
        if self._dated:
            told.append(f"{self.name}: the chat template writes the date; it is given {TEMPLATE_DATE}, always the same")
        if self._dropping:
            count = plural(self._dropping, "conversation")
            what = f"leaves out texts of {count}, such as earlier thinking or tool calls"
            told.append(f"{self.name}: the chat template {what}")
        self.notices.extend(notice for notice in told if notice not in self.notices)

    def _with_renderer(self) -> Renderer:
        if self._template is None:
            what = f"{self._model}: has no chat template, and {self.name} holds conversations"
            raise CheckpointError("template.missing", what, hint=HOW_TO_GET_A_TEMPLATE)
        if self._renderer is None:
            self._renderer = Renderer(self._template, self._model)
        return self._renderer


def _sides(document: Document) -> tuple[Conversation | Completion, ...]:
    """Return what a record holds: of a pair, the chosen side and the rejected one."""
    example: Example | None = document.example
    if isinstance(example, Pair):
        return example.chosen, example.rejected
    if example is None:
        raise ValueError(f"{document.source}: line {document.line} is plain text, among records of another kind")
    return (example,)


def _completion_spans(side: Completion) -> tuple[Span, ...]:
    """Return the spans of a prompt and its completion; an empty prompt has none."""
    prompt, whole = len(side.prompt.encode()), len((side.prompt + side.completion).encode())
    before = (Span(prompt, 0, PROMPT, Part.CONTENT),) if prompt else ()
    return (*before, Span(whole, 1, COMPLETION, Part.CONTENT))
