"""Tests runs that are damaged or forged before they are resumed: run.json only has hashes of written bytes."""

from __future__ import annotations

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored_runs import TEXTS, flip, reseal, score_texts, tree

from lossprobe.cli.main import run as command
from lossprobe.errors import OutputError
from lossprobe.run import presence, store
from lossprobe.run.files import json_bytes, sealed
from lossprobe.run.manifest import START_OVER
from lossprobe.run.reader import open_run
from lossprobe.run.store import RunStore
from lossprobe.text.documents import StringSource

TABLES = ("tokens", "histogram", "ladder")
ROWS = [129, 133, 117]  # of the parts: a window at their end is not cut


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Return the folder of a run that was stopped after two of its parts."""
    monkeypatch.chdir(tmp_path)

    def stop(done, total):
        if len(list((tmp_path / "run" / "tokens").glob("*.parquet"))) == 2 and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_texts(tmp_path / "run", progress=stop)
    assert not (tmp_path / "run" / "run.json").exists()
    return tmp_path / "run"


def resumed(path, **choices):
    """Resume a run; return it, the number of tokens that were scored before, and the notices."""
    seen, text = [], StringSource(TEXTS)
    run = score_texts(path, text=text, progress=lambda done, _: seen.append(done), **choices).run
    return run, seen[0], text.notices


def damaged(path, words):
    """Check that a run is refused with a hint at `overwrite`; return what `resumed` does with `overwrite`."""
    with pytest.raises(OutputError, match=words) as caught:
        score_texts(path)
    assert (caught.value.id, caught.value.exit_code) == ("run.damaged", 6)
    assert "`overwrite`" in caught.value.hint
    return resumed(path, overwrite=True)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("damage", ["flip", "remove", "link", "pipe"])
def test_a_finished_part_that_was_damaged_is_scored_again_and_said(begun, finished, table, damage):
    part = begun / table / "part-00000.parquet"
    if damage == "flip":
        flip(part)
    else:
        shutil.move(part, begun.parent / "moved")
        if damage == "link":
            part.symlink_to(begun.parent / "moved")
        elif damage == "pipe":
            os.mkfifo(part)
    run, scored, notices = resumed(begun)
    assert tree(run.path) == tree_of(finished)
    assert scored == ROWS[1], "the other part is kept"
    assert any("1 finished part damaged since, and scored again" in notice for notice in notices)
    run.check()


def tree_of(finished):
    return {name: data for name, data in tree(finished).items() if name != ".checked"}


def test_an_undamaged_run_resumes_without_a_word(begun, finished):
    run, scored, notices = resumed(begun)
    assert (scored, notices) == (ROWS[0] + ROWS[1], [])
    assert tree(run.path) == tree_of(finished)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "other", "link"])
def test_a_damaged_record_means_that_the_part_is_scored_again(begun, finished, damage):
    record = begun / "plan" / "part-00000.json"
    if damage == "flip":
        flip(record)
    elif damage == "cut":
        record.write_bytes(record.read_bytes()[:-9])
    elif damage == "other":
        record.write_bytes(json_bytes(sealed({"files": 5})))
    else:
        shutil.move(record, begun.parent / "moved")
        if damage == "link":
            record.symlink_to(begun.parent / "moved")
    run, scored, _ = resumed(begun)
    assert scored == ROWS[1]
    assert tree(run.path) == tree_of(finished)


@pytest.mark.parametrize("name", ["plan/part-00002.parquet", "documents.parquet", "vocabulary.parquet", "plan.json"])
@pytest.mark.parametrize("damage", ["flip", "remove", "link", "pipe", "folder"])
def test_what_planning_wrote_is_never_used_damaged(begun, finished, name, damage):
    file = begun / name
    if damage == "flip":
        flip(file)
    elif damage == "remove" and name == "plan.json":
        pytest.skip("without a plan it is another run's beginning")
    else:
        shutil.move(file, begun.parent / "moved")
        if damage == "link":
            file.symlink_to(begun.parent / "moved")
        elif damage == "pipe":
            os.mkfifo(file)
        elif damage == "folder":
            file.mkdir()
    run, scored, _ = damaged(begun, f"unfinished run: {name}")
    assert scored == 0
    assert tree(run.path) == tree_of(finished)


def test_another_plan_part_does_not_change_the_tokens(begun, finished):
    """A well-formed plan part with other tokens is found by its hash."""
    file = begun / "plan" / "part-00002.parquet"
    table = pq.read_table(file)
    ids = [(value + 1) % 256 for value in table["token_id"].to_pylist()]
    index = table.schema.get_field_index("token_id")
    pq.write_table(table.set_column(index, table.schema.field(index), pa.array(ids, pa.int32())), file)
    run, _, _ = damaged(begun, r"plan/part-00002\.parquet is missing or damaged")
    assert tree(run.path) == tree_of(finished)


def put_in_plan(path, key, value, *, rehash):
    plan = json.loads((path / "plan.json").read_text())
    plan.pop("sha256")
    plan[key] = value
    (path / "plan.json").write_bytes(json_bytes(sealed(plan) if rehash else plan))


@pytest.mark.thorough
@pytest.mark.parametrize("value", [None, -1, "x", [[]], {}, 2**70], ids=repr)
@pytest.mark.parametrize("key", ["settings", "labels", "counts", "part_rows", "sample_every", "files"])
def test_odd_types_in_a_plan_are_damage_and_no_bug(begun, finished, key, value):
    put_in_plan(begun, key, value, rehash=True)
    run, _, _ = damaged(begun, r"plan\.json is damaged")
    assert tree(run.path) == tree_of(finished)


@pytest.mark.parametrize("key", ["settings", "labels", "counts", "part_rows"])
def test_odd_types_in_a_plan_without_a_hash_are_damage_too(begun, finished, key):
    put_in_plan(begun, key, 5, rehash=False)
    run, _, _ = damaged(begun, r"plan\.json is damaged")
    assert tree(run.path) == tree_of(finished)


def test_an_unfinished_run_of_an_earlier_version_starts_over_and_says_so(begun, finished):
    plan = json.loads((begun / "plan.json").read_text())
    del plan["sha256"], plan["files"]
    (begun / "plan.json").write_bytes(json_bytes(plan))
    for record in (begun / "plan").glob("*.json"):
        record.unlink()
    run, scored, notices = resumed(begun)
    assert scored == 0
    assert any("begun by an earlier lossprobe" in notice for notice in notices)
    assert tree(run.path) == tree_of(finished)


@pytest.mark.parametrize("name", ["tokens", "histogram", "ladder", "plan"])
def test_no_part_is_written_through_a_linked_folder(begun, finished, name):
    outside = begun.parent / "outside"
    shutil.move(begun / name, outside)
    (begun / name).symlink_to(outside)
    before = tree(outside)
    with pytest.raises(OutputError, match=r"symbolic link|damaged") as caught:
        score_texts(begun)
    assert caught.value.exit_code == 6
    assert tree(outside) == before
    run, _, _ = resumed(begun, overwrite=True)
    assert tree(run.path) == tree_of(finished)
    assert tree(outside) == before


def without_plan(path):
    """Return the files of a complete run from which its plan was not removed."""
    return {name: data for name, data in tree(path).items() if not name.startswith("plan")}


def test_a_folder_that_is_swapped_while_it_is_scored_gets_nothing(tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside").mkdir()

    def swap(done, total):
        if done and not (tmp_path / "moved").exists():
            (tmp_path / "run").rename(tmp_path / "moved")
            (tmp_path / "run").symlink_to(tmp_path / "outside")

    with pytest.raises(OutputError, match=r"/run: was removed .*: its folder is no longer there") as caught:
        score_texts(tmp_path / "run", progress=swap)
    assert caught.value.id == "output.gone"
    assert tree(tmp_path / "outside") == {}
    assert without_plan(tmp_path / "moved") == tree_of(finished)


def removed_while_scored(path, monkeypatch, name, parts, remove):
    """Score texts into a folder from which something is removed after some parts; return what is told."""
    real, written = getattr(RunStore, name), []

    def then_remove(self, *given, **more):
        real(self, *given, **more)
        written.append(given)
        if len(written) == parts:
            remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, name, then_remove)
        with pytest.raises(OutputError) as caught:
            score_texts(path)
    assert len(written) >= parts
    assert (caught.value.id, caught.value.exit_code) == ("output.gone", 6)
    assert str(path) in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("name", "parts"),
    [("start_plan", 1), ("write_plan_part", 1), ("finish_plan", 1), ("write_part", 1), ("write_part", 3)],
)
def test_a_folder_that_is_removed_while_it_is_scored_is_no_stored_run(tmp_path, monkeypatch, finished, name, parts):
    """At each of its steps; the last parts are written where nothing shows that the first ones are gone."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run"
    told = removed_while_scored(path, monkeypatch, name, parts, shutil.rmtree)
    assert told.message.endswith("its folder is no longer there")
    assert not path.exists()
    assert tree(score_texts(path).run.path) == tree_of(finished)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_removed_while_a_run_is_scored_is_told_and_scored_again(tmp_path, monkeypatch, finished, table):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run"
    told = removed_while_scored(path, monkeypatch, "write_part", 2, lambda run: shutil.rmtree(run / table))
    assert told.message.endswith(f"{table}/part-00000.parquet is missing")
    assert told.hint.startswith("repeat the command")
    assert not (path / "run.json").exists(), "with it the run would look complete"
    assert tree(score_texts(path).run.path) == tree_of(finished)


@pytest.mark.parametrize("size", [0, 7])
@pytest.mark.parametrize("table", TABLES)
def test_a_file_that_is_cut_off_while_a_run_is_scored_is_told_and_scored_again(
    tmp_path, monkeypatch, finished, table, size
):
    monkeypatch.chdir(tmp_path)
    path, name = tmp_path / "run", f"{table}/part-00001.parquet"
    whole = len(tree_of(finished)[name])
    told = removed_while_scored(path, monkeypatch, "write_part", 2, lambda run: os.truncate(run / name, size))
    assert told.message.endswith(f"{name} holds {size} bytes, {whole:,} were written")
    assert told.hint.startswith("repeat the command")
    assert not (path / "run.json").exists(), "with it the run would look complete"
    assert tree(score_texts(path).run.path) == tree_of(finished)


def test_a_file_of_an_earlier_session_that_is_emptied_is_told(begun, monkeypatch):
    """Its size is that of the file which was found intact when the run was resumed."""
    part = begun / "tokens" / "part-00000.parquet"
    whole = part.stat().st_size
    told = removed_while_scored(begun, monkeypatch, "write_part", 1, lambda _: os.truncate(part, 0))
    assert told.message.endswith(f"tokens/part-00000.parquet holds 0 bytes, {whole:,} were written")


@pytest.mark.parametrize("name", ["documents.parquet", "vocabulary.parquet"])
@pytest.mark.parametrize("emptied", [False, True])
def test_a_lost_file_of_the_plan_is_told_with_what_mends_it(tmp_path, monkeypatch, finished, name, emptied):
    """While the plan is there, it is not made again."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run"
    fault = f"holds 0 bytes, {len(tree_of(finished)[name]):,} were written" if emptied else "is missing"

    def lose(run):
        os.truncate(run / name, 0) if emptied else (run / name).unlink()

    told = removed_while_scored(path, monkeypatch, "write_part", 2, lose)
    assert (told.message.rpartition(": ")[2], told.hint) == (f"{name} {fault}", START_OVER)
    with pytest.raises(OutputError, match=f"{name} is missing"):
        score_texts(path)
    assert tree(score_texts(path, overwrite=True).run.path) == tree_of(finished)


def test_without_a_plan_a_lost_file_of_it_is_made_again(tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)

    def remove(run):
        for name in ("documents.parquet", "plan.json"):
            (run / name).unlink()

    told = removed_while_scored(tmp_path / "run", monkeypatch, "write_part", 2, remove)
    assert told.hint.startswith("repeat the command")
    assert tree(score_texts(tmp_path / "run").run.path) == tree_of(finished)


@pytest.mark.parametrize("other", [False, True])
def test_a_run_whose_last_file_is_removed_or_replaced_as_it_ends_is_told(tmp_path, monkeypatch, finished, other):
    monkeypatch.chdir(tmp_path)
    path, real = tmp_path / "run", presence.confirm_files

    def confirm_and_swap(place, *given):
        real(place, *given)
        path.rename(tmp_path / "moved")
        if other:
            with monkeypatch.context() as patch:
                patch.setattr(store, "confirm_files", real)
                score_texts(path, model=1)

    with monkeypatch.context() as patch:
        patch.setattr(store, "confirm_files", confirm_and_swap)
        with pytest.raises(OutputError, match="/run: was removed or replaced") as caught:
            score_texts(path)
    assert caught.value.id == "output.gone"
    assert without_plan(tmp_path / "moved") == tree_of(finished), "who moved it has it"


def test_a_prepared_folder_with_links_only_gets_a_run_of_its_own(tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"keep")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    for name in ("tokens", "plan", "ladder"):
        (tmp_path / "run" / name).symlink_to(outside)
    for name in (".lock-holder", "documents.parquet", "vocabulary.parquet", ".checked"):
        (tmp_path / "run" / name).symlink_to(outside / "file")
    run = score_texts(tmp_path / "run").run
    run.check()
    assert tree(outside) == {"file": b"keep"}
    assert {k: v for k, v in tree(run.path).items() if k != ".checked"} == tree_of(finished)


def test_a_run_may_lie_below_a_linked_folder(tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    run = score_texts(tmp_path / "home" / "run").run
    run.check()
    assert tree(tmp_path / "disk" / "run") == tree_of(finished)


def test_runs_are_not_put_below_a_linked_lossprobe_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / ".lossprobe").symlink_to(tmp_path / "outside")
    with pytest.raises(OutputError, match=r"\.lossprobe: is a symbolic link"):
        score_texts(None)
    text = StringSource(TEXTS)
    score_texts(tmp_path / "run", text=text)
    assert "not remembered as the latest run" in text.notices[-1]
    assert tree(tmp_path / "outside") == {}


def test_a_run_that_was_stopped_after_its_last_step_is_tidied(copy, finished):
    """A pass that was killed after it wrote run.json leaves its plan, which the next pass removes."""
    (copy / "plan").mkdir()
    (copy / "plan" / "part-00000.parquet").write_bytes(b"x")
    (copy / "plan.json").write_text("{}")
    assert score_texts(copy).reused
    assert {k: v for k, v in tree(copy).items() if k != ".checked"} == tree_of(finished)


def test_hashes_are_those_of_the_bytes_that_were_written(tmp_path, monkeypatch):
    """A part that changes right after it was written is found, though run.json is only written later."""
    monkeypatch.chdir(tmp_path)
    done_once = []

    def damage(done, total):
        part = tmp_path / "run" / "tokens" / "part-00000.parquet"
        if part.exists() and not done_once:
            flip(part)
            done_once.append(done)

    run = score_texts(tmp_path / "run", progress=damage).run
    assert done_once
    assert run.damaged_files() == ["tokens/part-00000.parquet"]
    assert command(["perplexity", str(run.path)]) == 6


def test_run_json_is_the_same_for_the_same_run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = score_texts(tmp_path / "again").run
    assert (again.path / "run.json").read_bytes() == (finished / "run.json").read_bytes()
    assert list(json.loads((finished / "run.json").read_text()))[-1] == "sha256"
    reseal(again.path)
    assert (again.path / "run.json").read_bytes() == (finished / "run.json").read_bytes()
    assert open_run(again.path).notices == ()


def test_a_plan_part_that_is_damaged_while_others_are_scored_is_not_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def damage(done, total):
        if done == ROWS[0]:
            flip(tmp_path / "run" / "plan" / "part-00002.parquet")

    with pytest.raises(OutputError, match=r"plan/part-00002\.parquet is damaged") as caught:
        score_texts(tmp_path / "run", progress=damage)
    assert (caught.value.id, caught.value.exit_code) == ("run.damaged", 6)
