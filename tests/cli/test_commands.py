"""The other commands, the exit codes, and what a user sees when something is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from bundled import CHECKPOINT, EXAMPLES
from chats import FOLDER

from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.cli.demo import PAIR
from lossprobe.cli.doctor import FLOORS
from lossprobe.cli.main import run
from lossprobe.passes import planning
from lossprobe.plan.rows import cut_parts
from lossprobe.run.reader import latest_run, open_run

LOSSPROBE = [sys.executable, "-m", "lossprobe"]


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, code, id_, *arguments) -> str:
    got, out, err = call(capsys, *arguments)
    lines = err.strip().splitlines()
    assert got == code, err
    assert out == ""
    assert lines[0].startswith(f"lossprobe: error[{id_}]: "), err
    assert all(line.startswith(("hint: ", "{")) for line in lines[1:])
    assert "Traceback" not in err
    return err


def test_score_prints_the_run_and_the_next_commands(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "score", CHECKPOINT, text)
    assert code == 0
    assert Path(out.strip()) == latest_run(tmp_path).path.relative_to(tmp_path)
    assert "next:  lossprobe perplexity" in err
    code, out_again, err = call(capsys, "score", CHECKPOINT, text)
    assert (code, out_again) == (0, out)
    assert "already scored, reusing" in err
    assert "%" not in err, "no progress where nobody looks"


def test_a_view_of_a_checkpoint_and_a_text_scores_first(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "perplexity", CHECKPOINT, text, "--context", "64", "--table", "--stride", "32")
    assert code == 0
    assert "context 64" in out
    assert "stored .lossprobe/jargon-plain-entries-" in err


@pytest.mark.parametrize("field", ["vocabulary", "context length", "BOS", "weights sha256", "head", "tied head"])
def test_inspect(capsys, field):
    code, out, _ = call(capsys, "inspect", CHECKPOINT)
    assert code == 0
    assert any(line.startswith(field) for line in out.splitlines())


def test_inspect_fits_80_columns_and_breaks_no_word(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = call(capsys, "inspect", CHECKPOINT)
    assert max(map(len, out.splitlines())) <= 80
    monkeypatch.delenv("COLUMNS")
    _, piped, _ = call(capsys, "inspect", CHECKPOINT)
    assert len(piped.splitlines()) == 15, "a pipe gets one line a fact"
    assert out.split() == piped.split()


def test_inspect_says_what_the_chat_template_does(capsys):
    template = str(FOLDER / "qwen3.jinja")
    _, out, _ = call(capsys, "inspect", CHECKPOINT, "--chat-template", template)
    said = next(line for line in out.splitlines() if line.startswith("chat template"))
    assert said.split(None, 2)[2] == (
        f"{template}; no {{% generation %}} marks; not prefix-preserving (later turns change earlier ones); "
        "writes the reasoning_content of the last answer only; writes no BOS"
    )


def test_inspect_json(capsys):
    _, out, _ = call(capsys, "inspect", CHECKPOINT, "--json")
    facts = json.loads(out)
    assert (facts["family"], facts["vocab_size"], facts["context_length"], facts["tied"]) == ("gpt2", 1024, 256, True)
    assert (facts["stored_dtype"], facts["compute_dtype"], facts["head"]) == ("float16", "float32", "linear")
    assert facts["tokenizer"]["adds_bos"]


def test_doctor(capsys):
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    assert out.count(": met") == 4


def test_doctor_and_the_package_ask_for_the_same_versions():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = dict(each.split(">=") for each in project["dependencies"])
    assert {name: asked[name] for name in FLOORS} == FLOORS


def test_verify_finds_one_flipped_bit(work, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(latest_run(work).path, copy)
    assert call(capsys, "verify", copy)[0] == 0
    part = next((copy / "tokens").iterdir())
    data = bytearray(part.read_bytes())
    data[100] ^= 4
    part.write_bytes(data)
    told = refused(capsys, 6, "run.damaged", "verify", copy)
    assert "1 of 5 files damaged" in told
    assert "shards score it again after lossprobe runs remove" in told


def test_usage_errors(work, capsys, tmp_path, text):
    assert "No such command" in refused(capsys, 2, "usage", "scroe")
    refused(capsys, 2, "usage", "tokens", "--wher", "x")
    refused(capsys, 2, "run.missing", "tokens", tmp_path / "nothing")
    refused(capsys, 2, "checkpoint.missing", "tokens", tmp_path / "nothing", text)
    refused(capsys, 2, "text.missing", "score", CHECKPOINT, tmp_path / "nothing")
    refused(capsys, 2, "windows.context", "score", CHECKPOINT, text, "--context", "257")
    refused(capsys, 2, "windows.stride", "score", CHECKPOINT, text, "--context", "64", "--stride", "65")
    refused(capsys, 2, "usage", "score", CHECKPOINT, text, "--stride", "0")
    refused(capsys, 2, "usage", "hardest", "--top", str(10**20))  # more than a library counts to
    refused(capsys, 2, "usage", "tokens", "--rows", str(10**20), "--table")
    refused(capsys, 2, "usage", "hardest", "--by", "type", "--min-count", str(10**20))
    refused(capsys, 2, "usage", "score", CHECKPOINT, text, "--context", str(10**20))
    for option in ("--max-unknown", "--desmooth"):  # "nan" is in no range, and switched the limit off
        assert "nan" in refused(capsys, 2, "usage", "score", CHECKPOINT, text, option, "nan")
    refused(capsys, 2, "path.unreachable", "tokens", "x" * 5000)
    refused(capsys, 2, "path.unreachable", "tokens", "x" * 5000, text)
    refused(capsys, 2, "device.missing", "score", CHECKPOINT, text, "--device", "cuda:7")
    refused(capsys, 2, "where.syntax", "tokens", "--where", "loss > 1; DROP TABLE tokens")
    refused(capsys, 2, "output.two_results", "positions", "--json", "--csv", "-")
    assert "--context" in refused(capsys, 2, "options.scored_already", "positions", "--context", "8")
    refused(capsys, 2, "output.inside_checkpoint", "score", CHECKPOINT, text, "-o", CHECKPOINT / "run")


def test_environment_variables_are_options(work, capsys, monkeypatch, text, tmp_path):
    monkeypatch.setenv("LOSSPROBE_SCORE_CONTEXT", "zz")
    assert "LOSSPROBE_SCORE_CONTEXT" in refused(capsys, 2, "usage", "score", CHECKPOINT, text)
    monkeypatch.setenv("LOSSPROBE_SCORE_CONTEXT", "16")
    monkeypatch.setenv("LOSSPROBE_SCORE_OUTPUT", str(tmp_path / "run"))
    assert call(capsys, "score", CHECKPOINT, text)[0] == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["windows"]["context"] == 16


def test_options_may_be_spelled_with_underscores(work, capsys, tmp_path, text):
    code, _, _ = call(
        capsys, "score", CHECKPOINT, text, "--batch_size", "2", "--max_length", "32", "-o", tmp_path / "r"
    )
    assert code == 0


def test_no_run_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "lossprobe score" in refused(capsys, 2, "run.none", "positions")


def test_with_json_the_last_line_of_stderr_is_an_object(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, _, err = call(capsys, "positions", "--json")
    last = json.loads(err.strip().splitlines()[-1])
    assert (last["type"], last["code"], last["id"]) == ("exit_error", 2, "run.none")


def test_a_traceback_only_with_debug(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "Traceback" not in call(capsys, "positions")[2]
    assert "Traceback" in call(capsys, "--debug", "positions")[2]
    assert "Traceback" in call(capsys, "positions", "--debug")[2]


@pytest.mark.parametrize(
    ("data", "code", "id_"),
    [
        (b"", 0, None),  # one document without tokens but the BOS: see below
        (b"caf\xe9", 4, "text.not_utf8"),
        (b"\xff\xfea\x00", 4, "text.utf16"),
        (b"\x00" * 50, 4, "text.binary"),
        (b"PK\x03\x04rest", 4, "text.not_text"),
    ],
)
def test_bad_texts(tmp_path, monkeypatch, capsys, data, code, id_):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "text.txt"
    file.write_bytes(data)
    if id_ is None:
        code, id_ = 5, "text.nothing_to_score"
    refused(capsys, code, id_, "score", CHECKPOINT, file)


def test_a_full_disk_keeps_the_old_result(work, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Path("/dev/full").open("w") as full:
        process = subprocess.run([*LOSSPROBE, "tokens", "--csv", "-"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert process.returncode == 6
    assert b"No space left" in process.stderr


def test_a_reader_that_closes_the_pipe_is_no_error(work):
    command = " ".join([*LOSSPROBE, "tokens", "2>err", "|", "head", "-n", "1"])
    process = subprocess.run(["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"], capture_output=True, check=True)
    header, code = process.stdout.decode().strip().splitlines()
    assert header.startswith("document,token,text")
    assert code == "141"
    assert b"rror" not in (work / "err").read_bytes()


@pytest.fixture(scope="session")
def long_text(tmp_path_factory) -> Path:
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines()[:6]
    path = tmp_path_factory.mktemp("text") / "long.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, long_text) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert finish(folder, long_text) == 0
    return folder / "run"


def arguments(text: Path, output: str) -> list[str]:
    windows = ["--batch-size", "1", "--stride", "48", "--context", "64"]
    return ["score", str(CHECKPOINT), str(text), "-o", output, *windows]


def finish(folder: Path, text: Path) -> int:
    """Score in this process, which knows nothing of the one that was stopped; return the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "cut_parts", lambda documents: cut_parts(documents, 256))
        return run(arguments(text, str(folder / "run")))


# Forks a process for each command line that it reads, so that the libraries are imported once. Each has parts of 256
# rows instead of 32,768, so that a small text makes several, and a pause before all but the first, so that a signal
# sent after the first one arrives before the last one.
FORKS = """
import json, os, signal, sys, time
import lossprobe.checkpoint.families.huggingface
import lossprobe.checkpoint.model.attention as attention
import lossprobe.passes.planning as planning
import lossprobe.scoring.scorer as scorer
import lossprobe.passes.score
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.cli.main import run
from lossprobe.plan.rows import cut_parts
from lossprobe.scoring.scorer import queue_part

def score(folder, arguments, pause):
    def slowly(checkpoint, rows, first_row, options):
        time.sleep(pause if first_row else 0)
        return queue_part(checkpoint, rows, first_row, options)

    os.chdir(folder)
    os.dup2(os.open("said.txt", os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
    planning.cut_parts = lambda documents: cut_parts(documents, 256)
    scorer.queue_part = slowly
    code = run(arguments)
    sys.stdout.flush()
    os._exit(code)  # taking torch apart again takes 2 s

faster = attention._is_faster
attention._is_faster = lambda *_: False  # its loops use OpenMP, and a process that has used it cannot fork
open_checkpoint(sys.argv[1])  # imports what is imported only then
attention._is_faster = faster
for line in sys.stdin:
    child = os.fork()
    if not child:
        score(*json.loads(line))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", FORKS, str(CHECKPOINT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


class Scoring:
    """`lossprobe score` in a process of its own."""

    def __init__(self, forks: subprocess.Popen[str], folder: Path, text: Path, pause: float = 0.3) -> None:
        self._forks, self._said = forks, folder / "said.txt"
        forks.stdin.write(json.dumps([str(folder), arguments(text, "run"), pause]) + "\n")
        forks.stdin.flush()
        self.pid = int(forks.stdout.readline())

    def wait_for_part(self) -> None:
        deadline = time.monotonic() + 120
        while not list(self._said.parent.glob("run/plan/part*.json")):  # the record, which is written last
            os.kill(self.pid, 0)  # it runs
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self, sent: int) -> tuple[int, bytes]:
        """Send a signal; return the exit code, and what was printed."""
        os.kill(self.pid, sent)
        return int(self._forks.stdout.readline()), self._said.read_bytes()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_and_resumed_byte_for_byte(forks, tmp_path, long_text, whole_run, sent, code):
    process = Scoring(forks, tmp_path, long_text)
    process.wait_for_part()
    returned, err = process.end(sent)
    assert returned == code, err
    assert b"Traceback" not in err
    assert code == -9 or b"repeat the command to resume" in err
    assert not (tmp_path / "run" / "run.json").exists()
    assert finish(tmp_path, long_text) == 0
    names = sorted(str(file.relative_to(whole_run)) for file in whole_run.rglob("*") if file.is_file())
    assert names == sorted(
        str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*") if file.is_file()
    )
    assert len(names) > 9, "several parts"
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (whole_run / name).read_bytes(), name


def test_two_writers_of_one_run(forks, tmp_path, capsys, long_text):
    first = Scoring(forks, tmp_path, long_text, pause=30.0)
    first.wait_for_part()
    assert finish(tmp_path, long_text) == 6
    assert f"locked by pid {first.pid}" in capsys.readouterr().err
    first.end(signal.SIGKILL)  # the lock of a killed process is free
    assert finish(tmp_path, long_text) == 0


@pytest.mark.thorough
def test_it_runs_without_a_home_and_in_the_c_locale(tmp_path, text):
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    process = subprocess.run(
        [*LOSSPROBE, "hardest", str(CHECKPOINT), str(text), "--table"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.thorough
def test_a_progress_bar_on_a_terminal_only(tmp_path, text):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    process = subprocess.Popen(
        [*LOSSPROBE, "score", str(CHECKPOINT), str(text), "--batch-size", "1"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux reports the closed terminal as an error
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"tokens/s" in shown
    assert b"scoring entries" in shown
    assert out.decode().strip().startswith(".lossprobe/"), "data stays apart from talk"


def test_text_from_standard_input_is_scored_like_a_file(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    plain = tmp_path / "plain.txt"
    plain.write_text("A hacker is a person. ☃", "utf-8")
    assert call(capsys, "score", CHECKPOINT, plain, "-o", "file")[0] == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(plain.read_bytes())))
    assert call(capsys, "score", CHECKPOINT, "-", "-o", "pipe")[0] == 0
    tables = [(tmp_path / name / "tokens" / "part-00000.parquet").read_bytes() for name in ("file", "pipe")]
    assert tables[0] == tables[1]


def test_auto_device_says_what_it_chose(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    assert "lossprobe: device: " in call(capsys, "score", CHECKPOINT, text, "--device", "auto")[2]


def test_half_precision_is_close_and_recorded(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "score", CHECKPOINT, text, "--dtype", "bfloat16", "-o", "half")[0] == 0
    assert call(capsys, "score", CHECKPOINT, text, "-o", "full")[0] == 0
    half, full = open_run(tmp_path / "half"), open_run(tmp_path / "full")
    means = [run.scalar("SELECT avg(loss_nats::DOUBLE) FROM tokens") for run in (half, full)]
    assert half.manifest["settings"]["checkpoint"]["compute_dtype"] == "bfloat16"
    assert 0 < abs(means[0] - means[1]) < 0.02  # bfloat16 carries 8 bits: thousandths of a nat in the mean
    assert half.scalar("SELECT max(ties) FROM tokens") > 1


@pytest.mark.thorough
def test_demo_leaves_tables_and_pictures_of_both_models_and_of_a_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "demo")
    assert code == 0
    for view in ("perplexity", "positions", "hardest", "tokens", "objectives"):
        assert f"{view}: jargon-plain on jargon-valid" in out
        for model in ("jargon-plain", "jargon-smoothed"):
            assert (tmp_path / "lossprobe-demo" / model / f"{view}.png").stat().st_size > 10_000
            assert (tmp_path / "lossprobe-demo" / model / f"{view}.csv").stat().st_size > 100
    assert "calibration: jargon-plain, jargon-smoothed on jargon-valid" in out
    assert "series: 8 checkpoints, step 12 to 500 on jargon-valid" in out
    assert (tmp_path / "lossprobe-demo" / "series.png").stat().st_size > 10_000
    check_the_story_of_the_training(pd.read_csv(tmp_path / "lossprobe-demo" / "series.csv"))
    assert (tmp_path / "lossprobe-demo" / "calibration.png").stat().st_size > 10_000
    assert (tmp_path / "lossprobe-demo" / "report.html").stat().st_size > 100_000
    assert "lossprobe-demo" in err.splitlines()[-1]
    check_the_story_of_the_pair([tmp_path / "lossprobe-demo" / "runs" / name for name in PAIR])


def check_the_story_of_the_training(table):
    """The loss falls at every checkpoint, from above a unigram model of the text to below a bigram model."""
    assert table["significant"].iloc[1:].astype(bool).all()
    assert (table["difference_nats"].iloc[1:] < 0).all()
    assert table["minus_unigram_nats"].iloc[0] > 0 > table["minus_bigram_nats"].iloc[-1]


def check_the_story_of_the_pair(paths):
    """Without smoothing the model is over-confident on held-out entries, with it not; but its loss is the lower one."""
    result = measure_calibration([open_run(path) for path in paths])
    plain, smoothed = (model.measures["confidence_gap"] for model in result.models)
    assert plain.interval.low > 0.01
    assert smoothed.interval.low < 0 < smoothed.interval.high
    panel = result.smoothing.table.set_index("measure")
    for measure in ("nll_difference_nats", "nll_difference_after_temperature_nats"):
        assert panel.loc[measure, "low"] > 0.03, measure


def test_results_are_never_written_over_inputs(work, tmp_path, capsys, text):
    run_path = latest_run(work).path
    copy = tmp_path / "model"
    shutil.copytree(CHECKPOINT, copy)
    before = text.read_bytes()
    refused(capsys, 2, "output.is_input", "positions", f"--csv={text}")
    refused(capsys, 2, "output.inside_checkpoint", "positions", "--plot", copy / "x.png")
    refused(capsys, 2, "output.inside_run", "positions", "--csv", run_path / "x.csv")
    assert text.read_bytes() == before
    assert not (copy / "x.png").exists()


def test_two_results_do_not_share_standard_output(work, capsys):
    refused(capsys, 2, "output.two_results", "tokens", "--table", "--csv", "-")
    refused(capsys, 2, "output.two_results", "tokens", "--table", "--json")


def test_names_from_a_run_reach_the_terminal_escaped(work, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(latest_run(work).path, copy)
    manifest = json.loads((copy / "run.json").read_text())
    manifest["files"]["tokens/\x1b[31mevil\n::error::"] = "0"
    (copy / "run.json").write_text(json.dumps(manifest))
    err = refused(capsys, 6, "run.damaged", "verify", copy)
    assert "\x1b" not in err
    assert "\n::error::" not in err


def test_the_hardest_entries_have_their_names(work, capsys):
    _, out, _ = call(capsys, "hardest", "--by", "type", "--table")
    header = next(line for line in out.splitlines() if "token_id" in line)
    assert header.split()[0] == "text"


def test_a_closed_standard_output_is_one_line(work):
    process = subprocess.run(
        ["bash", "-c", " ".join([*LOSSPROBE, "tokens", ">&-"])], capture_output=True, check=False, text=True
    )
    assert process.returncode == 6
    assert process.stderr == "lossprobe: error[output.closed]: standard output is closed\n"


def test_a_bad_variable_is_named(work, capsys, monkeypatch):
    monkeypatch.setenv("LOSSPROBE_TOKENS_ROWS", "zz")
    assert "(from LOSSPROBE_TOKENS_ROWS)" in refused(capsys, 2, "usage", "tokens")


def test_a_variable_for_scoring_does_not_stop_a_view_of_a_stored_run(work, capsys, monkeypatch):
    monkeypatch.setenv("LOSSPROBE_POSITIONS_DEVICE", "cpu")
    assert call(capsys, "positions")[0] == 0


def test_a_working_folder_that_is_gone_is_one_line(tmp_path, text):
    folder = tmp_path / "gone"
    folder.mkdir()
    command = f"cd {folder} && rmdir {folder} && {sys.executable} -m lossprobe score {CHECKPOINT} {text}"
    process = subprocess.run(["bash", "-c", command], capture_output=True, check=False, text=True)
    assert process.returncode == 6
    assert "error[output.write]: .lossprobe: cannot be written: No such file or directory" in process.stderr
