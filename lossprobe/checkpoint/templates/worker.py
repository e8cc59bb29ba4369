"""Child process that renders conversations with a chat template and answers requests until its standard input ends.

A chat template is a program that came with a checkpoint. transformers' own renderer runs it in Jinja's sandbox; that
leaves memory and time to be limited, for which it runs here. Nothing is ever fetched: a template is given no file and
no network. The first request holds the template; every other one a conversation.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from lossprobe.checkpoint.templates.behaviour import SHORTEST, behaviour_of
from lossprobe.checkpoint.templates.fields import Message
from lossprobe.checkpoint.templates.located import NotCertainError
from lossprobe.checkpoint.templates.parts import habits_of, parts_of, spans_of, with_scored
from lossprobe.checkpoint.tokenizers.frames import ALLOWANCE, FAILED, OK, OUT_OF_MEMORY, receive_frame, send_frame
from lossprobe.checkpoint.tokenizers.sandbox_worker import prepare, set_limits

DATE = datetime(2024, 7, 26)  # what strftime_now gives; the date that Llama's templates name where they are given none
MOST_MADE = 64  # templates kept, one for each set of values that records give
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Refused(Exception):
    """A conversation that cannot be rendered, with the last part of the error's id."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(reason)
        self.id = id


class WorkerTemplate:
    """A chat template in the child process.

    Args:
        source: the template.
        special_tokens: names that it may use, and their texts.
        values: what else it is given, by name.

    Raises:
        Refused: it is not a valid template.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], values: Mapping[str, Any] | None = None) -> None:
        self._theirs, self._source, self._given = _theirs(), source, {**(values or {}), **special_tokens}
        self.marked = GENERATION.search(source) is not None
        self.dated = False
        try:
            compiled = self._theirs._compile_jinja_template(source)
        except Exception as error:  # noqa: BLE001 - Jinja raises many kinds for a text that is no template
            line = getattr(error, "lineno", None)
            raise Refused("broken", f"{f'line {line}: ' if line else ''}{_words(error)}") from None
        compiled.environment.globals["strftime_now"] = self._strftime
        self._tools: Any = None
        self.habits = habits_of(self._render, special_tokens.get("bos_token", ""))

    def behaviour(self) -> dict[str, Any]:
        """Return what the template does, as JSON data."""
        try:
            self.render(SHORTEST, None)
            fault = None
        except Refused as error:
            fault = str(error)
        self._tools = None
        return asdict(behaviour_of(self._render, self.habits, marked=self.marked, dated=self.dated, fault=fault))

    def _strftime(self, form: str) -> str:
        self.dated = True
        return DATE.strftime(form)

    def text(self, messages: Sequence[Message], tools: Any, prompt: bool = False) -> tuple[str, list[tuple[int, int]]]:
        """Return what the template makes of messages, and the characters that its {% generation %} blocks write.

        Raises:
            Refused: the template raised an error.
        """
        try:
            texts, blocks = self._theirs.render_jinja_template(
                [list(messages)],
                tools=tools,
                chat_template=self._source,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=self.marked,
                **self._given,
            )
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a template can raise whatever Python can
            plain = type(error).__name__ == "TemplateError"  # what raise_exception raises; its subclasses are faults
            reason = _words(error) if plain else f"{type(error).__name__}: {_words(error)}"
            raise Refused("refused" if plain else "broken", reason) from None
        return texts[0], blocks[0] if blocks else []

    def _render(self, messages: Sequence[Message], prompt: bool) -> str | None:
        try:
            return self.text(messages, self._tools, prompt)[0]
        except Refused:
            return None

    def render(self, messages: Sequence[Message], tools: Any) -> dict[str, Any]:
        """Return the rendered conversation and its spans, as JSON data.

        Raises:
            Refused: the template raised an error, or where its parts are is not certain.
        """
        self._tools = tools or None
        text, blocks = self.text(messages, self._tools)
        try:
            parts = parts_of(self._render, messages, text, self.habits)
            stretches = with_scored(parts.stretches, text, blocks) if self.marked else parts.stretches
        except NotCertainError as error:
            raise Refused("not_certain", str(error)) from None
        return {
            "text": text,
            "spans": [[s.byte_stop, s.turn, s.role, s.part, s.scored] for s in spans_of(stretches, text)],
            "changed": parts.changed_turns,
            "dropped": parts.dropped_turns,
            "dated": self.dated,
        }


def _theirs() -> Any:
    """Return transformers' module for chat templates; it needs no torch."""
    from transformers.utils import chat_template_utils

    return chat_template_utils


def hollow(*packages: str) -> None:
    """Let modules of packages be imported without the packages' own code.

    That of transformers imports most of the library, two thirds of a second for nothing that its module for chat
    templates uses.

    Args:
        packages: names, each after the package that holds it; none of them imported yet.
    """
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is not None:  # otherwise the import says what is missing
            sys.modules[name] = importlib.util.module_from_spec(spec)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


class Worker:
    """Answers the requests for one checkpoint, which may have a template of its own for conversations with tools."""

    def __init__(self, opening: bytes | bytearray) -> None:
        content = json.loads(opening)
        self._sources = content["source"], content["tool_source"] or content["source"]
        self._special = content["special_tokens"]
        self._made: dict[tuple[str, str], WorkerTemplate] = {}
        _theirs()

    def template(self, values: Mapping[str, Any], *, tools: bool) -> WorkerTemplate:
        """Return the template with what it is given, made at its first use.

        Raises:
            Refused: it is not a valid template.
        """
        source = self._sources[tools]
        key = source, json.dumps(values, sort_keys=True)
        if key not in self._made:
            if len(self._made) >= MOST_MADE:
                self._made.clear()
            self._made[key] = WorkerTemplate(source, self._special, values)
        return self._made[key]

    def answer(self, request: bytes | bytearray) -> bytes:
        """Return the answer to a request, as JSON; a request without messages asks what the template does."""
        asked = SimpleNamespace(**json.loads(request))
        try:
            made = self.template(asked.values, tools=bool(asked.tools))
            answer = made.render(asked.messages, asked.tools) if asked.messages else made.behaviour()
        except Refused as error:
            answer = {"error": error.id, "reason": str(error)}
        return json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")


def serve(requests: Any, answers: Any) -> None:
    """Answer requests until the stream of requests ends."""
    worker: Worker | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            allowance, *parts = receive_frame(requests)
            set_limits(*ALLOWANCE.unpack(allowance))
            answer: list[bytes | bytearray] = [OK]
            try:
                if worker is None:
                    worker = Worker(parts[0])
                else:
                    answer.append(worker.answer(parts[0]))
            except MemoryError:
                answer = [OUT_OF_MEMORY]
            except RecursionError:
                answer = [FAILED, b"nested too deeply"]
            send_frame(answers, answer)


def main() -> None:
    """Answer requests on standard input until it ends, then end the process."""
    answers = prepare()
    sys.modules["torch"] = None  # type: ignore[assignment] # not needed here, and slow to load
    hollow("transformers", "transformers.utils")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical"}
    serve(sys.stdin.buffer, answers)
    os._exit(0)
