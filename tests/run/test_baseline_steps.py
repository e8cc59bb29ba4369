"""Tests the steps of replacing a baseline: stopped at any step, the old or the new one stays readable."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from bundled import EXAMPLES
from fakes import SmallModel, checkpoint
from stored_runs import flip, score_texts, tree

from lossprobe.audit.gate.gate import run_audit
from lossprobe.audit.gate.update import update_baseline
from lossprobe.audit.settings import (
    AuditSettings,
    BaselineSettings,
    Check,
    DataSettings,
    Limit,
    ModelSettings,
    StatsSettings,
)
from lossprobe.errors import LossprobeError, NotComparableError, OutputError
from lossprobe.plan.options import ScoreOptions
from lossprobe.run.baseline import BASELINE_FILE, TOKENS, is_baseline, open_baseline, write_baseline
from lossprobe.run.reader import open_run

CALLS = ("open", "replace", "unlink", "mkdir", "rmdir", "fsync", "listdir")


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mean(folder) -> float:
    return float(open_baseline(folder).scalar("SELECT avg(loss_nats::DOUBLE) FROM tokens"))


@pytest.fixture(scope="session")
def pair(finished, tmp_path_factory):
    """Return the runs of two models over one text, each with its mean loss."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runs = [open_run(finished), score_texts(folder / "other", 1).run]
    return [(run.path, float(run.scalar("SELECT avg(loss_nats::DOUBLE) FROM tokens"))) for run in runs]


@pytest.fixture
def base(pair, tmp_path):
    write_baseline(open_run(pair[0][0]), tmp_path / "base")
    assert mean(tmp_path / "base") == pair[0][1]
    return tmp_path / "base"


def test_a_step_that_fails_leaves_the_old_one_or_the_new_one(base, pair, tmp_path, monkeypatch):
    new, seen = open_run(pair[1][0]), []
    new.check()
    for step in range(200):
        shutil.rmtree(tmp_path / "now", ignore_errors=True)
        shutil.copytree(base, tmp_path / "now")
        with monkeypatch.context() as patch:
            calls = _fail_at(patch, step)
            try:
                write_baseline(new, tmp_path / "now")
            except OutputError:
                pass
            else:
                if len(calls) <= step:
                    break
                continue  # a failure that does not matter, such as that of making a folder that is there
        seen.append([value for _, value in pair].index(mean(tmp_path / "now")))
        write_baseline(new, tmp_path / "now")
        assert names(tmp_path / "now") == [BASELINE_FILE, TOKENS], "nothing is left of the one that failed"
        assert mean(tmp_path / "now") == pair[1][1]
    assert seen == sorted(seen), "from one step on it is the new one"
    assert seen.count(0) > 8
    assert seen.count(1) > 3


def _fail_at(patch, step):
    """Let call number `step` (from 0) to the file system fail; return the list of the names of all calls."""
    calls = []

    def failing(name, real):
        def call(*arguments, **keywords):
            calls.append(name)
            if len(calls) == step + 1:
                raise OSError(28, "No space left on device")
            return real(*arguments, **keywords)

        return call

    for name in CALLS:
        patch.setattr(os, name, failing(name, getattr(os, name)))
    return calls


KILLER = """
import os, shutil, signal, sys, time
from pathlib import Path
from lossprobe.run.baseline import write_baseline
from lossprobe.run.reader import open_run
from lossprobe.plan.options import ScoreOptions
import pyarrow.parquet, duckdb

base, run, states, names = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4].split(",")

def killing(name, step):
    real = getattr(os, name)
    def call(*arguments, **keywords):
        killing.count += 1
        if killing.count > step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **keywords)
    return call

time.sleep(2.1)  # a run so old is checked once: later writers make as many calls as the first
if os.fork() == 0:
    open_run(run).check()
    os._exit(0)
os.wait()
for step in range(200):
    shutil.copytree(base, states / f"{step:03d}" / "base")
    child = os.fork()  # before any thread is started
    if child == 0:
        opened = open_run(run)
        opened.check()
        killing.count = 0
        for name in names:
            setattr(os, name, killing(name, step))
        write_baseline(opened, states / f"{step:03d}" / "base")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_writer_that_is_killed_leaves_the_old_one_or_the_new_one(base, pair, tmp_path):
    command = [sys.executable, "-c", KILLER, base, pair[1][0], tmp_path / "states", ",".join(CALLS)]
    subprocess.run([str(part) for part in command], check=True, timeout=300)
    states = sorted((tmp_path / "states").iterdir())
    values = [value for _, value in pair]
    seen = [values.index(mean(state / "base")) for state in states]
    assert seen == sorted(seen)
    assert seen.count(0) > 8
    assert seen.count(1) > 3
    for state in states:
        write_baseline(open_run(pair[1][0]), state / "base")
        assert names(state / "base") == [BASELINE_FILE, TOKENS]


@pytest.mark.thorough
def test_git_ignores_what_a_killed_writer_leaves(base, pair, tmp_path):
    command = [sys.executable, "-c", KILLER, base, pair[1][0], tmp_path / "states", "replace"]
    subprocess.run([str(part) for part in command], check=True, timeout=300)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "states", check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"],
        cwd=tmp_path / "states", capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    left = {name.rpartition("/")[2] for name in listed}
    assert {BASELINE_FILE, TOKENS} < left
    assert all(re.fullmatch(r"baseline\.json|tokens(-[0-9a-f]{64})?\.parquet", name) for name in left), left
    assert any((tmp_path / "states").rglob(".*.tmp")), "there is something to ignore"


@pytest.mark.thorough
def test_a_reader_meets_the_old_one_or_the_new_one(base, pair):
    """A reader finds a complete baseline at any time while two writers replace it."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom lossprobe.run.baseline import write_baseline\n"
        "from lossprobe.run.reader import open_run\n"
        "for _ in range(15):\n    for run in sys.argv[2:]: write_baseline(open_run(run), Path(sys.argv[1]))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, base, *(run for run, _ in pair)]) for _ in range(2)]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        open_baseline(base)
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 10
    assert mean(base) in [value for _, value in pair]
    assert names(base) == [BASELINE_FILE, TOKENS]


@pytest.mark.parametrize("pending", [False, True])
def test_a_baseline_that_was_opened_stays_itself_while_another_takes_its_place(base, pair, pending):
    """An audit opens the baseline before the model scores the text, and reads its losses afterwards."""
    (first, first_mean), (second, second_mean) = pair
    if pending:  # a writer was killed after its step
        digest = json.loads((base / BASELINE_FILE).read_text("utf-8"))["files"][TOKENS]
        (base / TOKENS).rename(base / f"tokens-{digest}.parquet")
    opened = open_baseline(base)
    write_baseline(open_run(second), base)
    assert opened.manifest["settings"] == open_run(first).manifest["settings"]
    assert opened.scalar("SELECT avg(loss_nats::DOUBLE) FROM tokens") == first_mean
    joined = open_run(second).scalar(f"SELECT avg(loss_nats::DOUBLE) FROM {opened.relation('tokens')}")
    assert joined == first_mean
    assert mean(base) == second_mean
    path = opened.held and opened.held.path
    del opened
    assert path is None or not path.exists(), "let go"


def test_the_committed_baseline_opens():
    baseline = open_baseline(EXAMPLES / "audit" / "baseline" / "jargon")
    assert baseline.counts["tokens"] == baseline.scalar("SELECT count(*) FROM tokens")


# Links


@pytest.mark.parametrize("name", [BASELINE_FILE, TOKENS])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_baseline_is_not_read_through_a_link_and_never_waited_for(base, name, kind):
    shutil.move(base / name, base.parent / "moved")
    if kind == "link":
        (base / name).symlink_to(base.parent / "moved")
    elif kind == "pipe":
        os.mkfifo(base / name)
    else:
        (base / name).mkdir()
    with pytest.raises(NotComparableError, match=r"symbolic link|no regular file") as caught:
        open_baseline(base)
    assert (caught.value.id, caught.value.exit_code) == ("baseline.damaged", 12)


def test_a_baseline_is_not_written_through_links(pair, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"keep")
    (tmp_path / "base").symlink_to(tmp_path / "outside")
    with pytest.raises(OutputError, match="symbolic link") as caught:
        write_baseline(open_run(pair[0][0]), tmp_path / "base")
    assert caught.value.id == "output.link"
    (tmp_path / "base").unlink()
    (tmp_path / "base").mkdir()
    for name in (BASELINE_FILE, TOKENS, ".new"):
        (tmp_path / "base" / name).symlink_to(tmp_path / "outside" / ("" if name == ".new" else "file"))
    write_baseline(open_run(pair[0][0]), tmp_path / "base")
    assert tree(tmp_path / "outside") == {"file": b"keep"}
    assert mean(tmp_path / "base") == pair[0][1]


# Update


@pytest.fixture
def audited(tmp_path, monkeypatch):
    """Return the settings of an audit that has a baseline of the old model."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh \n"), 40)) for _ in range(20)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = AuditSettings(
        file=tmp_path / "lossprobe.toml",
        model=ModelSettings(checkpoint=tmp_path / "model"),
        windows=ScoreOptions(context=16, bos="never"),
        data=(DataSettings(name="text", path=tmp_path / "text.jsonl"),),
        baseline=BaselineSettings(tmp_path / "baselines"),
        stats=StatsSettings(),
        checks=(Check("nll", "text", "nll", Limit("max_increase", 0.0001)),),
    )
    assert update_baseline(settings, model(1))[1]
    return settings


def model(seed):
    return checkpoint(SmallModel(seed), sha256=f"model {seed}")


def edit(folder):
    text = (folder / BASELINE_FILE).read_text()
    (folder / BASELINE_FILE).write_text(text.replace('"documents": 20', '"documents": 21'))


DAMAGE = {
    "flipped tokens": lambda folder: flip(folder / TOKENS),
    "no tokens": lambda folder: (folder / TOKENS).unlink(),
    "flipped manifest": lambda folder: flip(folder / BASELINE_FILE),
    "edited manifest": edit,
    "no manifest": lambda folder: (folder / BASELINE_FILE).unlink(),
    "empty manifest": lambda folder: (folder / BASELINE_FILE).write_bytes(b""),
    "another version": lambda folder: (folder / BASELINE_FILE).write_text(
        json.dumps({**json.loads((folder / BASELINE_FILE).read_text()), "schema": 9})
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("missing", ["warn", "create", "error"])
@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_baseline_is_no_missing_one(audited, what, missing):
    folder = audited.baseline.path / "text"
    DAMAGE[what](folder)
    assert is_baseline(folder)
    before = tree(folder)
    settings = replace(audited, baseline=replace(audited.baseline, missing=missing))
    with pytest.raises(NotComparableError) as caught:
        update_baseline(settings, model(2))
    assert caught.value.exit_code == 12
    assert "--force" in caught.value.hint
    assert tree(folder) == before, "nothing was accepted unchecked"
    result, written = update_baseline(settings, model(2), force=True)
    assert written == [folder]
    assert any("baseline" in note or "text" in note for note in result.notes)
    assert update_baseline(settings, model(2))[0].verdict == "pass"


def test_a_killed_update_is_checked_against_what_it_left(audited, tmp_path):
    """After an update was killed between two steps, the next one still compares, and refuses a worse model."""
    folder = audited.baseline.path / "text"
    run = open_run(next((tmp_path / ".lossprobe").glob("*/run.json")).parent)
    run.check()
    for name in (TOKENS, BASELINE_FILE):
        shutil.copytree(folder, tmp_path / "kept", dirs_exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            real = os.replace

            def stop(old, new, *arguments, name=name, real=real, **keywords):
                if old == name:
                    raise KeyboardInterrupt
                return real(old, new, *arguments, **keywords)

            patch.setattr(os, "replace", stop)
            with pytest.raises(KeyboardInterrupt):
                write_baseline(run, folder)
        result, written = update_baseline(audited, model(2))
        assert (result.verdict, written) == ("fail", [])
    with pytest.raises(LossprobeError):
        open_baseline(tmp_path / "nothing")


def test_a_baseline_of_another_text_may_be_replaced_and_it_is_said(audited, tmp_path):
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "another text, long enough"}) + "\n")
    result, written = update_baseline(audited, model(2))
    assert written
    assert any("differs in text" in note for note in result.notes)


def test_an_audit_does_not_pass_on_a_damaged_run(audited, tmp_path):
    assert run_audit(audited, model(1)).verdict == "pass"
    (part,) = (tmp_path / ".lossprobe").glob("*/tokens/part-00000.parquet")
    before = part.read_bytes()
    for place in (0.2, 0.5, 0.8):
        flip(part, place)
        with pytest.raises(OutputError, match="part-00000") as caught:
            run_audit(audited, model(1))
        assert (caught.value.id, caught.value.exit_code) == ("run.damaged", 6)
        assert "remove its folder" in caught.value.hint
        part.write_bytes(before)
    assert run_audit(audited, model(1)).verdict == "pass"
