"""Reads consoles that print a step in a heading, and below it a name and a number a line: OLMo and MosaicML Composer.

[step=20/1000,epoch=0]              [batch=20/1000]:
train/CrossEntropyLoss=8.21          Train loss/train/total: 8.2100
throughput/total_tokens=81,920       Train time/token: 81920
"""

from __future__ import annotations

import re

from lossprobe.logs import names
from lossprobe.logs.console import WITH_THOUSANDS, float_of
from lossprobe.logs.lines import LogFile
from lossprobe.logs.log import ACCURACY, ENTROPY, GRADIENT_NORM, LEARNING_RATE, LOSS, PERPLEXITY
from lossprobe.logs.names import meaning
from lossprobe.logs.objects import Object, Objects
from lossprobe.logs.records import Records, Table

HEADING = rb"\[(?:epoch=(\d+)(?:/\d+)?\]\[)?(step|batch)=(\d+)\b(?:/\d+)?(?:,epoch=(\d+))?[^\n\]]{0,80}\]"
PATTERN = re.compile(HEADING + rb":?[ \t]*\n[ \t]+\w")
LINE = re.compile(
    HEADING + rb"|^[ \t]+(?:Train |Eval )?([A-Za-z][\w/.() \-]{0,200}?)(?:=|: )"
    + WITH_THOUSANDS + rb"[ \t]*$",
    re.MULTILINE,
)  # fmt: skip
KNOWN = (LOSS, LEARNING_RATE, GRADIENT_NORM, ENTROPY, ACCURACY, PERPLEXITY)
BATCHES = ("time/batch", "trainer/global_step")  # Composer's batches before this one; its heading counts in the epoch


def read_headed(file: LogFile) -> Records:
    """Return the numbers below each heading with its step; what stands before the first heading has no step."""
    table = Table()
    objects = Objects(table)
    kinds = set()
    record: Object = {}
    for block in file.blocks():
        done: list[Object] = []
        for found in LINE.finditer(block):
            if found[2]:
                done += [record] if record else []
                record = _begun(found)
                kinds.add(found[2])
            else:
                _add(record, found[5].decode(), float_of(found[6]))
        objects.add_block([_with_step(each) for each in done])
    objects.add_block([_with_step(record)] if record else [])
    return table.records("composer" if kinds == {b"batch"} else "olmo")


def _begun(heading: re.Match[bytes]) -> Object:
    """Return the record that a heading begins."""
    epoch = heading[1] or heading[4]
    return {"step": float(heading[3])} | ({} if epoch is None else {"epoch": float(epoch)})


def _add(record: Object, key: str, value: float) -> None:
    """Add a number to a record if its name is one that logs have."""
    if key in BATCHES or key.lower() in names.TOKENS or meaning(key).name in KNOWN:
        record[key] = value


def _with_step(record: Object) -> Object:
    """Return a record with the step of the run: where a heading counts inside its epoch, that of the line below it."""
    before = next((record[key] for key in BATCHES if key in record), None)
    kept = {key: value for key, value in record.items() if key not in BATCHES}
    if before is not None and "epoch" in kept:
        del kept["epoch"]  # it counts whole epochs, so it says nothing of a row
        kept["step"] = before + 1.0
    return kept
