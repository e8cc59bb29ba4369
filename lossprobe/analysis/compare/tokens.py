"""Two models on the same tokens: how much they differ, beyond the noise of the text or not, and where.

d = loss of the second − loss of the first, per token, in nats: positive where the second model is worse. Two models
find the same tokens hard, so that d varies far less than either loss, and small changes show on short texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.compare.sums import BINS_PER_OCTAVE, CompareSums, compare_sums
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.comparable import differing
from lossprobe.analysis.rows.differences import TRANSITION_RULE, GroupSums, mean_changes
from lossprobe.analysis.stats.power import DETECTABLE, tokens_to_decide, tokens_to_detect
from lossprobe.analysis.stats.resampling import at_most
from lossprobe.run.names import distinct_names
from lossprobe.run.reader import Run
from lossprobe.units import format_count, perplexity, plural

ONE_PERCENT = math.log(1.01)
UNITS = {
    "mean_difference_nats": "nats per token",
    "perplexity_ratio": "ratio",
    "accuracy_difference": "share of tokens",
    "correlation": "",
    "sd_difference_nats": "nats",
    "design_effect": "ratio",
    "p_value": "",
    "minimum_detectable_nats": "nats per token",
    "tokens": "tokens",
    "left_out": "tokens",
    "clusters": "count",
    "tokens_for_one_percent": "tokens",
    "tokens_to_decide": "tokens",
    "forgotten": "tokens",
    "learned": "tokens",
}


@dataclass(frozen=True)
class Comparison:
    """Two runs of the same tokens; differences are second − first, so that positive means the second is worse.

    Intervals are 95 % delete-one jackknife-t intervals over documents (blocks in a single document), [low, high]. A
    number is None where it cannot be given; `notes` says why.

    Attributes:
        first, second: names of the models, distinct.
        tokens: tokens that both scored; left_out: tokens that only one of them scored.
        clusters: how many documents (or blocks), merged into at most 1,000 groups; interval_unit: "document", "block".
        mean_difference_nats: mean d, and mean_difference_interval.
        perplexity_ratio: second / first, its exponential, and perplexity_ratio_interval.
        accuracy_difference: in the share of tokens whose first choice was right, and accuracy_difference_interval.
        correlation: of the two losses over the tokens (Pearson).
        sd_difference_nats: standard deviation of d over the tokens.
        design_effect: variance of the mean over clusters, divided by that of independent tokens.
        p_value: two-sided, of no difference; Student's t with clusters − 1 degrees of freedom. 1 for identical losses.
        minimum_detectable_nats: the difference that a text like this one shows with 80 % power at the 5 % level, 2.8
            standard errors.
        tokens_for_one_percent: tokens needed to detect 1 % more perplexity (ln 1.01 nats) like that.
        tokens_to_decide: how many tokens in all until the interval would exclude 0 if the mean stayed as it is (an even
            chance, since the mean moves as well); None where it does already, or never would.
        verdict: "NAME is better", "NAME is worse" (of the second), or "no difference shown".
        identical: whether every d is exactly 0.
        forgotten, learned: tokens by `differences.TRANSITION_RULE`.
        by_position: d by context, one row per octave: context, context_last, tokens, clusters, mean_difference_nats,
            low, high (NaN with fewer than two clusters).
        cumulative: share_of_tokens, share_of_change: how much of Σ |d| the most changed tokens carry; NaN without any.
        scatter: tokens by both losses, in cells that hold some: first_low_nats, second_low_nats (lower edges of the
            cell), width_nats (cells from 20 nats on are open), count.
        table: one row per measure: measure, value, low, high, unit.
        notes: what a reader must know, one line each.
    """

    first: str
    second: str
    tokens: int
    left_out: int
    clusters: int
    interval_unit: str
    mean_difference_nats: float | None
    mean_difference_interval: list[float | None]
    perplexity_ratio: float | None
    perplexity_ratio_interval: list[float | None]
    accuracy_difference: float | None
    accuracy_difference_interval: list[float | None]
    correlation: float | None
    sd_difference_nats: float | None
    design_effect: float | None
    p_value: float | None
    minimum_detectable_nats: float | None
    tokens_for_one_percent: int | None
    tokens_to_decide: int | None
    verdict: str
    identical: bool
    forgotten: int
    learned: int
    by_position: pd.DataFrame = field(repr=False)
    cumulative: pd.DataFrame = field(repr=False)
    scatter: pd.DataFrame = field(repr=False)
    notes: list[str]

    @property
    def table(self) -> pd.DataFrame:
        """One row per measure: measure, value, low, high, unit; NaN where there is no number."""
        intervals = {
            "mean_difference_nats": self.mean_difference_interval,
            "perplexity_ratio": self.perplexity_ratio_interval,
            "accuracy_difference": self.accuracy_difference_interval,
        }
        rows = [(name, getattr(self, name), *intervals.get(name, (None, None)), unit) for name, unit in UNITS.items()]
        frame = pd.DataFrame(rows, columns=["measure", "value", "low", "high", "unit"])
        return frame.astype({"value": float, "low": float, "high": float})

    @property
    def finding(self) -> str:
        """The result in one line."""
        if self.mean_difference_nats is None or self.perplexity_ratio is None:
            return f"{self.second} − {self.first}: no token that both scored"
        if self.identical:
            return f"{self.second} − {self.first}: identical on {plural(self.tokens, 'token')}"
        low, high = self.mean_difference_interval
        interval = "no interval" if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"
        text = (
            f"{self.second} − {self.first}: {self.mean_difference_nats:+.4f} nats {interval}, perplexity × "
            f"{self.perplexity_ratio:.4f}: {self.verdict}"
        )
        if self.tokens_to_decide is not None:
            text += f"; about {format_count(self.tokens_to_decide)} tokens would decide if the mean stayed as it is"
        return text


def compare_runs(first: Run, second: Run) -> Comparison:
    """Return the comparison of two runs of the same tokens; see `comparable.same_tokens`.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is NaN or infinite, which scoring never writes.
    """
    clusters = at_most(find_clusters(first))
    sums = compare_sums(first, second, clusters)
    names = distinct_names([first, second])
    difference, accuracy = _whole(sums.by_octave), _whole(sums.correct)
    tokens, sd = sums.losses.count, sums.losses.sd_difference
    identical = tokens > 0 and not sums.sizes.sums.any()
    ratios = [None if nats is None else perplexity(nats) for nats in (difference.value, *difference.ends)]
    return Comparison(
        first=names[0],
        second=names[1],
        tokens=tokens,
        left_out=sums.left_out,
        clusters=difference.clusters,
        interval_unit=clusters.unit,
        mean_difference_nats=difference.value,
        mean_difference_interval=difference.ends,
        perplexity_ratio=ratios[0],
        perplexity_ratio_interval=ratios[1:],
        accuracy_difference=accuracy.value,
        accuracy_difference_interval=accuracy.ends,
        correlation=sums.losses.correlation,
        sd_difference_nats=sd,
        design_effect=tokens * difference.error**2 / sd**2 if difference.error is not None and sd else None,
        p_value=difference.p_value,
        minimum_detectable_nats=None if difference.error is None else DETECTABLE * difference.error,
        tokens_for_one_percent=tokens_to_detect(ONE_PERCENT, difference.error, tokens),
        tokens_to_decide=tokens_to_decide(difference.value, difference.error, tokens, difference.clusters),
        verdict=_verdict(difference, names[1]),
        identical=identical,
        forgotten=sums.forgotten,
        learned=sums.learned,
        by_position=_positions(sums),
        cumulative=sums.sizes.table(),
        scatter=sums.pairs.table(),
        notes=_notes(first, second, clusters.note, sums),
    )


@dataclass(frozen=True)
class _Mean:
    """A mean difference over all tokens: None where it, its error or its interval cannot be given."""

    value: float | None = None
    error: float | None = None
    ends: list[float | None] = field(default_factory=lambda: [None, None])
    p_value: float | None = None
    clusters: int = 0


def _whole(sums: GroupSums) -> _Mean:
    """Return the mean over all groups."""
    nats, tokens = sums.nats.sum(axis=0), sums.tokens.sum(axis=0)
    found = mean_changes(nats[None], tokens[None]).to_dict("records")
    if not found:
        return _Mean()
    given = {str(name): None if math.isnan(value) else value for name, value in found[0].items()}
    ends = [given["low"], given["high"]]
    return _Mean(given["mean_difference_nats"], given["error"], ends, given["p_value"], int(found[0]["clusters"]))


def _verdict(difference: _Mean, second: str) -> str:
    low, high = difference.ends
    if low is not None and low > 0.0:
        return f"{second} is worse"
    if high is not None and high < 0.0:
        return f"{second} is better"
    return "no difference shown"


def _positions(sums: CompareSums) -> pd.DataFrame:
    table = mean_changes(sums.by_octave.nats, sums.by_octave.tokens)
    first = 2 ** table["key"].to_numpy(np.int64)
    table.insert(0, "context", first)
    table.insert(1, "context_last", np.minimum(2 * first - 1, sums.longest))
    return table[["context", "context_last", "tokens", "clusters", "mean_difference_nats", "low", "high"]]


def _notes(first: Run, second: Run, clusters_note: str | None, sums: CompareSums) -> list[str]:
    notes = [clusters_note] if clusters_note else []
    different = differing(first, second)
    if different:
        notes.append(f"the runs differ in {', '.join(different)}; positions are the first one's")
    if sums.left_out:
        notes.append(f"{plural(sums.left_out, 'token')} that only one of them scored left out")
    if not sums.losses.count:
        notes.append("no token that both scored: there is no number to give")
    notes.append(TRANSITION_RULE)
    notes.append(
        "cumulative: from a histogram of |difference| whose bins are "
        f"{2 ** (1 / BINS_PER_OCTAVE) - 1:.1%} wide, not from sorted tokens"
    )
    return notes
