"""Models on the same tokens, each against the first: what label smoothing changed, before and after temperature.

Both losses are the plain −log p of the token. A smoothed model spreads part of its probability over the vocabulary,
q = (1 − ε) p + ε / K, and pays for it at most

    KL(p‖q) ≤ −log(1 − ε) nats per token, a perplexity at most 1 / (1 − ε) times as high

whereas an over-trained model without smoothing pays for its over-confidence. A temperature repairs much of that, so
that the comparison is made with each model's own temperature as well, fitted on the documents that it is not used on.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from lossprobe.analysis.calibration.effective_smoothing import CAVEATS, EffectiveSmoothing
from lossprobe.analysis.calibration.temperature import TemperedRows
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.outcomes import CORRECT, TOP5
from lossprobe.analysis.rows.paired import Ints, PairedRows, PairedSums, paired_sums
from lossprobe.analysis.stats.interval import Estimate
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.resampling import Floats, at_most
from lossprobe.run.reader import Run
from lossprobe.units import format_count, perplexity, plural

LOSS_EDGES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, math.inf)
COLUMNS = {"nats": "loss_nats", "correct": CORRECT, "top5": TOP5}
NOTHING = Estimate(math.nan)
NO_TEST = "no test was possible: an interval needs two documents, or in a single one two blocks of 4,096 tokens"
MEASURES = {
    "nll_difference_nats": "nats per token",
    "perplexity_ratio": "ratio",
    "nll_difference_after_temperature_nats": "nats per token",
    "accuracy_difference": "share of tokens",
    "top5_accuracy_difference": "share of tokens",
    "perplexity_inflation_bound": "ratio",
}


@dataclass(frozen=True)
class MeasuredModel:
    """One model of a comparison, with what was read of its run already.

    Attributes:
        name: of the model; no two have the same.
        run: its run.
        tempered: the sampled rows before and after temperature.
        smoothing: the label smoothing that its predictions look like.
    """

    name: str
    run: Run
    tempered: TemperedRows
    smoothing: EffectiveSmoothing


@dataclass(frozen=True)
class SmoothingPanel:
    """Models against the first one, on the same tokens; differences are second − first.

    Intervals are 95 % jackknife-t over documents (blocks in a single document); NaN where there is none.

    Attributes:
        table: one row per model and measure: first, second, measure, value, low, high, unit. Measures:
            nll_difference_nats, perplexity_ratio (its exponential), nll_difference_after_temperature_nats (each model
            at its own temperature, over the tokens of the temperature sample), accuracy_difference,
            top5_accuracy_difference (a tie counts against the model), perplexity_inflation_bound (1 / (1 − ε) of the
            second model, as stated or as its predictions show it, else NaN).
        decomposition: where the difference comes from, one row per model and range of the mean loss of both models:
            first, second, loss_low_nats, loss_high_nats (excluded), tokens, share_of_tokens, mean_difference_nats, low,
            high, contribution_nats (mean_difference_nats · share_of_tokens; they sum to nll_difference_nats).
        smaller_nll: two rows per model: first, second, temperature ("none" or "its own"), smaller (name of the model
            with the lower loss, "equal", or "n/a"), clear (whether the interval excludes 0).
        notes: what a reader must know, one line each.
    """

    table: pd.DataFrame = field(repr=False)
    decomposition: pd.DataFrame = field(repr=False)
    smaller_nll: pd.DataFrame = field(repr=False)
    notes: list[str]

    @property
    def finding(self) -> str:
        """The result in one line."""
        before, after = (
            self.table[self.table["measure"] == measure].to_dict("records")
            for measure in ("nll_difference_nats", "nll_difference_after_temperature_nats")
        )
        winners = self.smaller_nll.to_dict("records")
        return "; ".join(
            f"{one['second']} − {one['first']}: {_shown(one)} before temperature{_lower(winners[2 * index], one)}, "
            f"{_shown(other)} after{_lower(winners[2 * index + 1], other)}"
            for index, (one, other) in enumerate(zip(before, after, strict=True))
        )


def compare_models(models: Sequence[MeasuredModel], epsilon: float | None = None) -> SmoothingPanel:
    """Return the comparison of models with the first of them, on the same tokens; see `same_tokens.same_tokens`.

    Args:
        models: the models; the first one is what the others are compared with.
        epsilon: label smoothing that the others were trained with, for the bound; None to go by their predictions.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is NaN or infinite, which scoring never writes.
    """
    tables, parts, winners, notes = [], [], [], []
    first = models[0]
    for second in models[1:]:
        pair = {"first": first.name, "second": second.name}
        sums = compare_tokens(first.run, second.run)
        after, sampled = after_temperature(first.tempered, second.tempered)
        trained_with = second.smoothing.epsilon if epsilon is None else epsilon
        measures = _measures(sums, after, trained_with)
        tables.append(_measure_table(pair, measures))
        parts.append(_decomposition(pair, sums))
        winners += [
            {**pair, "temperature": "none", **_winner(pair, measures["nll_difference_nats"])},
            {**pair, "temperature": "its own", **_winner(pair, after)},
        ]
        notes += _notes(pair, sums, sampled, held_out=first.tempered.held_out and second.tempered.held_out)
        if any(each.interval.low is None for each in (measures["nll_difference_nats"], after)):
            notes.append(f"{second.name} − {first.name}: {NO_TEST}")
        if trained_with is None:
            notes.append(f"perplexity_inflation_bound of {second.name}: n/a, {second.smoothing.verdict}")
    return SmoothingPanel(
        table=pd.concat(tables, ignore_index=True),
        decomposition=pd.concat(parts, ignore_index=True),
        smaller_nll=pd.DataFrame(winners),
        notes=[*notes, *CAVEATS],
    )


def compare_tokens(first: Run, second: Run) -> PairedSums:
    """Return sums of second − first by cluster and by range of the mean loss of both: nats, correct, top5, tokens.

    The ranges are of the mean, since binning on one of two noisy losses makes the other look closer to the average
    than it is (regression to the mean).
    """
    inner = np.array(LOSS_EDGES[1:-1])

    def differences(rows: PairedRows) -> dict[str, Floats]:
        return {name: values[1] - values[0] for name, values in rows.values.items()}

    def loss_range(rows: PairedRows) -> Ints:
        ranges: Ints = np.digitize(rows.values["nats"].mean(axis=0), inner)
        return ranges

    clusters = at_most(find_clusters(first))
    return paired_sums([first, second], COLUMNS, clusters, differences, (loss_range, len(inner) + 1))


def after_temperature(first: TemperedRows, second: TemperedRows) -> tuple[Estimate, int]:
    """Return the mean difference of tempered losses, second − first, over the tokens in both samples, and their number.

    It is NaN where there are no such tokens.
    """
    keys = ["document", "token"]
    one = pd.DataFrame({key: getattr(first, key) for key in (*keys, "cluster", "tempered_loss_nats")})
    other = pd.DataFrame({key: getattr(second, key) for key in (*keys, "tempered_loss_nats")})
    both = one.merge(other, on=keys, suffixes=("_first", "_second"), validate="one_to_one")
    both["nats"] = both["tempered_loss_nats_second"] - both["tempered_loss_nats_first"]
    sums = both.groupby("cluster")["nats"].agg(["sum", "count"])
    return _ratio(sums["sum"].to_numpy(float), sums["count"].to_numpy(float)), len(both)


def _ratio(numerator: Floats, tokens: Floats) -> Estimate:
    """Return Σ numerator / Σ tokens [G] over the clusters with tokens, NaN without any."""
    own = tokens > 0
    return jackknife_ratio(numerator[own], tokens[own]) if own.any() else NOTHING


def _measures(sums: PairedSums, after: Estimate, epsilon: float | None) -> dict[str, Estimate]:
    """Return the numbers of the table under the names of `MEASURES`."""
    totals = {name: total.sum(axis=1) for name, total in sums.sums.items()}
    nats, correct, top5 = (_ratio(totals[name], totals["tokens"]) for name in COLUMNS)
    bound = math.nan if epsilon is None else 1.0 / (1.0 - epsilon)
    values = (nats, nats.map(perplexity), after, correct, top5, Estimate(bound))
    return dict(zip(MEASURES, values, strict=True))


def _measure_table(pair: dict[str, str], measures: dict[str, Estimate]) -> pd.DataFrame:
    rows = [
        {**pair, "measure": name, "value": found.value, **found.interval._asdict(), "unit": unit}
        for (name, found), unit in zip(measures.items(), MEASURES.values(), strict=True)
    ]
    return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})


def _decomposition(pair: dict[str, str], sums: PairedSums) -> pd.DataFrame:
    nats, tokens = sums.sums["nats"], sums.sums["tokens"]
    whole = max(1.0, float(tokens.sum()))
    rows = []
    for index, (low, high) in enumerate(pairwise(LOSS_EDGES)):
        mean = _ratio(nats[:, index], tokens[:, index])
        count = int(tokens[:, index].sum())
        rows.append(
            {
                **pair, "loss_low_nats": low, "loss_high_nats": high,
                "tokens": count, "share_of_tokens": count / whole,
                "mean_difference_nats": mean.value, **mean.interval._asdict(),
                "contribution_nats": float(nats[:, index].sum()) / whole,
            }
        )  # fmt: skip
    return pd.DataFrame(rows).astype({"mean_difference_nats": float, "low": float, "high": float})


def _winner(pair: dict[str, str], difference: Estimate) -> dict[str, object]:
    low, high = difference.interval
    clear = low is not None and high is not None and not low <= 0.0 <= high
    if math.isnan(difference.value):
        return {"smaller": "n/a", "clear": False}
    if difference.value == 0.0:
        return {"smaller": "equal", "clear": clear}
    return {"smaller": pair["first" if difference.value > 0 else "second"], "clear": clear}


def _notes(pair: dict[str, str], sums: PairedSums, sampled: int, *, held_out: bool) -> list[str]:
    tokens = int(sums.sums["tokens"].sum())
    named = f"{pair['second']} − {pair['first']}"
    after = f"{format_count(sampled)} of them" if sampled else "none of them, which have no temperature in common"
    notes = [f"{named}: over {plural(tokens, 'token')}; after temperature over {after}"]
    if sampled and not held_out:
        notes.append(f"{named}: after temperatures that were fitted to the same tokens, there is no other half")
    if sums.left_out:
        notes.append(f"{named}: {plural(sums.left_out, 'token')} that only one of them scored left out")
    return notes


def _shown(row: dict[Hashable, Any]) -> str:
    if math.isnan(row["value"]):
        return "n/a"
    ends = "" if math.isnan(row["low"]) else f" [{row['low']:+.4f}, {row['high']:+.4f}]"
    return f"{row['value']:+.4f} nats{ends}"


def _lower(winner: dict[Hashable, Any], difference: dict[Hashable, Any]) -> str:
    if winner["smaller"] in ("equal", "n/a"):
        return ""
    if math.isnan(difference["low"]):
        return " (no interval, so no test)"
    return f" ({winner['smaller']} is lower)" if winner["clear"] else " (not clear which is lower)"
