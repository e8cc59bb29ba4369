"""Several processes plan one text, each some blocks of it: the run is the one of a single process, to the byte."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fakes import ByteTokenizer
from hypothesis import given
from hypothesis import strategies as st
from shard_processes import CONTEXT, LONG, opened, share, small_blocks, small_parts, start
from stored_runs import tree

from lossprobe.errors import NothingToScoreError, OutputError, TextError
from lossprobe.passes import planned_together, planning, shards
from lossprobe.passes.blocks import blocks_of
from lossprobe.passes.planning import PlannedBlock
from lossprobe.passes.policy import window_policy
from lossprobe.passes.score import score_into
from lossprobe.passes.shards import score_shard
from lossprobe.passes.tally import DocumentCount, Tally
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import plan_documents
from lossprobe.plan.shard import Shard
from lossprobe.run.files import json_bytes, sealed
from lossprobe.run.part_records import lock_own
from lossprobe.run.plan_blocks import PlanBlocks
from lossprobe.run.reader import open_run
from lossprobe.run.shards import gather
from lossprobe.run.store import RunStore
from lossprobe.text.documents import Document, StringSource

AGAIN = "1 planned block damaged or of another run, and planned again"
BLOCKS = len(list(small_blocks(StringSource(LONG).documents())))


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """Small parts and blocks."""
    monkeypatch.setattr(planning, "cut_parts", small_parts)
    for module in (planning, planned_together):
        monkeypatch.setattr(module, "blocks_of", small_blocks)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def single(tmp_path):
    """Return the files of the run as one process makes it."""
    score_into(tmp_path / "single", opened(), StringSource(LONG))
    return tree(tmp_path / "single")


def share_and_gather(output):
    """Score both of two shards, and return the files of the run, and what the first one tells."""
    source = StringSource(LONG)
    score_shard(Shard(2, 2), opened(), source, output=output)
    share(1, 2, output)
    return tree(gather(output)[0].path), source.notices


def documents(texts):
    return [Document(text, "x", 1, 0) for text in texts]


@given(st.lists(st.text("ab", max_size=9), max_size=30), st.integers(1, 25))
def test_blocks_hold_all_documents_in_order_and_end_as_soon_as_they_are_long(texts, characters):
    given_, read = documents(texts), []
    taken, firsts = [], []
    for block in blocks_of((read.append(document) or document for document in given_), characters):
        found = list(block.documents)
        assert len(read) == sum(map(len, taken)) + len(found), "no document after the block was read"
        assert block.number == len(taken)
        firsts.append(block.first_document)
        taken.append(found)
    assert [document for block in taken for document in block] == given_
    assert firsts == [sum(map(len, taken[:number])) for number in range(len(taken))]
    sizes = [[len(document.text) + 1 for document in block] for block in taken]
    assert all(sum(block[:-1]) < characters for block in sizes)
    assert all(sum(block) >= characters for block in sizes[:-1])


def test_documents_of_a_block_that_nobody_takes_are_passed_over():
    blocks = blocks_of(documents(["aaaa", "b", "cccc", "d"]), 5)
    assert [(block.number, block.first_document) for block in blocks] == [(0, 0), (1, 1), (2, 3)]


def test_the_windows_of_a_run_do_not_depend_on_its_blocks(single, tmp_path):
    """The rows of all documents, planned in one go, are the reference."""
    assert BLOCKS > 5
    policy = window_policy(opened(), ScoreOptions(), StringSource(LONG))
    tokens = [ByteTokenizer().encode(text) for text in LONG]
    expected = [rows.own_rows() for rows in plan_documents(tokens, policy)]
    frame = open_run(tmp_path / "single").query('SELECT document, token, "window", context FROM tokens')
    for name in frame.columns:
        assert frame[name].tolist() == [value for rows in expected for value in getattr(rows, name).tolist()]


def test_a_run_in_blocks_differs_from_one_in_one_block_in_its_parts_alone(tmp_path, monkeypatch):
    score_into(tmp_path / "many", opened(), StringSource(LONG))
    monkeypatch.setattr(planning, "blocks_of", blocks_of)
    score_into(tmp_path / "one", opened(), StringSource(LONG))
    many, one = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("many", "one"))
    assert len(many["part_rows"]) > len(one["part_rows"])
    assert many["counts"] == one["counts"]
    assert "first_windows" not in many
    columns = 'document, token, token_id, byte_start, byte_stop, "window", context, unscored'
    left, right = (open_run(tmp_path / name).query(f"SELECT {columns} FROM tokens") for name in ("many", "one"))
    assert left.equals(right)
    assert pq.read_table(tmp_path / "many" / "documents.parquet") == pq.read_table(
        tmp_path / "one" / "documents.parquet"
    )


def at_once(count, output):
    """Score the shards of a run in a thread each."""
    ready, errors = threading.Barrier(count), []

    def work(index):
        try:
            ready.wait(30)
            share(index, count, output)
        except BaseException as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,), name=str(index)) for index in range(1, count + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_that_run_at_once_plan_the_blocks_together(single, tmp_path, monkeypatch, count):
    by_thread: dict[str, list[int]] = {}
    plan_one = planned_together._plan_one

    def noted(blocks, block, *others):
        by_thread.setdefault(threading.current_thread().name, []).append(block.number)
        time.sleep(0.02)  # long enough for the others to come
        plan_one(blocks, block, *others)

    monkeypatch.setattr(planned_together, "_plan_one", noted)
    at_once(count, tmp_path / "run")
    assert sorted(number for numbers in by_thread.values() for number in numbers) == list(range(BLOCKS))
    assert len(by_thread) > 1 or count == 1
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert len(plan["first_windows"]) == len(plan["part_rows"])
    assert not list((tmp_path / "run" / "plan").glob("block-*"))
    run, _ = gather(tmp_path / "run")
    assert tree(run.path) == single


def test_a_folder_that_another_shard_makes_at_this_moment_is_no_foreign_one(tmp_path, monkeypatch):
    output, iterdir = tmp_path / "run", Path.iterdir
    output.mkdir()

    def meanwhile(path):
        (path / ".lock").touch()  # as another shard does first
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", meanwhile)
    lock_own(output, ("run.json",), (), "run", among_shards=True).unlock(remove=False)


@pytest.mark.thorough
def test_blocks_of_killed_shards_are_planned_by_others(single, tmp_path):
    """Kill one of three shards at a time, while they plan, and start it again; and once all of them."""
    choice, output = random.Random(3), tmp_path / "run"
    running = {index: start(index, 3, output, divide=small_blocks, pause=0.05) for index in (1, 2, 3)}
    killed = 0
    for files in (1, 4, 8, 12, 20):
        while len(list(output.glob("plan/block-*"))) < files and not (output / "plan.json").exists():
            assert any(process.is_alive() for process in running.values())
            time.sleep(0.01)
        time.sleep(choice.random() * 0.1)
        for index in [1, 2, 3] if files == 8 else [choice.randint(1, 3)]:
            os.kill(running[index].pid, signal.SIGKILL)
            running[index].join()
            killed += running[index].exitcode == -signal.SIGKILL
            running[index] = start(index, 3, output, divide=small_blocks, pause=0.05)
    for process in running.values():
        process.join()
        assert process.exitcode == 0
    assert killed > 4
    assert tree(gather(output)[0].path) == single


def stopped(output, monkeypatch, place, name, after=0, **choices):
    """Score a shard, stopped when a method of a class has been called so often; return what it says is kept."""
    original, calls = getattr(place, name), []

    def stop(*arguments, **named):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, stop)
        with pytest.raises(KeyboardInterrupt) as caught:
            share(1, 2, output, **choices)
    return getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize(
    ("place", "name", "after"),
    [
        (PlanBlocks, "write_part", 3),
        (PlanBlocks, "finish", 0),
        (PlanBlocks, "finish", 4),
        (PlanBlocks, "_append", 0),
        (PlanBlocks, "_append", 5),
        (planned_together, "write_vocabulary", 0),
        (RunStore, "finish_plan", 0),
        (PlanBlocks, "remove", 0),
    ],
)
def test_a_plan_that_was_stopped_goes_on(single, tmp_path, monkeypatch, place, name, after):
    output = tmp_path / "run"
    notes = stopped(output, monkeypatch, place, name, after)
    whole, planned = name == "remove", []
    if not whole:
        with pytest.raises(OutputError, match=r"plan was complete") as caught:
            gather(output)
        assert (caught.value.id, caught.value.exit_code) == ("run.unfinished", 6)
        with pytest.raises(OutputError, match="unfinished run"):
            open_run(output)
    before = len(list(output.glob("plan/block-?????")))
    assert notes == ["the plan is kept" if whole else "planned blocks are kept"] * (before > 0)
    plan_one = planned_together._plan_one
    monkeypatch.setattr(planned_together, "_plan_one", lambda *given_: planned.append(given_) or plan_one(*given_))
    share(2, 2, output)
    assert len(planned) == (0 if whole else BLOCKS - before)
    share(1, 2, output)
    assert tree(gather(output)[0].path) == single


def test_one_process_takes_over_a_plan_that_shards_began(single, tmp_path, monkeypatch):
    stopped(tmp_path / "run", monkeypatch, PlanBlocks, "finish", 3)
    score_into(tmp_path / "run", opened(), StringSource(LONG))
    assert tree(tmp_path / "run") == single


@pytest.mark.parametrize(("changed", "words"), [({"texts": LONG[:-1]}, "text.sha256"), ({"model": 1}, "checkpoint")])
def test_a_shard_of_another_run_is_refused_while_the_first_plans(tmp_path, monkeypatch, changed, words):
    stopped(tmp_path / "run", monkeypatch, PlanBlocks, "finish", 3)
    before = tree(tmp_path / "run")
    with pytest.raises(OutputError, match=f"differs in .*{words}") as caught:
        share(2, 2, tmp_path / "run", **changed)
    assert caught.value.id == "output.other_settings"
    assert tree(tmp_path / "run") == before


def test_a_block_of_another_text_is_planned_again(single, tmp_path, monkeypatch):
    """As where a file was another one for a moment, while another shard read it, and was the right one at its end."""
    output = tmp_path / "run"
    stopped(output, monkeypatch, PlanBlocks, "finish", 3)
    record = output / "plan" / "block-00001"
    content = json.loads(record.read_text())
    content["text_sha256"] = "0" * 64
    del content["sha256"]
    record.write_bytes(json_bytes(sealed(content)))
    assert share_and_gather(output) == (single, [f"{output}: {AGAIN}"])


def test_a_block_of_a_run_of_the_same_text_with_other_settings_is_planned_again(single, tmp_path, monkeypatch):
    """As where a folder was removed and begun again while another shard still wrote there."""
    output, other = tmp_path / "run", tmp_path / "other"
    stopped(output, monkeypatch, PlanBlocks, "finish", 3)
    stopped(other, monkeypatch, PlanBlocks, "finish", 3, options=ScoreOptions(keep_text=False))
    for file in (other / "plan").glob("block-00001*"):
        (output / "plan" / file.name).write_bytes(file.read_bytes())
    assert share_and_gather(output) == (single, [f"{output}: {AGAIN}"])


@pytest.mark.parametrize("record", ["block-00001", "begun"])
@pytest.mark.parametrize("content", [{}, {"settings": {}}, {"text_sha256": "0" * 64}])
def test_another_file_with_a_hash_of_its_own_is_no_record_of_a_plan(single, tmp_path, monkeypatch, record, content):
    output = tmp_path / "run"
    stopped(output, monkeypatch, PlanBlocks, "finish", 3)
    (output / "plan" / record).write_bytes(json_bytes(sealed(content)))
    assert share_and_gather(output) == (single, [f"{output}: {AGAIN}"] if record != "begun" else [])


def test_a_shard_on_another_kind_of_machine_is_refused_before_it_plans(single, tmp_path, monkeypatch):
    """If it planned, it could be the one that completes the plan, and all others would be refused."""
    output, measured = tmp_path / "run", shards.measured_facts(opened())
    stopped(output, monkeypatch, PlanBlocks, "finish", 3)
    before = tree(output)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "measured_facts", lambda _: {**measured, "kernels": "AVX9"})
        with pytest.raises(OutputError, match=r"shard 2/2 would score with kernels AVX9; begun with") as caught:
            share(2, 2, output)
    assert (caught.value.id, tree(output)) == ("shard.measured", before)
    for index in (1, 2):
        share(index, 2, output)
    assert tree(gather(output)[0].path) == single


def unlinked(place):
    place.unlink()


def linked(place):
    place.rename(place.with_name("elsewhere"))
    place.symlink_to("elsewhere")


def as_folder(place):
    place.unlink()
    place.mkdir()


def overwritten(place):
    place.write_bytes(b"{")


@pytest.mark.parametrize("damage", [unlinked, linked, as_folder, overwritten])
@pytest.mark.parametrize("another", [False, True])
def test_no_shard_goes_on_with_a_part_of_the_text_when_the_beginning_of_the_plan_is_lost(
    single, tmp_path, monkeypatch, damage, another
):
    """Without `begun` the blocks look joined; a shard that believes it would plan no block after the third."""
    output, plan_one, planned = tmp_path / "run", planned_together._plan_one, []

    def plan_and_damage(*given_):
        plan_one(*given_)
        planned.append(given_)
        if len(planned) == 3:
            damage(output / "plan" / "begun")
            if another:
                with pytest.raises(OutputError, match=r"shard 1 is running, and plan/begun is missing") as caught:
                    share(2, 2, output)
                assert caught.value.id == "run.damaged"

    with monkeypatch.context() as patch:
        patch.setattr(planned_together, "_plan_one", plan_and_damage)
        if damage is overwritten:
            share(1, 2, output)
        else:
            with pytest.raises(OutputError, match=r"plan/begun is missing or damaged") as caught:
                share(1, 2, output)
            assert caught.value.id == "run.damaged"
            assert not (output / "plan.json").exists()
    assert len(planned) == (BLOCKS if damage is overwritten else 3)
    for index in (1, 2):
        share(index, 2, output)
    assert tree(gather(output)[0].path) == single


def test_one_process_with_other_settings_leaves_a_plan_that_shards_began(tmp_path, monkeypatch):
    output = tmp_path / "run"
    stopped(output, monkeypatch, PlanBlocks, "finish", 3)
    before = tree(output)
    with pytest.raises(OutputError, match=r"differs in .*text.sha256") as caught:
        score_into(output, opened(), StringSource(LONG[1:]))
    assert (caught.value.id, tree(output)) == ("output.other_settings", before)
    score_into(output, opened(), StringSource(LONG[1:]), overwrite=True)
    assert open_run(output).counts["documents"] == len(LONG) - 1


def flipped(place):
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)


def cut(place):
    place.write_bytes(place.read_bytes()[:-9])


@pytest.mark.parametrize("damage", [unlinked, linked, overwritten, flipped, cut])
@pytest.mark.parametrize(
    ("place", "name", "after", "file"),
    [
        (PlanBlocks, "finish", 4, "block-00001"),
        (PlanBlocks, "finish", 4, "block-00001-documents.parquet"),
        (PlanBlocks, "finish", 4, "block-00002-part-00000.parquet"),
        (PlanBlocks, "_append", 3, "part-00000.parquet"),  # joined before the others were
        (PlanBlocks, "_append", 3, "block-00000-documents.parquet"),
        (PlanBlocks, "_append", 3, "block-00000"),
    ],
)
def test_a_damaged_block_is_planned_again(single, tmp_path, monkeypatch, damage, place, name, after, file):
    output, planned, plan_one = tmp_path / "run", [], planned_together._plan_one
    stopped(output, monkeypatch, place, name, after)
    left = len(list(output.glob("plan/block-?????")))
    damage(output / "plan" / file)
    monkeypatch.setattr(planned_together, "_plan_one", lambda *given_: planned.append(given_[1]) or plan_one(*given_))
    files, notices = share_and_gather(output)
    assert files == single
    again = len(planned) - (BLOCKS - left)
    assert again == 1
    told = [f"{output}: {AGAIN}"]
    assert notices == ([] if damage is unlinked and file in ("block-00000", "block-00001") else told)


@pytest.mark.parametrize("damage", [unlinked, flipped])
def test_shards_that_run_at_once_plan_a_damaged_block_again(single, tmp_path, monkeypatch, damage):
    finish, finished = PlanBlocks.finish, []

    def finish_and_damage(blocks, number, *given_):
        finish(blocks, number, *given_)
        finished.append(number)
        if finished.count(2) == 1 and number == 2:
            damage(tmp_path / "run" / "plan" / "block-00002-part-00000.parquet")

    monkeypatch.setattr(PlanBlocks, "finish", finish_and_damage)
    at_once(4, tmp_path / "run")
    assert sorted(finished) == sorted([*range(BLOCKS), 2])
    assert tree(gather(tmp_path / "run")[0].path) == single


@pytest.mark.parametrize("damage", [unlinked, flipped])
def test_a_folder_that_damages_each_plan_is_refused(tmp_path, monkeypatch, damage):
    output, finish = tmp_path / "run", PlanBlocks.finish

    def finish_and_damage(blocks, number, *given_):
        finish(blocks, number, *given_)
        if number == 2:
            damage(output / "plan" / "block-00002-part-00000.parquet")

    monkeypatch.setattr(PlanBlocks, "finish", finish_and_damage)
    with pytest.raises(OutputError, match=f"{output}: unfinished plan: blocks of it were damaged 3 times") as caught:
        share(2, 2, output)
    assert caught.value.id == "run.damaged"
    assert "lossprobe runs remove" in caught.value.hint
    assert not (output / "plan.json").exists()


def test_a_text_without_anything_to_score_leaves_nothing(tmp_path):
    with pytest.raises(NothingToScoreError):
        share(1, 2, tmp_path / "run", texts=["", ""])
    assert {file.name for file in (tmp_path / "run").iterdir()} == {".lock"}


def test_a_refused_shard_leaves_the_plan_to_those_that_run(single, tmp_path, monkeypatch):
    begun = CONTEXT.Event()
    first = start(1, 2, tmp_path / "run", divide=small_blocks, begun=begun, pause=0.05)
    assert begun.wait(60)

    class Changing(StringSource):
        def documents(self):
            yield from super().documents()
            self.texts = [*self.texts, "more"]

    changing = Changing(LONG)
    with pytest.raises((TextError, OutputError)):
        score_shard(Shard(2, 2), opened(), changing, output=tmp_path / "run")
    first.join()
    assert first.exitcode == 0
    share(2, 2, tmp_path / "run")
    assert tree(gather(tmp_path / "run")[0].path) == single


@given(st.lists(st.text("a ☃é", max_size=20), max_size=9), st.integers(0, 9))
def test_tallies_of_blocks_add_up_to_that_of_all_documents(texts, cut):
    def tallied(some):
        tally = Tally()
        for document in documents(some):
            count = DocumentCount(document)
            tokens = ByteTokenizer().encode(document.text)
            count.add_tokens(tokens)
            for rows in plan_documents([tokens], window_policy(opened(), ScoreOptions(), StringSource(LONG))):
                count.add_rows(rows.own_rows())
            count.finish()
            tally.add(count, count.record(0, keep_text=False))
        return tally

    total = Tally()
    for some in (texts[:cut], texts[cut:]):
        stored = json.loads(json.dumps(PlannedBlock([], 0, tallied(some)).to_json()))
        total.merge(PlannedBlock.from_json(stored).tally)
    assert total == tallied(texts)
    assert list(total.counts().items()) == list(tallied(texts).counts().items()), "in the same order, for equal bytes"
