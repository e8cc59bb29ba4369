"""Reads the records of a text as one kind: the one that was asked for, or that of the first record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lossprobe.errors import BadTextError
from lossprobe.text.example_records import read_example
from lossprobe.text.examples import Completion, Conversation, DataKind, Example, Pair, example_to_json, with_texts
from lossprobe.text.field_hints import TEXT
from lossprobe.text.kinds import AUTO, ONE_RECORD, RECORDS, kinds_of_record, why_no_kind
from lossprobe.text.messages import TEMPLATE_VALUES, marks_without_loss
from lossprobe.text.options import TextOptions
from lossprobe.text.records import fields_to_json, is_text, split_record
from lossprobe.text.splitting import with_lf
from lossprobe.units import plural

EQUAL = "with equal sides, which tell nothing"
NO_KIND = "correct or leave out the record, or name the field of a plain text with `text_field`"
ASIDE = ("system", "history")  # fields that some trainers read beside the messages
QUESTIONS = ("question", "query", "input", "context")  # fields that may be the prompt of a pair, but are not read


@dataclass(frozen=True)
class Record:
    """One record of a text.

    Attributes:
        text: its text; "" where it has an example.
        fields: its other fields, as a JSON object.
        example: what it holds where it is no plain text.
    """

    text: str
    fields: str
    example: Example | None = None


def asked_kind(options: TextOptions) -> DataKind | None:
    """Return the kind of records that the options ask for; None where the first record decides."""
    if options.data_kind != AUTO:
        return DataKind(options.data_kind)
    return DataKind.TEXT if options.text_field is not None else None


class RecordReader:
    """Reads the records of a text during one reading of it.

    Attributes:
        kind: what the records hold; None as long as no record has said it.
    """

    def __init__(self, options: TextOptions) -> None:
        self.kind = asked_kind(options)
        self._asked = self.kind is not None
        self._options = options
        self._keys: tuple[str, ...] = ()  # that hold the first record
        self._instead = ""  # how the first record could be read instead
        self._read = 0
        self._remarks: Counter[str] = Counter()

    def see_plain(self, shown: str) -> None:
        """Take note of a plain file of the text.

        Raises:
            BadTextError: the records of the text are no plain text.
        """
        if self.kind not in (None, DataKind.TEXT):
            raise BadTextError(
                "text.other_kind", f"{shown} is plain text, and other files of the text hold {RECORDS[self.kind]}",
                hint="`include` and `exclude` choose the files of a folder",
            )  # fmt: skip
        self.kind = DataKind.TEXT

    def read(self, value: Any, where: str) -> Record:
        """Return a record.

        Args:
            value: the record as JSON has it.
            where: file and line, for the start of messages.

        Raises:
            BadTextError: a record of another kind than the first, or one that cannot be read.
        """
        kinds = kinds_of_record(value)
        if self.kind is None and kinds:
            self.kind = next(iter(kinds))
        if not self._keys and self.kind in kinds:
            self._begin(kinds)
        if self.kind is None or self.kind is DataKind.TEXT:
            return self._plain(value, kinds, where)
        return self._example(value, self.kind, where)

    def _begin(self, kinds: dict[DataKind, tuple[str, ...]]) -> None:
        """Remember which keys of the first record are read, and what could be read in their place."""
        assert self.kind is not None
        self._keys = kinds[self.kind]
        others = [] if self._asked else [kind for kind in kinds if kind is not self.kind]
        if others:
            keys = " and ".join(kinds[others[0]])
            self._instead = f"; `data_kind` {others[0].value} reads {keys} instead"

    def _plain(self, value: Any, kinds: dict[DataKind, tuple[str, ...]], where: str) -> Record:
        if kinds and DataKind.TEXT not in kinds and not self._asked:
            raise BadTextError("text.other_kind", f"{where} is not plain text but {ONE_RECORD[next(iter(kinds))]}")
        broken = "" if kinds or self._asked or self._options.text_field else why_no_kind(value)
        if broken:
            raise BadTextError(
                "text.bad_example",
                f"{where}: {broken}",
                hint=NO_KIND,
            )
        text, fields = split_record(value, self._options.text_field or TEXT, where)
        return Record(with_lf(text) if self._options.newlines == "lf" else text, fields)

    def _example(self, value: Any, kind: DataKind, where: str) -> Record:
        given = dict(value) if isinstance(value, dict) else {}
        try:
            rest = with_texts(value, with_lf) if self._options.newlines == "lf" else value
            example = read_example(rest, kind, where)
            example_to_json(example).encode()
        except RecursionError:
            raise BadTextError("text.bad_messages", f"{where} is nested too deeply") from None
        except UnicodeEncodeError:
            raise BadTextError("text.surrogate", f"{where} holds half a surrogate pair") from None
        self._read += 1
        self._remarks[EQUAL] += isinstance(example, Pair) and example.chosen == example.rejected
        values = example.chosen if isinstance(example, Pair) else example
        if isinstance(values, Conversation) and values.template_values:
            self._remarks[f"with {TEMPLATE_VALUES}, which the template gets"] += 1
        if isinstance(values, Conversation) and (marks := marks_without_loss(values.messages)):
            self._remarks[f"with messages of {', '.join(marks)}, which are scored all the same"] += 1
        if kind is DataKind.COMPLETION and given.get("label") is False:
            self._remarks["with label false, as KTO marks unwanted answers, scored like the others (`by` label)"] += 1
        if isinstance(example, Pair) and given.get("prompt") is None:
            self._see_questions(example, rest)
        for key in filter(rest.get, ASIDE):
            self._remarks[f"with a field {key}, which the template does not get"] += 1
        return Record("", fields_to_json({key: given[key] for key in rest}), example)

    def _see_questions(self, pair: Pair, rest: Mapping[str, Any]) -> None:
        """Take note of fields that may be the prompt of a pair, where it does not have their text."""
        side = pair.chosen
        asked = [side.prompt] if isinstance(side, Completion) else [m.get("content", "") for m in side.messages]
        for key in QUESTIONS:
            value = rest.get(key)
            if is_text(value) and value.strip() and not any(value.strip() in each for each in asked):
                self._remarks[f"with a field {key}, which is no part of the prompt: name it prompt if it is one"] += 1

    def notices(self, shown: str) -> list[str]:
        """Return what is to be told of the records that were read, one line each.

        Args:
            shown: name of the text.
        """
        if self.kind is None or not self._read:
            return []
        held = f"{RECORDS[self.kind]} ({', '.join(self._keys)})"
        lines = [f"{shown}: {held}; {plural(self._read, 'record')}{self._instead}"]
        return lines + [f"{shown}: {plural(n, 'record')} {what}" for what, n in self._remarks.items() if n]
