"""Render conversations with a checkpoint's chat template, in a child process with limits on memory and time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lossprobe.checkpoint.templates.behaviour import Behaviour
from lossprobe.checkpoint.templates.template import ChatTemplate
from lossprobe.checkpoint.tokenizers.frames import Limits
from lossprobe.checkpoint.tokenizers.sandbox import Sandbox
from lossprobe.errors import BadTextError, CheckpointError, LossprobeError
from lossprobe.text.examples import Conversation
from lossprobe.text.spans import Part, Span
from lossprobe.units import visible

# A conversation of 1,000 turns takes some seconds, because it is rendered up to each of its turns.
LIMITS = Limits(seconds_per_byte=1e-3)
HINTS = {
    "refused": "correct or leave out the record",
    "broken": "a message lacks what the template reads, or the template is faulty: name another with `chat_template`",
    "not_certain": "name a template with `chat_template` that writes every message once and in the same words",
}


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it.

    Attributes:
        text: what the template writes.
        spans: the parts of the text, which tile it. Where the template marks what the assistant writes with
            {% generation %}, a span is scored only if it lies inside; otherwise all are.
        changed_turns: number of turns up to which the conversation is rendered in another way when more turns follow.
        dropped_turns: numbers of the turns of which the template leaves a text out, such as earlier thinking.
        dated: whether the template asked for today's date, and was given 26 July 2024.
    """

    text: str
    spans: tuple[Span, ...]
    changed_turns: int = 0
    dropped_turns: tuple[int, ...] = ()
    dated: bool = False


class Renderer:
    """Renders conversations with a chat template.

    The child process starts at the first conversation; it is told nothing but the template and the conversations.

    Args:
        template: the template.
        shown: name of the checkpoint or template for messages.
        limits: memory and time that one conversation may take.

    Attributes:
        template: as given.
    """

    def __init__(self, template: ChatTemplate, shown: str, limits: Limits = LIMITS) -> None:
        self.template = template
        self._shown = shown
        self._limits = limits
        opening = json.dumps({
            "source": template.source, "tool_source": template.tool_source,
            "special_tokens": dict(template.special_tokens),
        }).encode()  # fmt: skip
        self._sandbox = Sandbox([opening], shown, limits, "templates.worker")

    def render(self, conversation: Conversation, where: str) -> Rendered:
        """Return a conversation as text with its parts.

        Args:
            conversation: the messages; keys whose value is null are left out.
            where: file and line of its record, for messages.

        Raises:
            BadTextError: `template.refused` or `template.not_certain`, which another record may not be.
            CheckpointError: `template.missing`, `template.broken`,
                `template.memory` or `template.time`.
            ResourceError: no process can be started.
        """
        if not conversation.messages:
            raise BadTextError("template.refused", f"{where}: a conversation without messages")
        messages = [_without_null(message) for message in conversation.messages]
        tools = [dict(tool) for tool in conversation.tools]
        answer = self._ask({"messages": messages, "tools": tools, "values": dict(conversation.template_values)}, where)
        spans = tuple(Span(stop, turn, role, Part(part), scored) for stop, turn, role, part, scored in answer["spans"])
        return Rendered(answer["text"], spans, answer["changed"], tuple(answer["dropped"]), answer["dated"])

    def behaviour(self) -> Behaviour:
        """Return what the template does.

        Raises:
            CheckpointError, ResourceError: as `render`.
        """
        return Behaviour(**self._ask({"messages": [], "tools": [], "values": {}}, self._shown))

    def close(self) -> None:
        """End the child process, if there is one."""
        self._sandbox.close()

    def _ask(self, request: dict[str, Any], where: str) -> dict[str, Any]:
        """Return the child's answer to a request.

        Raises:
            CheckpointError, ResourceError: as `render`.
        """
        if not self.template.source:
            raise CheckpointError("template.missing", self.template.origin, hint="name one's file with `chat_template`")
        data = json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            answer: dict[str, Any] = json.loads(self._sandbox.ask(data)[0])
        except CheckpointError as error:
            raise self._stopped(error, where, len(data)) from None
        if "error" in answer:
            raise self._refused(answer["error"], f"{where}: {self._of()}: {visible(answer['reason'], 300)}")
        return answer

    def _of(self) -> str:
        return f"chat template of {self.template.origin}"

    def _refused(self, id: str, reason: str) -> LossprobeError:
        """Return the error for what the child said about a conversation: one of its record, unless it is broken."""
        hint = HINTS[id]
        if id == "broken":
            return CheckpointError("template.broken", reason, hint=hint)
        if id == "refused":
            return BadTextError("template.refused", reason, hint=hint)
        return BadTextError("template.not_certain", reason, hint=hint)

    def _stopped(self, error: CheckpointError, where: str, size: int) -> CheckpointError:
        """Return the error for a child that was ended at a limit or failed."""
        memory, seconds = self._limits.of(size)
        if error.id == "tokenizer.time":
            return CheckpointError("template.time", f"{where}: {self._of()} ran longer than {seconds:.3g} s")
        if error.id == "tokenizer.memory":
            reason = f"{where}: {self._of()} exceeded {memory / 2**30:.3g} GiB"
            return CheckpointError("template.memory", reason)
        return CheckpointError("template.broken", f"{where}: {self._of()}: {visible(error.reason, 300)}")


def _without_null(message: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if value is not None}
