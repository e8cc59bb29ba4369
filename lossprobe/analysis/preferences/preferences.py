"""How a model ranks pairs of answers: shares ranked right, length bias, losses, implicit rewards, the worst pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.options import PreferenceOptions
from lossprobe.analysis.preferences.groups import group_rows, loss_rows, right_share
from lossprobe.analysis.preferences.length import LengthBias, measure_length_bias
from lossprobe.analysis.preferences.losses import Answers, pair_losses
from lossprobe.analysis.preferences.pairs import SIDES, check_pairs, read_pairs, with_reference
from lossprobe.analysis.preferences.worst import worst_pairs
from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.shown import Shown
from lossprobe.analysis.stats.interval import Interval
from lossprobe.errors import NothingToScoreError
from lossprobe.options.given import check_options
from lossprobe.run.argument import check_runs
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural, visible

SUM, PER_TOKEN, REWARD = "logp_margin_nats", "logp_margin_per_token_nats", "reward_margin_nats"
EQUAL, EMPTY = "equal sides", "no tokens"
ODD = np.uint64(0x9E3779B97F4A7C15)  # two hashes of 64 bits become one, in which their order counts


@dataclass(frozen=True)
class Preferences(Shown):
    """How a model ranks the answers of pairs.

    Intervals are 95 %: of shares Wilson's, of means the jackknife's, over pairs, copies of a pair counted once. A pair
    of equal sides, and one with a side without scored tokens, is not ranked. A tie is not right.

    Attributes:
        pairs: pairs read.
        ranked_pairs: those that are ranked.
        equal_sides: pairs whose sides are the same tokens.
        pairs_without_tokens: pairs of which a side has no scored token.
        ties: ranked pairs whose sums are equal.
        ranked_right: share of ranked pairs whose chosen answer has the higher log-probability, and
            `ranked_right_interval`.
        ranked_right_per_token: the same by the log-probability per token, and `ranked_right_per_token_interval`.
        logp_margin_nats: mean of log p(chosen) − log p(rejected).
        reference: name of the reference model; None without one.
        reward_accuracy: share of ranked pairs whose implicit reward is higher for the chosen answer, and
            `reward_accuracy_interval`; None without a reference.
        reward_margin_nats: mean of the implicit reward margins β Δ; None without a reference.
        length_bias: how the sum, and how the mean per token, follows length.
        groups: one row a group: kind ("all", "length" or the field), group, pairs, ties, ranked_right, right_low,
            right_high, ranked_right_per_token, per_token_low, per_token_high, with a reference reward_accuracy,
            reward_low and reward_high, and logp_margin_nats.
        losses: one row a loss: objective, convention (its formula), mean, low, high.
        worst: the pairs with the most negative margin, worst first.
        ranked_by: the column of the margin by which they are.
        notes: what a reader must know, one line each.
        table: one row a pair: pair, source, line, group where a field is asked for, chosen_tokens, rejected_tokens,
            chosen_logp_nats, rejected_logp_nats, logp_margin_nats, logp_margin_per_token_nats, with a reference
            chosen_reference_logp_nats, rejected_reference_logp_nats and reward_margin_nats, then the losses, and
            ranking ("right", "wrong", "tie", "equal sides" or "no tokens").
    """

    pairs: int
    ranked_pairs: int
    equal_sides: int
    pairs_without_tokens: int
    ties: int
    ranked_right: float | None
    ranked_right_interval: Interval
    ranked_right_per_token: float | None
    ranked_right_per_token_interval: Interval
    logp_margin_nats: float
    reference: str | None
    reward_accuracy: float | None
    reward_accuracy_interval: Interval
    reward_margin_nats: float | None
    length_bias: list[LengthBias]
    groups: pd.DataFrame = field(repr=False)
    losses: pd.DataFrame = field(repr=False)
    worst: pd.DataFrame = field(repr=False)
    ranked_by: str
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        found = (
            f"{_percent(self.ranked_right, self.ranked_right_interval)} of {plural(self.ranked_pairs, 'pair')} ranked "
            f"right by the log-probability of the answer, "
            f"{_percent(self.ranked_right_per_token, self.ranked_right_per_token_interval)} by that per token"
        )
        if self.reward_accuracy is not None:
            shown = _percent(self.reward_accuracy, self.reward_accuracy_interval)
            found += f"; {shown} by the implicit reward against {visible(self.reference or '', 40)}"
        return "; ".join([found, *(bias.finding for bias in self.length_bias if bias.finding)])


def measure_preferences(
    run: Run, reference: Run | None = None, options: PreferenceOptions | None = None
) -> Preferences:
    """Return how a model ranks the pairs of a run.

    Args:
        run: the run of both sides of pairs; see `passes.rendered.both_sides`.
        reference: the run of another model on the same pairs, for implicit rewards, DPO and IPO; None for none.
        options: field, β and the like.

    Raises:
        UsageError: a run holds no pairs, or no record has the field.
        NotComparableError: the reference was scored on other tokens.
        NothingToScoreError: no pair can be ranked.
    """
    options = options or PreferenceOptions()
    check_options(PreferenceOptions, **vars(options))
    check_runs(run=run, **({} if reference is None else {"reference": reference}))
    check_pairs(run)
    pairs = read_pairs(run, options.by).rename(columns={"field": "group"})
    if reference is not None:
        pairs = with_reference(pairs, run, reference)
    if not all(np.isfinite(pairs[f"{side}_logp_nats"]).all() for side in SIDES):
        refuse_not_finite(run)
    one, other = (pairs.pop(f"{side}_key").to_numpy() for side in SIDES)
    in_windows = (pairs.pop("chosen_windows") > 1) | (pairs.pop("rejected_windows") > 1)
    distinct = pd.factorize(one * ODD + other)[0]
    state = np.where(one == other, EQUAL, "")
    state[(pairs["chosen_tokens"] == 0) | (pairs["rejected_tokens"] == 0)] = EMPTY
    if (state != "").all():
        raise NothingToScoreError(
            "preferences.nothing_ranked",
            f"{visible(run.text_name, 80)}: none of {plural(len(pairs), 'pair')} can be ranked "
            f"({format_count(int((state == EQUAL).sum()))} with equal sides, "
            f"{format_count(int((state == EMPTY).sum()))} with a side without scored tokens)",
        )
    ranked = _measured(pairs[state == ""], options)
    for name in ranked:
        pairs[name] = ranked[name]  # NaN where a pair is not ranked
    pairs["ranking"] = np.where(state != "", state, np.select(
        [pairs[SUM] > 0, pairs[SUM] < 0], ["right", "wrong"], "tie"))  # fmt: skip
    ranked = ranked.assign(
        longer=pairs["chosen_tokens"] - pairs["rejected_tokens"],
        distinct=pd.Series(distinct),
        **({} if options.by is None else {"group": pairs["group"]}),
    )
    return _result(run, reference, options, pairs, ranked, int(in_windows.sum()))


def _measured(kept: pd.DataFrame, options: PreferenceOptions) -> pd.DataFrame:
    """Return the margins and losses of the pairs that are ranked."""
    found: dict[str, np.ndarray] = {}
    chosen, rejected = (
        Answers(
            kept[f"{side}_logp_nats"].to_numpy(float),
            kept[f"{side}_tokens"].to_numpy(float),
            kept[f"{side}_reference_logp_nats"].to_numpy(float) if f"{side}_reference_logp_nats" in kept else None,
        )
        for side in SIDES
    )
    found[SUM] = chosen.logp - rejected.logp
    found[PER_TOKEN] = chosen.mean - rejected.mean
    if chosen.reference is not None:
        found[REWARD] = options.beta * (chosen.ratio - rejected.ratio)
    found |= pair_losses(chosen, rejected, options)
    return pd.DataFrame(found, index=kept.index, copy=False)


def _result(
    run: Run,
    reference: Run | None,
    options: PreferenceOptions,
    pairs: pd.DataFrame,
    ranked: pd.DataFrame,
    in_windows: int,
) -> Preferences:
    """Return the result of pairs, of which `ranked` are ranked and `in_windows` are longer than the context."""
    right, per_token = (right_share(ranked, column) for column in (SUM, PER_TOKEN))
    reward = right_share(ranked, REWARD) if reference is not None else (None, Interval(None, None))
    longer, distinct = ranked["longer"].to_numpy(float), ranked["distinct"].to_numpy(np.int64)
    ranked_by = PER_TOKEN if reference is None else REWARD
    return Preferences(
        pairs=len(pairs),
        ranked_pairs=len(ranked),
        equal_sides=int((pairs["ranking"] == EQUAL).sum()),
        pairs_without_tokens=int((pairs["ranking"] == EMPTY).sum()),
        ties=int((ranked[SUM] == 0).sum()),
        ranked_right=right[0],
        ranked_right_interval=right[1],
        ranked_right_per_token=per_token[0],
        ranked_right_per_token_interval=per_token[1],
        logp_margin_nats=float(ranked[SUM].mean()),
        reference=None if reference is None else reference.name,
        reward_accuracy=reward[0],
        reward_accuracy_interval=reward[1],
        reward_margin_nats=None if reference is None else float(ranked[REWARD].mean()),
        length_bias=[
            measure_length_bias(score, ranked[column].to_numpy(float), longer, distinct)
            for score, column in (("sum", SUM), ("per token", PER_TOKEN))
        ],
        groups=group_rows(ranked, options.by),
        losses=pd.DataFrame(loss_rows(ranked, loss_names(options))),
        worst=worst_pairs(run, pairs, ranked_by, options.top),
        ranked_by=ranked_by,
        notes=_notes(run, pairs, ranked, in_windows),
        table=pairs,
    )


def loss_names(options: PreferenceOptions) -> dict[str, tuple[str, str]]:
    """Return the columns of the losses, each with its name and its formula in short words."""
    return {
        "dpo_nats": ("DPO", f"−log σ(β Δ), β = {options.beta:g}"),
        "ipo": ("IPO", f"(Δ per token − 1/(2β))², β = {options.beta:g}"),
        "simpo_nats": (
            "SimPO",
            f"−log σ(β margin per token − γ), β = {options.simpo_beta:g}, γ = {options.simpo_gamma:g}",
        ),
        "orpo_nats": ("ORPO", f"loss of chosen per token − λ log σ(log odds ratio), λ = {options.orpo_lambda:g}"),
        "pair_margin_ranking_nats": ("margin ranking", f"max(0, m − margin), m = {options.margin:g}"),
    }


def _notes(run: Run, pairs: pd.DataFrame, ranked: pd.DataFrame, in_windows: int) -> list[str]:
    """Return what a reader must know of the pairs."""
    notes = []
    counts = pairs["ranking"].value_counts()
    if counts.get(EQUAL):
        notes.append(f"{plural(int(counts[EQUAL]), 'pair')} with equal sides: not ranked")
    if counts.get(EMPTY):
        notes.append(f"{plural(int(counts[EMPTY]), 'pair')} of which a side has no scored token: not ranked")
    if counts.get("tie"):
        notes.append(f"{plural(int(counts['tie']), 'tie')} in the sum of log-probabilities, counted as not right")
    if REWARD in ranked and not ranked[REWARD].any():
        what = "the reference gives these answers the same probabilities, as the trained model itself does"
        notes.append(f"every implicit reward is 0, a tie: {what}")
    copies = len(ranked) - ranked["distinct"].nunique()
    if copies:
        notes.append(f"{plural(copies, 'pair')} identical to others: intervals count each distinct pair once")
    if in_windows:
        what = "is longer" if in_windows == 1 else "are longer"
        notes.append(
            f"{plural(in_windows, 'pair')} {what} than the context of {format_count(run.context)}: scored in windows, "
            "of which the later ones do not see the whole prompt"
        )
    return notes


def _percent(share: float | None, interval: Interval) -> str:
    """Return a share and its interval in percent."""
    if share is None:
        return "n/a"
    ends = interval.map(lambda end: 100 * end)
    return f"{share:.1%} {ends.shown('.1f')}"
