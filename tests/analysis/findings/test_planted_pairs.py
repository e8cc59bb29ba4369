"""Rules on two stored runs with a planted difference: the number against numpy and pandas on the columns."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_runs import log_probabilities, tempered_logits
from fake_pairs import write_pair
from planted_runs import NON_ASCII, Planted, frame, jackknife

from lossprobe.analysis.compare.compare import compare
from lossprobe.analysis.compare.measured_divergence import measure_pair
from lossprobe.analysis.findings import findings
from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.findings.findings import find_findings
from lossprobe.analysis.findings.words import percent

CLOSE = 1e-5  # columns are float32


@pytest.fixture(scope="module")
def text() -> Planted:
    return Planted()


def one(result, id: str):
    """Return the finding of a rule."""
    (found,) = (each for each in findings_of("compare", result) if each.id == id)
    return found


def told(result) -> set[str]:
    return {each.id for each in findings_of("compare", result)}


def test_two_models_and_where_they_differ(text, tmp_path, monkeypatch):
    """The second is better but for digits and characters beyond ASCII; one token in a hundred is forgotten."""
    odd = np.isin(text.targets, NON_ASCII)
    second = text.lower(~odd, -0.6)
    second[np.flatnonzero(odd), text.targets[odd]] -= 1.5
    first, other = (text.run(tmp_path / name, logits, name=name) for name, logits in
                    (("one", text.logits), ("two", second)))  # fmt: skip
    result = compare(first, other, "class")
    change = frame(other)["loss"] - frame(first)["loss"]
    documents = frame(first)["document"]
    value, low, high = jackknife(documents, lambda kept: change.to_numpy()[kept].mean())
    better = one(result, "second-better")
    assert better.value == pytest.approx(value, rel=CLOSE)
    assert better.sentence == f"two is better than one: {value:+.4f} nats [{low:+.4f}, {high:+.4f}] a token"
    worse = one(result, "worse-on-a-slice")
    here = frame(first)["token_id"].isin(NON_ASCII)
    assert worse.about == "non-ascii"
    assert worse.value == pytest.approx(change[here].mean(), rel=CLOSE)
    assert f"two is worse by {change[here].mean():.2f} nats [" in worse.sentence
    assert f"{percent(here.mean())} of the tokens, while better as a whole" in worse.sentence
    monkeypatch.setattr(findings, "results_of", lambda run, once: iter(()))  # what is said of each alone
    assert worse.id in {each.id for each in find_findings([first, other]).findings}
    back = compare(other, first, "class")
    assert one(back, "second-worse").value == pytest.approx(-value, rel=CLOSE)
    assert one(back, "worse-on-a-slice").value == pytest.approx(worse.value, rel=CLOSE)
    assert one(back, "worse-on-a-slice").sentence.startswith(f"one is better by {worse.value:.2f} nats [")


def test_tokens_that_the_second_model_forgot(text, tmp_path):
    sure = text.lower(text.place > 5, 0.0)
    losses = np.log(np.exp(sure).sum(axis=1)) - sure[np.arange(len(sure)), text.targets]
    some = (losses < 1.0) & (text.rng.random(len(losses)) < 0.1)
    first, other = (text.run(tmp_path / name, logits, name=name) for name, logits in
                    (("one", text.logits), ("two", text.lower(some, 8.0))))  # fmt: skip
    found = one(compare(first, other, "class"), "tokens-forgotten")
    before, after = frame(first)["loss"], frame(other)["loss"]
    lost, gained = ((before < 1) & (after > 3)).sum(), ((before > 3) & (after < 1)).sum()
    assert found.value == pytest.approx((lost - gained) / len(before))
    assert found.sentence.startswith(
        f"two forgot {lost:,} tokens that one knew (from under 1 nat to over 3) and learned "
    )
    assert found.value_interval.low > 0


def test_what_two_noisy_models_exchange_is_no_forgetting(tmp_path):
    """2,000 tokens of which some 4 % change either way: the share lost is above 0.5 % by chance in one draw of four."""
    above = 0
    for seed in range(6):
        text = Planted(seed, tokens=1000, documents=20)
        noisy = [text.logits + 2.0 * text.rng.standard_normal(text.logits.shape) for _ in range(2)]
        runs = [
            text.run(tmp_path / f"{seed}-{name}", logits, name=name) for name, logits in zip("ab", noisy, strict=True)
        ]
        result = compare(*runs, "class")
        counts = result.token_comparison.counts
        above += counts.forgotten - counts.learned > 0.005 * counts.tokens
        assert "tokens-forgotten" not in told(result)
    assert above


def test_a_hundredth_of_the_tokens_that_carries_the_change(text, tmp_path):
    some = text.rng.random(len(text.targets)) < 0.008
    logits = text.lower(some, 3.0) + 0.02 * text.rng.standard_normal(text.logits.shape)
    first, other = (text.run(tmp_path / name, each, name=name) for name, each in
                    (("one", text.logits), ("two", logits)))  # fmt: skip
    found = one(compare(first, other, "class"), "few-tokens-differ")
    change = np.sort((frame(other)["loss"] - frame(first)["loss"]).abs())[::-1]
    assert found.value == pytest.approx(change[: round(0.01 * len(change))].sum() / change.sum(), rel=0.02)


def test_rounding_of_another_kernel_is_no_difference(text, tmp_path):
    some = text.rng.random(len(text.targets)) < 0.008
    first, other = (text.run(tmp_path / name, each, name=name) for name, each in
                    (("one", text.logits), ("two", text.lower(some, 1e-4))))  # fmt: skip
    assert told(compare(first, other, "class")) == set()


def test_a_higher_loss_with_more_right_first_choices(text, tmp_path):
    rows = np.arange(len(text.targets))
    some = (text.rng.random(len(rows)) < 0.1) & (text.logits.argmax(axis=1) != text.targets)
    logits = text.logits.copy()
    logits[some, text.targets[some]] = logits[some].max(axis=1) + 0.01
    first, other = (text.run(tmp_path / name, each, name=name) for name, each in
                    (("one", text.logits), ("two", tempered_logits(logits, 4.0))))  # fmt: skip
    found = one(compare(first, other, "class"), "loss-against-accuracy")
    right = [(frame(run)["rank"] == 0).mean() for run in (first, other)]
    assert found.value == pytest.approx(right[1] - right[0], rel=CLOSE)
    assert f"two has a higher loss and {100 * found.value:.2f} % [" in found.sentence


def with_divergence(folder, text, logits):
    """Return the comparison of the text's model and one with these logits, with the divergence of their predictions."""
    runs = [text.run(folder / name, each, name=name) for name, each in (("one", text.logits), ("two", logits))]
    one, two = log_probabilities(text.logits), log_probabilities(logits)
    kl = (np.exp(one) * (one - two)).sum(axis=1)
    return compare(*runs, "class").with_divergence(measure_pair(write_pair(*runs, kl))), kl


def mixed_up(text) -> np.ndarray:
    """Return logits that give each token what the text's own give it, and mix up what they give the other entries."""
    rows, logits = np.arange(len(text.targets)), np.roll(text.logits, 7, axis=1)
    here, there = text.targets, (text.targets + 7) % logits.shape[1]
    logits[rows, here], logits[rows, there] = logits[rows, there], logits[rows, here].copy()
    assert np.array_equal(logits[rows, here], text.logits[rows, here])
    return logits


def test_models_of_one_loss_that_predict_other_things(text, tmp_path):
    result, kl = with_divergence(tmp_path / "mixed", text, mixed_up(text))
    found = one(result, "same-loss-other-model")
    documents = frame(text.run(tmp_path / "again"))["document"]
    value, low, high = jackknife(documents, lambda kept: kl[kept].mean())
    assert [found.value, *found.value_interval] == pytest.approx([value, low, high], rel=1e-6)
    assert found.sentence == (
        f"one and two have the same loss and differ by {value:.3f} nats [{low:.3f}, {high:.3f}] (KL) a token"
    )


@pytest.mark.parametrize("kind", ["rounded", "worse", "unclear"])
def test_a_rounded_copy_and_a_worse_model_are_not_another_model_of_one_loss(text, tmp_path, kind):
    """Nor is one of which it is not clear whether it is better: its loss is a nat lower or higher by document."""
    noise = text.rng.standard_normal(text.logits.shape)
    logits = {"rounded": text.logits + 0.1 * noise, "worse": text.logits + 0.6 * noise, "unclear": mixed_up(text)}[kind]
    if kind == "unclear":
        logits[np.arange(len(text.targets)), text.targets] += np.where(text.documents % 2 == 0, 1.0, -1.0)
    result, kl = with_divergence(tmp_path, text, logits)
    assert (kl.mean() > 0.05) == (kind != "rounded")
    low, high = result.token_comparison.difference.mean_difference_nats_interval
    assert (low < -0.02 and high > 0.02) == (kind == "unclear")
    assert "same-loss-other-model" not in told(result)
