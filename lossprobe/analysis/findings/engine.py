"""Decides which rules speak of a result.

A rule speaks where an interval of its number lies beyond its threshold as a whole. That interval is wider than the
95 % interval that is shown. There are R rules, some look at many slices, and together they may speak without a reason
in 1 % of the texts at most: a rule that looks at m slices gets the interval of the level 1 − 0.01 / (R m) (Bonferroni);
where several models are looked at, m counts the slices of all. With q_c the quantile of Student's t with G − 1 degrees
of freedom at the level c, for G documents or blocks, each end of the 95 % interval is moved away from the number by the
factor

    q_(1 − 0.01 / (R m)) / q_0.95

With few documents it is large: 3 have no say unless they agree. Shares of pairs, whose intervals have no t, get
Wilson's interval of the level, which is not the one at 95 % stretched.

A number that was counted over the whole text has no chance in it and is compared with the threshold itself. No rule
speaks of fewer than 100 scored tokens.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.analysis.findings.rule import FEWEST_TOKENS, SEVERITIES, Clue, FindingRule, RuleFinding
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.jackknife import CONFIDENCE, t_quantile
from lossprobe.run.reader import Run
from lossprobe.run.shown import shown_run

FALSE_FINDINGS = 0.01  # of clean texts, that any rule speaks of


def findings_of(view: str, result: object, results: int = 1) -> tuple[RuleFinding, ...]:
    """Return what the rules of a view tell of its result, the gravest first, and among equals the largest loss.

    Args:
        view: the command whose result it is.
        result: the result.
        results: how many such results are looked at for one text, one of each model.
    """
    rules = [rule for rule in FINDING_RULES.values() if rule.view == view]
    return worst_first([found for rule in rules for found in _told(rule, result, results)])


def worst_first(findings: list[RuleFinding]) -> tuple[RuleFinding, ...]:
    """Return findings in their order: by severity, then by their share of the loss, then as the rules stand."""
    order = list(FINDING_RULES)
    return tuple(
        sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), -(f.share_of_loss or 0.0), order.index(f.id)))
    )


def located(found: RuleFinding, runs: Sequence[Run]) -> RuleFinding:
    """Return a finding whose command names the runs in place of RUN, in their order, or all of them in that of RUNS."""
    words = found.look.split(" ")
    paths = [shlex.quote(shown_run(run.path)) for run in runs]
    places = [place for place, word in enumerate(words) if word == "RUN"]
    for place, path in zip(places[-len(paths) :] if paths else [], paths, strict=False):
        words[place] = path
    if paths and "RUNS" in words:
        words[words.index("RUNS")] = " ".join(paths)
    return replace(found, look=" ".join(words))


def _told(rule: FindingRule, result: object, results: int) -> Iterator[RuleFinding]:
    for clue in rule.look(result):
        clue = replace(clue, looks=results * max(1, clue.looks))
        decided = decision_interval(clue)
        if not clears(rule, clue, decided):
            continue
        yield RuleFinding(
            id=rule.id,
            severity=rule.severity,
            view=rule.view,
            about=clue.about,
            sentence=clue.sentence,
            value=clue.value,
            value_interval=clue.interval,
            decision_interval=decided,
            unit=rule.unit,
            threshold=rule.threshold,
            below=rule.below,
            share_of_loss=clue.share_of_loss,
            look=clue.command or rule.command,
        )


def clears(rule: FindingRule, clue: Clue, decided: Interval) -> bool:
    """Return whether a number is beyond the threshold of a rule, its whole decision interval included."""
    if clue.tokens < FEWEST_TOKENS or not math.isfinite(clue.value):
        return False
    if clue.counted:
        return clue.value < rule.threshold if rule.below else clue.value > rule.threshold
    low, high = decided
    if low is None or high is None:
        return False
    return high < rule.threshold if rule.below else low > rule.threshold


def decision_interval(clue: Clue) -> Interval:
    """Return the interval that decides: that at 95 %, with both ends moved away from the number; see the top.

    Of ten documents at the level 1 − 0.01 / 50 the quantiles of t with 9 degrees of freedom are 6.01 and 2.26.
    """
    low, high = clue.interval
    if clue.counted or low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return NO_INTERVAL
    level = 1.0 - FALSE_FINDINGS / (len(FINDING_RULES) * max(1, clue.looks))
    if clue.at_level is not None:
        return clue.at_level(level)
    if clue.clusters is None:
        from scipy.special import ndtri  # most views have nothing to widen

        factor = float(ndtri((1.0 + level) / 2.0) / ndtri((1.0 + CONFIDENCE) / 2.0))
    elif clue.clusters < 2:
        return NO_INTERVAL
    else:
        factor = float(t_quantile(clue.clusters, level) / t_quantile(clue.clusters))
    return Interval(clue.value - factor * max(0.0, clue.value - low), clue.value + factor * max(0.0, high - clue.value))
