"""Checks of the distance from a reference model, against a direct computation in float64."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import ByteTokenizer, SmallModel, checkpoint
from scipy import stats

from lossprobe.audit.gate import reference
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
from lossprobe.errors import NotComparableError, UsageError
from lossprobe.plan.options import ScoreOptions
from lossprobe.run.pair_store import PairStore
from lossprobe.run.reader import RUNS_FOLDER
from lossprobe.run.run_folders import is_run

TEXTS = ["abcdefg", "hgfedcba abc", "", "xyz", "one two three"]
EXCLUDED = 250  # an entry that is in no text


class Excluding(SmallModel):
    """The model of seed 2, which gives no probability to one entry after the byte "e"."""

    def forward(self, ids):
        logits = super().forward(ids)
        logits[..., EXCLUDED] = torch.where(ids == ord("e"), -torch.inf, logits[..., EXCLUDED])
        return logits


@pytest.fixture
def audited(tmp_path, monkeypatch):
    """Return a function that audits a model beside the reference of seed 1."""
    monkeypatch.chdir(tmp_path)
    records = [json.dumps({"text": text, "n": index % 2}) + "\n" for index, text in enumerate(TEXTS)]
    (tmp_path / "text.jsonl").write_text("".join(records))
    opened = []

    def opens(spec, opener):
        opened.append(spec.path.name)
        return checkpoint(SmallModel(seed=1), sha256="reference", name="before", **changes)

    changes = {}
    monkeypatch.setattr(reference, "open_when_needed", opens)

    def settings(*checks, **choices):
        return AuditSettings(
            file=tmp_path / "lossprobe.toml",
            model=ModelSettings(checkpoint=tmp_path / "model"),
            windows=ScoreOptions(bos="never"),
            data=(DataSettings(name="text", path=tmp_path / "text.jsonl"),),
            checks=checks,
            reference=ModelSettings(checkpoint=tmp_path / "before"),
            **{"stats": StatsSettings(), "baseline": BaselineSettings(), **choices},
        )

    def audit(*checks, model=None, sha256="new", how=run_audit, of_reference=None, **choices):
        changes.update(of_reference or {})
        return how(settings(*checks, **choices), checkpoint(model or SmallModel(seed=2), sha256=sha256, name="after"))

    audit.opened = opened
    return audit


def kl_check(limit=0.5, kind="max", metric="mean_kl_nats", **choices):
    return Check(choices.pop("id", metric), "text", metric, Limit(kind, limit), **choices)


def direct(document):
    """Return KL(seed 1‖seed 2) and whether the first choices are the same, for each scored token of a document."""
    ids = torch.tensor([list(TEXTS[document].encode())])
    if ids.shape[1] < 2:
        return np.zeros(0), np.zeros(0)
    first, second = (torch.log_softmax(SmallModel(seed)(ids[:, :-1])[0].double(), -1) for seed in (1, 2))
    kl = (first.exp() * (first - second)).sum(-1)
    return kl.numpy(), (first.argmax(-1) == second.argmax(-1)).double().numpy()


def interval_of(numbers):
    """Return the mean over tokens and its 95 % delete-one jackknife-t interval over documents."""
    parts = [part for part in numbers if len(part)]
    every = np.concatenate(parts)
    left = np.array([np.delete(every, np.s_[start : start + len(part)]).mean() for start, part in located(parts)])
    error = math.sqrt((len(parts) - 1) / len(parts) * np.square(left - left.mean()).sum())
    half = stats.t.ppf(0.975, len(parts) - 1) * error
    return every.mean(), every.mean() - half, every.mean() + half


def located(parts):
    starts = np.cumsum([0, *map(len, parts)])
    return zip(starts, parts, strict=False)


def test_both_metrics_against_a_direct_computation(audited):
    kl, same = zip(*map(direct, range(len(TEXTS))), strict=True)
    found = audited(kl_check(), kl_check(0.9, "min", "same_top_share"), kl_check(0.5, id="late", where="context >= 4"))
    (value, low, high), late = interval_of(kl), np.concatenate([part[3:] for part in kl])
    assert found.checks[0].measured == pytest.approx(value, rel=1e-6)
    assert found.checks[0].measured_interval == pytest.approx((low, high), rel=1e-5)
    assert found.checks[1].measured == np.concatenate(same).mean()
    assert found.checks[2].measured == pytest.approx(late.mean(), rel=1e-6)
    assert found.checks[2].tokens == len(late)
    assert [check.verdict for check in found.checks] == ["fail", "fail", "fail"]
    assert found.texts[0].reference == "before"
    assert audited(kl_check(20.0)).verdict == "pass"


def test_a_model_beside_itself_passes_the_least_limit(audited):
    found = audited(kl_check(0.0), kl_check(1.0, "min", "same_top_share", rule="point"), model=SmallModel(seed=1))
    assert [(check.measured, check.verdict) for check in found.checks] == [(0.0, "pass"), (1.0, "pass")]


def test_an_infinite_distance_fails(audited):
    (check,) = audited(kl_check(1e6), model=Excluding(seed=2)).checks
    assert (check.measured, check.verdict) == (math.inf, "fail")
    assert check.reason == "mean_kl_nats inf nats per token [inf, inf] breaks max (1,000,000.0000)"
    (slice_without,) = audited(kl_check(1e6, where="document = 3"), model=Excluding(seed=2)).checks
    assert slice_without.measured == pytest.approx(direct(3)[0].mean(), rel=1e-6)


def test_the_audited_model_is_the_latest_run_and_no_reference_is_opened_without_a_check_of_it(audited, tmp_path):
    audited(kl_check())
    assert audited.opened == ["before"]
    runs = [path for path in (tmp_path / RUNS_FOLDER).iterdir() if is_run(path)]
    assert len(runs) == 2
    assert "after" in (tmp_path / RUNS_FOLDER / "latest").read_text()
    audited(kl_check(metric="nll"), kl_check(level="off"))
    assert audited.opened == ["before"]


class NextBytes(ByteTokenizer):
    """A tokenizer whose ids stand for other bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.sha256 = "other"

    def encode(self, text):
        tokens = super().encode(text)
        return replace(tokens, ids=(tokens.ids + 1) % 256)


def test_a_reference_of_other_tokens_is_refused_before_anything_is_scored(audited, tmp_path):
    with pytest.raises(NotComparableError, match="differ in tokenizer") as caught:
        audited(kl_check(), of_reference={"tokenizer": NextBytes()})
    assert caught.value.hint == "leave out the checks of a distance from the reference"
    assert not (tmp_path / RUNS_FOLDER).exists()


def test_a_smaller_context_of_the_reference_is_told(audited):
    found = audited(kl_check(), kl_check(9.0, metric="nll"), of_reference={"context_length": 4})
    assert "text: distances from before are measured with its context of 4 tokens" in found.notes
    assert [check.tokens for check in found.checks] == [found.texts[0].scored_tokens] * 2


def test_an_audit_with_a_distance_does_not_stop_early(audited):
    found = audited(kl_check(), stats=StatsSettings(stop_early=True))
    assert "text: cannot stop early: check mean_kl_nats needs the whole text (mean_kl_nats)" in found.notes


def test_a_model_that_is_too_far_is_no_new_baseline(audited, tmp_path):
    baseline = BaselineSettings(tmp_path / "baselines")
    change = Check("change", "text", "nll", Limit("max_increase", 0.1))
    found, written = audited(change, kl_check(), how=update_baseline, baseline=baseline)
    assert (found.verdict, written) == ("fail", [])
    found, written = audited(change, kl_check(20.0), how=update_baseline, baseline=baseline)
    assert (found.verdict, len(written)) == ("pass", 1)
    found = audited(change, kl_check(20.0), baseline=baseline)
    assert (found.checks[0].check.id, found.checks[0].measured) == ("change", 0.0)


def test_no_baseline_lies_in_the_reference(audited, tmp_path):
    (tmp_path / "before").mkdir()
    change = Check("change", "text", "nll", Limit("max_increase", 0.1))
    with pytest.raises(UsageError, match="lies in, a text or the checkpoint"):
        audited(change, how=prepare, baseline=BaselineSettings(tmp_path / "before" / "baselines"))


def test_a_model_that_cannot_be_identified_is_measured_again(audited, monkeypatch):
    finish = PairStore.finish
    monkeypatch.setattr(PairStore, "finish", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        audited(kl_check(20.0), model=SmallModel(seed=3), sha256="")
    monkeypatch.setattr(PairStore, "finish", finish)
    measured = audited(kl_check(20.0), sha256="").checks[0].measured
    assert measured == pytest.approx(
        np.concatenate([direct(number)[0] for number in range(len(TEXTS))]).mean(), rel=1e-6
    )
