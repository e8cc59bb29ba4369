"""Runs on object storage, against moto's server: looked at with boto3, and compared with a run of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from bundled import CHECKPOINT
from documented import DOCUMENTS, blocks
from documented_inputs import TEXT as LONG
from documented_inputs import write_tiny
from object_server import SECRET
from stored_runs import tree

import lossprobe
from lossprobe.cli.main import run
from lossprobe.errors import OutputError, UsageError
from lossprobe.objects.store import ObjectStore
from lossprobe.passes import planning, shards
from lossprobe.plan import rows as plan

pytestmark = pytest.mark.thorough
TEXT = "It shows. that is what it says.\n" * 40
ADDRESS = "s3://bucket/runs/x"


@pytest.fixture(autouse=True)
def short_parts(objects, tmp_path, monkeypatch):
    """Let runs have several parts, and none lie in the store from before."""
    monkeypatch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 64))
    for key in objects.tree("runs"):
        objects.client.delete_object(Bucket="bucket", Key=f"runs/{key}")
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that goes to an empty working folder, as another machine has it."""
    made = iter(range(1000))

    def go():
        folder = tmp_path / f"machine-{next(made)}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        return folder

    return go


@pytest.fixture
def local(tmp_path, machine):
    """Return the files of the run of this machine."""
    machine()
    assert score("-o", "one") == 0
    return files("one")


def files(folder):
    return {name: data for name, data in tree(Path(folder)).items() if not name.startswith(".")}


def score(*more):
    return run(["score", str(CHECKPOINT), "../text.txt", "-q", *more])


def test_a_run_equals_the_local_one_and_is_read_anywhere(objects, local, machine, capsys):
    machine()
    capsys.readouterr()
    assert score("-o", ADDRESS) == 0
    assert capsys.readouterr().out == f"{ADDRESS}\n"
    assert objects.tree("runs/x") == local
    machine()
    views = [["hardest", ADDRESS, "--csv", "-"], ["perplexity", ADDRESS], ["verify", ADDRESS], ["tokens", ADDRESS]]
    for view in views:
        assert run(view) == 0, view
    assert lossprobe.open_run(ADDRESS).counts == lossprobe.open_run("../machine-0/one").counts
    assert run(["runs", "latest", ADDRESS]) == 0
    assert run(["hardest"]) == 0
    machine()
    assert score("-o", ADDRESS) == 0, "it is found"
    assert objects.tree("runs/x") == local
    result = lossprobe.score(CHECKPOINT, "../text.txt", output=ADDRESS)
    assert result.reused
    assert run(["runs", "remove", ADDRESS]) == 2
    assert objects.tree("runs/x") == local


@pytest.mark.parametrize("lost", [False, True])
def test_verify_checks_what_the_store_holds_now(objects, machine, capsys, lost):
    machine()
    assert score("-o", ADDRESS) == 0
    capsys.readouterr()
    assert run(["verify", ADDRESS]) == 0
    assert capsys.readouterr().out.startswith(f"{ADDRESS}: ")
    key = "runs/x/tokens/part-00000.parquet"
    data = objects.tree("runs/x")["tokens/part-00000.parquet"]
    if lost:
        objects.client.delete_object(Bucket="bucket", Key=key)
    else:
        objects.client.put_object(Bucket="bucket", Key=key, Body=data[:-1] + bytes([data[-1] ^ 1]))
    assert run(["verify", ADDRESS]) == 6
    told = capsys.readouterr().err
    assert f"error[run.damaged]: {ADDRESS}: " in told
    assert "--overwrite" in told
    assert "runs remove" not in told
    assert score("-o", ADDRESS, "--overwrite") == 0
    assert run(["verify", ADDRESS]) == 0


def test_shards_on_machines_that_share_nothing_else(objects, local, machine, capsys):
    for shard in ("2/3", "1/3"):
        machine()
        assert score("-o", ADDRESS, "--shard", shard) == 0
    machine()
    capsys.readouterr()
    assert run(["hardest", ADDRESS]) == 6
    err = capsys.readouterr().err
    assert "error[run.unfinished]" in err
    assert ADDRESS in err
    assert run(["gather", ADDRESS]) == 6
    err = capsys.readouterr().err
    assert f"error[run.unfinished]: {ADDRESS}: " in err, "a folder of this machine says nothing to who named an address"
    assert "of 1 shard: 3/3" in err
    machine()
    assert score("-o", ADDRESS, "--shard", "3/4") == 6
    assert f"error[shard.other_count]: {ADDRESS}: " in capsys.readouterr().err
    assert score("-o", ADDRESS, "--shard", "3/3", "--context", "32") == 6
    err = capsys.readouterr().err
    assert "error[output.other_settings]" in err
    assert "on object storage, a tool of the store" in err, "runs remove removes nothing there"
    assert lossprobe.score_shard("3/3", CHECKPOINT, "../text.txt", output=ADDRESS).scored > 0
    machine()
    assert lossprobe.gather(ADDRESS).counts["scored_tokens"] > 0
    assert objects.tree("runs/x") == local
    assert run(["gather", ADDRESS]) == 0
    assert "complete already" in capsys.readouterr().err
    machine()
    assert score("-o", ADDRESS, "--shard", "1/3") == 0
    assert objects.tree("runs/x") == local


def test_a_view_of_a_run_that_is_here_asks_for_run_json_once(objects, machine, monkeypatch):
    asked = []
    for name in ("size", "below", "read", "fetch"):
        real = getattr(ObjectStore, name)

        def told(self, address, *more, name=name, real=real):
            asked.append((name, address.key.removeprefix("runs/x").strip("/")))
            return real(self, address, *more)

        monkeypatch.setattr(ObjectStore, name, told)
    machine()
    assert score("-o", ADDRESS) == 0
    for _ in range(2):
        asked.clear()
        assert run(["perplexity", ADDRESS]) == 0
    assert asked == [("size", "run.json"), ("below", ""), ("size", ""), ("read", "run.json")]


def test_a_shard_needs_its_own_parts_alone(objects, machine):
    machine()
    assert score("-o", ADDRESS, "--shard", "1/3") == 0
    folder = machine()
    assert score("-o", ADDRESS, "--shard", "2/3") == 0
    here = {file.name for file in folder.rglob("plan/part-*.parquet")}
    all_ = {name for name in objects.tree("runs/x") if name.startswith("plan/part-") and name.endswith(".parquet")}
    assert 0 < len(here) < len(all_)
    assert {file.name for file in folder.rglob("tokens/part-*")} == here


def test_two_shards_that_plan_at_once_agree(objects, local, machine, monkeypatch):
    others, real = [], ObjectStore.size

    def seldom(self, address):
        """Let another shard plan, score and end while this one has planned and looks for a plan."""
        if address.key.endswith("plan.json") and not others:
            others.append(1)
            here = Path.cwd()
            machine()
            assert score("-o", ADDRESS, "--shard", "2/2") == 0
            monkeypatch.chdir(here)
        return real(self, address)

    machine()
    monkeypatch.setattr(ObjectStore, "size", seldom)
    assert score("-o", ADDRESS, "--shard", "1/2") == 0
    assert others
    assert run(["gather", ADDRESS]) == 0
    assert objects.tree("runs/x") == local


def test_a_run_that_was_gathered_while_a_shard_planned_stays(objects, local, machine, monkeypatch, capsys):
    others, real = [], ObjectStore.size

    def seldom(self, address):
        if address.key.endswith("plan.json") and not others:
            others.append(1)
            here = Path.cwd()
            machine()
            assert score("-o", ADDRESS) == 0
            monkeypatch.chdir(here)
        return real(self, address)

    machine()
    monkeypatch.setattr(ObjectStore, "size", seldom)
    assert score("-o", ADDRESS, "--shard", "1/2") == 6
    assert "others have completed the run" in capsys.readouterr().err
    assert objects.tree("runs/x") == local
    assert score("-o", ADDRESS, "--shard", "1/2") == 0
    assert "already scored" not in capsys.readouterr().err, "it was asked to be quiet"


def test_a_stop_at_any_request_leaves_what_another_machine_completes(objects, local, machine, monkeypatch):
    real = {name: getattr(ObjectStore, name) for name in ("put", "remove", "remove_below")}

    def stopping(name, stop, requests):
        def request(self, *given):
            number = next(requests)
            if number == stop and stop % 2:  # before it has had an effect, or after
                raise KeyboardInterrupt
            real[name](self, *given)
            if number == stop:
                raise KeyboardInterrupt

        return request

    stop, codes = 1, []
    while not codes or codes[-1] == 130:
        for key in objects.tree("runs"):
            objects.client.delete_object(Bucket="bucket", Key=f"runs/{key}")
        requests = count(1)
        for name in real:
            monkeypatch.setattr(ObjectStore, name, stopping(name, stop, requests))
        machine()
        codes.append(score("-o", ADDRESS))
        for name, method in real.items():
            monkeypatch.setattr(ObjectStore, name, method)
        if stop % 3:  # on the same machine, or on another one
            machine()
        assert score("-o", ADDRESS) == 0, stop
        assert objects.tree("runs/x") == local, stop
        stop += 1
    assert codes[-1] == 0
    assert len(codes) > 20


KILLED = """
import os, random, signal, sys, threading, time
from itertools import count
from lossprobe.objects.store import ObjectStore
from lossprobe.passes import planning, shards
from lossprobe.plan import rows as plan
planning.cut_parts = lambda documents: plan.cut_parts(documents, 64)
requests, put = count(1), ObjectStore.put
def killed(self, *given):
    if next(requests) == int(sys.argv[1]):
        threading.Timer(random.random() / 100, os.kill, (os.getpid(), signal.SIGKILL)).start()
        put(self, *given)
        time.sleep(60)
    put(self, *given)
ObjectStore.put = killed
from lossprobe.cli.main import main
main(sys.argv[2:])
"""


def test_killed_processes_leave_what_another_machine_completes(objects, local, machine):
    """Kill each process while it sends an object, or right after, the first one early and each other one later."""
    codes = []
    while not codes or codes[-1]:
        scored = ["score", str(CHECKPOINT), "../text.txt", "-q", "-o", ADDRESS]
        command = [sys.executable, "-c", KILLED, str(2 + 4 * len(codes)), *scored]
        codes.append(subprocess.run(command, cwd=machine(), env=os.environ, stderr=subprocess.DEVNULL).returncode)
        assert codes[-1] in (0, -signal.SIGKILL)
        assert len(codes) < 20
    assert len(codes) > 2
    assert objects.tree("runs/x") == local


def test_a_changed_run_is_fetched_again_and_other_settings_are_refused(objects, local, machine, capsys):
    first = machine()
    assert score("-o", ADDRESS) == 0
    assert run(["hardest", ADDRESS]) == 0
    machine()
    assert score("-o", ADDRESS, "--context", "32") == 6
    assert "error[output.other_settings]" in capsys.readouterr().err
    assert objects.tree("runs/x") == local
    assert score("-o", ADDRESS, "--context", "32", "--overwrite") == 0
    changed = objects.tree("runs/x")
    assert changed != local
    assert score("-o", "there", "--context", "32") == 0
    assert changed == files("there")
    os.chdir(first)
    assert run(["hardest", ADDRESS]) == 0
    assert lossprobe.open_run(ADDRESS).context == 32


def test_damage_in_the_store_is_found(objects, local, machine, capsys):
    machine()
    assert score("-o", ADDRESS) == 0
    part = "runs/x/tokens/part-00001.parquet"
    objects.put(part, objects.get(part)[:-1] + b"?")
    machine()
    assert run(["hardest", ADDRESS]) == 6
    assert "error[run.damaged]" in capsys.readouterr().err


def test_what_is_no_run_is_left_alone(objects, machine, capsys):
    machine()
    objects.put("runs/x/notes.txt", b"mine")
    assert score("-o", ADDRESS) == 6
    assert "error[output.foreign]" in capsys.readouterr().err
    assert score("-o", f"{ADDRESS}/notes.txt") == 6
    assert "error[output.foreign]" in capsys.readouterr().err
    assert objects.tree("runs/x") == {"notes.txt": b"mine"}
    assert run(["gather", "s3://bucket/runs/none"]) == 2
    assert run(["hardest", "s3://bucket/runs/none"]) == 2
    err = capsys.readouterr().err
    assert err.count("s3://bucket/runs/none: is no run") == 2
    assert err.count("hint: nothing is there") == 2
    with pytest.raises(UsageError, match="s3://bucket/runs/none: is no run"):
        lossprobe.open_run("s3://bucket/runs/none")
    for command in (["hardest", "s3://nobucket/x"], ["gather", "s3://nobucket/x"], ["verify", "s3://nobucket/x"]):
        assert run(command) == 6
        told = capsys.readouterr().err
        assert "error[run.unreachable]: s3://nobucket/x: cannot be read: there is no such bucket" in told
    assert score("-o", "s3://nobucket/x") == 6
    assert "s3://nobucket/x: cannot be read: there is no such bucket" in capsys.readouterr().err
    assert not shutil.os.path.lexists(".lossprobe/objects/s3/nobucket/x/run.json")


@pytest.fixture
def strict(objects):
    objects.ask_for_keys(yes=True)
    yield
    objects.ask_for_keys(yes=False)


@pytest.mark.usefixtures("strict")
def test_keys_that_the_store_does_not_know(machine, capsys):
    """In an audit of a text there, in what writes a run, and in what reads one."""
    machine()
    Path("lossprobe.toml").write_text(
        f"schema = 1\n[model]\ncheckpoint = {json.dumps(str(CHECKPOINT))}\n[data.text]\npath = 's3://bucket/val.jsonl'\n"
        "[[check]]\nid = 'low'\nmetric = 'nll'\nmax = 100\n"
    )
    text, there = "error[text.unreadable]: s3://bucket/val.jsonl: ", f"error[run.unreachable]: {ADDRESS}: "
    for words, code, told in (
        (["audit"], 4, text), (["score", str(CHECKPOINT), "s3://bucket/val.jsonl"], 4, text),
        (["score", str(CHECKPOINT), "../text.txt", "-o", ADDRESS], 6, there), (["hardest", ADDRESS], 6, there),
        (["gather", ADDRESS], 6, there),
    ):  # fmt: skip
        assert run(words) == code
        err = capsys.readouterr().err
        assert told in err
        assert "access denied" in err or "does not know the key" in err
        assert SECRET not in err
        assert err.count("\n") == 1


def test_a_working_folder_that_cannot_be_written(objects, machine):
    """Where mounts can be made: whoever runs the tests may be a user who can write everything else."""
    folder = machine()
    command = 'mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" && exec "$@"'
    begun = ["unshare", "--mount", "sh", "-c", command, "sh"]
    try:
        subprocess.run([*begun, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounts cannot be made here")
    objects.put("text.txt", TEXT.encode())
    assert score("-o", ADDRESS) == 0
    shutil.rmtree(folder / ".lossprobe")
    for words, code, told in (
        (
            ["score", str(CHECKPOINT), "s3://bucket/text.txt", "-o", "../one"],
            4,
            "s3://bucket/text.txt: cannot be read: ",
        ),
        (["hardest", ADDRESS], 6, f"{ADDRESS}: cannot be read: "),
        (
            ["score", str(CHECKPOINT), "../text.txt", "-o", ADDRESS],
            6,
            ".lossprobe/objects/s3/bucket/runs/x: cannot be ",
        ),
    ):
        done = subprocess.run([*begun, sys.executable, "-m", "lossprobe", *words], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert told in done.stderr
        assert ".lossprobe" in done.stderr
        assert "Read-only file system" in done.stderr
        assert done.stderr.count("error[") == 1


def test_a_store_that_fails_while_parts_are_put_stops_the_pass(objects, local, machine, monkeypatch, capsys):
    real = ObjectStore.put

    def failing(self, file, address):
        if "part-00002" in address.key and "tokens" in address.key:
            raise OSError(5, "no connection")
        real(self, file, address)

    machine()
    monkeypatch.setattr(ObjectStore, "put", failing)
    assert score("-o", ADDRESS) == 6
    told = capsys.readouterr().err
    assert (
        f"error[output.write]: {ADDRESS}: cannot be written: no connection\nhint: repeat the command to resume" in told
    )
    monkeypatch.setattr(ObjectStore, "put", real)
    assert score("-o", ADDRESS) == 0
    assert objects.tree("runs/x") == local


def removing(objects, monkeypatch, names, after=2):
    """Delete some of the run's objects after some files of token parts were put; return what puts, and those files."""
    real, put = ObjectStore.put, []

    def then_remove(self, file, address):
        real(self, file, address)
        if "tokens/part" in address.key:
            put.append(address.key)
            if len(put) == after:
                for name in objects.tree("runs/x"):
                    if name.startswith(names):
                        objects.client.delete_object(Bucket="bucket", Key=f"runs/x/{name}")

    monkeypatch.setattr(ObjectStore, "put", then_remove)
    return real, put


@pytest.mark.parametrize("names", ["", "tokens/", "documents", "plan"])
@pytest.mark.parametrize("how", [[], ["--shard", "1/2"], None])
def test_a_run_whose_objects_are_deleted_while_it_is_scored_is_no_stored_run(
    objects, local, machine, monkeypatch, capsys, names, how
):
    """By the command, as a shard, and in Python. A run that ends does not need its plan."""
    machine()
    capsys.readouterr()
    real, put = removing(objects, monkeypatch, names)
    lost = names != "plan" or how == ["--shard", "1/2"]
    if how is None:
        told = pytest.raises(OutputError, match=f"{ADDRESS}: was removed or replaced")
        with told if lost else contextlib.nullcontext() as caught:
            lossprobe.score(CHECKPOINT, "../text.txt", output=ADDRESS)
        assert not lost or caught.value.id == "output.gone"
    else:
        assert score("-o", ADDRESS, *how) == (6 if lost else 0)
        out, err = capsys.readouterr()
        if lost:
            assert err.startswith(f"lossprobe: error[output.gone]: {ADDRESS}: was removed or replaced while it was ")
            again = "repeat the command" if names != "documents" else "use another -o" if how else "--overwrite"
            assert (out, err.count("\n"), err.count(f"hint: {again}")) == ("", 2, 1)
    assert len(put) >= 2
    assert ("run.json" in objects.tree("runs/x")) == (not lost)
    monkeypatch.setattr(ObjectStore, "put", real)
    machine()
    assert score("-o", ADDRESS, *(["--overwrite"] if names == "documents" else [])) == 0
    assert objects.tree("runs/x") == local


def test_a_copy_that_is_emptied_before_it_is_put_is_no_stored_run(objects, local, machine, monkeypatch, capsys):
    """What counts is what was written, not what lies beside the object in the folder here."""
    real = ObjectStore.put

    def empty_first(self, file, address):
        if address.key.endswith("tokens/part-00001.parquet"):
            os.truncate(file, 0)
        real(self, file, address)

    machine()
    monkeypatch.setattr(ObjectStore, "put", empty_first)
    assert score("-o", ADDRESS) == 6
    whole = len(local["tokens/part-00001.parquet"])
    told = f"while it was written: tokens/part-00001.parquet holds 0 bytes, {whole:,} were written"
    assert f"error[output.gone]: {ADDRESS}: was removed or replaced {told}" in capsys.readouterr().err
    monkeypatch.setattr(ObjectStore, "put", real)
    assert score("-o", ADDRESS) == 0
    assert objects.tree("runs/x") == local


def test_a_run_that_is_deleted_as_its_last_file_is_put_is_told(objects, machine, monkeypatch, capsys):
    real = ObjectStore.put

    def then_remove(self, file, address):
        real(self, file, address)
        if address.key.endswith("run.json"):
            for name in objects.tree("runs/x"):
                objects.client.delete_object(Bucket="bucket", Key=f"runs/x/{name}")

    machine()
    monkeypatch.setattr(ObjectStore, "put", then_remove)
    assert score("-o", ADDRESS) == 6
    err = capsys.readouterr().err
    assert f"error[output.gone]: {ADDRESS}: was removed or replaced while it was written: run.json is missing" in err


def test_a_run_that_another_machine_completed_while_a_shard_scored_is_there(objects, local, machine, monkeypatch):
    """Its plan and the records of its parts are gone then."""
    machine()
    assert score("-o", ADDRESS, "--shard", "2/2") == 0
    here, others = machine(), []
    real = ObjectStore.read

    def complete(self, address):
        if address.key.endswith("plan.json") and "shard" in others:
            others.clear()
            machine()
            assert score("-o", ADDRESS) == 0
            os.chdir(here)
        return real(self, address)

    def begin(*given):
        scored = score_parts(*given)
        others.append("shard")
        return scored

    score_parts = shards.score_parts
    monkeypatch.setattr(shards, "score_parts", begin)
    monkeypatch.setattr(ObjectStore, "read", complete)
    assert score("-o", ADDRESS, "--shard", "1/2") == 0
    assert others == []
    assert objects.tree("runs/x") == local


def test_the_commands_of_the_page_run(objects, machine, capfd):
    page = next(each for each in DOCUMENTS if each.name == "object-storage.md")
    objects.put("data.txt", LONG.encode())
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.commands]
    assert len(lines) == 4
    for line in lines:
        machine()
        write_tiny("my-model", 0)
        assert run(line.split()[1:]) == 0, (line, capfd.readouterr().err)
    assert "run.json" in objects.tree("runs/data")
