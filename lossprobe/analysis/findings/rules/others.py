"""What gaps, pairs, series of checkpoints and other losses say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from lossprobe.analysis.findings.rule import Clue, FindingRule
from lossprobe.analysis.findings.words import between, percent, share_of, with_interval
from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval
from lossprobe.units import format_count, plural

if TYPE_CHECKING:
    from lossprobe.analysis.gap.gap import Gap
    from lossprobe.analysis.objectives.objectives import Objectives
    from lossprobe.analysis.preferences.length import LengthBias
    from lossprobe.analysis.preferences.preferences import Preferences
    from lossprobe.analysis.series.result import CheckpointSeries

OVER_FITTED, BY_HEART, BIAS, EVEN, EQUAL_PAIRS, FORGOTTEN, ROSE_NATS = 0.1, 0.01, 0.1, 0.5, 0.01, 0.05, 0.00995
ROUTING, START_SCALE = 1.5, 65536.0
FEWEST_ROUTED = 1000  # tokens, below which chance makes the use of many experts uneven
GAP, PREFERENCES, REWARDS = (
    "lossprobe gap RUN RUN", "lossprobe preferences RUN", "lossprobe preferences RUN --reference RUN"
)  # fmt: skip
SERIES, FORGOTTEN_TOKENS = "lossprobe series RUNS", "lossprobe series --by token --state forgotten RUNS"


def _over_fitted(result: Gap) -> Iterator[Clue]:
    level = result.validation.nll_nats
    both = [(result.gap_nats, result.gap_nats_interval)]
    if result.gap_same_mix_nats is not None and result.gap_same_mix_nats_interval.low is not None:
        both.append((result.gap_same_mix_nats, result.gap_same_mix_nats_interval))
    if level <= 0 or result.gap_nats_interval.low is None:
        return
    value, interval = min(both, key=lambda each: each[1].low or 0.0)
    interval = interval.map(lambda end: end / level)
    shown = with_interval(100 * value / level, interval.map(lambda end: 100 * end), ".0f", " %")
    yield Clue(
        value / level, f"the loss on the training text is lower by {shown} of the validation loss: over-fitted",
        interval, min(result.train.clusters, result.validation.clusters),
        tokens=min(result.train.tokens, result.validation.tokens),
    )  # fmt: skip


def _leaked(result: Gap) -> Iterator[Clue]:
    known = result.validation.memorised
    yield Clue(float(known.documents), f"{plural(known.documents, 'validation document')} known by heart: a leak of "
               "training text, or text that anybody could foresee", counted=True,
               tokens=result.validation.tokens)  # fmt: skip


def _by_heart(result: Gap) -> Iterator[Clue]:
    known = result.train.memorised
    if known.share_of_documents is not None:
        yield Clue(known.share_of_documents, f"{percent(known.share_of_documents)} of the training documents are known "
                   "by heart", counted=True, tokens=result.train.tokens)  # fmt: skip


def _tokens(result: Preferences) -> int:
    """Return how many tokens of answers are scored, of both sides of all pairs."""
    return int(result.table[["chosen_tokens", "rejected_tokens"]].to_numpy().sum())


def _length(result: Preferences) -> Iterator[Clue]:
    for bias in result.length_bias:
        low, high = bias.length_bias_interval
        if bias.length_bias is None or low is None or high is None:
            continue
        sign = 1.0 if bias.length_bias > 0 else -1.0
        interval = between(*sorted((sign * low, sign * high)))
        shown = with_interval(100 * abs(bias.length_bias), interval.map(lambda end: 100 * end), ".0f", " points")
        kind = ("longer", "shorter") if sign > 0 else ("shorter", "longer")
        score = "the sum of log-probabilities" if bias.score == "sum" else "the log-probability per token"
        yield Clue(
            abs(bias.length_bias),
            f"by {score}, pairs are ranked right {shown} more often where the chosen answer is the {kind[0]} one than "
            f"where it is the {kind[1]} one",
            interval, about=bias.score, looks=2, tokens=_tokens(result), at_level=partial(_bias_at, bias, sign),
        )  # fmt: skip


def _bias_at(bias: LengthBias, sign: float, level: float) -> Interval:
    """Return the interval of the size of a length bias at a level, from both shares at that level."""
    from lossprobe.analysis.stats.proportion import newcombe, wilson_at  # not for `explain`: it loads scipy

    assert bias.right_where_longer is not None
    assert bias.right_where_shorter is not None
    low, high = newcombe(
        wilson_at(Estimate(bias.right_where_longer, bias.right_where_longer_interval), level),
        wilson_at(Estimate(bias.right_where_shorter, bias.right_where_shorter_interval), level),
    ).interval
    return NO_INTERVAL if low is None or high is None else between(*sorted((sign * low, sign * high)))


def _pairs_at(share: float, interval: Interval, level: float) -> Interval:
    from lossprobe.analysis.stats.proportion import wilson_at

    return wilson_at(Estimate(share, interval), level).interval


def _wrong(result: Preferences) -> Iterator[Clue]:
    value, interval = result.ranked_right_per_token, result.ranked_right_per_token_interval
    if value is not None:
        yield Clue(value, f"the chosen answer is the likelier one, per token, in {percent(value)} "
                   f"{interval.shown('.2f')} of the pairs", interval,
                   tokens=_tokens(result), at_level=partial(_pairs_at, value, interval))  # fmt: skip


def _rewards(result: Preferences) -> Iterator[Clue]:
    value, interval = result.reward_accuracy, result.reward_accuracy_interval
    if value is not None:
        yield Clue(value, f"the implicit reward prefers the chosen answer in {percent(value)} {interval.shown('.2f')} "
                   "of the pairs", interval, tokens=_tokens(result),
                   at_level=partial(_pairs_at, value, interval))  # fmt: skip


def _unranked(result: Preferences) -> Iterator[Clue]:
    count = result.equal_sides + result.pairs_without_tokens
    share = share_of(count, result.pairs)
    yield Clue(share, f"{percent(share)} of the pairs cannot be ranked: {format_count(result.equal_sides)} with equal "
               f"sides, {format_count(result.pairs_without_tokens)} with a side without scored tokens",
               counted=True, tokens=_tokens(result))  # fmt: skip


def _rose(result: CheckpointSeries) -> Iterator[Clue]:
    last = result.table.to_dict("records")[-1]
    interval = between(last["difference_low"], last["difference_high"])
    shown = with_interval(last["difference_nats"], interval, "+.4f")
    yield Clue(last["difference_nats"], f"the loss rose at the last checkpoint, by {shown} a token", interval,
               result.clusters, tokens=result.tokens)  # fmt: skip


def _lost(result: CheckpointSeries) -> Iterator[Clue]:
    """Yield how many more tokens were lost for good than for a time.

    The more checkpoints, the more tokens whose loss is near the threshold lie above it at the last one by chance. As
    many lie below it again after they had been above.
    """
    lost, back = (share_of(result.states[state], result.tokens) for state in ("forgotten", "unstable"))
    yield Clue(lost - back, f"{percent(lost)} of the tokens were known at a checkpoint (below {result.threshold}) and "
               f"are not at the last, while {percent(back)} were lost on the way and are known again", counted=True,
               tokens=result.tokens)  # fmt: skip


def _routing(result: Objectives) -> Iterator[Clue]:
    if result.load_balancing is None or not result.experts_per_token or result.tokens_scored < FEWEST_ROUTED:
        return
    value = float(result.load_balancing["load_balancing_loss"].iloc[0]) / result.experts_per_token
    yield Clue(value, f"on this text the experts are used unequally: the load-balancing loss is {value:.2f} times that "
               "of even use", counted=True, tokens=result.tokens_scored)  # fmt: skip


def _scale(result: Objectives) -> Iterator[Clue]:
    """Yield the least scale that keeps the gradient, or the one after all that were tried where none of these does."""
    table = result.half_precision
    if table is None:
        return
    scale = result.recommended_loss_scale
    if scale is not None:
        yield Clue(float(scale), f"float16 needs a loss scale of {format_count(scale)} or more to keep the gradient of "
                   "the logits", counted=True, tokens=result.tokens_scored)  # fmt: skip
    elif table["l1_lost_share"].notna().any():  # there is a gradient
        largest = int(table["scale"].max())
        yield Clue(2.0 * largest, f"at no loss scale up to 2^{largest.bit_length() - 1} does float16 keep the gradient "
                   "of the logits", counted=True, tokens=result.tokens_scored)  # fmt: skip


OTHER_RULES = (
    FindingRule(
        "over-fitted", "warning", "gap", "the training text is known far better than other text", OVER_FITTED,
        "share of the validation loss",
        "the gap, or the gap at the same mix of token classes where its lower end is lower, over the validation loss",
        "A tenth of the loss is owed to the text, not to the language.",
        "An earlier checkpoint, fewer epochs, more text; compare only texts of the same kind.", GAP, _over_fitted,
    ),
    FindingRule(
        "validation-leak", "warning", "gap", "validation documents are known by heart", 0.0, "documents",
        "validation documents of 32 scored tokens or more below 0.1 nats a token",
        "One is enough: text that was not seen is not known by heart.",
        "Look for copies of training text in the validation text; the gap looks smaller than it is.", GAP, _leaked,
    ),
    FindingRule(
        "training-by-heart", "warning", "gap", "training documents are known by heart", BY_HEART, "share of documents",
        "training documents of 32 scored tokens or more below 0.1 nats a token", "One in a hundred.",
        "Copies in the training text, or too many epochs: such documents can be extracted.", GAP, _by_heart,
    ),
    FindingRule(
        "rewards-wrong", "fault", "preferences", "the implicit reward prefers the rejected answers", EVEN,
        "share of pairs", "share of ranked pairs whose implicit reward is higher for the chosen answer",
        "Half is a coin; below it training went the wrong way.",
        "Chosen and rejected are swapped, or the reference is the trained model.", REWARDS, _rewards, below=True,
    ),
    FindingRule(
        "chosen-less-likely", "warning", "preferences", "chosen answers are less likely than rejected ones", EVEN,
        "share of pairs", "share of ranked pairs whose chosen answer has the higher log-probability per token",
        "Half is a coin.",
        "Before preference training it happens, where chosen answers are of another style; after it, something is "
        "swapped.",
        PREFERENCES, _wrong, below=True,
    ),
    FindingRule(
        "pairs-unranked", "warning", "preferences", "pairs cannot be ranked", EQUAL_PAIRS, "share of pairs",
        "pairs of equal sides, and those of which a side has no scored token", "One in a hundred.",
        "Remove equal pairs; a side without tokens is cut off by the context, or its mask is wrong.",
        PREFERENCES, _unranked,
    ),
    FindingRule(
        "length-bias", "note", "preferences", "the ranking of answers follows their length", BIAS, "share of pairs",
        "share ranked right where the chosen answer is the longer one minus that where it is the shorter one",
        "Ten points; a sum of log-probabilities always favours short answers somewhat.",
        "Rank per token, or with a length penalty; balance lengths in the pairs.", PREFERENCES, _length,
    ),
    FindingRule(
        "last-checkpoint-worse", "warning", "series", "the loss rose at the last checkpoint", ROSE_NATS, "nats",
        "mean loss at the last checkpoint minus that at the one before, on the same tokens", "1 % more perplexity.",
        "Take the checkpoint before, and look at the end of the training log.", SERIES, _rose,
    ),
    FindingRule(
        "tokens-lost", "note", "series", "tokens were learned and forgotten", FORGOTTEN, "share of tokens",
        "tokens below the threshold at some checkpoint and not at the last, minus those that were lost on the way and "
        "are below it again, of all scored ones",
        "One in twenty; checkpoints that only fluctuate lose for good about as many as they lose for a time.",
        "Look which: by class, document and field.", FORGOTTEN_TOKENS, _lost,
    ),
    FindingRule(
        "routing-uneven", "warning", "objectives", "the experts of a mixture are used unequally", ROUTING, "ratio",
        f"load-balancing loss over all windows and layers, over that of even use (the experts per token); of "
        f"{FEWEST_ROUTED:,} scored tokens or more",
        "1 is even; half as much more, and a few experts do most of the work here.",
        "A text of one kind uses some experts more, a mixed one like that of training should not: there, a larger "
        "coefficient of the load-balancing loss. Look at the layers.", "lossprobe objectives RUN", _routing,
    ),
    FindingRule(
        "loss-scale-high", "note", "objectives", "float16 needs a large loss scale", START_SCALE, "loss scale",
        "least loss scale at which float16 keeps the gradient of the logits: under a thousandth of it lost; 2^25 where "
        "none up to 2^24 does",
        "Trainers begin with 65,536 and lower it at the first overflow.",
        "Train in bfloat16, or with smaller batches under one mean.", "lossprobe objectives RUN", _scale,
    ),
)  # fmt: skip
