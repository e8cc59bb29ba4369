"""Reads what nanoGPT prints, `step 250: train loss 1.9, val loss 2.0` and `iter 250: loss 1.95, time 35ms`.

The log.txt of build-nanogpt, the same author's course, has a step, a word and a number a line: `250 val 5.9`.
"""

from __future__ import annotations

import re

from lossprobe.logs.console import NUMBER, WHOLE, Line, read_lines
from lossprobe.logs.lines import LogFile
from lossprobe.logs.records import Records

STEP = rb"\bstep " + WHOLE + rb": train loss " + NUMBER + rb", val loss " + NUMBER
BATCH = rb"\biter " + WHOLE + rb": loss " + NUMBER
SHORT = {"train": "loss", "val": "val loss", "hella": "hellaswag accuracy"}  # the word of a line of log.txt
LINES = (
    Line(STEP + rb"(?!\d)", ("step", "eval_train_loss", "val loss")),
    Line(BATCH + rb"(?=,|\s+[^B\s])", ("step", "loss")),
    Line(BATCH + rb" (?i:bpc|bpb|bits?)\b", ("step", "loss BPC")),
    *(Line(rb"^" + WHOLE + rf" {word} ".encode() + NUMBER + rb"(?=\s)", ("step", key)) for word, key in SHORT.items()),
)
PATTERN = re.compile(STEP + rb"|" + BATCH + rb"|^\d+ (?:train|val) \d", re.MULTILINE)
VOCABULARY = re.compile(rb"found vocab_size = (\d+)|vocab_size of GPT-2 to (\d+)")


def read_nanogpt(file: LogFile) -> Records:
    """Return the numbers of nanoGPT: the loss of a batch (`iter`, or `train` in log.txt), and those of evaluations."""
    said = VOCABULARY.search(file.start())
    vocabulary = int(said[1] or said[2]) if said else None
    return read_lines(file, LINES).records("nanogpt", vocabulary=vocabulary)
