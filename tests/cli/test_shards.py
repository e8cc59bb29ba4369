"""`lossprobe score --shard` and `lossprobe gather`, and the same from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundled import CHECKPOINT
from stored_runs import tree

import lossprobe
from lossprobe.checkpoint import detect
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.cli.main import Terminated, run
from lossprobe.cli.shards import on_own_device
from lossprobe.passes import planned_together, planning, shards
from lossprobe.passes import score as score_module
from lossprobe.passes.blocks import blocks_of
from lossprobe.plan import rows as plan
from lossprobe.run.part_store import PartStore
from lossprobe.run.plan_blocks import PlanBlocks


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 64))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("It shows. that is what it says.\n" * 40, "utf-8")
    return tmp_path


def score(*more):
    return run(["score", str(CHECKPOINT), "text.txt", *more])


def test_shards_and_gather_from_the_command_line(working_folder, monkeypatch, capsys):
    assert score("-o", "one", "-q") == 0
    capsys.readouterr()
    assert score("-o", "run", "--shard", "1/2") == 0
    out, err = capsys.readouterr()
    assert out == "run\n"
    assert "shard 1/2 stored: " in err
    assert err.endswith("lossprobe gather run\n")
    assert run(["gather", "run"]) == 6
    err = capsys.readouterr().err
    assert "error[run.unfinished]" in err
    assert "of 1 shard: 2/2" in err
    assert run(["hardest", "run"]) == 6
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert score("-o", "run", "--shard", "torchrun", "-q") == 0
    assert run(["gather", "run"]) == 0
    assert "gathered: " in capsys.readouterr().err
    assert tree(working_folder / "run") == tree(working_folder / "one")
    assert run(["perplexity", "--csv", "-"]) == 0, "it is the latest run"
    assert score("-o", "run", "--shard", "1/2") == 0
    assert "already scored and gathered: run" in capsys.readouterr().err
    assert run(["gather", "run"]) == 0
    assert "complete already" in capsys.readouterr().err


@pytest.fixture
def blocks(working_folder, monkeypatch):
    """A text of several documents, in blocks of a few."""
    line = json.dumps({"text": "It shows. that is what it says.\n" * 4})
    (working_folder / "text.jsonl").write_text(f"{line}\n" * 10, "utf-8")
    for module in (planning, planned_together):
        monkeypatch.setattr(module, "blocks_of", lambda documents: blocks_of(documents, 400))


def score_blocks(*more):
    return run(["score", str(CHECKPOINT), "text.jsonl", "-o", "run", "-q", *more])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("cause", "code", "how"), [(KeyboardInterrupt, 130, "interrupted"), (Terminated, 143, "terminated")]
)
@pytest.mark.parametrize(
    ("place", "name", "after", "shard", "kept"),
    [
        (PlanBlocks, "finish", 0, ["--shard", "1/2"], ""),
        (PlanBlocks, "finish", 1, ["--shard", "1/2"], "planned blocks are kept"),
        (PartStore, "write_part", 0, ["--shard", "1/2"], "the plan is kept"),
        (PartStore, "write_part", 0, [], "the plan is kept"),
        (PartStore, "write_part", 1, ["--shard", "1/2"], "finished parts are kept"),
        (PartStore, "write_part", 1, [], "finished parts are kept"),
    ],
)
def test_what_is_stopped_says_what_is_kept(monkeypatch, capsys, cause, code, how, place, name, after, shard, kept):
    calls, real = [], getattr(place, name)

    def stop(*given):
        if len(calls) == after:
            raise cause
        calls.append(given)
        real(*given)

    monkeypatch.setattr(place, name, stop)
    assert score_blocks(*shard) == code
    said = f"{how}; {kept}; repeat the command to resume" if kept else f"{how}; repeat the command"
    assert capsys.readouterr().err == f"lossprobe: error[{how}]: {said}\n"


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("place", "name", "shard"),
    [
        (PlanBlocks, "finish", ["--shard", "1/2"]),
        (PartStore, "write_part", ["--shard", "1/2"]),
        (PartStore, "write_part", []),
    ],
)
def test_a_run_that_is_not_finished_is_listed_with_model_and_text(monkeypatch, capsys, place, name, shard):
    """Whose plan is begun by shards, and which is planned."""

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, name, stop)
    assert score_blocks("-o", ".lossprobe/run", *shard) == 130
    assert Path(".lossprobe/run/plan.json").exists() == (place is PartStore)
    capsys.readouterr()
    assert run(["runs", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["text_name"], row["tokens"]) == (CHECKPOINT.name, "text", None)
    assert row["state"] == "unfinished"


@pytest.mark.usefixtures("blocks")
def test_one_process_that_does_not_go_on_with_blocks_of_shards_does_not_say_that_they_are_kept(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "join_plan", stop)
    assert score_blocks("--shard", "1/2") == 130
    assert "planned blocks are kept" in capsys.readouterr().err
    monkeypatch.setattr(score_module, "measured_facts", stop)
    assert score_blocks() == 130
    assert capsys.readouterr().err == "lossprobe: error[interrupted]: interrupted; repeat the command\n"


@pytest.mark.parametrize(
    ("options", "id_"),
    [
        (["--shard", "0/2"], "shard.number"),
        (["--shard", "slurm"], "shard.environment"),
        (["--shard", "1/2", "--overwrite"], "shard.overwrite"),
    ],
)
def test_what_is_no_shard_is_refused_before_anything_is_read(options, id_, capsys):
    assert score(*options) == 2
    assert f"error[{id_}]" in capsys.readouterr().err


def test_gather_refuses_what_is_no_run(capsys):
    assert run(["gather", "text.txt"]) == 2
    assert "error[run.missing]" in capsys.readouterr().err


def test_shards_in_python(working_folder):
    for shard in ("1/2", "2/2"):
        scored = lossprobe.score_shard(shard, CHECKPOINT, "text.txt", output="run")
        assert scored.scored == scored.parts >= 1
    run_ = lossprobe.gather("run")
    assert run_.tokens_sha256 == lossprobe.score(CHECKPOINT, "text.txt").run.tokens_sha256
    with pytest.raises(lossprobe.LossprobeError, match="`shard`"):
        lossprobe.score_shard(3, CHECKPOINT, "text.txt")


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(detect, "resolve_device", lambda _: "cuda:0")
    auto = LoadOptions(device="auto")
    assert on_own_device(auto, "torchrun", {"LOCAL_RANK": "3"}).device == "cuda:3"
    for options, given, environment in (
        (LoadOptions(device="cuda:1"), "torchrun", {"LOCAL_RANK": "3"}),
        (auto, "torchrun", {}),
        (auto, "4/8", {"LOCAL_RANK": "3"}),
    ):
        assert on_own_device(options, given, environment) == options
    monkeypatch.setattr(detect, "resolve_device", lambda _: "cpu")
    assert on_own_device(auto, "torchrun", {"LOCAL_RANK": "3"}).device == "cpu"


def test_an_audit_uses_the_run_that_shards_scored(working_folder, monkeypatch, capsys):
    (working_folder / "lossprobe.toml").write_text(
        f"schema = 1\n[model]\ncheckpoint = {json.dumps(str(CHECKPOINT))}\n[data.valid]\npath = 'text.txt'\n"
        "[[check]]\nid = 'fine'\nmetric = 'nll'\nmax = 20.0\n"
    )
    assert score("--shard", "1/2", "-q") == 0
    assert score("--shard", "2/2", "-q") == 0
    (path,) = set(capsys.readouterr().out.split())
    assert run(["gather", path]) == 0
    monkeypatch.setattr(detect, "open_checkpoint", lambda *_: pytest.fail("a model was loaded"))
    assert run(["audit"]) == 0
    assert "pass" in capsys.readouterr().out
