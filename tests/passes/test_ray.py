"""Scoring with the workers of Ray: the run is that of one process to the byte. Thorough tests run the real Ray."""

import importlib.util
import json
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from bundled import EXAMPLES
from gguf_files import gpt2_gguf
from ray_stand_in import ActorUnavailableError, StandInSession
from stored_runs import tree

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.cli.main import run
from lossprobe.errors import CheckpointError, ResourceError, UsageError
from lossprobe.passes import planning
from lossprobe.passes.engine_options import EngineOptions
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.protocols import score_as_tool
from lossprobe.passes.ray.opener import RayOpener
from lossprobe.passes.ray.session import RaySession
from lossprobe.passes.rendered import both_sides
from lossprobe.passes.score import score_into
from lossprobe.passes.worker import Model, Worker, failure_of
from lossprobe.plan import rows as plan
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource, open_text

PLAIN, VALID = EXAMPLES / "jargon-plain", EXAMPLES / "jargon-valid.jsonl"
TEXTS = ["It was a dark and stormy night; " * 20, "xyz", "café ☃ " * 40, "def f(x): return x + 1 " * 30]


@pytest.fixture
def cut(monkeypatch):
    cut_parts = plan.cut_parts
    monkeypatch.setattr(planning, "cut_parts", lambda documents: cut_parts(documents, 128))


@pytest.fixture
def session():
    deaths = iter([False] * 6 + [True] + [False] * 1000)

    def dies(number, question):
        return ActorUnavailableError("gone") if question == "score" and next(deaths) else None

    made = StandInSession(2, dies=dies)
    yield made
    made.close()


@pytest.mark.parametrize("address", [None, "auto"])
@pytest.mark.parametrize("chosen", [None, "19"])
def test_what_the_user_has_chosen_for_a_ray_of_our_own_stands(monkeypatch, address, chosen):
    name = "RAY_worker_niceness"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    if chosen is not None:
        monkeypatch.setenv(name, chosen)
    made = RaySession(EngineOptions(engine="ray", ray_address=address), pytest.fail)
    environment = {name: chosen} | made._settings("cpu", [])["environment"]
    made.close()
    assert environment[name] == ("0" if address is chosen is None else chosen)
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0", "nothing is ever reported to the makers of Ray"


@pytest.mark.parametrize("desmooth", [None, 0.1])
def test_the_bytes_are_those_of_one_process(cut, session, tmp_path, desmooth):
    spec = CheckpointSpec(PLAIN, LoadOptions(), desmooth)
    here = score_into(tmp_path / "here", Opener().open(spec), StringSource(TEXTS)).run
    there = score_into(tmp_path / "there", RayOpener(session).open(spec), StringSource(TEXTS)).run
    assert len(list((here.path / "tokens").iterdir())) >= 4
    assert tree(here.path) == tree(there.path)
    assert session.started == 2


@pytest.mark.thorough
def test_another_tools_tokenizer_and_bos_reach_the_workers(cut, session, tmp_path):
    spec = CheckpointSpec(PLAIN, LoadOptions())
    for protocol in ("lm-eval", "llama.cpp"):
        options = ScoreOptions(context=64)
        here, there = (
            score_as_tool(
                protocol, opener.open(spec), StringSource(TEXTS), options, output=tmp_path / f"{protocol} {name}"
            ).run
            for name, opener in (("here", Opener()), ("there", RayOpener(session)))
        )
        assert tree(here.path) == tree(there.path), protocol


@pytest.mark.thorough
def test_pairs_run_their_prompt_once_there_too(cut, session, tmp_path):
    pair = {"prompt": "It was a dark and stormy night; " * 4, "chosen": "the rain fell.", "rejected": "it was calm."}
    (tmp_path / "pairs.jsonl").write_text(f"{json.dumps(pair)}\n" * 3)
    spec, runs = CheckpointSpec(PLAIN, LoadOptions()), []
    for name, opener in (("here", Opener()), ("there", RayOpener(session))):
        checkpoint = opener.open(spec)
        source = both_sides(KnownText(open_text([tmp_path / "pairs.jsonl"])), checkpoint, "auto")
        runs.append(score_into(tmp_path / name, checkpoint, source, ScoreOptions(score="auto")).run)
    assert tree(runs[0].path) == tree(runs[1].path)


def test_what_computes_in_this_process_is_refused(session):
    checkpoint = RayOpener(session).open(CheckpointSpec(PLAIN, LoadOptions()))
    for function in (checkpoint.hidden, checkpoint.logits):
        with pytest.raises(UsageError, match="runs the model in its own process"):
            function(None)


def test_a_numbered_gpu_is_refused(session):
    spec = CheckpointSpec(PLAIN, LoadOptions(device="cuda:1"))
    with pytest.raises(UsageError, match="Ray gives each worker its GPU"):
        RayOpener(session).placed(spec)
    placed = RayOpener(session).placed(replace(spec, options=LoadOptions(device="auto")))
    assert placed.options.device == "cpu"


def test_tokenizers_are_the_same_in_another_process():
    own = open_checkpoint(PLAIN).tokenizer
    sent = pickle.loads(pickle.dumps(own))
    for text in TEXTS:
        assert own.encode(text).ids.tolist() == sent.encode(text).ids.tolist()


def test_the_tokenizer_of_a_gguf_file_loads_no_weights_in_another_process(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(gpt2_gguf(PLAIN, "F16"))
    own = open_checkpoint(file).tokenizer
    sent = pickle.loads(pickle.dumps(own))
    assert sent._process._box._opening[2] == b""
    for text in TEXTS:
        assert own.encode(text).ids.tolist() == sent.encode(text).ids.tolist()
    assert own.sha256 == sent.sha256


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (MemoryError("no room"), MemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError),
        (OSError(28, "No space left on device"), OSError),
        (ZeroDivisionError("a bug"), RuntimeError),
        (CheckpointError("checkpoint.changed", "changed", subject="x", hint="again", details=["a"]), CheckpointError),
    ],
)
def test_errors_of_a_worker_are_the_same_here(session, monkeypatch, error, raised):
    def fail(self, model):
        raise error

    monkeypatch.setattr(Worker, "open", fail)
    with pytest.raises(raised) as caught:
        RayOpener(session).open(CheckpointSpec(PLAIN, LoadOptions()))
    assert str(caught.value).removeprefix("ZeroDivisionError: ") == str(error)
    assert vars(caught.value) == vars(error) | {"details": tuple(getattr(error, "details", ()))} or not vars(error)
    assert failure_of(error)["reason"]


def test_a_missing_checkpoint_is_told(session, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        RayOpener(session).open(CheckpointSpec(tmp_path / "none", LoadOptions()))
    good, _ = Worker().answer("agreed", pickle.dumps(Model(CheckpointSpec(tmp_path / "none", LoadOptions()))))
    assert not good


def test_a_process_that_ends_is_told(tmp_path):
    session = StandInSession()
    session.begin("cpu")
    session.recv = lambda: (_ for _ in ()).throw(EOFError)
    with pytest.raises(ResourceError, match="the connection to it ended"):
        session.receive()
    session.close()


def refused(capfd, *options):
    code = run(["score", str(PLAIN), str(VALID), "--engine", "ray", *options])
    return code, capfd.readouterr().err


def test_without_the_library_the_command_says_how_to_install_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name, *more))
    code, said = refused(capfd)
    assert (code, said) == (
        2, 'lossprobe: error[ray.package]: --engine ray needs the library ray\nhint: pip install "lossprobe[ray]"\n'
    )  # fmt: skip


def test_an_address_where_nobody_listens_is_told_at_once(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: name)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        begun = time.monotonic()
        code, said = refused(capfd, "--ray-address", address)
    assert code == 2
    assert said.startswith(
        f"lossprobe: error[ray.unreachable]: Ray at {address}: does not answer: Connection refused\n"
    )
    assert time.monotonic() - begun < 5


@pytest.mark.thorough
def test_workers_score_the_rounds_of_an_audit_that_stops_early(tmp_path, monkeypatch, capfd):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(planning.__file__).parents[2]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path / "examples" / "audit")
    told = []
    for options in (["--engine", "ray", "--ray-workers", "2", "--ray-threads", "1"], []):
        assert run(["audit", "--stop-early", "--json", *options]) == 0
        told.append(capfd.readouterr().out)
    assert told[0] == told[1]
    assert json.loads(told[0])


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265", "head", "a b:1", "head:65536"])
def test_an_address_of_another_form_is_refused(tmp_path, monkeypatch, capfd, address):
    monkeypatch.chdir(tmp_path)
    code, said = refused(capfd, "--ray-address", address)
    assert code == 2
    assert "Invalid value for --ray-address: must be auto or HOST:PORT" in said


def test_options_of_ray_without_the_engine_are_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run(["score", str(PLAIN), str(VALID), "--ray-workers", "2"]) == 2
    assert "--ray-workers is only for --engine ray" in capfd.readouterr().err


@pytest.fixture
def with_ray(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(planning.__file__).parents[2]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return [sys.executable, "-m", "lossprobe", "score", str(PLAIN), str(VALID), "--engine", "ray", "--ray-workers", "2"]


@pytest.mark.thorough
def test_real_workers_write_the_same_bytes_and_nothing_else_is_printed(with_ray, tmp_path):
    # A module of the working folder would be imported by Ray's workers if its driver ran here.
    (tmp_path / "numba.py").write_text("raise SystemExit('code of the working folder ran')\n")
    done = subprocess.run([*with_ray, "-o", "there"], capture_output=True, text=True, check=True)
    assert done.stdout == "there\n"
    assert {line.split(":")[0].split()[0] for line in done.stderr.splitlines()} <= {"lossprobe", "next", "lossprobe:"}
    assert run(["score", str(PLAIN), str(VALID), "-o", "here", "-q"]) == 0
    assert tree(tmp_path / "here") == tree(tmp_path / "there")


@pytest.mark.thorough
def test_ctrl_c_ends_the_workers_and_the_same_command_resumes(with_ray, tmp_path):
    text = tmp_path / "text.jsonl"  # three parts
    text.write_text(
        "".join((EXAMPLES / "jargon-train.jsonl").read_text("utf-8").splitlines(keepends=True)[:400]), "utf-8"
    )
    words = [str(text) if word == str(VALID) else word for word in with_ray]
    command = subprocess.Popen([*words, "-o", "there"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "there" / "plan").glob("*.json") if (tmp_path / "there").is_dir() else []):
        assert command.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=60)
    assert command.returncode == 130
    assert "finished parts are kept; repeat the command to resume" in said
    words_of = [_words(entry) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    assert not any(b"lossprobe-ray-" in each for each in words_of), "Ray's processes ended"
    subprocess.run([*words, "-o", "there"], check=True, capture_output=True)
    assert run(["score", str(PLAIN), str(text), "-o", "here", "-q"]) == 0
    assert tree(tmp_path / "here") == tree(tmp_path / "there")


def _words(process):
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended
        return b""
