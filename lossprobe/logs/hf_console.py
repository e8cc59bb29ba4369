"""Reads what transformers' Trainer and TRL print: Python dicts, in the newest versions with text for numbers.

The dicts have no step, only an epoch. How many steps an epoch has follows from the progress bar, from what the trainer
says as it begins ("Num Epochs = 3", "Total optimization steps = 1,677"), or from its speed in the last dict.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from lossprobe.logs.console import NUMBER
from lossprobe.logs.lines import LogFile
from lossprobe.logs.objects import Object, Objects
from lossprobe.logs.records import Records, Table, number

DICT = re.compile(rb"\{'[^{}\n]{1,8000}\}")
PAIR = re.compile(rb"'([^'\n]{1,200})': (?:'([^'\n]{0,200})'|" + NUMBER + rb"(?=[,}]))")
PATTERN = re.compile(rb"\{'(?:[^{}\n]{0,4000}, )?'?(?:\w+_)?loss': ")
# A progress bar of the trainer has no words before it, unlike "Map: 100%|####| 10/10 [".
BAR = re.compile(rb"^ *\d+%\|[^|\n]{0,200}\| (\d+)/(\d+) \[", re.MULTILINE)
SAID = {
    "steps": re.compile(rb"Total optimization steps *= *([\d,]+)"),
    "epochs": re.compile(rb"Num Epochs *= *([\d,]+)"),
}
SPEED_DIGITS = 0.0005  # steps a second to which the speed is rounded
Floats = NDArray[np.float64]


def read_hf_console(file: LogFile) -> Records:
    """Return the numbers of the dicts that a log has, with steps where its progress bar and its epochs give them."""
    rows: list[Object] = []
    furthest: dict[int, int] = {}  # by the total of a progress bar
    said: dict[str, int] = {}
    for block in file.blocks():
        rows += [_row(found) for found in DICT.findall(block)]
        for done, total in BAR.findall(block):
            furthest[int(total)] = max(furthest.get(int(total), 0), int(done))
        said |= {name: int(found[1].replace(b",", b"")) for name, pattern in SAID.items()
                 if (found := pattern.search(block))}  # fmt: skip
    rows = [row for row in rows if row]
    note = _add_steps(rows, furthest, said)
    table = Table()
    Objects(table).add_block(rows)
    return table.records("hf_console", notes=[note] if note else [])


def _row(text: bytes) -> Object:
    pairs = ((key.decode("utf-8", "replace"), (quoted or bare).decode("utf-8", "replace"))
             for key, quoted, bare in PAIR.findall(text))  # fmt: skip
    return {key: value for key, text in pairs if (value := number(text)) is not None}


def _add_steps(rows: list[Object], furthest: dict[int, int], said: dict[str, int]) -> str | None:
    """Add a step to every row, and return a line about how, where steps of an epoch fit the epochs of the rows."""
    if any("step" in row for row in rows) or not any("loss" in row and "epoch" in row for row in rows):
        return None
    epochs = np.array([row.get("epoch", np.nan) for row in rows])
    train = np.array(["loss" in row for row in rows]) & np.isfinite(epochs)
    known = [("the progress bar", _steps_per_epoch(total, done, float(np.nanmax(epochs))))
             for total, done in furthest.items()]  # fmt: skip
    if said.get("steps") and said.get("epochs"):
        known.append(("the steps and epochs that the trainer says", said["steps"] / said["epochs"]))
    known += [("the speed in the last row", by_speed)] if (by_speed := _by_speed(rows, epochs[train])) else []
    for source, per_epoch in known:
        steps = _every(epochs[train], per_epoch)
        if steps is not None:
            for row, epoch in zip(rows, epochs, strict=True):
                if np.isfinite(epoch):
                    row["step"] = float(round(epoch * per_epoch))
            for index, step in zip(np.flatnonzero(train), steps, strict=True):
                rows[index]["step"] = float(step)
            return f"the rows have no steps: they follow from their epochs and {source}, {per_epoch:.6g} an epoch"
    return None


def _by_speed(rows: list[Object], epochs: Floats) -> float | None:
    """Return the steps of an epoch from the summary of a run, seconds times steps a second; None where it is too rough.

    The speed has three decimals, so it says only how many steps lie between rows, a whole number; the epochs of the
    rows say the rest: 167 rows to epoch 2.99 and 1,677 steps are 10 steps a row, and 559 an epoch.
    """
    keys = ("train_runtime", "train_steps_per_second")
    seconds, speed = next(([row[key] for key in keys] for row in reversed(rows) if set(keys) <= row.keys()), (0.0, 0.0))
    apart = seconds * speed / len(epochs)
    if not 0.5 <= apart < 0.4 * speed / SPEED_DIGITS or not (epochs > 0.0).all():
        return None
    steps = np.arange(1, len(epochs) + 1) * max(1.0, float(int(apart)))  # the run may go on for a part of them
    return float((steps * epochs).sum() / (epochs**2).sum())


def _steps_per_epoch(total: int, done: int, last_epoch: float) -> float:
    """Return the steps of an epoch; a run that ended early has a whole number of epochs ahead all the same."""
    if done == 0 or last_epoch <= 0:
        return float(total)
    epochs = total * last_epoch / done
    whole = max(1.0, round(epochs))
    return total / (whole if abs(epochs - whole) < 0.02 * whole else epochs)


def _every(epochs: Floats, per_epoch: float) -> Floats | None:
    """Return the steps of rows that were logged every k steps, perhaps also at step 1; None where no k fits.

    An epoch is rounded to two decimals, or to four digits, so that a row alone says its step only roughly: of 559 steps
    an epoch, 0.0179 is 10.006.
    """
    rough = epochs * per_epoch
    two_decimals = np.allclose(epochs, np.round(epochs, 2), rtol=0, atol=1e-9)
    slack = 0.6 + per_epoch * (0.0051 if two_decimals else 0.00051 * np.maximum(epochs, 0.001))
    count = np.arange(1, len(epochs) + 1, dtype=np.float64)
    slope = float(rough[-1] / len(epochs))
    for every in {max(1, round(slope) + change) for change in (0, -1, 1)}:
        for steps in (count * every, np.maximum((count - 1) * every, 1)):
            if (np.abs(steps - rough) <= slack).all():
                return steps
    return None
