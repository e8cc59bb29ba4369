"""Two models on the same tokens: how much they differ, beyond the noise of the text or not, and where.

d = loss of the second − loss of the first, per token, in nats: positive where the second model is worse. Two models
find the same tokens hard, so that d varies far less than either loss, and small changes show on short texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.compare.changed_tokens import ChangedTokens, TokenChanges
from lossprobe.analysis.compare.sums import CompareSums, compare_sums
from lossprobe.analysis.compare.verdict import is_rounding, rounding_note, verdict
from lossprobe.analysis.rows.clusters import copies_per_token, find_clusters
from lossprobe.analysis.rows.differences import TRANSITION_RULE, mean_changes
from lossprobe.analysis.rows.paired import PairedRows
from lossprobe.analysis.rows.same_tokens import differing, tokenizer_note
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.power import DETECTABLE, tokens_to_decide, tokens_to_detect
from lossprobe.analysis.stats.resampling import Floats, at_most
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
class PairedTokens:
    """The numbers of tokens and clusters of a comparison.

    Attributes:
        tokens: tokens that both scored.
        left_out: tokens that only one of them scored.
        forgotten, learned: tokens that went from a loss below 1 nat to above 3 nats, and the other way round.
    """

    tokens: int
    left_out: int
    forgotten: int
    learned: int


@dataclass(frozen=True)
class TokenDifference:
    """How much two models differ on the same tokens.

    Attributes:
        mean_difference_nats: mean d, and its interval.
        perplexity_ratio: second / first, its exponential, and its interval.
        accuracy_difference: in the share of tokens whose first choice was right, and its interval.
        correlation: of the two losses over the tokens (Pearson).
        sd_difference_nats: standard deviation of d over the tokens.
    """

    mean_difference_nats: float | None
    mean_difference_nats_interval: Interval
    perplexity_ratio: float | None
    perplexity_ratio_interval: Interval
    accuracy_difference: float | None
    accuracy_difference_interval: Interval
    correlation: float | None
    sd_difference_nats: float | None


@dataclass(frozen=True)
class Evidence:
    """The evidence of a text for a mean difference: test, interval and smallest detectable difference.

    Attributes:
        design_effect: variance of the mean over clusters, divided by that of independent tokens.
        p_value: two-sided, of no difference; Student's t with clusters − 1 degrees of freedom. 1 for identical losses.
        minimum_detectable_nats: the difference that a text like this one shows with 80 % power at the 5 % level, 2.8
            standard errors.
        tokens_for_one_percent: tokens needed to detect 1 % more perplexity (ln 1.01 nats) like that.
        tokens_to_decide: how many tokens in all until the interval would exclude 0 if the mean stayed as it is (an even
            chance, since the mean moves as well); None where it does already, or never would.
    """

    design_effect: float | None
    p_value: float | None
    minimum_detectable_nats: float | None
    tokens_for_one_percent: int | None
    tokens_to_decide: int | None


@dataclass(frozen=True)
class TokenComparison:
    """Two runs of the same tokens; differences are second − first, so that positive means the second is worse.

    Intervals are 95 % delete-one jackknife-t intervals over documents (blocks in a single document). A number is None
    where it cannot be given; `notes` says why.

    Attributes:
        first, second: names of the models, distinct.
        counts: the tokens.
        clusters: how many documents (or blocks) intervals resample, merged into at most 1,000 groups.
        interval_unit: "document" or "block".
        difference: how much the models differ.
        evidence: how sure that is.
        verdict: "NAME is better", "NAME is worse" (of the second), "no difference shown", or "no test was possible"
            without an interval. A mean of at most 1e-6 nats shows none.
        identical: whether every d is exactly 0.
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
    counts: PairedTokens
    clusters: int
    interval_unit: str
    difference: TokenDifference
    evidence: Evidence
    verdict: str
    identical: bool
    by_position: pd.DataFrame = field(repr=False)
    cumulative: pd.DataFrame = field(repr=False)
    scatter: pd.DataFrame = field(repr=False)
    notes: list[str]

    @property
    def table(self) -> pd.DataFrame:
        """One row per measure: measure, value, low, high, unit; NaN where there is no number."""
        numbers = {"clusters": self.clusters, **vars(self.counts), **vars(self.difference), **vars(self.evidence)}
        rows = [
            (name, numbers[name], *numbers.get(f"{name}_interval", NO_INTERVAL), unit) for name, unit in UNITS.items()
        ]
        frame = pd.DataFrame(rows, columns=["measure", "value", "low", "high", "unit"])
        return frame.astype({"value": float, "low": float, "high": float})

    @property
    def finding(self) -> str:
        """The result in one line."""
        found, needed = self.difference, self.evidence.tokens_to_decide
        if found.mean_difference_nats is None or found.perplexity_ratio is None:
            return f"{self.second} − {self.first}: no token that both scored"
        if self.identical:
            return f"{self.second} − {self.first}: identical on {plural(self.counts.tokens, 'token')}"
        if is_rounding(found.mean_difference_nats):  # four decimals would show only zeros
            shown = f"{found.mean_difference_nats:+.1e} nats {found.mean_difference_nats_interval.shown('+.1e')}"
            return f"{self.second} − {self.first}: {shown}, within rounding: {self.verdict}"
        text = (
            f"{self.second} − {self.first}: {found.mean_difference_nats:+.4f} nats "
            f"{found.mean_difference_nats_interval.shown('+.4f')}, "
            f"perplexity × {found.perplexity_ratio:.4f}: {self.verdict}"
        )
        if needed is not None:
            text += f"; about {format_count(needed)} tokens would decide if the mean stayed as it is"
        return text


def compare_tokens(first: Run, second: Run, top: int) -> tuple[TokenComparison, ChangedTokens]:
    """Return `compare_runs` and `changed_tokens.changed_tokens` from one reading of the runs."""
    changes = TokenChanges(top)
    comparison = compare_runs(first, second, changes.add)
    return comparison, changes.found(first, second)


def compare_runs(first: Run, second: Run, beside: Callable[[PairedRows], None] | None = None) -> TokenComparison:
    """Return the comparison of two runs of the same tokens; see `same_tokens.same_tokens`.

    Args:
        first: the run to compare with.
        second: the other run.
        beside: is given all rows too, so that they need not be read again.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is NaN or infinite, which scoring never writes.
    """
    clusters = at_most(find_clusters(first))
    sums = compare_sums(first, second, clusters, beside)
    names = distinct_names([first, second])
    tokens = sums.by_octave.tokens.sum(axis=0)
    difference, accuracy = _whole(sums.by_octave.nats.sum(axis=0), tokens), _whole(sums.correct, tokens)
    return TokenComparison(
        first=names[0],
        second=names[1],
        counts=PairedTokens(sums.losses.count, sums.left_out, sums.forgotten, sums.learned),
        clusters=difference.clusters,
        interval_unit=clusters.unit,
        difference=TokenDifference(
            mean_difference_nats=difference.value,
            mean_difference_nats_interval=difference.interval,
            perplexity_ratio=None if difference.value is None else perplexity(difference.value),
            perplexity_ratio_interval=difference.interval.map(perplexity),
            accuracy_difference=accuracy.value,
            accuracy_difference_interval=accuracy.interval,
            correlation=sums.losses.correlation,
            sd_difference_nats=sums.losses.sd_difference,
        ),
        evidence=_evidence(difference, sums.losses.count, sums.losses.sd_difference, copies_per_token(first)),
        verdict=verdict(difference.value, difference.interval, names[1]),
        identical=sums.losses.count > 0 and not sums.sizes.sums.any(),
        by_position=_positions(sums),
        cumulative=sums.sizes.table(),
        scatter=sums.pairs.table(),
        notes=_notes(first, second, clusters.note, sums) + rounding_note(difference.value),
    )


@dataclass(frozen=True)
class _Mean:
    """A mean difference over all tokens: None where it, its error or its interval cannot be given."""

    value: float | None = None
    error: float | None = None
    interval: Interval = NO_INTERVAL
    p_value: float | None = None
    clusters: int = 0


def _whole(nats: Floats, tokens: Floats) -> _Mean:
    """Return the mean over all tokens, of the sums of each cluster."""
    found = mean_changes(nats[None], tokens[None]).to_dict("records")
    if not found:
        return _Mean()
    given = {str(name): None if math.isnan(value) else value for name, value in found[0].items()}
    interval = Interval(given["low"], given["high"])
    return _Mean(given["mean_difference_nats"], given["error"], interval, given["p_value"], int(found[0]["clusters"]))


def _evidence(mean: _Mean, tokens: int, sd: float | None, copies: float) -> Evidence:
    error, different = mean.error, round(tokens / copies)
    decided = None if is_rounding(mean.value) else tokens_to_decide(mean.value, error, different, mean.clusters)
    return Evidence(
        design_effect=tokens * error**2 / sd**2 if error is not None and sd else None,
        p_value=mean.p_value,
        minimum_detectable_nats=None if error is None else DETECTABLE * error,
        tokens_for_one_percent=tokens_to_detect(ONE_PERCENT, error, different),
        tokens_to_decide=decided,
    )


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
    if told := tokenizer_note(first, second):
        notes.append(told)
    if sums.left_out:
        notes.append(f"{plural(sums.left_out, 'token')} that only one of them scored left out")
    if not sums.losses.count:
        notes.append("no token that both scored: there is no number to give")
    notes.append(TRANSITION_RULE)
    return notes
