"""Reads a training log of any kind; what it is shows in its content, not in its name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from lossprobe import pointers
from lossprobe.errors import UsageError
from lossprobe.logs import headed, hf_console, nanogpt, printed
from lossprobe.logs.csv_table import delimiter_of, read_csv
from lossprobe.logs.folder import find_in_folder
from lossprobe.logs.given import reader_of_given
from lossprobe.logs.json_file import read_json_file
from lossprobe.logs.jsonl import read_jsonl
from lossprobe.logs.lines import LogFile, opened
from lossprobe.logs.log import ACCURACY, ENTROPY, GRADIENT_NORM, LEARNING_RATE, LOSS, PERPLEXITY, Log
from lossprobe.logs.names import meaning
from lossprobe.logs.records import Records, joined
from lossprobe.logs.series import AXES, make_log
from lossprobe.logs.tensorboard import read_tensorboard
from lossprobe.logs.tfrecord import starts_record
from lossprobe.logs.trainer_state import vocabulary_beside
from lossprobe.units import plural, visible

QUANTITIES = (LOSS, LEARNING_RATE, GRADIENT_NORM, ENTROPY, ACCURACY, PERPLEXITY)
Reader = Callable[[LogFile], Records]
MAGIC = {
    b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"PK\x03\x04": "a zip archive, as a checkpoint is",
    b"\x80\x02": "a pickle", b"\x80\x04": "a pickle", b"PAR1": "a Parquet file", b"GGUF": "a GGUF checkpoint",
    b":W&B": "a run of wandb, which is read when it is exported as CSV", b"%PDF": "a PDF",
    pointers.START: f"{pointers.WHAT} ({pointers.FETCH})",
}  # fmt: skip
JSON_LINE = re.compile(rb'^\{"[^\n]*\}$', re.MULTILINE)
JSON_LIST = re.compile(rb"\[\s*\{")
CONTROL = bytes({*range(32), 127} - set(b"\t\n\r\b\x1b"))
FEWEST_OF_ANOTHER = 3  # lines of a second kind of log that are told
CONTROL_SHARE = 0.05  # of the first bytes; a text has none but line ends, tabs and escapes


def read_log(path: Path, columns: Mapping[str, str] | None = None) -> Log:
    """Return a training log.

    Args:
        path: its file, or a folder with one; "-" is standard input.
        columns: which name in the log is the step, the loss and so on, such as {"step": "it", "loss": "tr"}; a key may
            be any name that `meaning` understands, as "val_loss". A name is a key or a column of a table, what stands
            before a number in other text ("Loss:"), or the number of a column, counted from 1.

    Raises:
        UsageError: it cannot be read, is no training log, or has no loss.
    """
    _refuse_unknown_roles(columns or {})
    named = {name: role for role, name in (columns or {}).items()}
    if not path.is_dir():
        return make_log(path, _read(path, "", tuple(named)), named)
    found = find_in_folder(path)
    records = joined([_read(file, prefix, tuple(named)) for file, prefix in found.files])
    notes = records.notes if found.note is None else (found.note, *records.notes)
    return make_log(found.files[-1][0], replace(records, notes=notes), named)


def _refuse_unknown_roles(columns: Mapping[str, str]) -> None:
    """Raise an error for a quantity that `meaning` does not know, such as "los"."""
    wrong = next((role for role in columns if role not in AXES and meaning(role).name not in QUANTITIES), None)
    if wrong is not None:
        known = (*AXES, *QUANTITIES, "val_loss")
        near = difflib.get_close_matches(wrong, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise UsageError(
            "log.columns", f"`columns` names {visible(wrong, 60)}, which is no quantity of a log", hint=hint
        )


def _read(path: Path, prefix: str, given: tuple[str, ...]) -> Records:
    with opened(path) as file:
        reader = _reader(file, prefix, given)
        records = reader(file)
        missing = [name for name in given if name not in records.columns and name not in records.words]
        if missing:
            have = ", ".join(visible(key, 40) for key in list(records.columns)[:12])
            raise UsageError(
                "log.columns", f"{file.shown}: has no number named {visible(missing[0], 60)}",
                hint=f"it has {have}" if have else None,
            )  # fmt: skip
        vocabulary = records.vocabulary or vocabulary_beside(path)
        return replace(records, notes=(*file.notes, *records.notes), vocabulary=vocabulary)


def _reader(file: LogFile, prefix: str, given: tuple[str, ...]) -> Reader:
    """Return the reader for what a file holds."""
    start = file.start()
    if starts_record(start):
        return partial(read_tensorboard, prefix=prefix)
    text = file.beginning().lstrip()
    _refuse_other_kinds(file, start, text)
    if text.startswith(b"{") and not text.startswith(b"{'"):
        lines = [line for line in text.split(b"\n", 4)[:4] if line.strip()]
        many = len(lines) > 1 and b'"log_history"' not in lines[0] and any(map(_is_object, lines[:3]))
        return read_jsonl if many else read_json_file
    if JSON_LIST.match(text):
        return read_json_file
    if delimiter_of(text, given) is not None:
        return read_csv
    file.settle_commas()
    return reader_of_given(given) if given else _console(file)


def _console(file: LogFile) -> Reader:
    """Return the reader for what a program printed, by the first block that has its lines; tell of lines of others."""
    readers: list[tuple[str, re.Pattern[bytes], Reader]] = [
        ("nanoGPT", nanogpt.PATTERN, nanogpt.read_nanogpt),
        ("transformers", hf_console.PATTERN, hf_console.read_hf_console),
        ("JSON Lines", JSON_LINE, read_jsonl),
        ("OLMo or Composer", headed.PATTERN, headed.read_headed),
        *((kind, pattern, printed.reader_of(kind)) for kind, pattern in printed.PATTERNS.items()),
    ]
    for block in file.blocks():
        counts = [len(pattern.findall(block)) for _, pattern, _ in readers]
        counts[-1] = min(counts[-1], 1)  # any text: its lines are also those of a program that is known
        if any(counts):
            chosen = counts.index(max(counts))
            file.notes += [
                f"{plural(count, 'line')} or more are those of another kind of log ({name}): not read as such"
                for place, ((name, _, _), count) in enumerate(zip(readers, counts, strict=True))
                if count >= FEWEST_OF_ANOTHER and place != chosen
            ]
            return readers[chosen][2]
    raise UsageError(
        "log.kind", f"{file.shown}: is no training log that lossprobe knows: no line has a step or epoch and a loss",
        hint="`columns` says what stands before its numbers: step=Step,loss=Loss:",
    )  # fmt: skip


def _refuse_other_kinds(file: LogFile, start: bytes, text: bytes) -> None:
    """Raise an error for a file that is no text."""
    kind = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None)
    if kind is None and start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < 1 << 30:
        kind = "a safetensors checkpoint"
    if kind is not None:
        raise UsageError("log.kind", f"{file.shown}: is {kind}, no training log")
    control = len(text) - len(text.translate(None, CONTROL))
    if control > CONTROL_SHARE * len(text):
        share = 100 * control / len(text)
        raise UsageError("log.kind", f"{file.shown}: is no text: {share:.0f} % of its first bytes are control codes")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
