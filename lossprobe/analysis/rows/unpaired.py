"""Two texts under one model: losses by group of tokens in each, and unpaired intervals of their difference.

The two texts share no tokens, so nothing can be paired: each text is taken for a sample of documents from a larger one,
and both samples vary. With s₁, s₂ the jackknife standard errors (see `clusters`) over G₁ and G₂ clusters (Welch 1947),

    SE² = s₁² + s₂²        ν = SE⁴ / (s₁⁴ / (G₁ − 1) + s₂⁴ / (G₂ − 1))        interval: difference ± t(ν) · SE
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.token_classes import FORMS, class_source
from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval
from lossprobe.analysis.stats.jackknife import Clusters, error_of_replicates, t_quantile
from lossprobe.analysis.stats.resampling import Floats, at_most
from lossprobe.run.reader import Run

MOST_CLUSTERS = 10_000  # of one group, where every group may hold tokens of every document
MOST_DIGITS = 12  # of a count of occurrences


@dataclass(frozen=True)
class TextEstimate:
    """A number of one text.

    Attributes:
        value: the number; NaN where there is nothing to take it from.
        error: its jackknife standard error, None with fewer than two clusters.
        clusters: how many of them hold something.
    """

    value: float
    error: float | None
    clusters: int

    @property
    def interval(self) -> Interval:
        """Its 95 % jackknife-t interval."""
        if self.error is None:
            return NO_INTERVAL
        half = float(t_quantile(self.clusters)) * self.error
        return Interval(self.value - half, self.value + half)


@dataclass(frozen=True)
class GroupSums:
    """Sums over the scored tokens of each of G clusters and K groups, float64 [G, K]."""

    nats: Floats = field(repr=False)
    tokens: Floats = field(repr=False)


def estimate_ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> TextEstimate:
    """Return Σ numerator / Σ denominator over the clusters [G] whose denominator is not 0.

    The numbers are those of `jackknife.jackknife_ratio`, where SE² = 2/3 · 13/18:

    >>> found = estimate_ratio([1, 2, 0, 6], [1, 1, 0, 2])
    >>> found.value, round(found.error, 6), found.clusters
    (2.25, 0.693889, 3)
    """
    s, n = np.asarray(numerator, float), np.asarray(denominator, float)
    s, n = s[n > 0], n[n > 0]
    count = len(n)
    value = float(s.sum() / n.sum()) if count else math.nan
    if count < 2:
        return TextEstimate(value, None, count)
    return TextEstimate(value, error_of_replicates((s.sum() - s) / (n.sum() - n)), count)


def unpaired_difference(first: TextEstimate, second: TextEstimate) -> Estimate:
    """Return second − first with its Welch–Satterthwaite interval.

    For 1 ± .3 over 4 clusters and 3 ± .4 over 9: SE = .5 and ν = .0625 / (.0081 / 3 + .0256 / 8) = 10.593:

    >>> found = unpaired_difference(TextEstimate(1.0, 0.3, 4), TextEstimate(3.0, 0.4, 9))
    >>> found.value, round((found.interval.high - found.value) / 0.5, 6)
    (2.0, 2.211341)
    """
    difference = second.value - first.value
    if first.error is None or second.error is None:
        return Estimate(difference)
    return around_welch(difference, (first.error, second.error), (first.clusters, second.clusters))


def around_welch(difference: float, errors: tuple[float, float], clusters: tuple[int, int]) -> Estimate:
    """Return a difference with its interval, from the standard error and the clusters of either side."""
    error = math.hypot(*errors)
    if error == 0.0:
        return Estimate(difference, Interval(difference, difference))
    terms = [(own / error) ** 4 / (count - 1) for own, count in zip(errors, clusters, strict=True)]
    half = float(t_quantile(1.0 + 1.0 / sum(terms))) * error
    return Estimate(difference, Interval(difference - half, difference + half))


def class_sums(run: Run) -> GroupSums:
    """Return sums by the class of the token (`token_classes.FORMS`, in that order)."""
    clusters = at_most(find_clusters(run), MOST_CLUSTERS)
    return _group_sums(run, clusters, f"list_position({list(FORMS)!r}, form) - 1", class_source(), len(FORMS))


def frequency_sums(train: Run, validation: Run) -> tuple[GroupSums, GroupSums]:
    """Return sums by how often the token occurs in the training text, for either text: 0, 1-9, 10-99 and so on.

    A training token's own document (or block of a single document) is left out of its count, for a validation token is
    in none of them either. With it, no training token could have the count 0, and rare ones would be those that came by
    chance: the groups of the two texts would differ for a model that has learned nothing.
    """
    clusters = find_clusters(train)
    counts = "SELECT token_id, count(*) AS n FROM tokens WHERE unscored IS NULL GROUP BY token_id"
    if clusters.count > 1:
        own = f"""JOIN (
            SELECT token_id, {clusters.sql} AS cluster, count(*) AS n FROM tokens WHERE unscored IS NULL GROUP BY ALL
            ) AS own ON tokens.token_id = own.token_id AND {clusters.sql} = own.cluster"""
        here = "own.n"
    else:
        own, here = "", "1"
    source = f"""(
        SELECT tokens.*, everywhere.n - {here} AS elsewhere
        FROM tokens JOIN ({counts}) AS everywhere ON tokens.token_id = everywhere.token_id {own}
        WHERE unscored IS NULL)"""
    digits = f"least(CASE WHEN elsewhere > 0 THEN length(elsewhere::VARCHAR) ELSE 0 END, {MOST_DIGITS})"
    in_train = _group_sums(train, at_most(clusters, MOST_CLUSTERS), digits, source, MOST_DIGITS + 1)
    looked_up = f"(SELECT * FROM tokens LEFT JOIN ({_digits_of(train, counts)}) USING (token_id))"
    in_validation = _group_sums(
        validation, at_most(find_clusters(validation), MOST_CLUSTERS), "coalesce(digits, 0)", looked_up, MOST_DIGITS + 1
    )
    return in_train, in_validation


def _digits_of(train: Run, counts: str) -> str:
    """Return a SQL relation for another run: `token_id` and `digits`, those of its count in the training text.

    One letter an id: "a" for none, "b" for 1-9, and so on.
    """
    frame = train.query(counts)
    letters = np.full(int(frame["token_id"].max()) + 1, ord("a"), np.uint8)
    letters[frame["token_id"]] += np.minimum([len(str(n)) for n in frame["n"]], MOST_DIGITS).astype(np.uint8)
    split = f"unnest(string_split('{letters.tobytes().decode()}', ''))"
    return f"SELECT unnest(range({len(letters)})) AS token_id, ascii({split}) - ascii('a') AS digits"


def _group_sums(run: Run, clusters: Clusters, key: str, source: str, groups: int) -> GroupSums:
    """Return sums by an integer key in 0 … groups − 1, computed out of core."""
    frame = run.query(f"""
        SELECT {key} AS key, {clusters.sql} AS cluster, sum(loss_nats::DOUBLE) AS nats, count(*) AS tokens
        FROM {source} WHERE unscored IS NULL GROUP BY ALL""")
    present, row = np.unique(frame["cluster"], return_inverse=True)
    grids = {name: np.zeros((len(present), groups)) for name in ("nats", "tokens")}
    for name, grid in grids.items():
        grid[row, frame["key"]] = frame[name]
    return GroupSums(**grids)


def frequency_names() -> list[str]:
    """Return the names of the groups of `frequency_sums`.

    >>> frequency_names()[:4]
    ['0', '1-9', '10-99', '100-999']
    """
    return ["0", *(f"{10 ** (digits - 1)}-{10**digits - 1}" for digits in range(1, MOST_DIGITS + 1))]


def group_rows(kind: str, names: list[str], train: GroupSums, validation: GroupSums) -> pd.DataFrame:
    """Return one row per group with tokens in either text, in order; see `gap.Gap.table` for the columns."""
    rows = []
    for index, name in enumerate(names):
        sides = {
            side: estimate_ratio(sums.nats[:, index], sums.tokens[:, index])
            for side, sums in (("train", train), ("validation", validation))
        }
        row: dict[str, object] = {"group": name, "kind": kind}
        row |= {f"{side}_tokens": int(sums.tokens[:, index].sum())
                for side, sums in (("train", train), ("validation", validation))}  # fmt: skip
        if any(row[f"{side}_tokens"] for side in sides):
            rows.append(row | loss_cells(sides["train"], sides["validation"]))
    return pd.DataFrame(rows)


def loss_cells(train: TextEstimate, validation: TextEstimate) -> dict[str, float | None]:
    """Return the losses of both texts and their difference, each with its interval, under their column names."""
    cells: dict[str, float | None] = {}
    for side, one in (("train", train), ("validation", validation)):
        cells |= {f"{side}_loss_nats": one.value, f"{side}_low": one.interval.low, f"{side}_high": one.interval.high}
    gap = unpaired_difference(train, validation)
    return cells | {"gap_nats": gap.value, **gap.interval._asdict()}


def same_mix_difference(train: GroupSums, validation: GroupSums) -> tuple[Estimate, int]:
    """Return the difference that is left where both texts have the second one's mix of groups (direct standardisation).

    With w_k the share of group k in the validation text, Σ_k w_k (v_k − t_k): each group's own difference, so that a
    text with more of the hard groups shows none. Over the groups that both texts have. The interval is that of the two
    jackknives, each over the clusters of one text while the other stays as it is.

    Returns:
        the difference (NaN without a common group; no interval where leaving out one cluster leaves none), and the
        validation tokens of groups that the training text lacks.

    A train text with losses 1 and 3 in equal parts and a validation text with 1 in a quarter and 3 in the rest have
    means 2 and 2.5, but no difference at the same mix:

    >>> train = GroupSums(np.array([[2.0, 6.0]]), np.array([[2.0, 2.0]]))
    >>> validation = GroupSums(np.array([[1.0, 9.0]]), np.array([[1.0, 3.0]]))
    >>> same_mix_difference(train, validation)
    (Estimate(value=0.0, interval=Interval(low=None, high=None)), 0)
    """
    whole = [(sums.nats.sum(axis=0), sums.tokens.sum(axis=0)) for sums in (train, validation)]
    difference = float(_standardised(*whole[0], *whole[1]))
    left_out = int(whole[1][1][whole[0][1] == 0].sum())
    without_train = _standardised(whole[0][0] - train.nats, whole[0][1] - train.tokens, *whole[1])
    without_validation = _standardised(*whole[0], whole[1][0] - validation.nats, whole[1][1] - validation.tokens)
    errors = (error_of_replicates(without_train), error_of_replicates(without_validation))
    if math.isnan(sum(errors)):
        return Estimate(difference), left_out
    return around_welch(difference, errors, (len(train.tokens), len(validation.tokens))), left_out


def _standardised(train_nats: Floats, train_tokens: Floats, nats: Floats, tokens: Floats) -> Floats:
    """Return Σ_k n_k (v_k − t_k) / Σ_k n_k [...] over the groups [..., K] with tokens in both, NaN without any."""
    known = train_tokens > 0
    train_loss = np.divide(train_nats, train_tokens, out=np.zeros_like(train_nats), where=known)
    excess = np.where(known, nats - tokens * train_loss, 0.0).sum(axis=-1)
    weight = np.where(known, tokens, 0.0).sum(axis=-1)
    mean: Floats = np.divide(excess, weight, out=np.full(weight.shape, np.nan), where=weight > 0)
    return mean
