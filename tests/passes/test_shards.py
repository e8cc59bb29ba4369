"""Several processes score one run, some are killed: the run is the one of a single process, to the byte."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time

import pytest
from fakes import SmallModel, checkpoint
from shard_processes import CONTEXT, LONG, PARTS, opened, share, small_parts, start
from stored_runs import flip, tree

from lossprobe.errors import CheckpointError, OutputError, TextError
from lossprobe.passes import planning, shards
from lossprobe.passes.score import score_into
from lossprobe.passes.shards import score_shard
from lossprobe.plan.shard import Shard
from lossprobe.run.part_store import PartStore
from lossprobe.run.reader import open_run
from lossprobe.run.shards import gather
from lossprobe.run.store import RunStore
from lossprobe.run.stored import remove_run
from lossprobe.text.documents import StringSource


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """Small parts in a folder of its own."""
    monkeypatch.setattr(planning, "cut_parts", small_parts)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def single(tmp_path):
    """Return the files of the run as one process makes it."""
    score_into(tmp_path / "single", opened(), StringSource(LONG))
    assert len(list((tmp_path / "single" / "tokens").iterdir())) == PARTS
    return tree(tmp_path / "single")


@pytest.mark.parametrize("count", [1, 3, PARTS + 2])
def test_shards_make_the_run_of_one_process(single, tmp_path, count):
    for index in random.Random(count).sample(range(1, count + 1), count):
        scored = share(index, count, tmp_path / "run")
        assert scored.scored == scored.parts == len(Shard(index, count).own(PARTS))
    run, before = gather(tmp_path / "run")
    assert not before
    assert tree(run.path) == single
    run.check()
    assert gather(tmp_path / "run")[1], "complete before"
    assert share(1, count, tmp_path / "run").complete


def killed_shards(output, kills, count, seed):
    """Start all shards, kill one whenever a part more is stored and start it again; return how many were killed.

    They are killed up to 0.1 s after a part is stored: while they rest, score, write files, start or read.
    """
    choice, killed = random.Random(seed), 0
    running = {index: start(index, count, output) for index in range(1, count + 1)}
    for parts in range(1, kills + 1):
        while len(list(output.glob("plan/part-*.json"))) < parts:
            time.sleep(0.01)
            running = {index: process for index, process in running.items() if process.exitcode != 0}
        if not running:
            break
        time.sleep(choice.random() * 0.1)
        index = choice.choice(sorted(running))
        running[index].kill()
        running[index].join()
        killed += running[index].exitcode == -signal.SIGKILL
        running[index] = start(index, count, output)
    for process in running.values():
        process.join()
        assert process.exitcode == 0
    return killed


@pytest.mark.thorough
def test_killed_shards_go_on_when_they_are_started_again(single, tmp_path):
    assert killed_shards(tmp_path / "run", 1, 2, seed=1) == 1
    run, _ = gather(tmp_path / "run")
    assert tree(run.path) == single


@pytest.mark.thorough
def test_thirty_kills(single, tmp_path):
    killed = number = 0
    while killed < 30:
        killed += killed_shards(tmp_path / f"run {number}", PARTS - 2, 3, seed=number)
        assert tree(gather(tmp_path / f"run {number}")[0].path) == single
        number += 1


def test_gather_names_the_shards_that_have_to_run_again(single, tmp_path):
    for index in (1, 3, 5):
        share(index, 5, tmp_path / "run")
    with pytest.raises(OutputError, match=r"5 of 12 parts missing, of 2 shards: 2/5 \(3\), 4/5 \(2\)") as caught:
        gather(tmp_path / "run")
    assert (caught.value.id, caught.value.exit_code) == ("run.unfinished", 6)
    flip(tmp_path / "run" / "tokens" / "part-00002.parquet")
    with pytest.raises(OutputError, match=r"6 of 12 parts missing \(1 of them damaged\), of 3 shards: .*3/5 \(1\)"):
        gather(tmp_path / "run")
    with pytest.raises(OutputError) as caught:
        open_run(tmp_path / "run")
    assert "lossprobe gather" in caught.value.hint
    assert share(3, 5, tmp_path / "run").scored == 1
    share(2, 5, tmp_path / "run")
    share(4, 5, tmp_path / "run")
    assert tree(gather(tmp_path / "run")[0].path) == single


def test_one_process_finishes_what_shards_began(single, tmp_path):
    share(2, 3, tmp_path / "run")
    score_into(tmp_path / "run", opened(), StringSource(LONG))
    assert tree(tmp_path / "run") == single


def test_a_shard_goes_on_with_what_one_process_began(single, tmp_path):
    def stop(done, total):
        if done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_into(tmp_path / "run", opened(), StringSource(LONG), progress=stop)
    assert share(1, 2, tmp_path / "run").scored < share(2, 2, tmp_path / "run").parts
    assert tree(gather(tmp_path / "run")[0].path) == single


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"texts": [*LONG, "more"]}, "differs in text.sha256"),
        ({"model": 1}, "differs in checkpoint.sha256"),
        ({"count": 4}, "is scored by 3 shards, and this is shard 2/4"),
    ],
)
def test_a_shard_of_another_run_is_refused(tmp_path, changed, words):
    share(1, 3, tmp_path / "run")
    before = tree(tmp_path / "run")
    with pytest.raises(OutputError, match=words) as caught:
        share(**{"index": 2, "count": 3, "output": tmp_path / "run", **changed})
    assert caught.value.exit_code == 6
    assert "`overwrite`" not in caught.value.hint
    assert tree(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("kernels", "hint"),
    [
        ("others", "machines of one kind"),
        ("streamed layers", "`stream_weights`"),
        ("tensor parallel in 2", "`tensor_parallel_size`"),
    ],
)
def test_a_shard_whose_machine_runs_other_code_is_refused(tmp_path, monkeypatch, kernels, hint):
    share(1, 3, tmp_path / "run")
    from lossprobe.passes import shards

    there = shards.measured_facts(opened())
    monkeypatch.setattr(shards, "measured_facts", lambda _: {**there, "kernels": kernels})
    with pytest.raises(
        OutputError, match=f"shard 2/3 would score with kernels {kernels}; begun with kernels"
    ) as caught:
        share(2, 3, tmp_path / "run")
    assert caught.value.id == "shard.measured"
    assert hint in caught.value.hint
    monkeypatch.setattr(shards, "measured_facts", lambda _: {**there, "device": f"{there['device']}:5"})
    share(2, 3, tmp_path / "run")  # another GPU of the same kind


def test_a_model_without_identity_is_refused(tmp_path):
    nameless = checkpoint(SmallModel(0), sha256="")
    with pytest.raises(CheckpointError, match="no sha256"):
        score_shard(Shard(1, 2), nameless, StringSource(LONG), output=tmp_path / "run")


def test_a_part_of_another_plan_is_scored_again(tmp_path):
    """As where a straggler writes into a folder that was emptied and planned anew."""
    share(1, 1, tmp_path / "other", texts=[*LONG[:-1], "z" * 65])
    share(1, 2, tmp_path / "run")
    for name in ("tokens/part-00001.parquet", "histogram/part-00001.parquet", "ladder/part-00001.parquet",
                 "plan/part-00001.json"):  # fmt: skip
        (tmp_path / "run" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(OutputError, match=r"6 of 12 parts missing \(1 of them damaged\)"):
        gather(tmp_path / "run")


def test_who_wants_the_run_alone_is_refused_while_a_shard_runs(tmp_path):
    tried = []

    def meanwhile(done, total):
        if tried:
            return
        tried.append(done)
        for act in (
            lambda: gather(tmp_path / "run"),
            lambda: score_into(tmp_path / "run", opened(), StringSource(LONG), overwrite=True),
            lambda: remove_run(tmp_path / "run"),
        ):
            with pytest.raises(OutputError, match="shard 2 is running"):
                act()
        with pytest.raises(OutputError, match="another process works as shard 2/3"):
            share(2, 3, tmp_path / "run")
        share(1, 3, tmp_path / "run")

    share(2, 3, tmp_path / "run", progress=meanwhile)
    assert tried
    share(3, 3, tmp_path / "run")
    gather(tmp_path / "run")


@pytest.mark.thorough
def test_a_shard_waits_for_the_one_that_plans(single, tmp_path, monkeypatch):
    begun = CONTEXT.Event()
    first = start(1, 2, tmp_path / "run", begun=begun, pause=0.03)
    assert begun.wait(60)
    monkeypatch.setattr(planning, "cut_parts", lambda documents: pytest.fail("planned twice"))
    share(2, 2, tmp_path / "run")
    first.join()
    assert first.exitcode == 0
    assert tree(gather(tmp_path / "run")[0].path) == single


@pytest.mark.thorough
def test_a_shard_plans_where_the_one_that_planned_was_killed(single, tmp_path):
    begun = CONTEXT.Event()
    first = start(1, 2, tmp_path / "run", planned=2, begun=begun)
    assert begun.wait(60)
    plan, deadline = tmp_path / "run" / "plan", time.monotonic() + 60
    while len(list(plan.glob("block-00000-part-*.parquet"))) < 2:  # a thread stores them
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    share(2, 2, tmp_path / "run")
    share(1, 2, tmp_path / "run")
    assert tree(gather(tmp_path / "run")[0].path) == single


def test_nobody_is_told_to_overwrite_what_shards_make(tmp_path):
    run = tmp_path / "run"
    share(1, 2, run)
    planned = run / "plan" / "part-00001.parquet"
    content = planned.read_bytes()
    planned.write_bytes(content[:-1])
    with pytest.raises(OutputError, match=r"part-00001\.parquet is damaged") as shard:
        share(2, 2, run)
    planned.write_bytes(content)
    share(2, 2, run)
    gather(run)
    (run / "documents.parquet").write_bytes(b"")
    with pytest.raises(OutputError, match="documents") as whole:
        gather(run)
    for error in (shard.value, whole.value):
        assert error.id == "run.damaged"
        assert "lossprobe runs remove" in error.hint
        assert "overwrite" not in error.hint


def test_what_killed_writers_left_of_its_parts_is_removed(tmp_path):
    share(1, 2, tmp_path / "run")
    share(2, 2, tmp_path / "run")
    mine, others = (tmp_path / "run" / "tokens" / f".part-0000{part}.parquet.99.ab.tmp" for part in (3, 4))
    mine.write_bytes(b"half"), others.write_bytes(b"half")
    share(2, 2, tmp_path / "run")
    assert (mine.exists(), others.exists()) == (False, True)
    gather(tmp_path / "run")
    assert not others.exists()


def test_a_text_that_is_refused_leaves_the_lock_for_the_other_shards(tmp_path):
    class Changing(StringSource):
        def documents(self):
            self.texts = [*self.texts, "more"]
            return super().documents()

    with pytest.raises(TextError):
        score_shard(Shard(1, 2), opened(), Changing(LONG), output=tmp_path / "run")
    assert {file.name for file in (tmp_path / "run").iterdir()} == {".lock"}
    share(1, 2, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        *((name, 1) for name in ("run", "run/plan.json", "run/tokens", "run/documents.parquet")),
        *((name, PARTS // 2) for name in ("run", "run/plan.json", "run/tokens", "run/documents.parquet")),
        ("run/plan", PARTS // 2),
    ],
)
def test_a_run_that_is_removed_while_a_shard_scores_it_is_told(tmp_path, monkeypatch, name, parts):
    real, written = PartStore.write_part, []

    def then_remove(self, index, *given):
        real(self, index, *given)
        written.append(index)
        if len(written) == parts:
            place = tmp_path / name
            shutil.rmtree(place) if place.is_dir() else place.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(PartStore, "write_part", then_remove)
        with pytest.raises(OutputError, match="/run: was removed or replaced") as caught:
            share(1, 2, tmp_path / "run")
    assert (caught.value.id, caught.value.exit_code) == ("output.gone", 6)
    again = "use another `output`" if name == "run/documents.parquet" else "repeat the command"
    assert caught.value.hint.startswith(again)


def test_a_file_that_is_emptied_while_a_shard_scores_is_told(tmp_path, monkeypatch):
    real, written = PartStore.write_part, []

    def then_empty(self, index, *given):
        real(self, index, *given)
        written.append(tmp_path / "run" / "tokens" / f"part-{index:05d}.parquet")
        if len(written) == 2:
            written.append(written[0].stat().st_size)
            os.truncate(written[0], 0)

    monkeypatch.setattr(PartStore, "write_part", then_empty)
    with pytest.raises(OutputError, match=r"/run: was removed or replaced") as caught:
        share(1, 2, tmp_path / "run")
    assert caught.value.id == "output.gone"
    assert caught.value.message.endswith(f"tokens/{written[0].name} holds 0 bytes, {written[2]:,} were written")


@pytest.mark.parametrize("count", [2, PARTS + 1])
def test_a_lost_folder_of_the_plan_is_told_as_damage(tmp_path, count):
    share(1, count, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "plan")
    with pytest.raises(OutputError, match=r"/run: unfinished run: plan/part-00001\.parquet") as caught:
        share(2, count, tmp_path / "run")
    assert (caught.value.id, caught.value.hint[:12]) == ("run.damaged", "use another ")


@pytest.mark.parametrize(("name", "told"), [
    ("tokens/part-00002.parquet", "run its shards again, then gather"),
    ("vocabulary.parquet", "lossprobe runs remove takes it away"),
])  # fmt: skip
def test_what_is_removed_while_a_run_is_gathered_is_told_with_what_mends_it(tmp_path, monkeypatch, name, told):
    """Gathering again scores nothing."""
    share(1, 1, tmp_path / "run")
    real = RunStore.finish

    def remove_first(self, *given):
        (tmp_path / "run" / name).unlink()
        real(self, *given)

    monkeypatch.setattr(RunStore, "finish", remove_first)
    with pytest.raises(OutputError, match=f"{name} is missing") as caught:
        gather(tmp_path / "run")
    assert caught.value.id == "output.gone"
    assert caught.value.hint.startswith(told)


@pytest.mark.parametrize("count", [2, PARTS + 1])
def test_a_shard_without_parts_to_score_looks_for_its_run_too(tmp_path, monkeypatch, count):
    share(count, count, tmp_path / "run")

    def remove(*_):
        shutil.rmtree(tmp_path / "run")

    monkeypatch.setattr(shards, "score_parts", remove)
    with pytest.raises(OutputError, match="was removed or replaced") as caught:
        share(count, count, tmp_path / "run")
    assert caught.value.id == "output.gone"


def test_a_shard_whose_run_is_replaced_by_another_one_is_told(tmp_path, monkeypatch):
    real = shards.score_parts

    def then_replace(*given):
        scored = real(*given)
        (tmp_path / "run").rename(tmp_path / "moved")
        with monkeypatch.context() as patch:
            patch.setattr(shards, "score_parts", real)
            share(1, 2, tmp_path / "run", model=1)
        return scored

    monkeypatch.setattr(shards, "score_parts", then_replace)
    with pytest.raises(
        OutputError, match=r"was removed or replaced .*: plan\.json is missing, or another one"
    ) as caught:
        share(1, 2, tmp_path / "run")
    assert caught.value.id == "output.gone"
