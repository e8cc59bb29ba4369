"""What the calibration of a model says: the whole distribution, first choices, temperature, smoothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lossprobe.analysis.findings.rule import Clue, FindingRule
from lossprobe.analysis.findings.words import between, percent, signed, with_interval

if TYPE_CHECKING:
    from lossprobe.analysis.calibration.calibration import Calibration, ModelCalibration
    from lossprobe.analysis.stats.interval import Interval

EXCESS_NATS, GAP, TOP_GAP, TEMPERATURE, SMOOTHING = 0.03, 0.02, 0.01, 0.1, 0.01
TOP = 0.9  # bins that lie above it are looked at
TEMPERATURE_CLUSTERS = 200  # that the interval of a temperature resamples at most
COMMAND = "lossprobe calibration --plot RUN"
LESS = "the model expects {x} less loss than it has: over-confident"
MORE = "the model expects {x} more loss than it has: under-confident"
UNDER = "first choices are under-confident by {x}"


def _of(result: Calibration, model: ModelCalibration, sentence: str) -> str:
    """Return a sentence, with the model's name where there are several."""
    return sentence if len(result.models) == 1 else f"{model.name}: {sentence}"


def _measure(name: str, sentence: str, form: str, unit: str, sign: int = 1) -> Callable[[Calibration], Iterator[Clue]]:
    """Return what looks at a signed measure of every model; the sentence tells it times the sign."""

    def look(result: Calibration) -> Iterator[Clue]:
        for model in result.models:
            measure = model.measures[name]
            if measure.value is not None:
                shown = with_interval(sign * measure.value, signed(measure.interval, sign), form, unit)
                yield Clue(
                    measure.value, _of(result, model, sentence.format(x=shown)), measure.interval, model.clusters,
                    about=model.name, looks=len(result.models), tokens=model.tokens_scored,
                )  # fmt: skip

    return look


def _top(result: Calibration) -> Iterator[Clue]:
    for model in result.models:
        bins = model.bins[model.bins["binning"] == "equal width"].to_dict("records")
        upper = [row for row in bins if row["low"] > TOP and row["count"]]
        for row in upper:
            interval = between(row["gap_low"], row["gap_high"])
            shown = with_interval(row["gap"], interval, ".3f", "")
            sentence = (
                f"over-confident above {row['low']:.2f}: first choices with {row['mean_probability']:.3f} on average "
                f"are right in {percent(row['hit_rate'])}, a gap of {shown}"
            )
            yield Clue(
                row["gap"], _of(result, model, sentence), interval, model.clusters, about=model.name,
                looks=len(result.models) * len(upper), tokens=int(row["count"]),
            )  # fmt: skip


def _temperature(result: Calibration) -> Iterator[Clue]:
    for model in result.models:
        fit = model.temperature
        low, high = fit.temperature_interval
        if fit.temperature is None or low is None or high is None or low <= 0:
            continue
        sign = 1.0 if fit.temperature > 1.0 else -1.0
        ends = sorted(sign * math.log(end) for end in (low, high))
        what = "over" if sign > 0 else "under"
        shown = with_interval(fit.temperature, fit.temperature_interval, ".2f", "")
        yield Clue(
            sign * math.log(fit.temperature),
            _of(result, model, f"the best temperature is {shown}: {what}-confident as a whole"),
            between(*ends), min(model.clusters, TEMPERATURE_CLUSTERS), about=model.name, looks=len(result.models),
            tokens=model.tokens_scored,
        )  # fmt: skip


def _smoothing(result: Calibration) -> Iterator[Clue]:
    for model in result.models:
        seen = model.effective_smoothing
        if seen.epsilon is None or seen.slope_epsilon is None:
            continue
        interval: Interval = seen.slope_epsilon_interval
        shown = with_interval(seen.slope_epsilon, interval, ".3f", "")
        yield Clue(
            seen.slope_epsilon,
            _of(result, model, f"predictions look smoothed by ε ≈ {seen.epsilon:.2g} (by the slope {shown})"),
            interval, model.clusters, about=model.name, looks=len(result.models), tokens=model.tokens_scored,
        )  # fmt: skip


CALIBRATION_RULES = (
    FindingRule(
        "expects-less-loss", "warning", "calibration", "the model expects less loss than it has", EXCESS_NATS, "nats",
        "mean loss minus mean entropy of the predicted distributions",
        "0 for a calibrated model; 0.03 nats are 3 % of perplexity that a temperature could mend in part.",
        "Over-confident over the whole distribution, as after over-training or on another kind of text: a temperature "
        "above 1, smoothing, or fewer steps.",
        COMMAND, _measure("nll_minus_entropy_nats", LESS, ".3f", " nats"),
    ),
    FindingRule(
        "expects-more-loss", "warning", "calibration", "the model expects more loss than it has", -EXCESS_NATS, "nats",
        "mean loss minus mean entropy of the predicted distributions",
        "0 for a calibrated model; −0.03 nats are 3 % of perplexity.",
        "Under-confident, as after label smoothing or dropout that was left on: a temperature below 1.",
        COMMAND, _measure("nll_minus_entropy_nats", MORE, ".3f", " nats", -1), below=True,
    ),
    FindingRule(
        "over-confident-choices", "warning", "calibration", "first choices are right less often than their probability",
        GAP, "probability", "mean probability of the first choice minus the share of right ones",
        "2 points: in decoding, thresholds and cascades, they show.",
        "A temperature above 1; look at which confidences are off.",
        COMMAND, _measure("confidence_gap", "first choices are over-confident by {x}", ".3f", ""),
    ),
    FindingRule(
        "under-confident-choices", "warning", "calibration", "first choices are right more often than their "
        "probability",
        -GAP, "probability", "mean probability of the first choice minus the share of right ones",
        "2 points, as label smoothing of 0.02 and more makes.",
        "A temperature below 1, or no smoothing; ranks are not affected.",
        COMMAND, _measure("confidence_gap", UNDER, ".3f", "", -1),
        below=True,
    ),
    FindingRule(
        "over-confident-top", "warning", "calibration", "over-confident where it is nearly sure", TOP_GAP,
        "probability",
        "mean probability minus the share of right ones, of first choices above 0.93",
        "Above 0.9 a point is a tenth of all that can be wrong there.",
        "Sure and wrong: known text that changed, copied passages, over-training. Look at the hardest tokens.",
        COMMAND, _top,
    ),
    FindingRule(
        "temperature-far", "note", "calibration", "the best temperature is far from 1", TEMPERATURE, "log T",
        "|ln T| of the temperature with the least loss",
        "10 %: sampling at temperature 1 is not what the model knows best.",
        "Decode at this temperature, or compare models after each one's own.",
        COMMAND, _temperature,
    ),
    FindingRule(
        "smoothing-seen", "note", "calibration", "the predictions look like those of label smoothing", SMOOTHING, "ε",
        "ε by the accuracy of first choices against their confidence; told where two other estimates agree",
        "Below 0.01 three estimates cannot be told from none.",
        "Its perplexity is not comparable with that of a model trained without: compare after temperature, or with the "
        "smoothing removed.",
        COMMAND, _smoothing,
    ),
)  # fmt: skip
