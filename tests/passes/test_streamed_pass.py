"""A pass with a model whose layers are read one after the other gives the run of the whole model."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from checkpoint import builders
from stored_runs import TEXTS, tree

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.model.streamed import hidden_store
from lossprobe.checkpoint.model.streamed.streamed_weights import StreamedWeights
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError
from lossprobe.passes import planning
from lossprobe.passes.divergence import score_pair
from lossprobe.passes.score import score_into
from lossprobe.plan import rows as plan
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource

STREAMED, WHOLE = LoadOptions(stream_weights="always"), LoadOptions(stream_weights="never")
MIXTRAL = builders.SMALL | {"num_local_experts": 4, "num_hidden_layers": 3}
OPTIONS = ScoreOptions(context=32)
CHECKED = 2  # how often a layer is asked for while the model is checked


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return a function that writes a random model; plans have parts of 128 rows."""
    monkeypatch.setitem(builders.FAMILIES, "mixtral", MIXTRAL)
    monkeypatch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 128))

    def write(family, seed=0):
        path = builders.save(builders.model(family, seed), tmp_path / f"{family}-{seed}")
        builders.write_settings(path)
        return path

    return write


class Shown:
    """A progress callback that keeps what it is told."""

    def __init__(self) -> None:
        self.done, self.stages = [], []

    def __call__(self, done, total):
        self.done.append(done / total)

    def stage(self, text):
        self.stages.append(text)


def scored(path, options, output, progress=None):
    return score_into(output, load_huggingface(path, options), StringSource(TEXTS), OPTIONS, progress=progress).run


def test_parts_go_through_together_and_the_run_does_not_depend_on_it(written, tmp_path, monkeypatch):
    path, read = written("llama"), []
    load = StreamedWeights.load
    monkeypatch.setattr(StreamedWeights, "load", lambda self, number: (read.append(number), load(self, number)))
    shown = Shown()
    together = scored(path, STREAMED, tmp_path / "together", shown)
    assert len(together.manifest["part_rows"]) == 3
    assert read.count(1) == CHECKED + 1, "once for all parts"
    tokenizing, first, *_ = [stage.partition(":")[0] for stage in dict.fromkeys(filter(None, shown.stages))][
        2:
    ]  # after the parts
    assert (tokenizing, first) == ("tokenizing", "layer 1 of 2")
    assert shown.stages[-1] == "head"
    assert shown.done == sorted(shown.done)
    assert shown.done[-1] == 1
    assert len(set(shown.done)) > 6, "it moves while layers run"
    monkeypatch.setattr("lossprobe.checkpoint.model.streamed.streamed_lm.MOST_HELD_BYTES", 1)
    read.clear()
    apart = scored(path, STREAMED, tmp_path / "apart")
    assert read.count(1) == CHECKED + len(apart.manifest["part_rows"])
    assert tree(tmp_path / "together") == tree(tmp_path / "apart")
    monkeypatch.setattr(hidden_store, "MOST_HELD_BYTES", 0)
    scored(path, STREAMED, tmp_path / "spilled")
    assert tree(tmp_path / "together") == tree(tmp_path / "spilled")


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_losses_and_routers_are_those_of_the_whole_model(written, tmp_path, family):
    path = written(family)
    streamed, whole = scored(path, STREAMED, tmp_path / "streamed"), scored(path, WHOLE, tmp_path / "whole")
    assert streamed.manifest["settings"] == whole.manifest["settings"]
    assert "streamed layers" in streamed.manifest["measured"]["kernels"]
    losses = [run.query("SELECT loss_nats, rank FROM tokens ORDER BY document, token") for run in (streamed, whole)]
    np.testing.assert_allclose(losses[0]["loss_nats"], losses[1]["loss_nats"], atol=2e-5)
    if family == "mixtral":
        tables = [run.query("SELECT * FROM routing ORDER BY ALL") for run in (streamed, whole)]
        assert len(tables[0]) > 0
        for column in tables[0]:
            left, right = (np.stack(table[column].to_numpy()) for table in tables)
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.thorough
def test_two_models_on_one_text(written, tmp_path):
    paths = [written("llama", seed) for seed in (0, 1)]
    found = []
    for name, options in (("streamed", STREAMED), ("whole", WHOLE)):
        models = [load_huggingface(path, options) for path in paths]
        runs = [
            score_into(tmp_path / name / str(number), model, StringSource(TEXTS), OPTIONS).run
            for number, model in enumerate(models)
        ]
        pair = score_pair(tuple(runs), tuple(models), [])
        parts = [pq.read_table(pair.path / file)["kl_nats"].to_numpy() for file in pair.files]
        found.append(np.concatenate(parts))
    np.testing.assert_allclose(found[0], found[1], atol=2e-5)


def test_a_batch_that_does_not_fit_is_halved(written, tmp_path, monkeypatch):
    path, widths = written("llama"), []
    expected = scored(path, STREAMED, tmp_path / "plenty")
    checkpoint = load_huggingface(path, STREAMED)
    own = checkpoint._body.embed_tokens.forward

    def hungry(ids):
        widths.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError
        return own(ids)

    monkeypatch.setattr(checkpoint._body.embed_tokens, "forward", hungry)
    shown = Shown()
    run = score_into(tmp_path / "little", checkpoint, StringSource(TEXTS), OPTIONS, progress=shown).run
    assert max(widths) > 3
    assert shown.done[-1] == 1
    frames = [each.query("SELECT loss_nats FROM tokens ORDER BY document, token") for each in (run, expected)]
    np.testing.assert_allclose(frames[0]["loss_nats"], frames[1]["loss_nats"], atol=2e-5)


def test_other_kinds_of_checkpoints_are_refused_with_the_option(tmp_path):
    file = tmp_path / "model.pt"
    torch.save({"model": {}, "model_args": {}}, file)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(file, STREAMED)
    assert caught.value.id == "checkpoint.not_streamed"
    assert caught.value.message == (
        f"{file}: cannot be read layer by layer: a checkpoint that is no Hugging Face folder is read whole"
    )
