"""The engine speaks only where the whole wide interval is beyond the threshold."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace as Made

import pandas as pd
import pytest
from scipy import stats

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.findings import engine
from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.analysis.findings.engine import clears, decision_interval, findings_of, located, worst_first
from lossprobe.analysis.findings.rule import FEWEST_TOKENS, SEVERITIES, Clue, RuleFinding
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.proportion import wilson

ABOVE = next(rule for rule in FINDING_RULES.values() if not rule.below)
ABOVE = replace(ABOVE, threshold=1.0)
BELOW = replace(ABOVE, below=True)
clue = partial(Clue, tokens=FEWEST_TOKENS)


@pytest.mark.parametrize(("clusters", "looks"), [(10, 1), (10, 7), (3, 1), (500, 20)])
def test_the_interval_is_that_of_the_bonferroni_level(clusters, looks):
    """Of an interval of half a width, by another library's quantiles; the two ends are moved on their own."""
    level = 1 - 0.01 / (len(FINDING_RULES) * looks)
    factor = stats.t.interval(level, clusters - 1)[1] / stats.t.interval(0.95, clusters - 1)[1]
    found = decision_interval(clue(2.0, "", Interval(1.5, 2.2), clusters, looks=looks))
    assert found == pytest.approx((2 - 0.5 * factor, 2 + 0.2 * factor), rel=1e-6)


def test_an_interval_without_t_takes_normal_quantiles():
    factor = stats.norm.interval(1 - 0.01 / len(FINDING_RULES))[1] / stats.norm.interval(0.95)[1]
    assert decision_interval(clue(0.5, "", Interval(0.4, 0.6))) == pytest.approx(
        (0.5 - 0.1 * factor, 0.5 + 0.1 * factor)
    )


@pytest.mark.parametrize(
    ("right", "pairs", "told"), [(0, 12, False), (0, 16, True), (300, 1000, True), (12, 40, False)]
)
def test_shares_of_pairs_get_wilsons_interval_of_the_level(right, pairs, told):
    """Stretching the interval at 95 % would tell 11 pairs of 11 that are wrong, one coin in 2,048, from a coin."""
    level = 1 - 0.01 / len(FINDING_RULES)
    expected = stats.binomtest(right, pairs).proportion_ci(level, method="wilson")
    share = wilson(right / pairs, pairs)
    result = Made(ranked_right_per_token=share.value, ranked_right_per_token_interval=share.interval,
                  reward_accuracy=None, reward_accuracy_interval=NO_INTERVAL, length_bias=[], pairs=pairs,
                  equal_sides=0, pairs_without_tokens=0,
                  table=pd.DataFrame({"chosen_tokens": [20] * pairs, "rejected_tokens": [20] * pairs}))  # fmt: skip
    found = {each.id: each for each in findings_of("preferences", result)}
    assert ("chosen-less-likely" in found) == told
    if told:
        assert found["chosen-less-likely"].decision_interval == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_of_several_models_each_has_its_part_of_the_level():
    """A number that clears its threshold as the only one does not as one of a hundred."""
    measure = Made(value=0.1, interval=Interval(0.07, 0.13))
    silent = Made(value=None, interval=NO_INTERVAL)
    model = Made(name="m", clusters=40, tokens_scored=9_000, bins=pd.DataFrame(columns=["binning"]),
                 measures={"nll_minus_entropy_nats": measure, "confidence_gap": silent},
                 temperature=Made(temperature=None, temperature_interval=NO_INTERVAL),
                 effective_smoothing=Made(epsilon=None, slope_epsilon=None))  # fmt: skip
    result = Made(models=[model])
    (alone,) = findings_of("calibration", result)
    half = 0.03 * stats.t.isf(0.005 / len(FINDING_RULES), 39) / stats.t.isf(0.025, 39)
    assert alone.decision_interval == pytest.approx((0.1 - half, 0.1 + half), rel=1e-6)
    (one_of_two,) = findings_of("calibration", result, 2) or (None,)
    half = 0.03 * stats.t.isf(0.0025 / len(FINDING_RULES), 39) / stats.t.isf(0.025, 39)
    assert (one_of_two is not None) == (0.1 - half > 0.03)
    assert findings_of("calibration", result, 1000) == ()


@pytest.mark.parametrize(
    ("clue", "above", "below"),
    [
        (clue(9.0, "", Interval(8.9, 9.1), 30), True, False),
        (clue(-9.0, "", Interval(-9.1, -8.9), 30), False, True),
        (clue(1.5, "", Interval(1.2, 1.8), 30), False, False),  # clear at 95 % only
        (clue(0.5, "", Interval(0.2, 0.8), 30), False, False),
        (clue(9.0, "", NO_INTERVAL, 1), False, False),
        (clue(9.0, "", Interval(8.9, 9.1), 1), False, False),
        (clue(9.0, "", Interval(8.9, 9.1), 30, tokens=99), False, False),
        (clue(9.0, "", counted=True), True, False),
        (clue(0.9, "", counted=True), False, True),
        (clue(1.0, "", counted=True), False, False),
        (clue(9.0, "", counted=True, tokens=10), False, False),
        (clue(float("nan"), "", counted=True), False, False),
        (clue(9.0, "", Interval(float("nan"), 9.1), 30), False, False),
    ],
)
def test_a_rule_speaks_beyond_its_threshold_only(clue, above, below):
    decided = decision_interval(clue)
    assert (clears(ABOVE, clue, decided), clears(BELOW, clue, decided)) == (above, below)


def test_a_finding_says_what_the_rule_and_the_number_say(monkeypatch):
    rule = replace(
        ABOVE, id="one", view="x", look=lambda result: [clue(result, "nine", Interval(8.9, 9.1), 30, about="a")]
    )
    silent = replace(rule, id="two", look=lambda _: [clue(0.0, "", counted=True)])
    monkeypatch.setattr(engine, "FINDING_RULES", {"one": rule, "two": silent})
    (found,) = findings_of("x", 9.0)
    assert (found.id, found.value, found.sentence, found.about, found.threshold) == ("one", 9.0, "nine", "a", 1.0)
    assert found.value_interval == (8.9, 9.1)
    assert found.decision_interval.low < 8.9
    assert findings_of("y", 9.0) == ()


def test_the_gravest_is_first_and_then_the_larger_share():
    def finding(id: str, severity: str, share: float | None) -> RuleFinding:
        return RuleFinding(id, severity, "", "", "", 1.0, NO_INTERVAL, NO_INTERVAL, "", 0.0, False, share, "")

    first, second, third = list(FINDING_RULES)[:3]
    given = [finding(first, "note", 0.9), finding(third, "fault", None), finding(second, "fault", 0.1),
             finding(first, "warning", None)]  # fmt: skip
    assert worst_first(given) == (given[2], given[1], given[3], given[0])


def test_the_command_names_the_runs_in_their_order():
    class Stored:
        def __init__(self, path: str):
            self.path = Path(path)

    base = RuleFinding(
        "x", "note", "", "", "", 1.0, NO_INTERVAL, NO_INTERVAL, "", 0.0, False, None, "compare RUN RUN --by"
    )
    assert located(base, [Stored("a b"), Stored("c")]).look == "compare 'a b' c --by"
    copies = [Stored(f".lossprobe/objects/s3/bucket/{name}") for name in "xy"]
    assert located(base, copies).look == "compare s3://bucket/x s3://bucket/y --by"
    assert located(base, []).look == "compare RUN RUN --by"
    every = replace(base, look="series RUNS --plot")
    assert located(every, [Stored("a b"), Stored("c"), Stored("d")]).look == "series 'a b' c d --plot"
    assert located(every, []).look == "series RUNS --plot"


@pytest.mark.parametrize("rule", FINDING_RULES.values(), ids=list(FINDING_RULES))
def test_a_rule_is_declared_in_full(rule):
    from lossprobe.cli.main import cli

    assert rule.severity in SEVERITIES
    assert rule.view in cli.commands
    assert rule.command.split()[1] in cli.commands
    assert rule.id not in {*DIAGNOSES, *SEVERITIES}
    for text in (rule.title, rule.number, rule.why, rule.remedy):
        assert text
        assert "  " not in text
    assert rule.why.endswith(".")
    assert rule.remedy.endswith(".")
    assert rule.title[0].islower()
    assert not rule.title.endswith(".")


def test_there_are_rules_of_every_kind_of_view():
    assert len(FINDING_RULES) >= 25
    assert {rule.view for rule in FINDING_RULES.values()} >= {
        "perplexity", "tokens", "positions", "hardest", "calibration", "objectives", "compare", "gap", "preferences",
        "series", "findings",
    }  # fmt: skip
