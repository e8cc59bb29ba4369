"""Small training logs: as objects with known series, and as files of the shape that trainers write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lossprobe.logs.log import LEARNING_RATE, LOSS, TRAIN, VALIDATION, Log, Series


def falling(rows: int, first: float = 4.0, last: float = 2.0, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """Return losses that fall along an exponential with noise about it."""
    course = last + (first - last) * np.exp(-4.0 * np.arange(rows) / max(rows, 1))
    return course + np.random.default_rng(seed).normal(0.0, noise, rows)


def made_log(name: str = "log.json", rows: int = 200, every: int = 1, seed: int = 0, **changed) -> Log:
    """Return a healthy log with evaluations and learning rates; `changed` replaces its train or validation losses."""
    train = np.asarray(changed.get("train", falling(rows, seed=seed)), float)
    steps = np.arange(1, len(train) + 1) * every
    held_out = np.asarray(changed.get("validation", train[9::10] + 0.1), float)
    at = np.linspace(steps[0], steps[-1], len(held_out)).astype(int) if len(train) else np.zeros(0, int)
    series = [
        Series(TRAIN, LOSS, "loss", steps, train, epochs=steps / 100.0, tokens=steps * 2048.0),
        Series(VALIDATION, LOSS, "eval_loss", at, held_out),
        Series(
            TRAIN, LEARNING_RATE, "learning_rate", steps, 1e-3 * (1 - steps / (steps[-1] + 1) if len(steps) else steps)
        ),
    ]
    return Log(Path(name), "trainer_state", tuple(each for each in series if len(each.steps)))


def write_trainer_state(path: Path, log: Log) -> Path:
    """Write a log as transformers' Trainer does; NaN stands in it bare."""
    rows = [
        {"step": int(step), each.key: float(value)} | ({"epoch": float(step) / 100} if each.epochs is not None else {})
        for each in log.series
        for step, value in zip(each.steps, each.values, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"global_step": max(row["step"] for row in rows), "log_history": rows}))
    return path


def overfitted(name: str = "log.json") -> Log:
    """Return a log whose training loss falls on while its validation loss rises from the middle, by 0.5 nats."""
    evaluations = np.concatenate([np.linspace(4.0, 2.5, 10), np.linspace(2.53, 3.0, 10)])
    return made_log(name, train=falling(200, last=1.0), validation=evaluations)
