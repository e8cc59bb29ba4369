"""Reads lines of names and numbers, as most training programs print them: "step 1/100 | loss 11.01 | lr 8.57e-07".

Each program is one row of a table, which says how its lines begin; what a name means is the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

from lossprobe.logs import names
from lossprobe.logs.console import NUMBER, WITH_THOUSANDS, float_of
from lossprobe.logs.lines import LogFile
from lossprobe.logs.log import ACCURACY, ENTROPY, GRADIENT_NORM, LEARNING_RATE, LOSS, PERPLEXITY, TRAIN
from lossprobe.logs.names import meaning
from lossprobe.logs.objects import Object, Objects
from lossprobe.logs.records import Records, Table
from lossprobe.units import format_count, plural

# How a line with a loss begins, by what prints it.
PROGRAMS = {
    "llmc": rb"^step +\d+/\d+ \| (?:train )?loss ",
    "megatron": rb"\biteration +\d+/ *\d+ \|",
    "torchtune": rb"^Step \d+ \| \w+:|^ *\d+\|\d+\|Loss: ",
    "fundamentallm": rb"^Epoch \d+: Loss = ",
    # Any other: a loss behind a step or an epoch, or in one of the lines after that of an epoch.
    "text": rb"(?i)\b(?:step|iter|iteration|epoch|update)\b\W{0,20}\d[^\n]{0,400}?"
    rb"(?:loss|nll|bpc|bpb)\b[^\n\d]{0,20}?(?:\d|nan\b|inf\b)"
    rb"|^\W{0,20}epoch\W{0,20}\d[^\n]{0,80}\n(?:[^\n]{0,200}\n){0,3}?[^\n]{0,80}?loss\b[^\n\d]{0,20}?(?:\d|nan\b|inf\b)",
}
PATTERNS = {kind: re.compile(pattern, re.MULTILINE) for kind, pattern in PROGRAMS.items()}
LONGEST = 4096  # bytes of a line that are read
FEW_LINES, FEW_SHARE = 20, 0.1  # with numbers of training: where there are fewer, the text is hardly a log
WORD = rb"(?!(?i:nan|inf)\b)[A-Za-z_(][\w/.()\-]{0,60}+"
PAIR = re.compile(
    rb"(?<![\w/.])((?>" + WORD + rb"(?: " + WORD + rb"){0,5}+))(?:\s{0,8}+[:=]\s{0,20}+|\s{1,20}+)" + WITH_THOUSANDS
    + rb"(?: ?((?i:bpc|bpb|bits?))\b)?(?![\w.%])"
)  # fmt: skip
SCORE = re.compile(rb"^(\w+): \d+/\d+ = " + NUMBER, re.MULTILINE)  # llm.c's "HellaSwag: 2500/10042 = 0.248954"
BAR = re.compile(rb"^ *(\d+)\|(\d+)\|Loss: " + NUMBER)  # torchtune's progress: epoch, step, loss
# A word of its own that says what the rest of a line was measured on, as "validation loss at iteration 5 | lm loss".
KNOWN = (LOSS, LEARNING_RATE, GRADIENT_NORM, ENTROPY, ACCURACY, PERPLEXITY)
SPLIT = re.compile(rb"(?<![\w/.\-])(" + b"|".join(map(str.encode, names.SPLITS)) + rb")(?![\w/.\-])", re.IGNORECASE)
VOCABULARY = re.compile(
    rb"^\| vocab_size V +\| (\d+)|padded vocab \(size: \d+\)[^\n]{0,60}\(new size: (\d+)\)"
    rb"|padded_vocab_size[ .=:]+(\d+)",
    re.MULTILINE,
)


def reader_of(kind: str) -> Callable[[LogFile], Records]:
    """Return the reader for what a program of the table prints."""

    def read(file: LogFile) -> Records:
        table = Table()
        objects = Objects(table)
        lines = 0
        for block in file.blocks():
            lines += block.count(b"\n")
            found = [numbers for line in block.split(b"\n") if _tells(numbers := _numbers(line[:LONGEST]))]
            # A progress bar prints the same numbers again and again.
            objects.add_block([each for last, each in pairwise([{}, *found]) if each != last])
        said = VOCABULARY.search(file.start(1 << 20))
        vocabulary = next((int(each) for each in said.groups() if each), None) if said else None
        few = table.count < min(FEW_LINES, FEW_SHARE * lines)
        told = f"of {plural(lines, 'line')}, {format_count(table.count)} had numbers of training: it may be no log"
        return table.records(kind, vocabulary=vocabulary, notes=[told] if few else [])

    return read


def _tells(numbers: Object) -> bool:
    """Return whether a line says something about training: a loss, a number at a step, or that an epoch begins."""
    return any(meaning(key).name in (LOSS, ACCURACY) for key in numbers) or (
        bool(numbers) and ("epoch" in numbers or ("step" in numbers and len(numbers) > 1))
    )


def _numbers(line: bytes) -> Object:
    """Return the numbers of a line by the names before them, if they are names that logs have."""
    found: Object = {}
    score, bar = SCORE.match(line), BAR.match(line)
    if score is not None:
        return {f"{score[1].decode().lower()} accuracy": float(score[2])}
    if bar is not None:
        return {"epoch": float(bar[1]), "step": float(bar[2]), "loss": float(bar[3])}
    for pair in PAIR.finditer(line):
        key = _known(pair[1])
        if key is None:
            continue
        if meaning(key).name == LOSS:
            key = _within(line, pair.start(1), key)
            if pair[3]:
                key = f"{key} {pair[3].decode()}"
        found.setdefault(key, float_of(pair[2]))
    return found


@lru_cache(1 << 10)
def _known(key: bytes) -> str | None:
    """Return the longest end of some words that is a name, such as "train loss" of "INFO train loss"; None without."""
    words = key.decode("utf-8", "replace").strip("(").split()
    last = words[-1].lower()
    for axis, known in (("step", names.STEPS), ("epoch", names.EPOCHS), ("tokens", names.TOKENS)):
        if last in known or " ".join(words[-2:]).lower() in known:
            return axis
    if last == "norm" and len(words) > 1 and not words[-2].lower().startswith("grad"):
        return None  # Megatron's "params norm"
    ends = (" ".join(words[start:]) for start in range(len(words)))
    return next((end for end in ends if meaning(end).name in KNOWN), None)


@lru_cache(1 << 10)
def _says_split(key: str) -> bool:
    return any(word in names.SPLITS for word in re.split(r"[\W_]+", key.lower()))


def _within(line: bytes, start: int, key: str) -> str:
    """Return the name of a loss with the split that the line says before it, where the name says none itself."""
    if _says_split(key):
        return key
    said = SPLIT.findall(line, 0, start)
    split = names.SPLITS[said[-1].decode().lower()] if said else TRAIN
    return key if split == TRAIN else f"{split} {key}"
