"""Tests models whose losses depend on the other windows of a batch, from the command line to the stored run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from checkpoint import builders
from click.testing import CliRunner
from fakes import SmallModel, checkpoint

from lossprobe.audit.gate.texts import refuse_other_baseline
from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.cli.inspect import inspect
from lossprobe.errors import NotComparableError, OutputError
from lossprobe.passes.divergence import measure_divergence
from lossprobe.passes.protocols import score_protocol
from lossprobe.passes.score import score
from lossprobe.passes.selfcheck import run_selfcheck
from lossprobe.plan.options import ScoreOptions
from lossprobe.run.reader import open_run
from lossprobe.text.documents import StringSource

LETTERS = "".join(map(chr, np.random.default_rng(4).integers(97, 123, 400)))
TEXTS = [LETTERS[:20], LETTERS[20:140], LETTERS[140:180], LETTERS[180:240]]
SMALL = {key: value for key, value in builders.SMALL.items() if key != "num_key_value_heads"}
LONGROPE = SMALL | {
    "max_position_embeddings": 128,
    "original_max_position_embeddings": 32,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0, 4.0, 8.0, 16.0]},
}


@pytest.fixture(scope="module")
def longrope(tmp_path_factory):
    return builders.save(builders.model("phi3", **LONGROPE), tmp_path_factory.mktemp("m") / "phi")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def losses(run):
    return run.query("SELECT loss_nats FROM tokens ORDER BY document, token")["loss_nats"].to_numpy(dtype=float)


def test_a_file_gives_what_its_documents_give_alone(longrope):
    model = load_huggingface(longrope, LoadOptions())
    alone = np.concatenate([losses(score(model, StringSource([text])).run) for text in TEXTS])
    for texts in (TEXTS, TEXTS[::-1]):
        for size in (None, 1, 3):
            run = score(model, StringSource(texts), ScoreOptions(batch_size=size), overwrite=True).run
            found = {}
            for number, text in enumerate(texts):
                held = run.query(f"SELECT loss_nats FROM tokens WHERE document = {number} ORDER BY token")
                found[text] = held["loss_nats"].to_numpy(dtype=float)
            np.testing.assert_allclose(np.concatenate([found[text] for text in TEXTS]), alone, rtol=0, atol=1e-5)


def test_selfcheck_holds_and_says_what_cannot_be_asked(longrope):
    model = load_huggingface(longrope, LoadOptions())
    _, result = run_selfcheck(model, StringSource(TEXTS))
    assert (result.broken, result.exit_code) == ([], 0)
    table = result.table.set_index("check")["verdict"]
    assert table["padding side"] == "not checked: no window of this model is ever padded"
    assert (table["batch size"] == "same").all()


def test_protocols_and_divergence_do_not_depend_on_the_batch_either(longrope):
    model = load_huggingface(longrope, LoadOptions())
    other = load_huggingface(longrope, LoadOptions())
    found = []
    for size in (1, 4):
        options = ScoreOptions(batch_size=size, bos="never")
        run, _ = score_protocol("evaluate", model, StringSource(TEXTS), options)
        found.append(losses(run))
        apart = measure_divergence(model, other, StringSource(TEXTS), replace(options, context=64))
        found.append(np.array([apart.first_mean_loss]))
    np.testing.assert_allclose(found[2], found[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[3], found[1], rtol=0, atol=1e-6)


def test_only_what_another_version_got_wrong_is_another_run(tmp_path):
    source = StringSource(["abc", "defgh"])
    plain = score(checkpoint(SmallModel()), source).run
    assert "batching" not in plain.manifest["settings"]["checkpoint"]
    minding = checkpoint(SmallModel(), batching="equal lengths")
    scored = score(minding, source)
    assert not scored.reused
    assert scored.run.path != plain.path
    assert scored.run.manifest["settings"]["checkpoint"]["batching"] == "equal lengths"
    assert score(minding, source).reused
    old = score(checkpoint(SmallModel()), source, output=tmp_path / "old").run
    with pytest.raises(OutputError, match=r"holds a run that differs in checkpoint\.batching"):
        score(minding, source, output=tmp_path / "old")
    assert len(losses(open_run(old.path))) == len(losses(plain))


def test_a_baseline_of_the_same_family_that_got_it_wrong_is_refused(tmp_path):
    source = StringSource(["abc"])
    old = score(checkpoint(SmallModel()), source, output=tmp_path / "old").run
    new = score(checkpoint(SmallModel(), batching="one window"), source).run
    settings = new.manifest["settings"]
    moved = settings | {"checkpoint": settings["checkpoint"] | {"family": "other"}}
    with pytest.raises(NotComparableError, match=r"differs in batching \(None and one window\)"):
        refuse_other_baseline(old, new, [])
    refuse_other_baseline(old, old, [])
    refuse_other_baseline(old, replace(new, manifest=new.manifest | {"settings": moved}), [])


def test_inspect_says_which_windows_share_a_pass(longrope):
    result = CliRunner().invoke(inspect, [str(longrope)])
    assert "batches         only windows of equal length together" in result.output
    assert "(rope_type longrope)" in result.output
    as_json = CliRunner().invoke(inspect, [str(longrope), "--json"])
    assert json.loads(as_json.stdout)["batching"] == "equal lengths"
