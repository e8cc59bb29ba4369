"""Tests which settings identify a run and which facts are only measured, also of runs by an earlier lossprobe."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakes import SmallModel, checkpoint
from stored_runs import TEXTS, reseal, tree

from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.rows.same_tokens import differing
from lossprobe.audit.gate.gate import _made_with
from lossprobe.audit.gate.texts import refuse_other_baseline
from lossprobe.errors import OutputError
from lossprobe.passes import planning
from lossprobe.passes.identity import describe
from lossprobe.passes.policy import window_policy
from lossprobe.passes.score import planned_run, score
from lossprobe.plan import rows as plan
from lossprobe.plan.options import ScoreOptions
from lossprobe.report.formats.json import view_to_json
from lossprobe.report.views.perplexity import perplexity_view
from lossprobe.run.baseline import open_baseline, write_baseline
from lossprobe.run.files import sealed
from lossprobe.run.identity import MEASURED, all_settings, differences, identity_of, measured_of
from lossprobe.run.reader import open_run
from lossprobe.text.documents import StringSource

OTHERS = {
    "device": "cpu", "head": "linear", "kernels": "packed body and head", "config_from": "elsewhere",
    "adapter": {"words": "LoRA of rank 4 on llama"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 128))


def model(**facts):
    """Return a checkpoint on the device "cpu:0", with some of its facts changed."""
    made = checkpoint(SmallModel(), sha256="model")
    made.facts = replace(made.facts, **{"device": "cpu:0", **facts})
    return made


def begin(folder):
    """Score the texts into a folder, stop after the first part, and return the token files of finished parts."""

    def stop(done, total):
        if list(folder.glob("plan/part-*.json")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(model(), StringSource(TEXTS), output=folder, progress=stop)
    return sorted(folder.glob("tokens/part-*"))


def as_it_was(folder):
    """Rewrite run.json as an earlier lossprobe wrote it, with all facts of the checkpoint among the settings."""

    def merge(manifest):
        manifest["settings"]["checkpoint"] |= manifest.pop("measured")

    reseal(folder, merge)


def test_what_is_what():
    run = score(model(), StringSource(TEXTS)).run
    settings = run.manifest["settings"]["checkpoint"]
    assert settings.keys().isdisjoint({*MEASURED} - {"device"})
    assert settings["device"] == "cpu"
    assert run.manifest["measured"] == {"device": "cpu:0", "head": "full", "kernels": "plain", "config_from": "Python"}


@pytest.mark.parametrize("name", MEASURED)
def test_a_complete_run_is_used_whatever_was_measured(name):
    run = score(model(), StringSource(TEXTS)).run
    before = tree(run.path)
    again = score(model(**{name: OTHERS[name]}), StringSource(TEXTS))
    assert (again.reused, again.run.path) == (True, run.path)
    assert tree(run.path) == before


CHANGES = {"device": "cuda:0", "compute_dtype": "bfloat16", "sha256": "x", "tied": True, "batching": "one window"}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_checkpoint_is_makes_another_run(name):
    one, other = (
        describe(each, StringSource(TEXTS), window_policy(each, ScoreOptions(), StringSource(TEXTS)), ScoreOptions())
        for each in (model(), model(**{name: CHANGES[name]}))
    )
    assert differences(one, other) == [f"checkpoint.{name}"]


@pytest.mark.parametrize("name", MEASURED)
def test_an_unfinished_run_is_resumed_only_where_the_same_was_measured(name, tmp_path):
    whole = score(model(), StringSource(TEXTS), output=tmp_path / "whole").run
    for folder, changed in (("same", {}), ("other", {name: OTHERS[name]})):
        (finished,) = begin(tmp_path / folder)
        source, before = StringSource(TEXTS), finished.stat().st_mtime_ns
        run = score(model(**changed), source, output=tmp_path / folder).run
        assert (f"begun with {name} " in "".join(source.notices)) == bool(changed)
        assert (finished.stat().st_mtime_ns != before) == bool(changed), "a finished part is kept, or made anew"
        assert run.manifest["measured"] == whole.manifest["measured"] | changed
        assert (tree(run.path) == tree(whole.path)) != bool(changed)


def test_a_run_of_an_earlier_lossprobe_opens_and_is_used_where_it_lies(tmp_path):
    new = score(model(), StringSource(TEXTS), output=tmp_path / "new").run
    score(model(), StringSource(TEXTS), output=tmp_path / "old")
    as_it_was(tmp_path / "old")
    old = open_run(tmp_path / "old")
    assert "measured" not in old.manifest
    assert identity_of(old.manifest) == new.manifest["settings"]
    assert measured_of(old.manifest) == new.manifest["measured"]
    assert all_settings(old.manifest) == all_settings(new.manifest)
    assert differing(old, new) == []
    assert score(model(kernels="other"), StringSource(TEXTS), output=tmp_path / "old").reused
    with pytest.raises(OutputError, match=r"differs in windows\.context"):
        score(model(), StringSource(TEXTS), ScoreOptions(context=8), output=tmp_path / "old")


def shown_settings(run):
    return json.loads(b"".join(view_to_json(perplexity_view(run, measure_perplexity(run)))))["run"]["settings"]


def test_json_of_a_view_holds_all_of_it_as_ever(tmp_path):
    run = score(model(), StringSource(TEXTS), output=tmp_path / "run").run
    new = shown_settings(run)
    as_it_was(tmp_path / "run")
    old = shown_settings(open_run(tmp_path / "run"))
    assert list(new["checkpoint"]) == [
        "family", "sha256", "vocab_size", "context_length", "hard_limit", "parameters", "stored_dtype", "compute_dtype",
        "device", "tied", "head", "kernels", "config_from",
    ]  # fmt: skip
    assert new == old
    assert new["checkpoint"]["device"] == "cpu:0"


def test_a_baseline_of_an_earlier_lossprobe_is_compared(tmp_path):
    run = score(model(), StringSource(TEXTS), output=tmp_path / "run").run
    write_baseline(run, tmp_path / "new")
    as_it_was(tmp_path / "run")
    write_baseline(open_run(tmp_path / "run"), tmp_path / "old")
    content = json.loads((tmp_path / "old" / "baseline.json").read_text())
    del content["measured"], content["sha256"]
    (tmp_path / "old" / "baseline.json").write_text(json.dumps(sealed(content)))
    wanted = planned_run(model(), StringSource(TEXTS), ScoreOptions())
    for name in ("new", "old"):
        baseline = open_baseline(tmp_path / name)
        refuse_other_baseline(baseline, wanted, [])
        assert measured_of(baseline.manifest) == run.manifest["measured"]
        assert _made_with(identity_of(baseline.manifest)) == _made_with(wanted.manifest["settings"])


@pytest.mark.parametrize("measured", [None, [], "x", 3])
def test_what_was_measured_is_an_object(measured, tmp_path):
    score(model(), StringSource(TEXTS), output=tmp_path / "run")
    reseal(tmp_path / "run", lambda manifest: manifest.update(measured=measured))
    with pytest.raises(OutputError, match="measured is no object"):
        open_run(tmp_path / "run")
