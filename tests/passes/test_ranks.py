"""Models whose layers processes of this machine share: the losses of the whole model, and one clear end of all."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from bundled import EXAMPLES
from checkpoint import builders
from fakes import SmallModel, checkpoint
from families import divided, sweep
from scoring.test_scorer import TEXT, part
from stored_runs import TEXTS

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.interface import CheckpointFacts
from lossprobe.checkpoint.model.division import why_whole
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.spec import CheckpointSpec
from lossprobe.cli.main import run
from lossprobe.errors import CheckpointError, ResourceError, UsageError
from lossprobe.passes import planning
from lossprobe.passes.ranks.opener import RankOpener, refuse_unlike
from lossprobe.passes.ranks.session import RankSession
from lossprobe.passes.score import score_into
from lossprobe.passes.worker import Opened
from lossprobe.plan import rows as plan
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.part_scores import joined
from lossprobe.scoring.measure import PassOptions
from lossprobe.scoring.scorer import score_part
from lossprobe.text.documents import StringSource

OPTIONS = ScoreOptions(context=32)
COLUMNS = ("loss_nats", "entropy_nats", "varentropy", "log_z", "uniform_loss_nats", "margin_nats", "sum_p2")
# Qwen 3 has a norm for each head and a tied head, GPT-NeoX query, key and value in one matrix.
SHAPES = {"llama": {}, "llama tied": {"tie_word_embeddings": True}, "qwen3": {}, "gpt_neox": {}, "gemma2": {}}


@pytest.mark.parametrize("count", [2, 3, 50])
def test_shares_of_the_rows_join_to_the_scores_of_the_part(count):
    rows = part([TEXT, "x", "ab", TEXT[:50]], stride=5)
    model, told = checkpoint(SmallModel()), []
    whole = score_part(model, rows, 0, PassOptions(7, sample_every=3))
    shares = [
        score_part(model, rows, 0, PassOptions(7, 3, told.append, share=(index, count))) for index in range(count)
    ]
    measured = sum((share.columns.get("loss_nats", np.zeros(len(rows))) != 0).astype(int) for share in shares)
    assert measured.max() == 1, "no row is measured twice"
    if count == 2:
        assert abs(np.subtract(*((share.columns["loss_nats"] != 0).sum() for share in shares))) < len(rows) / 8
    both = joined(shares)
    for name, values in whole.columns.items():
        np.testing.assert_allclose(both.columns[name], values, atol=2e-5, rtol=1e-5, err_msg=name)
        assert both.columns[name].dtype == values.dtype
    np.testing.assert_array_equal(both.histogram_documents, whole.histogram_documents)
    np.testing.assert_allclose(both.histogram, whole.histogram, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(both.ladder_rows, whole.ladder_rows)
    np.testing.assert_allclose(both.ladder, whole.ladder, atol=2e-5)
    assert sum(told) == count * (whole.columns["loss_nats"] != 0).sum(), "each tells of all rows that went through"


def test_with_a_share_a_batch_that_exceeds_memory_is_not_halved():
    def full(ids):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(ResourceError, match="out of memory with 4 windows"):
        score_part(checkpoint(full), part([TEXT] * 5, context=300), 0, PassOptions(share=(0, 2)))


@pytest.mark.parametrize(("device", "shown"), [("cuda:1", "`device` cuda:1"), ("mps", "`device` mps")])
def test_a_device_that_only_one_process_could_have_is_refused(tmp_path, device, shown):
    with pytest.raises(UsageError, match=shown) as caught:
        RankOpener(RankSession(2)).placed(CheckpointSpec(tmp_path, LoadOptions(device)))
    assert caught.value.id == "tensor_parallel.devices"


def test_an_error_that_goes_to_another_process_is_the_same_there():
    error = UsageError("a.b", "is empty", hint="fill it", subject="file", details=["line 3"])
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (UsageError, "file: is empty", vars(error))


def test_a_plan_that_does_not_fit_is_found_without_values():
    def why(family, processes=2, **changes):
        config = transformers.AutoConfig.for_model(family, **builders.FAMILIES.get(family, builders.SMALL) | changes)
        with torch.device("meta"):
            return why_whole(builders.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config), processes)

    assert why("llama") is None
    assert why("phi3", 3, num_key_value_heads=1) is None, "each process computes the attention of all heads"
    assert "no plan for tensor parallelism of GPT2LMHeadModel" in why("gpt2")
    assert (
        why("llama", 4)
        == "its 2 heads of keys and values cannot be shared out evenly to 4, but to a number that divides 2"
    )
    assert why("llama", 3, num_key_value_heads=3, num_attention_heads=6, hidden_size=48) is None
    assert "for HrmTextForCausalLM was not found to give right losses" in why("hrm_text")


def test_processes_that_found_different_things_are_refused_by_name():
    facts = CheckpointFacts("small", "llama", "", 9, None)
    first, other = (Opened(facts, b"", {"family": "llama", "sha256": digest}) for digest in ("aa", "bb"))
    refuse_unlike([first, first])
    with pytest.raises(CheckpointError, match="small: sha256 is aa in process 1 and bb in process 3"):
        refuse_unlike([first, first, other])


def test_what_does_not_go_with_it_is_refused_before_a_process_starts(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    path = builders.save(builders.model("llama"), tmp_path / "small")
    (tmp_path / "text.txt").write_text("the cat")
    monkeypatch.setattr(RankSession, "_start", lambda *_: pytest.fail("a process was started"))
    words = [str(path), "text.txt", "--tensor-parallel-size", "2"]
    assert run(["score", *words, "--engine", "ray"]) == 2
    assert "error[tensor_parallel.engine]: --tensor-parallel-size 2: not with --engine ray" in capfd.readouterr().err
    assert run(["selfcheck", *words]) == 2
    assert "error[tensor_parallel.local]" in capfd.readouterr().err
    assert run(["compare", str(path), *words, "--kl"]) == 2
    assert "error[tensor_parallel.local]" in capfd.readouterr().err
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert run(["score", *words]) == 2
    assert "error[tensor_parallel.torchrun]" in capfd.readouterr().err


def test_without_accelerate_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("lossprobe.passes.ranks.session.can_spread", lambda: False)
    with pytest.raises(UsageError, match="needs the library accelerate") as caught:
        RankSession(2).begin("cpu")
    assert (caught.value.id, caught.value.hint) == ("tensor_parallel.package", 'pip install "lossprobe[accelerate]"')


@pytest.fixture
def session():
    with closing(RankSession(2)) as started:
        yield started


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 128))


def written(shape, folder):
    family = shape.split()[0]
    path = builders.save(builders.model(family, **SHAPES.get(shape, {})), folder / shape.replace(" ", "-"))
    builders.write_settings(path)
    return path


@pytest.mark.thorough
def test_two_processes_give_the_losses_of_the_whole_model(session, small_parts, tmp_path):
    del small_parts
    for shape in SHAPES:
        path = written(shape, tmp_path)
        shared = RankOpener(session).open(CheckpointSpec(path, LoadOptions()))
        runs = [
            score_into(tmp_path / f"{shape} {kind}", model, StringSource(TEXTS), OPTIONS).run
            for kind, model in (("whole", open_checkpoint(path)), ("divided", shared))
        ]
        assert [each.manifest["measured"]["kernels"] for each in runs][1] == "tensor parallel in 2"
        assert len(runs[0].manifest["part_rows"]) == 3
        query = f"SELECT {', '.join(COLUMNS)}, rank, ties, top_id FROM tokens ORDER BY document, token"
        whole, both = (each.query(query).dropna() for each in runs)
        for name in COLUMNS:
            worst = np.abs(whole[name].to_numpy(float) - both[name].to_numpy(float)).max()
            assert worst < 2e-5, f"{shape}: {name}: {worst}"
        assert (whole["top_id"] == both["top_id"]).mean() > 0.99
        assert whole["loss_nats"].std() > 0.5, "losses differ from token to token"


@pytest.mark.thorough
@pytest.mark.filterwarnings("default")  # the code of some families has its own
def test_families_of_other_kinds_give_the_losses_of_the_whole_model(session, tmp_path):
    for family in ("mixtral", "deepseek_v3", "phi3", "gemma3", "qwen3_5"):
        verdict = divided.try_family(family, tmp_path / family, session)
        assert (verdict.outcome, verdict.detail) == (sweep.RIGHT, "tensor parallel in 2"), verdict


@pytest.mark.thorough
def test_a_run_is_not_continued_with_other_arithmetic(session, small_parts, tmp_path):
    del small_parts
    path, output = written("llama", tmp_path), tmp_path / "run"
    stopped = KeyboardInterrupt()

    def stop(done, total):
        if done > total / 2:
            raise stopped

    shared = RankOpener(session).open(CheckpointSpec(path, LoadOptions()))
    with pytest.raises(KeyboardInterrupt):
        score_into(output, shared, StringSource(TEXTS), OPTIONS, progress=stop)
    source = StringSource(TEXTS)
    whole = score_into(output, open_checkpoint(path), source, OPTIONS)
    assert any("tensor parallel in 2" in notice for notice in source.notices)
    assert whole.run.manifest["measured"]["kernels"].startswith("packed body and head")


def test_weights_that_are_read_layer_by_layer_are_refused_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("It shows.")
    for stored in (False, True):  # whether the run would be found
        if stored:
            assert run(["score", str(EXAMPLES / "jargon-plain"), "text.txt", "-q"]) == 0
        options = ["--device", "cpu", "--tensor-parallel-size", "2", "--stream-weights", "always"]
        assert run(["score", str(EXAMPLES / "jargon-plain"), "text.txt", *options]) == 2
        assert "error[tensor_parallel.streamed]" in capsys.readouterr().err
    with pytest.raises(UsageError, match="layer by layer"):
        RankOpener(None).open(CheckpointSpec(tmp_path, LoadOptions(stream_weights="always")))


@pytest.mark.thorough
def test_checkpoints_that_cannot_be_divided_are_refused_by_every_process_in_one_error(session, tmp_path):
    def refused(path, options=None):
        with pytest.raises(CheckpointError) as caught:
            RankOpener(session).open(CheckpointSpec(path, options or LoadOptions()))
        assert caught.value.id == "checkpoint.not_divided"
        return caught.value.message

    assert "no plan for tensor parallelism of GPT2LMHeadModel" in refused(written("gpt2", tmp_path))
    one = builders.save(builders.model("llama", num_key_value_heads=1), tmp_path / "one-head")
    assert "its 1 heads of keys and values cannot be shared out evenly to 2" in refused(one)


@pytest.fixture
def command(tmp_path):
    """Return what starts the command on a text that takes long, and waits until its plan is there."""
    path, text = written("llama", tmp_path), tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 40_000)
    words = [sys.executable, "-m", "lossprobe", "score", str(path), str(text), "-o", "run", "--context", "32"]

    def start():
        environment = os.environ | {"PYTHONPATH": str(Path(planning.__file__).parents[2]), "TMPDIR": str(tmp_path)}
        started = subprocess.Popen(
            [*words, "--tensor-parallel-size", "2"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("run/tokens/*.parquet")):
            assert started.poll() is None, started.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return started

    return start


def ranks_of(command):
    """Return the processes that hold the model, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == command.pid and any(b"lossprobe.passes.ranks" in word for word in words):
            found[int(words[-4])] = int(entry.name)
    return found


def gone(numbers):
    deadline = time.monotonic() + 10
    while any(
        Path(f"/proc/{number}/cmdline").is_file() and Path(f"/proc/{number}/cmdline").read_bytes() for number in numbers
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("rank", "number", "code", "said"),
    [
        (1, signal.SIGKILL, 7, "process 2 of the 2 that hold the model ended by SIGKILL"),
        (None, signal.SIGINT, 130, "interrupted; finished parts are kept; repeat the command to resume"),
        (None, signal.SIGTERM, 143, "terminated; finished parts are kept"),
        (None, signal.SIGKILL, -9, ""),
    ],
)
def test_the_end_of_one_process_ends_all_with_one_line(command, tmp_path, rank, number, code, said):
    started = command()
    ranks = ranks_of(started)
    assert sorted(ranks) == [0, 1]
    os.kill(started.pid if rank is None else ranks[rank], number)
    _, lines = started.communicate(timeout=30)
    assert started.returncode == code
    errors = [line for line in lines.splitlines() if "error[" in line]
    assert len(errors) == bool(said)
    assert said in lines
    gone(ranks.values())
    assert not list(tmp_path.glob("lossprobe-ranks-*")), "the folder where they met"
