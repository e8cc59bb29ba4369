"""Every rule speaks of a result with its fault, with the number of the result, and not of one without."""

from __future__ import annotations

from types import SimpleNamespace as Made

import numpy as np
import pandas as pd
import pytest

from lossprobe.analysis.context_contrasts import ContextContrast
from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.findings.facts import AnswerEnds
from lossprobe.analysis.findings.words import percent
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.proportion import newcombe, wilson
from lossprobe.report.views.findings import told_in_lines

DOCUMENTS = 60
COVERAGE = {
    "tokens_read": 10_000, "bytes_read": 40_000, "bytes_normalized": 0, "bytes_vanished": 0, "special_strings": 0,
    "records_read": 100, "records_skipped": 0, "tokens_unscored": {},
}  # fmt: skip


def near(value: float, half: float = 0.001) -> Interval:
    return Interval(value - half, value + half)


def perplexity(nll=2.0, *, unigram=5.0, coverage=None, documents=100, distinct=100, concentration=None):
    token = Made(nll_nats_per_token=nll, nll_nats_per_token_interval=near(nll), tokens_scored=9_000)
    return Made(
        per_token=token, uniform_nats=8.0, unigram_nats=unigram, unigram_comparable=True, clusters=DOCUMENTS,
        documents=documents, scored_documents=documents, distinct_documents=distinct, concentration=concentration,
        coverage=COVERAGE | (coverage or {}),
    )  # fmt: skip


def positions(name: str, difference: float):
    contrast = ContextContrast(name, 1, 31, 32, 255, difference, near(difference), DOCUMENTS, 0.07)
    return Made(contrasts=[contrast], table=pd.DataFrame({"count": [9_000]}))


def classes(**losses):
    """Return the classes of a text: 99 % words at 2 nats and 1 % of one kind; or the occurrences."""
    rows = []
    for kind, (share, mean) in losses.items():
        rows.append(
            {"kind": "form", "class": kind, "count": round(10_000 * share), "share_of_tokens": share,
             "mean_loss_nats": mean, "low": mean - 0.01, "high": mean + 0.01, "clusters": DOCUMENTS}
        )  # fmt: skip
    return hardest("class", rows)


def hardest(by: str, rows, outlier=None):
    table = pd.DataFrame(rows)
    total = 0.0
    if len(table):
        total = float((table["share_of_tokens"] * table["mean_loss_nats"]).sum())
        table["share_of_loss"] = table["share_of_tokens"] * table["mean_loss_nats"] / total
    return Made(by=by, table=table, outlier=outlier, total_nats=10_000 * total, group_count=len(table))


def occurrences(first: float, repeat: float):
    found = classes(first=(0.2, first), repeat=(0.8, repeat))
    return hardest("class", found.table.assign(kind="occurrence"))


def groups(by: str, **losses):
    found = classes(**losses)
    return hardest(by, found.table.rename(columns={"class": "group"}).assign(documents=30))


def outlier(difference: float, deviations: float):
    found = Made(document=3, documents=40, difference_nats=difference, difference_nats_interval=near(difference),
                 deviations=deviations, share_of_loss=0.1, clusters=16)  # fmt: skip
    return hardest("document", [], found)


def calibration(excess=0.0, gap=0.0, top=0.0, temperature=1.0, slope=0.0, epsilon=None):
    bins = pd.DataFrame(
        [{"binning": "equal width", "low": low, "high": low + 1 / 15, "count": 500, "mean_probability": 0.97,
          "hit_rate": 0.97 - by, "gap": by, "gap_low": by - 0.001, "gap_high": by + 0.001}
         for low, by in ((0.8667, 0.5), (0.9333, top))]
    )  # fmt: skip
    measures = {name: Made(value=value, interval=near(value))
                for name, value in (("nll_minus_entropy_nats", excess), ("confidence_gap", gap))}  # fmt: skip
    model = Made(
        name="m", clusters=DOCUMENTS, tokens_scored=9_000, bins=bins, measures=measures,
        temperature=Made(temperature=temperature, temperature_interval=near(temperature)),
        effective_smoothing=Made(epsilon=epsilon, slope_epsilon=slope, slope_epsilon_interval=near(slope)),
    )  # fmt: skip
    return Made(models=[model])


def facts(tied=0.0, known=0, files=(), answers=None, prompts=None, ends=None, defects=()):
    return Made(
        tokens_scored=9_000, clusters=DOCUMENTS, tied_share=tied, tied_share_interval=near(tied),
        memorised=Made(documents=known, judged_documents=100, share_of_tokens=0.02), files=pd.DataFrame(files),
        defects=Made(places=230, share_of_loss=sum(one for _, one in defects), causes=defects), answers_scored=answers,
        prompts_scored=prompts, answer_ends=None if ends is None else AnswerEnds(80, ends, near(ends), DOCUMENTS, 0.02),
    )  # fmt: skip


def files(one: float, other: float):
    found = groups("file", a=(0.5, one), b=(0.5, other)).table
    return facts(files=found.rename(columns={"group": "file"}).to_dict("records"))


def comparison(mean=0.0, *, accuracy=0.0, forgotten=0, carried=0.1, slice_mean=None, kl=None):
    difference = Made(mean_difference_nats=mean, mean_difference_nats_interval=near(mean, 1e-4),
                      accuracy_difference=accuracy, accuracy_difference_interval=near(accuracy, 1e-4),
                      sd_difference_nats=0.3)  # fmt: skip
    cumulative = pd.DataFrame({"share_of_tokens": [0.01, 1.0], "share_of_change": [carried, 1.0]})
    tokens = Made(first="a", second="b", difference=difference, clusters=DOCUMENTS, identical=False,
                  cumulative=cumulative, evidence=Made(design_effect=1.5),
                  counts=Made(tokens=10_000, forgotten=forgotten, learned=10))  # fmt: skip
    rows = [] if slice_mean is None else [
        {"group": "digits", "tokens": 500, "mean_difference_nats": slice_mean, "low": slice_mean - 0.001,
         "high": slice_mean + 0.001, "clusters": DOCUMENTS}
    ]  # fmt: skip
    apart = None if kl is None else Made(mean_kl_nats=kl, mean_kl_nats_interval=near(kl), tokens=10_000)
    changes = Made(by="class", tokens=10_000, groups=len(rows), table=pd.DataFrame(rows))
    return Made(token_comparison=tokens, changes=changes, divergence=apart, byte_comparison=None)


def by_bytes(bits: float, file_bits: float | None = None):
    difference = Made(difference_bits_per_byte=bits, difference_bits_per_byte_interval=near(bits, 1e-4),
                      first_bytes_per_token=4.0, second_bytes_per_token=3.0)  # fmt: skip
    rows = [] if file_bits is None else [
        {"file": "a.txt", "bytes": 9_000, "share_of_bytes": 0.1, "difference_bits_per_byte": file_bits,
         "low": file_bits - 1e-3, "high": file_bits + 1e-3, "clusters": DOCUMENTS}
    ]  # fmt: skip
    found = Made(first="a", second="b", difference=difference, clusters=DOCUMENTS, by_file=pd.DataFrame(rows),
                 counts=Made(bytes_compared=40_000))  # fmt: skip
    return Made(token_comparison=None, changes=None, divergence=None, byte_comparison=found)


def gap(share=0.0, validation=0, train=0.0):
    def side(documents, known):
        return Made(clusters=DOCUMENTS, tokens=9_000, nll_nats=2.0,
                    memorised=Made(documents=documents, share_of_documents=known))  # fmt: skip

    return Made(
        gap_nats=2 * share, gap_nats_interval=near(2 * share), gap_same_mix_nats=None,
        gap_same_mix_nats_interval=NO_INTERVAL, train=side(0, train), validation=side(validation, 0.0),
    )  # fmt: skip


def preferences(right=0.7, reward=None, bias=0.0, equal=0):
    longer, shorter = wilson(0.5 + bias / 2, 500), wilson(0.5 - bias / 2, 500)
    side = Made(score="sum", length_bias=bias, length_bias_interval=newcombe(longer, shorter).interval,
                right_where_longer=longer.value, right_where_longer_interval=longer.interval,
                right_where_shorter=shorter.value, right_where_shorter_interval=shorter.interval)  # fmt: skip
    return Made(
        ranked_right_per_token=right, ranked_right_per_token_interval=wilson(right, 1000).interval,
        reward_accuracy=reward, reward_accuracy_interval=wilson(reward or 0.0, 1000).interval, length_bias=[side],
        pairs=1000, equal_sides=equal, pairs_without_tokens=0,
        table=pd.DataFrame({"chosen_tokens": [20] * 1000, "rejected_tokens": [20] * 1000}),
    )  # fmt: skip


def series(rise=0.0, lost=0):
    table = pd.DataFrame([{"difference_nats": rise, "difference_low": rise - 0.001, "difference_high": rise + 0.001}])
    return Made(
        table=table, clusters=DOCUMENTS, tokens=10_000, states={"forgotten": lost, "unstable": 0}, threshold="1 nat"
    )


def objectives(routing=None, scale=1024):
    balance = None if routing is None else pd.DataFrame({"load_balancing_loss": [routing]})
    return Made(load_balancing=balance, experts_per_token=2, tokens_scored=9_000, half_precision=pd.DataFrame(),
                recommended_loss_scale=scale)  # fmt: skip


def unscored(reason: str, count: int):
    return perplexity(coverage={"tokens_unscored": {reason: count}})


ONE_PLACE = Made(share_of_loss=0.6, share_of_tokens=0.1, documents=1, finding="document 3 carries 60.0% of the loss")
SOME_PLACE = Made(share_of_loss=0.3, share_of_tokens=0.15, documents=1, finding="")
# rule → a result with the fault, its number, and a result without.
CASES = {
    "near-uniform": (perplexity(7.6), 7.6 / 8, perplexity(7.0)),
    "worse-than-unigram": (perplexity(5.5), 0.5, perplexity(5.05)),
    "unknown-tokens": (unscored("unknown", 50), 0.005, unscored("unknown", 5)),
    "truncated": (unscored("truncated", 200), 0.02, unscored("truncated", 50)),
    "first-tokens-unscored": (unscored("first_token", 800), 0.08, unscored("first_token", 400)),
    "bytes-vanished": (perplexity(coverage={"bytes_vanished": 8}), 0.0002, perplexity(coverage={"bytes_vanished": 2})),
    "bytes-normalised": (perplexity(coverage={"bytes_normalized": 80}), 0.002, perplexity()),
    "control-strings": (perplexity(coverage={"special_strings": 1200}), 0.12, perplexity()),
    "records-skipped": (perplexity(coverage={"records_skipped": 25}), 0.2, perplexity(coverage={"records_skipped": 1})),
    "repeated-documents": (perplexity(distinct=80), 0.2, perplexity(distinct=97)),
    "loss-in-one-place": (perplexity(concentration=ONE_PLACE), 0.5, perplexity(concentration=SOME_PLACE)),
    "few-tokens-carry": (
        Made(hard_tokens_share_of_loss=0.9, tokens_scored=9_000), 0.9,
        Made(hard_tokens_share_of_loss=0.5, tokens_scored=9_000),
    ),
    "early-context": (positions("beginning", 0.41), 0.41, positions("beginning", 0.05)),
    "first-tokens-costly": (positions("first tokens", 5.0), 5.0, positions("first tokens", 2.0)),
    "context-unused": (positions("reach", 0.01), 0.01, positions("reach", 0.5)),
    "longer-context-pays": (positions("end", 0.1), 0.1, positions("end", 0.01)),
    "loss-rises-at-end": (positions("end", -0.3), 0.3, positions("end", 0.3)),
    "hard-class": (
        classes(**{"word start": (0.99, 2.0), "non-ascii": (0.01, 7.0)}), 5.0,
        classes(**{"word start": (0.5, 7.0), "non-ascii": (0.5, 3.0)}),
    ),
    "copied-text": (occurrences(5.0, 0.2), 0.2, occurrences(5.0, 1.2)),
    "end-of-turn-hard": (facts(ends=4.2), 4.2, facts(ends=0.1)),
    "hard-group": (groups("lang", en=(0.75, 2.0), fr=(0.25, 4.0)), 2.0, groups("lang", en=(0.75, 2.0), fr=(0.25, 2.5))),
    "hard-document": (outlier(4.0, 12.0), 4.0, outlier(4.0, 3.0)),
    "expects-less-loss": (calibration(excess=0.2), 0.2, calibration(excess=0.02)),
    "expects-more-loss": (calibration(excess=-0.2), -0.2, calibration(excess=0.2)),
    "over-confident-choices": (calibration(gap=0.05), 0.05, calibration(gap=-0.05)),
    "under-confident-choices": (calibration(gap=-0.05), -0.05, calibration()),
    "over-confident-top": (calibration(top=0.04), 0.04, calibration(top=0.001)),
    "temperature-far": (calibration(temperature=0.8), -np.log(0.8), calibration(temperature=1.05)),
    "smoothing-seen": (calibration(slope=0.08, epsilon=0.09), 0.08, calibration(slope=0.08)),
    "tied-logits": (facts(tied=0.23), 0.23, facts(tied=0.001)),
    "known-by-heart": (facts(known=3), 3.0, facts()),
    "defects-in-text": (facts(defects=[("mojibake", 0.08), ("markup", 0.04)]), 0.12, facts(defects=[("markup", 0.04)])),
    "answers-masked": (facts(answers=0.1, prompts=0.9), 0.9, facts(answers=1.0, prompts=0.9)),
    "hard-file": (files(4.0, 2.0), 2.0, files(2.2, 2.0)),
    "second-worse": (comparison(0.07), 0.07, comparison(0.005)),
    "second-better": (comparison(-0.07), -0.07, comparison(-0.005)),
    "second-worse-by-byte": (by_bytes(0.02), 0.02, by_bytes(0.003)),
    "second-better-by-byte": (by_bytes(-0.02), -0.02, by_bytes(-0.003)),
    "worse-on-a-file": (by_bytes(-0.02, 0.05), 0.05, by_bytes(-0.02, -0.05)),
    "worse-on-a-slice": (comparison(-0.07, slice_mean=0.2), 0.2, comparison(-0.07, slice_mean=-0.2)),
    "tokens-forgotten": (comparison(forgotten=210), 0.02, comparison(forgotten=12)),
    "loss-against-accuracy": (comparison(0.07, accuracy=0.01), 0.01, comparison(0.07, accuracy=-0.01)),
    "few-tokens-differ": (comparison(carried=0.8), 0.8, comparison()),
    "same-loss-other-model": (comparison(kl=0.3), 0.3, comparison(0.2, kl=0.3)),
    "over-fitted": (gap(0.3), 0.3, gap(0.05)),
    "validation-leak": (gap(validation=2), 2.0, gap()),
    "training-by-heart": (gap(train=0.1), 0.1, gap()),
    "chosen-less-likely": (preferences(right=0.3), 0.3, preferences()),
    "rewards-wrong": (preferences(reward=0.3), 0.3, preferences(reward=0.7)),
    "length-bias": (preferences(bias=-0.3), 0.3, preferences(bias=-0.05)),
    "pairs-unranked": (preferences(equal=100), 0.1, preferences(equal=2)),
    "last-checkpoint-worse": (series(rise=0.2), 0.2, series(rise=-0.2)),
    "tokens-lost": (series(lost=1500), 0.15, series(lost=100)),
    "routing-uneven": (objectives(routing=4.0), 2.0, objectives(routing=2.1)),
    "loss-scale-high": (objectives(scale=1 << 17), float(1 << 17), objectives()),
}  # fmt: skip


def test_every_rule_has_a_case():
    assert CASES.keys() == FINDING_RULES.keys()


@pytest.mark.parametrize("id", CASES)
def test_a_rule_speaks_of_its_fault_and_of_nothing_else(id):
    faulty, number, clean = CASES[id]
    view = FINDING_RULES[id].view
    (found,) = (each for each in findings_of(view, faulty) if each.id == id)
    assert found.value == pytest.approx(number, rel=1e-9)
    assert found.sentence
    assert "  " not in found.sentence
    assert "{" not in found.sentence
    assert id not in {each.id for each in findings_of(view, clean)}


@pytest.mark.parametrize("id", CASES)
def test_the_share_of_the_loss_is_told_once(id):
    (found,) = (each for each in findings_of(FINDING_RULES[id].view, CASES[id][0]) if each.id == id)
    whole = Made(table=pd.DataFrame({"model": ["m"]}), findings=[found], models=["m"], finding="")
    lines = "\n".join(list(told_in_lines(whole))[2:4]).replace(f"{found.threshold:g} {found.unit}", "")
    told = lines.count(" of the loss")
    assert told == (found.share_of_loss is not None)
    assert told == 0 or percent(found.share_of_loss) + " of the loss" in lines or id == "loss-in-one-place"


def test_a_clue_of_ten_tokens_is_no_finding():
    few = perplexity(7.9)
    few.per_token.tokens_scored = 10
    assert findings_of("perplexity", few) == ()


def test_of_few_tokens_the_use_of_experts_is_not_told():
    """Of 100 tokens over 128 experts chance alone makes the loss 2.3 times that of even use."""
    few = objectives(routing=4.0)
    few.tokens_scored = 999
    assert "routing-uneven" not in {each.id for each in findings_of("objectives", few)}


def test_slices_that_are_not_shown_were_looked_at_too():
    one, many = comparison(-0.07, slice_mean=0.2), comparison(-0.07, slice_mean=0.2)
    many.changes.groups = 500
    ends = [findings_of("compare", each)[0].decision_interval.high for each in (one, many)]
    assert ends[1] - 0.2 > 1.2 * (ends[0] - 0.2)


def test_results_without_what_the_rules_look_for():
    nothing = Made(token_comparison=None, changes=None, divergence=None, byte_comparison=None)
    assert findings_of("compare", nothing) == ()
    assert findings_of("positions", Made(contrasts=[])) == ()
    assert findings_of("hardest", Made(by="token", outlier=None, table=pd.DataFrame(), total_nats=0.0)) == ()
    assert findings_of("curve", object()) == ()
