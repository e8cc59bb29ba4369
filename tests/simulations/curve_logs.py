"""Draws training logs whose truth is known: healthy ones of many kinds, and the same with one fault put in.

Nothing here knows the rules of `lossprobe.analysis.curve`. A run has a loss curve over steps (a power law to what
cannot be learned, the exponential of a fine-tune, or a preference loss that starts at ln 2), noise of its batches,
a schedule, and a way of logging: every step or the mean since the last row, now and then a running mean, rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

from lossprobe.logs.log import GRADIENT_NORM, LEARNING_RATE, LOSS, TRAIN, VALIDATION, Log, Restart, Series

VOCABULARIES = (65, 1024, 32_000, 50_257, 128_256, 151_936)
Rng = np.random.Generator


@dataclass
class Run:
    """A run before it is logged; arrays are one a row, float64 [N].

    `curve` is the true loss, `noise` its relative standard deviation in one row, `scatter` draws of unit size, `rate`
    relative to `peak`. `evaluations` are rows; `offset` is what the validation loss lies above the true one.
    `fault` changes the logged rows; `allowed` are diagnoses that are as true of this log as its own fault.
    """

    kind: str
    vocabulary: int
    known: bool
    interval: int
    curve: np.ndarray
    noise: float
    scatter: np.ndarray
    rate: np.ndarray
    peak: float
    logs_rate: bool
    epochs: float
    evaluations: np.ndarray
    offset: np.ndarray
    evaluation_noise: float
    decimals: int
    running_mean: bool
    lags: bool
    train_factor: float = 1.0
    train_shift: np.ndarray | float = 0.0
    restarts: tuple[Restart, ...] = ()
    scale: np.ndarray | None = None
    zero_gradient: np.ndarray | None = None
    allowed: set[str] = field(default_factory=set)

    @property
    def rows(self) -> int:
        return len(self.curve)

    @property
    def uniform(self) -> float:
        return math.log(self.vocabulary)

    @property
    def sd(self) -> float:
        """The noise of a row at the end of the run, nats."""
        return self.noise * float(self.curve[-1])


def draw_noise(rng: Rng, rows: int) -> np.ndarray:
    """Return noise of unit standard deviation: normal, heavy-tailed, or skewed upwards."""
    kind = rng.random()
    if kind < 0.5:
        return rng.standard_normal(rows)
    if kind < 0.8:
        freedom = float(rng.choice([3.5, 5.0, 8.0]))
        return rng.standard_t(freedom, rows) / math.sqrt(freedom / (freedom - 2.0))
    spread = rng.uniform(0.1, 0.5)
    drawn = np.exp(spread * rng.standard_normal(rows))
    return (drawn - math.exp(spread**2 / 2)) / math.sqrt((math.exp(spread**2) - 1) * math.exp(spread**2))


def alike(scatter: np.ndarray, share: float) -> np.ndarray:
    """Return noise each of whose values has a share of the one before in it; its standard deviation stays 1."""
    found = lfilter([math.sqrt(1.0 - share**2)], [1.0, -share], scatter)
    return np.asarray(found)


def draw_rate(rng: Rng, rows: int) -> tuple[np.ndarray, str]:
    """Return a learning rate relative to its highest, and the name of its schedule."""
    share = (np.arange(rows) + 1.0) / rows
    warm = rng.choice([0.0, rng.uniform(0.005, 0.1)])
    name = str(rng.choice(["cosine", "linear", "wsd", "constant", "step"]))
    left = np.clip((share - warm) / (1.0 - warm), 0.0, 1.0)
    floor = rng.choice([0.0, 0.1])
    rate = {
        "cosine": floor + (1 - floor) * (1 + np.cos(math.pi * left)) / 2,
        "linear": floor + (1 - floor) * (1 - left),
        "wsd": np.minimum(1.0, floor + (1 - floor) * (1 - left) / rng.uniform(0.1, 0.3)),
        "constant": np.ones(rows),
        "step": np.where(left < 0.6, 1.0, np.where(left < 0.85, 0.3, 0.1)),
    }[name]
    return np.where(share < warm, share / max(warm, 1e-9), np.maximum(rate, 1e-4)), name


def draw_curve(rng: Rng, kind: str, uniform: float, share: np.ndarray, first_share: float) -> np.ndarray:
    """Return the true loss over the shares of a run that has `first_share` of it before its first row."""
    if kind == "preference":
        return math.log(2.0) * (1.0 - rng.uniform(0.1, 0.8) * (1 - np.exp(-share / rng.uniform(0.1, 0.7))))
    if kind == "fine-tune":
        first = min(rng.uniform(0.7, 3.5), 0.45 * uniform)
        fast = 1 - np.exp(-share / rng.uniform(0.01, 0.1))
        return first * (1.0 - rng.uniform(0.04, 0.4) * (rng.uniform(0.5, 0.9) * fast + 0.15 * share))
    start = uniform + rng.uniform(0.0, 0.4)
    end = uniform * rng.uniform(0.22, 0.5)
    knee = max(rng.uniform(0.002, 0.05), first_share)
    curve = end + (start - end) * (1.0 + share / knee) ** -rng.uniform(0.4, 1.1)
    if rng.random() < 0.15:  # a plateau, then another fall, as when a skill is learned late
        drop = rng.uniform(0.05, 0.2) * (curve - 0.5 * end)
        curve -= drop / (1.0 + np.exp(-(share - rng.uniform(0.3, 0.8)) / rng.uniform(0.01, 0.06)))
    return curve


def draw_run(rng: Rng, kind: str | None = None, least: int = 20, most: int = 20_000) -> Run:
    """Return a healthy run of `least` to `most` rows."""
    kind = kind or str(rng.choice(["scratch", "fine-tune", "preference"], p=[0.55, 0.38, 0.07]))
    rows = int(math.exp(rng.uniform(math.log(least), math.log(most))))
    interval = int(rng.choice([1, 10, 50, 500]))
    vocabulary = int(rng.choice(VOCABULARIES[2:] if kind == "fine-tune" else VOCABULARIES))
    share = np.arange(rows) / rows
    rate, schedule = draw_rate(rng, rows)
    first = min(0.02, 30.0 / (rows * interval))
    curve = draw_curve(rng, kind, math.log(vocabulary), share, first)
    if schedule in ("wsd", "linear", "step"):  # the loss settles as the rate goes down
        curve = curve * (1.0 - rng.uniform(0.01, 0.05) * (1.0 - rate) * (share > 0.3))
    lags = interval > 1 and rng.random() < 0.6
    noise = math.exp(rng.uniform(math.log(0.004), math.log(0.4 if kind == "fine-tune" else 0.12)))
    if kind == "preference":
        noise = rng.uniform(0.03, 0.3)
    if lags:
        noise = max(noise / math.sqrt(interval), 0.001)
    epochs = float(rng.choice([0.0, 0.6, 1.0, 2.0, 3.0, 5.0]))
    if epochs > 1.0 and rng.random() < 0.7:  # what was seen is a little better known
        curve = curve * (1.0 - rng.uniform(0.0, 0.012)) ** np.floor(share * epochs)
    count = 0 if rows < 30 and rng.random() < 0.5 else int(rng.choice([0, 3, 5, 10, min(100, rows // 3)]))
    evaluations = (
        np.unique(np.linspace(rows / max(count, 1), rows - 1, count).astype(int)) if count else np.zeros(0, int)
    )
    progress = 1.0 - curve / curve[0]
    offset = curve * (rng.uniform(-0.08, 0.3) * np.minimum(1.0, 4 * progress) + rng.uniform(0.0, 0.01) * share)
    scatter = draw_noise(rng, rows)
    if rng.random() < 0.2:  # neighbouring batches are alike, as where sources take turns without a plan
        scatter = alike(scatter, rng.uniform(0.2, 0.8))
    if epochs > 1.0 and rng.random() < 0.15:  # the same batches in the same order in every epoch
        scatter = scatter[(np.arange(rows) % max(2, int(rows / epochs)))]
    return Run(
        kind, vocabulary, bool(rng.random() < 0.6), interval, curve, noise, scatter, rate,
        10.0 ** rng.uniform(-5, -2.5), bool(rng.random() < 0.7), epochs, evaluations, offset,
        math.exp(rng.uniform(math.log(2e-4), math.log(5e-3))),
        int(rng.choice([2, 3, 4, 6, 15], p=[0.05, 0.1, 0.4, 0.25, 0.2])),
        bool(rng.random() < 0.04), lags,
    )  # fmt: skip


def training_losses(run: Run) -> np.ndarray:
    """Return the training losses of the rows of a run as they are logged."""
    curve = run.curve
    if run.lags:  # the mean since the last row
        before = np.append(curve[0], curve[:-1])
        curve = (before + curve) / 2.0
    # An untrained model costs about ln V whatever the text, so that its batches hardly differ.
    known = np.ones(run.rows) if run.kind != "scratch" else np.minimum(1.0, 0.1 + 4.0 * np.abs(1.0 - curve / curve[0]))
    train = curve * (1.0 + run.noise * known * run.scatter) + run.train_shift
    train = np.where(curve > 0.0, np.maximum(train, 0.02 * curve), train)
    if run.running_mean:
        train = train[0] + np.asarray(lfilter([0.1], [1.0, -0.9], train - train[0]))
    train = np.round(train * run.train_factor, run.decimals)
    if run.zero_gradient is not None:
        train = np.where(run.zero_gradient, 0.0, train)
    return train


def logged(rng: Rng, run: Run) -> Log:
    """Return the log of a run."""
    steps, train = np.arange(1, run.rows + 1) * run.interval, training_losses(run)
    epochs = np.round(steps / steps[-1] * run.epochs, 2 if rng.random() < 0.5 else 6) if run.epochs else None
    series = [Series(TRAIN, LOSS, "loss", steps, train, epochs)]
    if len(run.evaluations):
        at = run.evaluations
        drawn = rng.standard_normal(len(at))
        validation = (run.curve + run.offset)[at] * (1.0 + run.evaluation_noise * drawn)
        series.append(Series(VALIDATION, LOSS, "eval_loss", steps[at], np.round(validation, max(4, run.decimals))))
    if run.logs_rate:
        series.append(Series(TRAIN, LEARNING_RATE, "learning_rate", steps, run.peak * run.rate))
    if run.zero_gradient is not None or rng.random() < 0.5:
        norm = np.exp(0.3 * rng.standard_normal(run.rows)) * (0.3 + run.curve)
        if run.zero_gradient is not None:
            norm[run.zero_gradient] = 0.0
        elif rng.random() < 0.1:  # steps that loss scaling skipped
            norm[: min(5, run.rows // 10)] = np.inf
        series.append(Series(TRAIN, GRADIENT_NORM, "grad_norm", steps, norm))
    if run.scale is not None:
        series.append(Series(TRAIN, "loss_scale", "loss_scale", steps, run.scale))
    vocabulary = run.vocabulary if run.known else None
    return Log(Path("log"), "simulated", tuple(series), run.restarts, vocabulary)


def healthy(rng: Rng) -> Run:
    """Return a healthy run; some restart without a step, some have a loss scale that does its work."""
    run = draw_run(rng)
    if rng.random() < 0.1 and run.rows > 60:
        row = int(rng.integers(20, run.rows - 20))
        run.restarts = (Restart((row + 3) * run.interval, row * run.interval, 3),)
    share = np.arange(run.rows) / run.rows
    if rng.random() < 0.05:  # a bump as the rate of a continued run warms up
        run.curve = run.curve * (
            1.0 + rng.uniform(0.01, 0.08) * np.exp(-(((share - rng.uniform(0.0, 0.7)) / 0.03) ** 2))
        )
    elif rng.random() < 0.05:  # harder training text from a row on
        run.train_shift = run.curve * rng.uniform(0.01, 0.06) * (share > rng.uniform(0.1, 0.7))
    if rng.random() < 0.1:
        run.scale = 65536.0 * 2.0 ** rng.integers(-2, 2, run.rows)
    if rng.random() < 0.05:
        run.scale = np.ones(run.rows)
    if len(run.evaluations) >= 5 and rng.random() < 0.2:  # over-fitting so mild that it is within noise
        share = run.evaluations / run.rows
        rise = np.interp(np.arange(run.rows) / run.rows, [0.8, 1.0], [0.0, 0.3 * run.evaluation_noise])
        run.offset = run.offset + run.curve * rise * (share.max() > 0.8)
    return run


def with_evaluations(rng: Rng, run: Run, least: int) -> Run:
    """Return a run with `least` evaluations or more."""
    if len(run.evaluations) < least:
        count = int(rng.integers(least, max(least + 1, min(40, run.rows // 2))))
        run.evaluations = np.unique(np.linspace(run.rows / count, run.rows - 1, count).astype(int))
    return run


def not_finite(rng: Rng) -> Run:
    """Losses that are NaN or infinite in 1 to 3 rows, or from a row to the end."""
    run = healthy(rng)
    row = int(rng.integers(1, run.rows))
    last = run.rows if rng.random() < 0.6 else min(run.rows, row + int(rng.integers(1, 4)))
    shift = np.zeros(run.rows)
    shift[row:last] = rng.choice([np.nan, np.inf])
    run.train_shift, run.running_mean = shift, False
    return run


def explosion(rng: Rng) -> Run:
    """The loss rises by 40 % of its level or more, and by 12 times the noise, and stays up."""
    run = draw_run(rng, rng.choice(["scratch", "fine-tune"]), least=30)
    run.noise = min(run.noise, 0.1)
    row = int(rng.uniform(0.1, 0.9) * run.rows)
    level = run.curve[row]
    size = max(level * math.exp(rng.uniform(math.log(0.4), math.log(3.0))), 12.0 * run.noise * level)
    width = max(1.0, rng.uniform(0.0, 0.02) * run.rows)
    rise = size * (1 - np.exp(-np.maximum(0, np.arange(run.rows) - row + 1) / width))
    run.curve = np.where(np.arange(run.rows) >= row, run.curve[row] + rise, run.curve)
    if row < run.rows * 0.35:
        run.allowed.add("learning-rate-too-high")
    return run


def spikes(rng: Rng) -> Run:
    """1 to 20 spikes of 20 times the noise of a row (to 40 where it is heavy-tailed) and 30 % of the level, or more."""
    run = draw_run(rng, rng.choice(["scratch", "fine-tune"]), least=80)
    run.running_mean = False
    shift = np.zeros(run.rows)
    row = np.arange(run.rows)
    heavy = 20.0 + 5.0 * min(4.0, max(0.0, float(np.abs(run.scatter).max()) / 5.0 - 1.0))
    for at in rng.uniform(0.1, 0.93, int(rng.integers(1, 21 if run.rows > 500 else 4))) * run.rows:
        level = run.curve[int(at)]
        size = max(heavy * run.noise * level, 0.3 * level) * math.exp(rng.uniform(0.0, 1.0))
        decay = max(0.3, rng.uniform(0.0, 0.003) * run.rows)
        if at < 0.25 * run.rows and level + size > 1.1 * run.curve[0]:  # above the start, at a high rate
            run.allowed.add("learning-rate-too-high")
        shift += np.where(row >= int(at), size * np.exp(-np.maximum(0, row - int(at)) / decay), 0.0)
    run.train_shift = shift
    return run


def not_learning(rng: Rng) -> Run:
    """A flat loss at what an untrained model has (falls by under 0.5 %), over 200 steps or more."""
    run = draw_run(rng, "scratch", most=5000)
    run.interval = max(run.interval, -(-200 // run.rows) + 1)
    run.vocabulary = run.vocabulary if run.known else int(rng.choice(VOCABULARIES[1:]))
    level = run.uniform * rng.uniform(0.9, 1.04)
    run.curve = level * (1.0 - rng.uniform(-0.003, 0.005) * np.arange(run.rows) / run.rows)
    run.noise = min(run.noise, 0.01 * math.sqrt(run.rows / 20.0))
    run.offset = np.full(run.rows, 0.003 * level)
    run.running_mean = False
    run.allowed.add("learning-rate-too-low")
    return run


def plateau(rng: Rng) -> Run:
    """The loss fell by 10 % or more and then, over the last half of the run at a constant rate, does not change;
    the noise allows to tell a change of .7 % over the last third.
    """
    run = draw_run(rng, "scratch", least=60)
    run.rate = np.ones(run.rows)
    run.curve = np.where(np.arange(run.rows) > 0.5 * run.rows, run.curve[run.rows // 2], run.curve)
    run.noise = min(run.noise, 0.003 * math.sqrt(run.rows / 30.0))
    run.scatter = draw_noise(rng, run.rows)
    run.offset = 0.03 * run.curve
    run.running_mean = False
    return run


def oscillation(rng: Rng) -> Run:
    """A cycle of 4 rows to a twelfth of the log, its height 4 times the noise or more, not quite regular."""
    run = draw_run(rng, rng.choice(["scratch", "fine-tune"]), least=120)
    run.running_mean, run.lags = False, False
    period = math.exp(rng.uniform(math.log(4.0), math.log(run.rows / 12.0)))
    height = 4.0 * math.exp(rng.uniform(0.0, 1.0)) * run.noise * run.curve
    phase = np.cumsum(2 * math.pi / period * (1.0 + 0.1 * rng.standard_normal(run.rows)))
    wave = np.sin(phase) if rng.random() < 0.6 else np.sign(np.sin(phase)) * 0.8
    run.train_shift = 0.5 * height * wave
    return run


def rate_too_high(rng: Rng) -> Run:
    """The loss rises by 40 % or more as the warm-up ends and stays or comes back as the rate decays; or it stays near
    the loss of single tokens, above .82 of ln V, while the rate is high.
    """
    run = draw_run(rng, "scratch", least=40)
    run.logs_rate, run.running_mean = True, False
    share = np.arange(run.rows) / run.rows
    run.noise = min(run.noise, 0.05)
    if rng.random() < 0.5:
        warm = rng.uniform(0.02, 0.15)
        run.rate = np.where(share < warm, (share + 1 / run.rows) / warm, (1 + np.cos(math.pi * share)) / 2)
        size = run.uniform * rng.uniform(0.4, 1.2)
        high = np.clip((run.rate - 0.6) / 0.2, 0.0, 1.0) * (share > 0.6 * warm)
        if rng.random() < 0.5:
            high = np.maximum.accumulate(high)
        run.curve = run.curve * (1 - high) + (run.curve[int(0.6 * warm * run.rows)] + size) * high
        run.allowed.add("explosion")
    else:
        level = run.uniform * rng.uniform(0.84, 0.92)
        run.rate = np.minimum(1.0, 2.0 - 2.0 * share) if rng.random() < 0.5 else (1 + np.cos(math.pi * share)) / 2
        low = np.maximum(0.0, 0.6 - run.rate) / 0.6
        run.curve = level + (run.uniform - level) * np.exp(-share / 0.01) - rng.uniform(0.02, 0.08) * run.uniform * low
        run.peak = 10.0 ** rng.uniform(-2.5, -1)
        run.noise = min(run.noise, 0.03)
        run.known = True
        run.allowed.add("not-learning")
    run.offset = 0.02 * run.curve
    return run


def rate_too_low(rng: Rng) -> Run:
    """The loss falls from ln V in a straight line by 4 to 15 %; or the rate is 0 over 15 % of the rows or more."""
    run = draw_run(rng, "scratch", least=30)
    run.logs_rate, run.running_mean = True, False
    if rng.random() < 0.5:
        end = int(rng.uniform(0.3, 0.85) * run.rows)
        run.rate = np.where(np.arange(run.rows) < end, np.interp(np.arange(run.rows), [0, end], [1.0, 0.0]), 0.0)
        run.curve = np.where(np.arange(run.rows) < end, run.curve, run.curve[end])
        run.offset = 0.03 * run.curve
        return run
    run.known = True
    learned = np.cumsum(run.rate) / run.rate.sum()
    fall = rng.uniform(0.04, 0.15)
    run.curve = run.uniform * (1.0 + rng.uniform(0, 0.02)) * (1.0 - fall * learned ** rng.uniform(0.92, 1.0))
    run.noise = min(run.noise, 0.08 * fall * math.sqrt(run.rows / 20.0))
    run.peak = 10.0 ** rng.uniform(-8, -6)
    run.offset = 0.005 * run.curve
    return run


def over_fitting(rng: Rng) -> Run:
    """After its lowest the validation loss rises by 3 % and 8 times its noise or more, over 3 evaluations or more."""
    run = with_evaluations(rng, draw_run(rng, rng.choice(["scratch", "fine-tune"]), least=30), 6)
    row = np.arange(run.rows) / run.rows
    turn = rng.uniform(0.25, 0.55)
    size = max(0.03, 8.0 * run.evaluation_noise) * math.exp(rng.uniform(0.0, 1.5))
    run.rate, run.known = run.rate, run.known
    run.curve = run.curve * (1.0 - rng.uniform(0.1, 0.5) * np.maximum(0.0, row - turn))
    validation = run.curve[int(turn * run.rows)] * 1.05
    before = run.curve * 1.05
    rise = validation * (1.0 + size * np.maximum(0.0, row - turn) / (1.0 - turn))
    run.offset = np.where(row < turn, before, rise) - run.curve
    return run


def wrong_start(rng: Rng) -> Run:
    """The first loss is 2 nats or more above ln V; or, at step 1, .65 to .9 of it. V is known."""
    run = draw_run(rng, "scratch", least=30)
    run.known, run.running_mean, run.noise = True, False, min(run.noise, 0.02)
    run.evaluations = run.evaluations[run.evaluations > 2]
    if rng.random() < 0.6:
        run.lags = False
        excess = math.exp(rng.uniform(math.log(2.0), math.log(60.0)))
        run.curve = run.curve + excess * np.exp(-np.arange(run.rows) / max(1.0, rng.uniform(0.001, 0.02) * run.rows))
    else:
        run.interval, run.lags = 1, False
        run.curve = run.curve * (run.uniform * rng.uniform(0.65, 0.9) / run.curve[0])
    return run


def memorising(rng: Rng) -> Run:
    """2 to 7 epochs of 20 rows or more; the loss falls at their edges by 30 % or more in all, and little inside."""
    epochs = int(rng.integers(2, 8))
    run = draw_run(rng, "fine-tune", least=20 * epochs, most=8000)
    run.epochs, run.running_mean = float(epochs), False
    run.noise = min(run.noise, 0.1)
    total = rng.uniform(0.3, 0.8)
    step = (1.0 - total) ** (1.0 / (epochs - 1))
    share = np.arange(run.rows) / run.rows * epochs
    inside = 1.0 - rng.uniform(-0.03, 0.03) * (share % 1.0)
    first = 1.0 + 0.1 * np.exp(-share / 0.05)
    run.curve = run.curve[0] * first * inside * step ** np.floor(share)
    run.noise = min(run.noise, 0.3 * (1 - step) * math.sqrt(run.rows / epochs / 20.0))
    run.offset = 0.05 * run.curve[0] + run.curve[0] * np.linspace(0, 0.0, run.rows) - (run.curve - run.curve[0] * 0.97)
    if len(run.evaluations):
        run.allowed.add("over-fitting")
    return run


def restart_jump(rng: Rng) -> Run:
    """At a restart the loss steps up or down by 5 to 25 %, and by 5 times the noise of a row or more."""
    run = draw_run(rng, rng.choice(["scratch", "fine-tune"]), least=60)
    run.running_mean = False
    row = int(rng.uniform(0.3, 0.8) * run.rows)
    run.noise = min(run.noise, 0.08)
    size = max(rng.uniform(0.05, 0.25), 5.0 * run.noise)
    sign = rng.choice([-1.0, 1.0])
    run.curve = np.where(np.arange(run.rows) >= row, run.curve * (1.0 + sign * min(size, 0.4)), run.curve)
    run.restarts = (Restart((row + 4) * run.interval, (row + 1) * run.interval, 4),)
    return run


def measured_differently(rng: Rng) -> Run:
    """One loss in bits and the other in nats; or 15 to 35 % more in training alone. 5 evaluations or more."""
    run = with_evaluations(rng, draw_run(rng, "scratch", least=40), 5)
    run.running_mean = False
    run.noise = min(run.noise, 0.05)
    run.offset = 0.01 * run.curve * np.minimum(1.0, 2 * (1 - run.curve / run.curve[0]))
    if rng.random() < 0.5:
        run.train_factor = float(rng.choice([1.0 / math.log(2.0), math.log(2.0)]))
        run.known = False
    else:
        run.train_shift = rng.uniform(0.15, 0.35) * run.curve * np.minimum(1.0, 5 * (1 - run.curve / run.curve[0]))
    return run


def smoothed_loss(rng: Rng) -> Run:
    """A training loss with a smoothing of .05 to .2 against a plain one, which falls to .4 of ln V. V is known, and
    there are 5 evaluations or more.
    """
    run = with_evaluations(rng, draw_run(rng, "scratch", least=60), 6)
    run.known, run.running_mean = True, False
    run.noise = min(run.noise, 0.03)
    run.offset = 0.01 * run.curve
    run.vocabulary = int(rng.choice(VOCABULARIES[1:]))
    run.curve = run.uniform * (0.4 + 0.6 * (run.curve - run.curve[-1]) / (run.curve[0] - run.curve[-1]))
    share = rng.uniform(0.05, 0.2)
    spread = run.uniform * (1.0 + rng.uniform(0.1, 0.6) * (1 - run.curve / run.curve[0]))
    run.train_shift = share * (spread - run.curve)
    run.allowed.add("measured-differently")
    return run


def accumulation_scale(rng: Rng) -> Run:
    """A training loss 2 to 32 times what it should be. 3 evaluations or more."""
    run = with_evaluations(rng, draw_run(rng, rng.choice(["scratch", "fine-tune"]), least=30), 3)
    run.running_mean = False
    run.noise = min(run.noise, 0.06)
    run.offset = run.curve * rng.uniform(-0.02, 0.03)
    run.train_factor = float(rng.choice([2, 3, 4, 8, 16, 32]))
    run.allowed.add("wrong-start")
    return run


def uniform(rng: Rng) -> Run:
    """From a row on the loss is exactly ln V."""
    run = draw_run(rng, rng.choice(["scratch", "fine-tune"]), least=20)
    run.running_mean, run.lags, run.decimals = False, False, max(4, run.decimals)
    row = min(int(rng.uniform(0.1, 0.8) * run.rows), run.rows - 8)
    after = np.arange(run.rows) >= row
    run.curve = np.where(after, run.uniform, run.curve)
    run.scatter = np.where(after, 0.0, run.scatter)
    run.offset = np.where(after, 0.0, run.offset)
    run.allowed |= {"explosion", "learning-rate-too-high"}
    return run


def nothing_trained(rng: Rng) -> Run:
    """Loss and gradient norm are 0, from the start or from a row on."""
    run = draw_run(rng, "fine-tune")
    row = int(rng.choice([0, rng.integers(0, run.rows - 5)]))
    run.zero_gradient = np.arange(run.rows) >= row
    run.running_mean = False
    return run


def overflow(rng: Rng) -> Run:
    """The loss scale is halved again and again, to 16 or less."""
    run = draw_run(rng)
    low = float(rng.choice([1.0, 2.0, 16.0, 2.0**-10]))
    row = np.arange(run.rows)
    start, end = sorted(rng.uniform(0.0, 1.0, 2) * run.rows)
    falls = np.clip((row - start) / max(8.0, end - start), 0, 1)
    run.scale = 2.0 ** np.round(16 - (16 - math.log2(low)) * falls)
    run.scale[-1] = low
    return run


FAULTS: dict[str, Callable[[Rng], Run]] = {
    "not-finite": not_finite,
    "nothing-trained": nothing_trained,
    "uniform": uniform,
    "explosion": explosion,
    "learning-rate-too-high": rate_too_high,
    "fp16-overflow": overflow,
    "not-learning": not_learning,
    "learning-rate-too-low": rate_too_low,
    "over-fitting": over_fitting,
    "accumulation-scale": accumulation_scale,
    "memorising": memorising,
    "restart-jump": restart_jump,
    "spikes": spikes,
    "oscillation": oscillation,
    "wrong-start": wrong_start,
    "measured-differently": measured_differently,
    "smoothed-loss": smoothed_loss,
    "plateau": plateau,
}


def is_flat(run: Run) -> bool:
    """Return whether the true loss of a run changes by under 1 % over its last third, at a rate that is not low."""
    third = (run.curve + np.nan_to_num(run.train_shift, posinf=0.0))[2 * run.rows // 3 :]
    flat = float(np.ptp(third)) < 0.01 * abs(float(third[0]))
    return flat and (not run.logs_rate or float(run.rate[2 * run.rows // 3 :].mean()) > 0.2)
