"""The health of training runs: what was found, in words, and the series of their logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lossprobe.analysis.curve.curve import Curve, LogFacts, steps_of
from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.logs.log import ACCURACY, ENTROPY, GRADIENT_NORM, LEARNING_RATE, LOSS, Log
from lossprobe.report.formats.cells import small_numbers
from lossprobe.report.formats.series_csv import logs_to_csv
from lossprobe.report.views.view import View
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural

NOISE = ("noise", "trend", "trend_low", "trend_high")
NUMBERS = ("first_value", "last_value", "lowest", *NOISE)
YIELDS = ("first_step", "last_step", "split", "points", "lowest_step", "log")
NAMED = 5  # of the series that a terminal does not show, by name
KNOWN = (LOSS, LEARNING_RATE, GRADIENT_NORM, ENTROPY, ACCURACY)  # series that a terminal shows
KINDS = {
    "trainer_state": "transformers' Trainer", "hf_console": "transformers' console",
    "llamafactory": "LLaMA-Factory", "lightning": "Lightning", "columns": "text", "tensorboard": "TensorBoard",
    "csv": "CSV", "jsonl": "JSONL",
    "nanogpt": "nanoGPT's output", "llmc": "llm.c's output", "megatron": "Megatron-LM's output",
    "olmo": "OLMo's output", "composer": "Composer's output",
}  # fmt: skip


def curve_view(logs: Sequence[Log], result: Curve, runs: Sequence[Run] = (), inputs: Sequence[Path] = ()) -> View:
    """Return the view of logs; the CSV holds every value of them.

    Args:
        logs: the logs.
        result: what they say.
        runs: the run of the checkpoint that was measured, if one was.
        inputs: the files of its text.
    """
    alone = ["log"] if len(logs) == 1 else []
    series = small_numbers(result.series, NUMBERS).drop(columns=alone)
    known = series["name"].isin(KNOWN)
    others = list(series["key"][~known])
    named = [*others[:NAMED], *([f"and {len(others) - NAMED} more"] if len(others) > NAMED else [])]
    left_out = ("name", *NOISE, *(() if result.series["not_finite"].any() else ("not_finite",)))
    return View(
        "curve", ", ".join(facts.log for facts in result.logs), result, tuple(runs),
        csv=lambda: logs_to_csv([facts.log for facts in result.logs], logs),
        findings=tuple(_told(result)), shown=series,
        left_out=left_out, yields=YIELDS,
        more=(("findings", result.table.drop(columns=alone)),) if len(result.table) else (),
        brief=(("", series[known].drop(columns=list(left_out))),),
        lines=(f"other series, which `wide` shows: {', '.join(named)}",) if others else (),
        inputs=tuple(inputs), logs=tuple(logs),
    )  # fmt: skip


def _told(result: Curve) -> Iterator[str]:
    """Yield what is said of each log: what it is, and its findings."""
    for place, facts in enumerate(result.logs):
        if place:
            yield ""
        yield _about(facts)
        found = result.findings_of(facts.log).to_dict("records")
        for row in found:
            yield ""
            yield from _finding_lines(row)
        if not found:
            yield result.finding_of(facts.log)
    if result.partings:
        yield ""
        yield from (pair.finding for pair in result.partings)
    if result.checkpoint is not None:
        yield ""
        yield result.checkpoint.finding


def _about(facts: LogFacts) -> str:
    """Return what a log is, in one line."""
    if facts.first_step is None or facts.last_step is None:
        return f"{facts.log}: {KINDS.get(facts.kind, facts.kind)}, no values"
    axis = "rows" if facts.steps_counted else "steps"
    parts = [f"{axis} {format_count(facts.first_step)} to {format_count(facts.last_step)}"]
    parts += [f"epoch {facts.epochs:.4g}"] if facts.epochs else []
    parts += [f"{facts.tokens_seen:.4g} tokens"] if facts.tokens_seen else []
    parts += [f"vocabulary {format_count(facts.vocabulary)}"] if facts.vocabulary else []
    parts += [plural(facts.restarts, "restart")] if facts.restarts else []
    return f"{facts.log}: {KINDS.get(facts.kind, facts.kind)}, {', '.join(parts)}"


def _finding_lines(row: dict[Any, Any]) -> Iterator[str]:
    """Yield a finding for people: what and where, what was seen, why it may be, and what to do."""
    diagnosis = DIAGNOSES[row["diagnosis"]]
    worth = "" if row["fault"] else " (no fault, worth knowing)"
    yield f"{row['diagnosis']}, {steps_of(row)}: {diagnosis.title}{worth}"
    yield f"  seen: {row['evidence']}"
    yield f"  likely: {_numbered(diagnosis.causes)}"
    yield f"  do: {_numbered(diagnosis.remedies)}"


def _numbered(texts: Sequence[str]) -> str:
    """Return texts in one line, with numbers where there are several: a cause and its remedy have the same one."""
    return "; ".join(f"({place}) {text}" for place, text in enumerate(texts, start=1)) if len(texts) > 1 else texts[0]
