"""Pairs on disk: stored once and reused, resumed after a stop to the same bytes, and refused when damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fakes import SmallModel, checkpoint
from stored_runs import flip, score_texts, tree

from lossprobe.cli.main import run as command
from lossprobe.cli.runs import about
from lossprobe.errors import OutputError
from lossprobe.passes.divergence import pair_path, score_pair, stored_pair
from lossprobe.run import new_file
from lossprobe.run.pair import is_pair
from lossprobe.run.pair_store import PairStore
from lossprobe.run.run_folders import is_run, run_folders
from lossprobe.run.stored import remove_run, stored_runs

PARTS = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with the runs of two models, in three parts, and their pair."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model in (0, 1):
            score_texts(folder / f"run{model}", model)
        measure(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """Return a copy of it that a test may change."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "runs", ignore=shutil.ignore_patterns(".checked"))
    return tmp_path / "runs"


def runs_in(folder):
    return tuple(score_texts(folder / f"run{model}", model).run for model in (0, 1))


def models(opened=None):
    """Return both checkpoints; each adds its number to `opened` when it computes anything."""

    class Told(SmallModel):
        def forward(self, ids):
            if opened is not None:
                opened.append(self.seed)
            return super().forward(ids)

    found = []
    for seed in (0, 1):
        model = Told(seed)
        model.seed = seed
        found.append(checkpoint(model, sha256=f"model {seed}"))
    return tuple(found)


def measure(folder, opened=None, notices=None, progress=None, **choices):
    notices = [] if notices is None else notices
    return score_pair(runs_in(folder), models(opened), notices, progress=progress, **choices)


def begun(folder):
    """Remove the pair and measure two of its three parts again; return its folder."""
    path = pair_path(*runs_in(folder))
    shutil.rmtree(path)

    def stop(done, total):
        if len(list((path / "divergence").glob("part-*.parquet"))) == 2 and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        measure(folder, progress=stop)
    assert caught.value.__notes__ == ["finished parts are kept"]
    assert not (path / "pair.json").exists()
    return path


def files(path):
    return {name: data for name, data in tree(path).items() if not name.startswith(".")}


def test_a_stored_pair_runs_no_model(folder):
    opened = []
    pair = measure(folder, opened)
    assert opened == []
    assert sorted(files(pair.path)) == [*(f"divergence/part-0000{part}.parquet" for part in range(PARTS)), "pair.json"]
    assert pair.path.parent == folder
    manifest = json.loads((pair.path / "pair.json").read_text())
    assert manifest["kind"] == "lossprobe pair"
    assert manifest["part_rows"] == pair.first.manifest["part_rows"]
    assert manifest["labels"] == {"first": "callable", "second": "callable", "text": "strings"}


def test_rows_stand_beside_those_of_the_runs(made):
    pair = stored_pair(*runs_in(made))
    rows = pair.rows.query("SELECT * FROM tokens ORDER BY document, token")
    assert (rows["pair_document"] == rows["document"]).all()
    assert (rows["pair_token"] == rows["token"]).all()
    assert (rows["kl_nats"].isna() == rows["unscored"].notna()).all()
    for name, run in (("first", pair.first), ("second", pair.second)):
        own = run.query("SELECT loss_nats, top_id FROM tokens ORDER BY document, token")
        assert (rows[f"{name}_loss_nats"] - own["loss_nats"]).abs().max() < 1e-5
        assert rows[f"{name}_top_id"].equals(own["top_id"])
    scored = rows["unscored"].isna()
    assert (rows["same_top"] == (rows["first_top_id"] == rows["second_top_id"]))[scored].all()


def test_a_stopped_pair_resumes_at_its_missing_parts_to_the_same_bytes(made, folder):
    path, seen, opened = begun(folder), [], []
    pair = measure(folder, opened, progress=lambda done, _: seen.append(done))
    assert files(path) == files(pair_path(*runs_in(made)))
    assert seen[0] == sum(pair.manifest["part_rows"][:2])
    assert set(opened) == {0, 1}


def test_a_killed_writer_s_leftovers_are_no_part(made, folder):
    path = begun(folder)
    (path / "divergence" / ".part-00002.parquet.999999999.ab.tmp").write_bytes(b"half")
    shutil.copyfile(path / "divergence" / "part-00000.parquet", path / "divergence" / "part-00002.parquet")
    measure(folder)
    assert files(path) == files(pair_path(*runs_in(made)))


def test_a_finished_part_that_was_damaged_is_measured_again_and_said(made, folder):
    path, notices = begun(folder), []
    flip(path / "divergence" / "part-00000.parquet")
    measure(folder, notices=notices)
    assert files(path) == files(pair_path(*runs_in(made)))
    assert notices == [f"{path}: 1 finished part damaged since, and measured again"]


def test_a_plan_of_another_machine_starts_over(made, folder):
    path, seen = begun(folder), []
    plan = path / "pair-plan.json"
    plan.write_text(plan.read_text().replace('"lossprobe', '"other'))
    measure(folder, progress=lambda done, _: seen.append(done))
    assert seen[0] == 0
    assert files(path) == files(pair_path(*runs_in(made)))


@pytest.mark.parametrize("damage", ["flip", "remove", "manifest", "link", "other rows"])
def test_a_damaged_pair_is_refused_and_overwritten(made, folder, damage):
    path = pair_path(*runs_in(folder))
    part = path / "divergence" / "part-00001.parquet"
    if damage == "flip":
        flip(part)
    elif damage == "remove":
        part.unlink()
    elif damage == "manifest":
        manifest = path / "pair.json"
        manifest.write_text(manifest.read_text().replace('"first"', '"First"', 1))
    elif damage == "link":
        shutil.move(part, folder / "moved")
        part.symlink_to(folder / "moved")
    else:
        pq.write_table(pq.read_table(part).slice(1), part)
    with pytest.raises(OutputError, match=r"pair\.json|part-00001") as caught:
        measure(folder)
    assert (caught.value.id, caught.value.exit_code) == ("run.damaged", 6)
    assert "`overwrite`" in caught.value.hint
    measure(folder, overwrite=True)
    assert files(path) == files(pair_path(*runs_in(made)))


def test_a_run_that_was_damaged_since_is_refused(folder):
    runs = runs_in(folder)
    flip(runs[1].path / "tokens" / "part-00000.parquet")
    with pytest.raises(OutputError, match="run1") as caught:
        stored_pair(*runs)
    assert caught.value.id == "run.damaged"


def test_a_full_disk_is_one_error_and_keeps_what_was_finished(made, folder, monkeypatch):
    path = pair_path(*runs_in(folder))
    shutil.rmtree(path)
    write = new_file.NewFile.write

    def full(self, data):
        if len(list((path / "plan").glob("*.json"))) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(new_file.NewFile, "write", full)
        with pytest.raises(OutputError, match=r"part-00001\.parquet: cannot be written: No space left") as caught:
            measure(folder)
    assert caught.value.id == "output.write"
    assert not list(path.rglob("*.tmp"))
    seen = []
    measure(folder, progress=lambda done, _: seen.append(done))
    assert seen[0] > 0
    assert files(path) == files(pair_path(*runs_in(made)))


def test_a_folder_with_other_files_and_a_writer_at_work_are_left_alone(folder):
    path = pair_path(*runs_in(folder))
    shutil.rmtree(path)
    path.mkdir()
    (path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="exists and is no pair of runs") as caught:
        measure(folder)
    assert caught.value.id == "output.foreign"
    (path / "mine.txt").unlink()

    def again(done, total):
        if done:
            with pytest.raises(OutputError, match="locked by pid") as locked:
                measure(folder)
            assert (locked.value.id, locked.value.hint) == ("output.locked", "wait until it has ended"), "takes no -o"

    measure(folder, progress=again)


def test_nothing_is_left_of_a_pair_that_failed_at_once(folder):
    runs = runs_in(folder)
    shutil.rmtree(pair_path(*runs))

    def broken(ids):
        raise RuntimeError("no such kernel")

    pair = (models()[0], checkpoint(broken, sha256="model 1"))
    with pytest.raises(RuntimeError, match="no such kernel"):
        score_pair(runs, pair, [])
    assert not pair_path(*runs).exists()


@pytest.mark.parametrize("parts", [1, PARTS])
@pytest.mark.parametrize("moved", [False, True])
def test_a_pair_that_is_removed_while_it_is_measured_is_told(folder, tmp_path, monkeypatch, parts, moved):
    path, real, written = pair_path(*runs_in(folder)), PairStore.write_part, []
    shutil.rmtree(path)

    def then_remove(self, *given):
        real(self, *given)
        written.append(given)
        if len(written) == parts:
            path.rename(tmp_path / "moved") if moved else shutil.rmtree(path)

    with monkeypatch.context() as patch:
        patch.setattr(PairStore, "write_part", then_remove)
        with pytest.raises(OutputError, match="was removed or replaced") as caught:
            measure(folder)
    assert (caught.value.id, caught.value.exit_code) == ("output.gone", 6)
    assert str(path) in caught.value.message
    assert not path.exists()
    assert (tmp_path / "moved" / "pair.json").exists() == moved, "who moved it has it"


@pytest.mark.parametrize("step", ["begin", "write_part"])
@pytest.mark.parametrize("what", ["removed", "replaced", "emptied"])
def test_a_run_that_is_lost_while_its_pair_is_measured_is_told_as_what_it_is(folder, monkeypatch, step, what):
    """To check a run that is gone, or to overwrite it, mends nothing; and the message has no number of the system."""
    first, real = folder / "run0", getattr(PairStore, step)
    shutil.rmtree(pair_path(*runs_in(folder)))
    told = {
        "removed": ("run.gone", "was removed or replaced after it was opened: its folder is no longer there"),
        "replaced": ("run.gone", "was removed or replaced after it was opened: run.json is another one"),
        "emptied": ("run.damaged", ""),
    }[what]

    def lose(self, *given, **choices):
        done = real(self, *given, **choices)
        if what == "emptied":
            os.truncate(first / "tokens" / "part-00000.parquet", 0)
        elif first.exists():
            shutil.rmtree(first)
            if what == "replaced":
                shutil.copytree(folder / "run1", first)
                os.truncate(first / "tokens" / "part-00000.parquet", 0)  # both have the same tokens
        return done

    monkeypatch.setattr(PairStore, step, lose)
    with pytest.raises(OutputError, match="run0") as caught:
        measure(folder)
    assert (caught.value.id, caught.value.exit_code) == (told[0], 6)
    assert caught.value.message.endswith(told[1])
    assert "Errno" not in caught.value.message
    assert ("repeat the command" in caught.value.hint) == (told[0] == "run.gone")


@pytest.mark.parametrize(
    ("lose", "told"),
    [
        (lambda part: part.unlink(), "is missing"),
        (lambda part: shutil.rmtree(part.parent), "is missing"),
        (lambda part: os.truncate(part, 0), "holds 0 bytes, {:,} were written"),
    ],
    ids=["removed", "removed with its folder", "emptied"],
)
def test_a_part_of_a_pair_that_is_lost_while_it_is_measured_is_told(folder, monkeypatch, lose, told):
    path, real = pair_path(*runs_in(folder)), PairStore.finish
    part = path / "divergence" / "part-00000.parquet"
    whole = part.stat().st_size
    shutil.rmtree(path)

    def lose_first(self, *given):
        lose(part)
        real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(PairStore, "finish", lose_first)
        with pytest.raises(OutputError, match=rf"part-00000\.parquet {told.format(whole)}") as caught:
            measure(folder)
    assert caught.value.id == "output.gone"
    assert not (path / "pair.json").exists()
    assert measure(folder) is not None


def test_a_pair_beside_the_copy_of_a_run_is_removed_and_named_by_its_folder(folder, tmp_path, capsys):
    """The run is a copy of one on object storage, from which none is removed; the pair lies here alone."""
    first = pair_path(*runs_in(folder))
    copies = Path(".lossprobe", "objects", "s3", "bucket", "runs")
    shutil.copytree(first, copies / "pair")
    shutil.copytree(folder / "run0", copies / "run0")
    capsys.readouterr()
    assert command(["runs", "remove", str(copies / "pair"), str(copies / "run0")]) == 2
    assert "error[object.remove]: s3://bucket/runs/run0: " in capsys.readouterr().err
    assert command(["runs", "remove", str(copies / "pair")]) == 0
    assert capsys.readouterr().err == f"lossprobe: removed {copies / 'pair'}\n"
    assert [path.name for path in copies.iterdir()] == ["run0"]


def test_pairs_are_listed_and_removed_but_are_no_runs(folder):
    path = pair_path(*runs_in(folder))
    assert is_pair(path)
    assert not is_run(path)
    assert path not in run_folders(folder)
    (listed,) = [each for each in stored_runs(folder) if each.path == path]
    assert (listed.state, listed.run) == ("pair", None)
    named = {"model": " ‖ ".join(run.name for run in runs_in(folder)), "text_name": "strings"}
    assert about(listed) == {**named, "tokens": listed.pair["counts"]["scored_tokens"]}
    remove_run(path)
    assert not path.exists()
    assert len(stored_runs(folder)) == 2
    measure(folder)
    begun(folder)
    (listed,) = [each for each in stored_runs(folder) if each.path == path]
    assert (listed.state, listed.pair) == ("unfinished pair", None)
    assert about(listed) == {**named, "tokens": None}
    plan = path / "pair-plan.json"
    plan.write_bytes(plan.read_bytes().replace(b"strings", b"other"))
    (listed,) = [each for each in stored_runs(folder) if each.path == path]
    assert about(listed) == {"model": None, "text_name": None, "tokens": None}, "what is damaged says nothing"
