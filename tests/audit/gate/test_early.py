"""Stopping early: the same numbers as the whole text where all of it is needed, and the same verdict where not."""

import contextlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from fakes import SmallModel, checkpoint

from lossprobe.analysis.stats.confidence_sequence import looks
from lossprobe.audit.checks.decisions import decide, measure_from_sums
from lossprobe.audit.checks.metrics import METRICS
from lossprobe.audit.gate.early import CheckSums, needs_whole_text
from lossprobe.audit.gate.gate import run_audit
from lossprobe.audit.gate.texts import prepare
from lossprobe.audit.gate.update import update_baseline
from lossprobe.audit.settings import (
    AuditSettings,
    BaselineSettings,
    Check,
    DataSettings,
    Limit,
    ModelSettings,
    StatsSettings,
)
from lossprobe.errors import NotComparableError, NothingToScoreError, TextError, UsageError
from lossprobe.plan.options import ScoreOptions

NLL = METRICS["nll"]
DOCUMENTS = 60


def old_model():
    return checkpoint(SmallModel(seed=1), sha256="old")


def new_model():
    return checkpoint(SmallModel(seed=2), sha256="new")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a text of 60 documents, two of them empty of tokens to score."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh \n"), rng.integers(5, 60))) for _ in range(DOCUMENTS)]
    texts[7], texts[33] = "", "x"
    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"text": text, "n": i % 2}) + "\n" for i, text in enumerate(texts))
    )
    return tmp_path


def settings_of(folder, *checks, stop_early=False, seed=0, baseline=True, **data):
    return AuditSettings(
        file=folder / "lossprobe.toml",
        model=ModelSettings(checkpoint=folder / "model"),
        windows=ScoreOptions(context=16, bos="never"),
        data=(DataSettings(name="text", path=folder / "text.jsonl", **data),),
        baseline=BaselineSettings(folder / "baselines" if baseline else None),
        stats=StatsSettings(seed=seed, stop_early=stop_early),
        checks=checks or (check_of(),),
    )


def check_of(limit=0.01, kind="max_increase", **choices):
    return Check("nll", "text", "nll", Limit(kind, limit), **choices)


def test_where_the_whole_text_is_needed_the_numbers_are_those_of_the_whole_text(folder):
    update_baseline(settings_of(folder), old_model())
    whole = run_audit(settings_of(folder), new_model())
    undecidable = settings_of(folder, check_of(limit=whole.checks[0].measured), stop_early=True)
    early = run_audit(undecidable, new_model())
    assert early.texts[0].scored_share == 1.0
    assert early.checks[0].measured == pytest.approx(whole.checks[0].measured, rel=1e-9)
    assert early.checks[0].value == pytest.approx(whole.checks[0].value, rel=1e-9)
    assert (early.checks[0].tokens, early.texts[0].tokens) == (whole.checks[0].tokens, whole.texts[0].tokens)
    wide, narrow = (np.diff(result.checks[0].measured_interval)[0] for result in (early, whole))
    assert wide > 1.1 * narrow, "the last look spends half of the risk"


def test_a_clear_change_is_decided_on_a_part_of_the_text_and_no_run_is_left(folder):
    update_baseline(settings_of(folder), old_model())
    stored = sorted(path.name for path in (folder / ".lossprobe").iterdir())
    result = run_audit(settings_of(folder, check_of(limit=3.0), stop_early=True), new_model())
    assert result.verdict == "pass"
    assert result.texts[0].scored_share < 0.5
    assert result.finding.endswith(f"needed {result.texts[0].scored_share:.0%} of the text")
    assert sorted(path.name for path in (folder / ".lossprobe").iterdir()) == stored
    again = run_audit(settings_of(folder, check_of(limit=3.0), stop_early=True), new_model())
    assert again == result


def test_a_model_that_llama_cpp_runs_is_compared_with_its_baseline_and_told(folder):
    update_baseline(settings_of(folder), old_model())
    model = new_model()
    model.facts = replace(model.facts, compute_dtype="llama.cpp", batching="one window")
    model.tokenizer.sha256 = "of the file"
    notes = run_audit(settings_of(folder), model).notes
    told = "text: its baseline: computed in float32 then, llama.cpp now: a change holds the rounding of llama.cpp"
    assert told in notes
    assert any("tokenizers' files differ" in note for note in notes)
    model.facts = replace(model.facts, compute_dtype="bfloat16")
    with pytest.raises(NotComparableError, match=r"differs in dtype \(float32 and bfloat16\)"):
        run_audit(settings_of(folder), model)


@pytest.mark.parametrize("baseline", [True, False])
def test_progress_counts_to_the_tokens_of_the_text(folder, baseline):
    """With a baseline to their number; without one to an estimate, though some documents are thirty times as long."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh"), length)) for length in [900, 30, 30, 30] * 15]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    limit = {"limit": 0.0} if baseline else {"limit": 2.2, "kind": "max"}  # as near as to be decided late
    whole, told = sum(map(len, texts)), []

    @contextlib.contextmanager
    def shown(title):
        yield lambda done, total: told.append((done, total))

    if baseline:
        update_baseline(settings_of(folder), old_model())
    run_audit(settings_of(folder, check_of(**limit), stop_early=True, baseline=baseline), new_model(), shown=shown)
    assert len(told) > 2
    assert all(done <= total for done, total in told)
    most = 0 if baseline else 0.05 * whole
    assert max(abs(total - whole) for _, total in told) <= most


def test_the_seed_chooses_the_documents(folder):
    update_baseline(settings_of(folder), old_model())
    values = {
        run_audit(settings_of(folder, check_of(limit=3.0), stop_early=True, seed=seed), new_model()).checks[0].value
        for seed in range(3)
    }
    assert len(values) == 3


def test_a_slice_is_measured_on_the_documents_that_were_scored(folder):
    checks = [check_of(limit=9.0), replace(check_of(limit=9.0, field="n", equals="1"), id="odd")]
    settings = settings_of(folder, *checks)
    update_baseline(settings, old_model())
    whole = run_audit(settings, new_model())
    early = run_audit(replace(settings, stats=StatsSettings(stop_early=True)), new_model())
    assert early.checks[1].tokens < early.checks[0].tokens < whole.checks[0].tokens
    assert early.verdict == whole.verdict == "pass"


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (Check("e", "text", "ece", Limit("max", 1.0)), r"check e needs the whole text \(ece\)"),
        (Check("q", "text", "quantile", Limit("max", 9.0), quantile=0.5), "needs the whole text"),
        (Check("l", "text", "loss50_minus_loss500", Limit("max", 9.0)), "needs the whole text"),
        (check_of(rule="point", kind="max"), "rule point"),
        (check_of(9.0, "max", where="document < 3"), "where document < 3"),
    ],
)
def test_what_needs_the_whole_text_says_so_and_gets_it(folder, check, words):
    settings = settings_of(folder, check, stop_early=True)
    (text,) = prepare(settings, old_model())
    assert needs_whole_text(settings, text) is not None
    result = run_audit(settings, old_model())
    assert result.texts[0].scored_share == 1.0
    assert any(re.search(f"text: cannot stop early: .*{words}", note) for note in result.notes)


def test_one_document_cannot_be_stopped_in(folder):
    (folder / "text.jsonl").write_text(json.dumps({"text": "abc " * 30}) + "\n")
    result = run_audit(settings_of(folder, check_of(9.0, "max"), stop_early=True), old_model())
    assert "text: cannot stop early: it is one document" in result.notes


def test_a_text_of_empty_documents_has_nothing_to_score(folder):
    (folder / "text.jsonl").write_text(
        "".join(json.dumps({"text": chr(48 + number) * (number % 2)}) + "\n" for number in range(40))
    )
    settings = settings_of(folder, check_of(9.0, "max"), stop_early=True)
    with pytest.raises(NothingToScoreError, match="no document has 2 tokens"):
        run_audit(settings, old_model())


def test_a_single_document_with_tokens_among_empty_ones_gives_no_interval(folder):
    texts = ["abc def ghi"] + [""] * 39
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    result = run_audit(settings_of(folder, check_of(9.0, "max"), stop_early=True), old_model())
    assert (result.checks[0].verdict, result.checks[0].measured_interval) == ("inconclusive", (None, None))
    assert result.texts[0].scored_share == 1.0


def test_two_hundred_orders_give_the_verdict_of_the_whole_text():
    rng = np.random.default_rng(5)
    tokens = rng.lognormal(5.0, 0.7, 120).round() + 2.0
    difference = tokens * (0.08 + 0.06 * rng.standard_normal(120))
    sums = np.stack(
        [np.stack([side, tokens, tokens], axis=-1) for side in (3.0 * tokens, 3.0 * tokens + difference)], axis=1
    )
    check = check_of(0.01)
    assert decide(check, measure_from_sums(check, NLL, sums, 0.95, None).held) == "fail"
    shares = []
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(120)
        collected, before = CheckSums(check, NLL), 0
        for look in looks(120):
            collected.sums.append(sums[np.sort(order[before:look])])
            before = look
            if look < 120:
                collected.look(120, 0.95)
            if collected.decided is not None:
                break
        assert decide(check, collected.end(0.95).held) == "fail"
        shares.append(before / 120)
    assert np.mean(shares) < 0.25


def test_documents_that_all_agree_decide_nothing_early():
    collected = CheckSums(check_of(0.01), NLL)
    collected.sums.append(np.full((12, 2, 3), 100.0))
    collected.look(100, 0.95)
    assert collected.decided is None


def test_the_baseline_stays_where_a_check_fails_unless_forced(folder):
    settings = settings_of(folder, check_of(0.01), replace(check_of(0.5, "max"), id="absolute"))
    result, written = update_baseline(settings, old_model())
    assert (result.verdict, written) == ("fail", []), "a loss under 0.5 nats is out of reach"
    assert [check.check.id for check in result.checks] == ["absolute"], "there is nothing to measure a change from"
    assert not (folder / "baselines").exists()
    result, written = update_baseline(settings, old_model(), force=True)
    assert written == [folder / "baselines" / "text"]
    assert run_audit(settings_of(folder), old_model()).checks[0].measured_interval == (0.0, 0.0)


def test_a_missing_baseline_is_an_error_or_a_warning_or_is_made(folder):
    settings = settings_of(folder)
    with pytest.raises(NotComparableError, match="no baseline here"):
        run_audit(settings, old_model())
    warned = run_audit(replace(settings, baseline=replace(settings.baseline, missing="warn")), old_model())
    assert (warned.checks[0].verdict, warned.checks[0].effect) == ("inconclusive", "warn")
    assert not (folder / "baselines").exists()
    made = run_audit(replace(settings, baseline=replace(settings.baseline, missing="create")), old_model())
    assert (made.verdict, made.checks[0].measured_interval) == ("pass", (0.0, 0.0))
    assert any("has been made from this model" in note for note in made.notes)
    assert run_audit(settings, old_model()).verdict == "pass"


def test_a_baseline_is_made_only_where_one_is_missing_needed_and_deserved(folder):
    create = BaselineSettings(folder / "baselines", missing="create")
    failing = replace(check_of(0.5, "max"), id="absolute")
    result = run_audit(replace(settings_of(folder, check_of(), failing), baseline=create), old_model())
    assert (result.verdict, (folder / "baselines").exists()) == ("fail", False)
    keeping = replace(settings_of(folder, check_of(99.0, "max"), stop_early=True), baseline=create)
    (text,) = prepare(keeping, old_model())
    assert needs_whole_text(keeping, text) is None
    for settings in (keeping, replace(keeping, stats=StatsSettings())):
        assert run_audit(settings, old_model()).verdict == "pass"
        assert not (folder / "baselines").exists(), "no check needs it"
    run_audit(replace(settings_of(folder), baseline=create), old_model())
    before = (folder / "baselines/text/tokens.parquet").read_bytes()
    for check in (failing, check_of(9.0)):
        run_audit(replace(settings_of(folder, check), baseline=create), new_model())
    assert (folder / "baselines/text/tokens.parquet").read_bytes() == before


def test_a_field_that_no_record_has_is_refused(folder):
    with pytest.raises(UsageError, match="check nll: field leter: no document has this field"):
        run_audit(settings_of(folder, check_of(9.0, "max", field="leter", equals="1")), old_model())


def test_a_baseline_has_no_place_in_a_text(folder):
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text("abc def")
    settings = settings_of(folder)
    settings = replace(
        settings, data=(DataSettings(name="text", path=folder / "text"),), baseline=BaselineSettings(folder)
    )
    with pytest.raises(UsageError, match="is, or lies in, a text"):
        update_baseline(settings, old_model())


def test_what_differs_from_the_baseline_is_named(folder):
    update_baseline(settings_of(folder), old_model())
    with pytest.raises(NotComparableError, match=r"differs in context \(16 and 8\), stride"):
        run_audit(replace(settings_of(folder), windows=ScoreOptions(context=8, bos="never")), old_model())
    with pytest.raises(NotComparableError, match="lacks top_id, which a check needs"):
        run_audit(settings_of(folder, replace(check_of(), metric="accuracy")), old_model())
    (folder / "text.jsonl").write_text(json.dumps({"text": "another text"}) + "\n")
    with pytest.raises(NotComparableError, match="differs in text"):
        run_audit(settings_of(folder), old_model())


def test_a_text_with_another_sha256_is_refused_before_anything_is_scored(folder):
    settings = settings_of(folder, check_of(9.0, "max"), sha256="0" * 64)
    with pytest.raises(TextError, match="the audit file says 000000000000"):
        run_audit(settings, old_model())
    assert not (folder / ".lossprobe").exists()
    with pytest.raises(UsageError, match="is not a file"):
        run_audit(replace(settings, data=(replace(settings.data[0], path=folder),)), old_model())


def test_checks_that_are_off_are_not_looked_at(folder):
    off = replace(check_of(0.0, "max"), id="off", level="off")
    result = run_audit(settings_of(folder, off, check_of(9.0, "max"), baseline=False), old_model())
    assert [check.check.id for check in result.checks] == ["nll"]
    assert run_audit(settings_of(folder, off, baseline=False), old_model()).texts == []
