"""Reads what nanoGPT prints: `step 250: train loss 1.9, val loss 2.0` and `iter 250: loss 1.95, time 35ms`."""

from __future__ import annotations

import re

from lossprobe.logs.console import NUMBER, WHOLE, Line, read_lines
from lossprobe.logs.lines import LogFile
from lossprobe.logs.records import Records

STEP = rb"\bstep " + WHOLE + rb": train loss " + NUMBER + rb", val loss " + NUMBER
BATCH = rb"\biter " + WHOLE + rb": loss " + NUMBER
LINES = (
    Line(STEP + rb"(?!\d)", ("step", "eval_train_loss", "val loss")),
    Line(BATCH + rb"(?=,|\s+[^B\s])", ("step", "loss")),
    Line(BATCH + rb" (?i:bpc|bpb|bits?)\b", ("step", "loss BPC")),
)
PATTERN = re.compile(STEP + rb"|" + BATCH)
VOCABULARY = re.compile(rb"found vocab_size = (\d+)|vocab_size of GPT-2 to (\d+)")


def read_nanogpt(file: LogFile) -> Records:
    """Return the numbers of nanoGPT's console: the loss of a batch (`iter`), and both losses of an evaluation."""
    said = VOCABULARY.search(file.start())
    vocabulary = int(said[1] or said[2]) if said else None
    return read_lines(file, LINES).records("nanogpt", vocabulary=vocabulary)
