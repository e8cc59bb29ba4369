"""Where few documents decide, an audit goes on to the whole text and says why."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from audit.gate.early_checks import paired
from fakes import SmallModel, checkpoint

from lossprobe.audit.checks.metrics import METRICS
from lossprobe.audit.gate.early import CheckSums
from lossprobe.audit.gate.gate import run_audit
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
from lossprobe.plan.options import ScoreOptions
from lossprobe.report.audit.json import audit_to_json
from lossprobe.report.audit.markdown import audit_to_markdown
from lossprobe.report.audit.text import audit_to_terminal

DOCUMENTS = 120
EIGHTY = np.random.default_rng(2).standard_normal(80)


class Broken(torch.nn.Module):
    """The old model, a little noise in its head, and one letter that it has forgotten."""

    def __init__(self, forgotten=6.0):
        super().__init__()
        self.forgotten = forgotten
        self.old = SmallModel(seed=1)
        self.noise = 0.02 * torch.randn(257, generator=torch.Generator().manual_seed(2))

    def forward(self, ids):
        logits = self.old(ids) + self.noise
        logits[..., ord("z")] -= self.forgotten
        return logits


def settings_of(folder, limit, *, early=True, seed=0, **choices):
    return AuditSettings(
        file=folder / "lossprobe.toml",
        model=ModelSettings(checkpoint=folder / "model"),
        windows=ScoreOptions(context=32, bos="never"),
        data=(DataSettings(name="text", path=folder / "text.jsonl"),),
        baseline=BaselineSettings(folder / "baselines"),
        stats=StatsSettings(seed=seed, stop_early=early),
        checks=(Check("nll", "text", "nll", Limit("max_increase", limit), **choices),),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text of which one document in twenty is written with z, and its baseline."""
    folder = tmp_path_factory.mktemp("audit")
    rng = np.random.default_rng(0)
    letters = [list("zzzzabcd " if number % 20 == 7 else "abcdefgh ") for number in range(DOCUMENTS)]
    records = [{"text": "".join(rng.choice(chosen, 40)), "z": str("z" in chosen)} for chosen in letters]
    (folder / "text.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        update_baseline(settings_of(folder, 1.0), checkpoint(SmallModel(seed=1), sha256="old"))
    return folder


@pytest.fixture
def audit(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def audit(limit, model=None, **choices):
        return run_audit(settings_of(folder, limit, **choices), checkpoint(model or Broken(), sha256="new"))

    return audit


@pytest.mark.thorough
def test_a_limit_that_a_twentieth_of_the_documents_breaks_does_not_pass_early(audit):
    whole = audit(1.0, early=False)
    limit = 0.9 * whole.checks[0].measured
    assert limit > 0.05
    results = [audit(limit, seed=seed) for seed in range(4)]
    assert {(each.checks[0].verdict, each.texts[0].scored_share) for each in results} == {("inconclusive", 1.0)}
    refused = [each for each in results if each.notes]
    assert refused, "by the interval alone these would have passed"
    for result in refused:
        assert result.notes[0].startswith("text: check nll was not decided early, after ")
        for shown in (audit_to_terminal(result, 200), audit_to_markdown(result), audit_to_json(result)):
            assert "was not decided early" in shown


@pytest.mark.thorough
def test_documents_that_the_baseline_tells_apart_keep_a_pass_from_being_early(audit):
    result = audit(0.5, Broken(forgotten=0.0))
    assert result.checks[0].verdict == "pass"
    (note,) = result.notes
    assert "unlike the rest under the baseline (skewness of their mean losses" in note


def test_a_slice_of_documents_is_held_against_the_documents_of_the_slice(audit):
    result = audit(0.5, field="z", equals="False")
    assert result.checks[0].verdict == "pass"
    assert not any("under the baseline" in note for note in result.notes)


def test_changes_of_which_few_carry_most_decide_nothing_and_the_number_is_told():
    n = np.full(80, 50.0)
    s = 0.01 * n * EIGHTY
    s[5] = 2.0 * n[5]
    collected = look_at(s, n, 0.4)
    assert collected.decided is None
    # the skewness of the changes themselves, as all documents have as many tokens
    change = s / n - (s / n).mean()
    expected = (change**3).mean() / (change**2).mean() ** 1.5
    assert f"(skewness {expected:.2f} towards the limit, at most 0.89 with 80 documents)" in collected.refused
    assert look_at(-s, n, -0.4).refused is not None, "a fail, where one document is much better"
    assert look_at(-s, n, 0.4).refused is None, "a tail that leads away from the limit is no reason"
    assert look_at(s, n, -0.4).refused is None


def test_a_floor_has_its_tail_below():
    sums = np.stack([np.full(80, 30.0), np.full(80, 50.0), np.full(80, 50.0)], axis=-1)[:, None]
    sums[:, 0, 0] += np.round(3 * EIGHTY)
    sums[3, 0, 0] = 0.0
    for kind, refused in (("min", True), ("max", False)):
        check = Check("a", "text", "accuracy", Limit(kind, 0.5 if kind == "min" else 0.7))
        collected = CheckSums(check, METRICS["accuracy"], sums=[sums])
        collected.look(100, 0.95)
        assert (collected.refused is not None) == refused


@pytest.mark.parametrize(
    ("documents", "planned", "limit", "reason"),
    [
        (60, 100, 0.1, "a pass needs 72 documents"),
        (72, 100, 0.1, None),
        (80, 400, 0.1, "a pass needs 25% of the documents"),
        (100, 400, 0.1, None),
        (20, 400, 2.0, None),  # 2 nats from the limit: a kind that 20 documents miss would have to be worse by 10.8
        (20, 400, 1.8, "a pass needs 72 documents"),
        (20, 400, -0.1, None),  # a fail
    ],
)
def test_a_pass_takes_documents_enough_to_have_met_what_is_rare(documents, planned, limit, reason):
    n = np.full(documents, 50.0)
    collected = look_at(0.01 * n * np.resize([1.0, -1.0], documents), n, limit, planned)
    assert (collected.decided is None) == (reason is not None)
    assert (collected.refused or "").endswith((reason or "") and f"{documents} of {planned} documents: {reason}") or (
        reason in collected.refused
    )


def test_percent_of_the_baseline_is_as_far_as_nats():
    n = np.full(20, 50.0)
    sums = paired(0.01 * n * np.resize([1.0, -1.0], 20), n, loss=4.0)
    for limit, decided in ((50.0, True), (45.0, False)):  # 2 and 1.8 nats of 4
        check = Check("nll", "text", "nll", Limit("max_increase_pct", limit))
        collected = CheckSums(check, METRICS["nll"], sums=[sums])
        collected.look(400, 0.95)
        assert (collected.decided is not None) == decided


def test_a_baseline_counts_to_either_side_and_for_either_verdict():
    n = np.full(80, 50.0)
    s = 0.01 * n * np.resize([1.0, -1.0], 80)
    # at most 0.1 √80 = 0.894 for a pass, and 1.645 √(6/80) = 0.450 more for a fail
    given = (0.9, 0.1, False), (-0.9, 0.1, False), (0.88, 0.1, True), (1.34, -0.1, True), (1.35, -0.1, False)
    for skew, limit, decided in given:
        collected = look_at(s, n, limit, 100, skew)
        assert (collected.decided is not None) == decided, (skew, limit)


def look_at(s, n, limit, planned=100, skew=None):
    check = Check("nll", "text", "nll", Limit("max_increase", limit))
    collected = CheckSums(check, METRICS["nll"], skew, sums=[paired(s, n)])
    collected.look(planned, 0.95)
    return replace(collected)
