"""Writes the finding on the calibration of a model: whole distribution, first choices and temperature, in one line.

The loss that a model expects of itself is its entropy. A loss above it means too little probability on what comes: the
model is over-confident; a loss below it, under-confident. A verdict needs a 95 % interval without 0.
"""

from __future__ import annotations

from lossprobe.analysis.calibration.temperature import Temperature
from lossprobe.analysis.stats.resampling import CalibrationMeasure


def calibration_finding(measures: dict[str, CalibrationMeasure], temperature: Temperature) -> str:
    """Return the verdicts on the whole distribution and on first choices, each with its number, and the temperature."""
    excess, gap, ece = (measures[name] for name in ("nll_minus_entropy_nats", "confidence_gap", "ece"))
    whole = confidence_word(excess)
    distribution = f"{whole} over the whole distribution" if whole else "whole distribution: no miscalibration shown"
    if excess.interval.low is None:
        distribution = "whole distribution"
    distribution += f", NLL − entropy {_shown(excess, ' nats')}"
    if excess.z is not None:
        distribution += f", z {excess.z:+.1f}"
    first = confidence_word(gap)
    choices = f"first choices {first}" if first else "first choices: no gap shown"
    if gap.interval.low is None:
        choices = "first choices"
    choices += f", confidence − accuracy {_shown(gap)}, ECE {ece.value:.3f} (noise floor {ece.noise_floor:.3f})"
    return f"{distribution}; {choices}; {_temperature_words(temperature)}"


def confidence_word(measure: CalibrationMeasure) -> str:
    """Return "over-confident" or "under-confident" where the interval of an excess says so, "" where it does not."""
    low, high = measure.interval
    if low is None or high is None or low <= 0.0 <= high:
        return ""
    return "over-confident" if low > 0.0 else "under-confident"


def _temperature_words(temperature: Temperature) -> str:
    if temperature.temperature is None:
        return "no temperature fit"
    text = f"best temperature {temperature.temperature:.3f}"
    ece = temperature.table.set_index("measure").loc["ece"]
    if ece["low"] > 0.0:
        text += f", which makes ECE worse: {ece['before']:.3f} → {ece['after']:.3f}"
    return text


def _shown(measure: CalibrationMeasure, unit: str = "") -> str:
    if measure.interval.low is None:
        return f"{measure.value:+.3f}{unit} (no interval)"
    return f"{measure.value:+.3f} {measure.interval.shown('+.3f')}{unit}"
