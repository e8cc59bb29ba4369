"""Rules on stored runs with a planted cause: the number of the finding against numpy and pandas on the columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_runs import smoothed_logits, tempered_logits, write_drawn
from fake_runs import words, write_run
from planted_runs import NON_ASCII, PIECES, Planted, frame, jackknife, spread

from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.findings.facts import find_facts
from lossprobe.analysis.findings.words import percent
from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.tokens import measure_tokens

CLOSE = 1e-5  # columns are float32


@pytest.fixture(scope="module")
def text() -> Planted:
    return Planted()


def one(view: str, result, id: str):
    """Return the finding of a rule."""
    (found,) = (each for each in findings_of(view, result) if each.id == id)
    return found


def told(view: str, result) -> set[str]:
    return {each.id for each in findings_of(view, result)}


def shown(value: float, low: float, high: float, form: str = ".2f") -> str:
    return f"{value:{form}} nats [{low:{form}}, {high:{form}}]"


def test_what_the_first_31_tokens_of_context_cost(text, tmp_path):
    run = text.run(tmp_path, text.lower(text.place < 31, 1.5))
    found = one("positions", measure_positions(run), "early-context")
    rows = frame(run)
    early = (rows["context"] < 32).to_numpy()
    both = rows["document"].isin(set(rows["document"][early]) & set(rows["document"][~early])).to_numpy()
    loss = rows["loss"].to_numpy()

    def number(kept):
        return loss[kept & early & both].mean() - loss[kept & ~early & both].mean()

    value, low, high = jackknife(rows["document"][both], lambda kept: number(spread(both, kept)))
    share = value * early.sum() / loss.sum()
    assert found.value == pytest.approx(value, rel=CLOSE)
    assert found.value_interval == pytest.approx((low, high), rel=1e-4)
    assert found.share_of_loss == pytest.approx(share, rel=CLOSE)
    assert found.sentence == (
        f"the first 32 tokens of context cost {shown(value, low, high)} more than the level later: {percent(share)} of "
        "the loss"
    )


def test_the_share_of_characters_beyond_ascii(text, tmp_path):
    run = text.run(tmp_path, text.lower(np.isin(text.targets, NON_ASCII), 6.0))
    found = one("hardest", find_hardest(run, "class"), "hard-class")
    rows = frame(run)
    odd = rows["token_id"].isin(NON_ASCII)
    value = rows["loss"][odd].mean() - rows["loss"][~odd].mean()
    share = rows["loss"][odd].sum() / rows["loss"].sum()
    assert found.about == "non-ascii"
    assert found.value == pytest.approx(value, rel=CLOSE)
    assert found.share_of_loss == pytest.approx(share, rel=CLOSE)
    start = f"{percent(share)} of the loss is in {percent(odd.mean())} of the tokens: non-ascii, {value:.2f} nats ["
    assert found.sentence.startswith(start)


@pytest.mark.parametrize(
    ("temperature", "rules"),
    [
        (0.6, {"expects-less-loss", "over-confident-choices", "over-confident-top", "temperature-far"}),
        (1.6, {"expects-more-loss", "under-confident-choices", "temperature-far"}),
    ],
)
def test_confidence_that_is_off(text, tmp_path, temperature, rules):
    run = text.run(tmp_path, tempered_logits(text.logits, temperature))
    result = measure_calibration(run)
    assert told("calibration", result) == rules
    rows = frame(run)
    right = (rows["rank"] == 0).astype(float)
    sure = rows["top_prob"] > 14 / 15
    excess, gap = rows["loss"] - rows["entropy_nats"].astype(float), rows["top_prob"].astype(float) - right
    expected = {
        "expects-less-loss": excess.mean(), "expects-more-loss": excess.mean(), "over-confident-choices": gap.mean(),
        "under-confident-choices": gap.mean(), "over-confident-top": gap[sure].mean(),
        "temperature-far": abs(np.log(temperature)),
    }  # fmt: skip
    for id in rules - {"temperature-far"}:
        found = one("calibration", result, id)
        assert found.value == pytest.approx(expected[id], rel=1e-4)
        assert f" {abs(expected[id]):.3f}" in found.sentence
        if id != "over-confident-top":
            values = (excess if "loss" in id else gap).to_numpy()
            ends = jackknife(rows["document"], lambda kept: values[kept].mean())  # noqa: B023
            assert found.value_interval == pytest.approx(ends[1:], rel=1e-3)
    far = one("calibration", result, "temperature-far")
    assert far.value == pytest.approx(expected["temperature-far"], abs=0.06)  # of the model is 1 / temperature
    if temperature < 1:
        found = one("calibration", result, "over-confident-top")
        words = f"with {rows['top_prob'][sure].mean():.3f} on average are right in {percent(right[sure].mean())}, "
        assert f"{words}a gap of {gap[sure].mean():.3f} [" in found.sentence


def test_label_smoothing_is_seen_with_its_size(text, tmp_path):
    found = one(
        "calibration", measure_calibration(text.run(tmp_path, smoothed_logits(text.logits, 0.2))), "smoothing-seen"
    )
    assert found.value == pytest.approx(0.2, abs=0.06)


def test_documents_known_by_heart(text, tmp_path):
    sizes = np.bincount(text.documents)
    known = np.argsort(sizes)[-3:]
    run = text.run(tmp_path, text.lower(np.isin(text.documents, known), -40.0))
    found = one("findings", find_facts(run), "known-by-heart")
    rows = frame(run)
    means = rows.groupby("document")["loss"].agg(["mean", "size"])
    judged = means[means["size"] >= 32]
    by_heart = judged[judged["mean"] < 0.1]
    assert sorted(by_heart.index) == sorted(known)
    share = by_heart["size"].sum() / judged["size"].sum()
    assert found.value == 3
    assert found.sentence == (
        f"3 documents of {len(judged)} are known by heart (under 0.1 nats a token): {percent(share)} of the tokens of "
        "all these"
    )


def test_the_one_bad_document(text, tmp_path):
    bad = int(np.bincount(text.documents).argmax())
    run = text.run(tmp_path, text.lower(text.documents == bad, 8.0))
    found = one("hardest", find_hardest(run, "document", top=1), "hard-document")
    rows = frame(run)
    sizes = rows.groupby("document")["loss"].agg(["mean", "size"])
    others = rows[rows["document"].isin(sizes.index[sizes["size"] >= 64]) & (rows["document"] != bad)]
    value = sizes["mean"][bad] - others["loss"].mean()
    rest = sizes["mean"][sizes["size"] >= 64].drop(bad)
    deviations = (sizes["mean"][bad] - rest.median()) / (1.4826 * (rest - rest.median()).abs().median())
    share = rows["loss"][rows["document"] == bad].sum() / rows["loss"].sum()
    assert found.value == pytest.approx(value, rel=CLOSE)
    assert found.about == str(bad)
    assert f"({deviations:.0f} times what {len(rest) + 1} documents usually differ), {percent(share)} of the loss" in (
        found.sentence
    )
    place = one("perplexity", measure_perplexity(run), "loss-in-one-place")
    assert place.value == pytest.approx(share - (rows["document"] == bad).mean(), rel=CLOSE)
    assert f"{share:.1%} of the loss" in place.sentence
    assert place.look == "lossprobe hardest --by document RUN"


def test_a_single_token_that_carries_the_loss_is_looked_up_by_token(text, tmp_path):
    rows = np.arange(len(text.targets)) == 700
    run = text.run(tmp_path, text.lower(rows, 80_000.0))
    found = one("perplexity", measure_perplexity(run), "loss-in-one-place")
    loss = frame(run)["loss"]
    assert found.value == pytest.approx(loss.max() / loss.sum() - 1 / len(loss), rel=CLOSE)
    assert "one token" in found.sentence
    assert found.look == "lossprobe hardest RUN"
    carried = one("tokens", measure_tokens(run), "few-tokens-carry")
    hard = np.sort(loss)[::-1][: len(loss) // 10]
    assert carried.value == pytest.approx(hard.sum() / loss.sum(), rel=1e-4)


@pytest.mark.parametrize("by", ["file", "field"])
def test_a_file_and_a_field_that_are_harder(text, tmp_path, by):
    number = text.documents // 15
    run = text.run(
        tmp_path, text.lower(number == 3, 3.0), sources=[f"part-{place // 15}.jsonl" for place in range(60)],
        fields=[{"from": f"source {place // 15}"} for place in range(60)],
    )  # fmt: skip
    found = (one("findings", find_facts(run), "hard-file") if by == "file" else
             one("hardest", find_hardest(run, "from"), "hard-group"))  # fmt: skip
    rows = frame(run)
    bad = rows["document"] >= 45
    value = rows["loss"][bad].mean() - rows["loss"][~bad].mean()
    share = rows["loss"][bad].sum() / rows["loss"].sum()
    assert found.value == pytest.approx(value, rel=CLOSE)
    assert found.about == ("part-3.jsonl" if by == "file" else "source 3")
    assert f"{value:.2f} nats [" in found.sentence
    assert f"{percent(share)} of the loss in {percent(bad.mean())} of the tokens" in found.sentence


def test_two_documents_that_agree_by_chance_do_not_make_a_file_of_a_hundred_harder(tmp_path):
    """100 documents at 5 bits ± 0.1 and two at 1.00 and 1.09: two say nothing, of whichever file it is told."""
    levels = 5 + 0.1 * np.random.default_rng(0).standard_normal(100)
    many = [(level, "many.txt") for level in levels] + [(1.0, "two.txt"), (1.09, "two.txt")]
    docs = [
        replace(words("first_token", *[level] * 40), source=source, line=line)
        for line, (level, source) in enumerate(many)
    ]
    assert "hard-file" not in told("findings", find_facts(write_run(tmp_path / "two", docs)))
    six = [replace(words("first_token", *[1 + 0.02 * k] * 40), source="two.txt", line=k) for k in range(8)]
    assert "hard-file" in told("findings", find_facts(write_run(tmp_path / "six", docs[:100] + six)))


def test_text_that_copies_itself(tmp_path):
    """Of each of 20 documents all but the first 40 tokens are one that stood before, which the model expects."""
    text = Planted()
    text.documents = np.repeat(np.arange(20), 300)
    copied = np.tile(np.arange(300) >= 40, 20)
    text.targets[copied] = np.repeat(text.targets[::300], 300)[copied]
    logits = text.lower(copied, -30.0)
    logits[np.flatnonzero(~copied), text.targets[~copied]] -= 3.0
    run = text.run(tmp_path, logits)
    rows = frame(run)
    found = one("hardest", find_hardest(run, "class"), "copied-text")
    repeat = (rows.groupby(["document", "token_id"]).cumcount() > 0) | (rows["token_id"] == 0)  # the first one is 0
    value = rows["loss"][repeat].mean()
    assert found.value == pytest.approx(value, rel=CLOSE)
    assert found.sentence.startswith(
        f"{percent(repeat.mean())} of the tokens stood in the context before and cost {value:.2f} nats ["
    )
    assert f"first ones {rows['loss'][~repeat].mean():.2f}:" in found.sentence


def test_a_model_that_knows_nothing_and_one_with_rounded_logits(text, tmp_path):
    run = text.run(tmp_path / "flat", -0.1 * text.logits)
    result, rows = measure_perplexity(run), frame(run)
    uniform = one("perplexity", result, "near-uniform")
    value, low, high = jackknife(rows["document"], lambda kept: rows["loss"].to_numpy()[kept].mean() / np.log(64))
    assert uniform.value == pytest.approx(value, rel=CLOSE)
    assert uniform.value_interval == pytest.approx((low, high), rel=1e-4)
    counts = rows["token_id"].value_counts() / len(rows)
    worse = one("perplexity", result, "worse-than-unigram")
    assert worse.value == pytest.approx(rows["loss"].mean() + (counts * np.log(counts)).sum(), rel=1e-4)
    rounded = text.run(tmp_path / "rounded", np.round(text.logits * 2) / 2)
    tied = one("findings", find_facts(rounded), "tied-logits")
    assert tied.value == pytest.approx((frame(rounded)["ties"] > 1).mean(), rel=CLOSE)
    assert f"{100 * tied.value:.1f} % [" in tied.sentence


def test_short_documents_and_copies(tmp_path):
    text = Planted(tokens=600, documents=60)
    text.documents = np.repeat(np.arange(60), 10)
    text.targets[300:] = text.targets[:300]
    text.logits[300:] = text.logits[:300]
    result = measure_perplexity(text.run(tmp_path))
    assert one("perplexity", result, "first-tokens-unscored").value == pytest.approx(60 / 660)
    copies = one("perplexity", result, "repeated-documents")
    assert copies.value == 0.5
    assert copies.sentence == "50 % of 60 documents are copies of others: 30 different ones"


def test_the_planted_runs_are_clean_without_their_cause(text, tmp_path):
    run = write_drawn(tmp_path, text.logits, text.targets, text.documents, vocabulary=PIECES).run
    for view, result in (("positions", measure_positions(run)), ("hardest", find_hardest(run, "class")),
                         ("hardest", find_hardest(run, "document", top=1)), ("calibration", measure_calibration(run)),
                         ("findings", find_facts(run)), ("perplexity", measure_perplexity(run))):  # fmt: skip
        assert told(view, result) <= {"context-unused"}
