"""`lossprobe curve` as a user calls it: a healthy log, faults, several logs, a checkpoint, exit codes, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundled import CHECKPOINT, EXAMPLES
from fake_runs import words, write_run
from PIL import Image
from training_logs import falling, made_log, overfitted, write_trainer_state

from lossprobe.cli.main import run

FAULTY, HEALTHY = "over.json", "fine.json"


@pytest.fixture
def logs(tmp_path, monkeypatch) -> Path:
    """A working folder with a log that over-fits and a healthy one."""
    monkeypatch.chdir(tmp_path)
    write_trainer_state(tmp_path / FAULTY, overfitted())
    write_trainer_state(tmp_path / HEALTHY, made_log())
    return tmp_path


@pytest.fixture
def make_run_folder(tmp_path) -> Path:
    """The folder of a stored run."""
    return write_run(tmp_path / "run", [words("first_token", 1.0, 2.0)]).path


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = run(["curve", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_finding_is_told_with_what_was_seen_why_it_may_be_and_what_to_do(logs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(capsys, FAULTY, "--table")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "curve: over.json"
    assert lines[2] == "over.json: transformers' Trainer, steps 1 to 200, epoch 2"
    start = next(number for number, line in enumerate(lines) if line.startswith("over-fitting, steps 95 to 200: "))
    block = "\n".join(lines[start : lines.index("", start)])
    assert [word for word in ("  seen: ", "  likely: (1) ", "  do: (1) ") if word in block] == [
        "  seen: ", "  likely: (1) ", "  do: (1) ",
    ]  # fmt: skip
    assert all(line.startswith("  ") for line in block.splitlines()[2:]), "what wraps stays under its word"


def test_a_healthy_log_says_so_with_its_values(logs, capsys):
    code, out, err = call(capsys, HEALTHY, "--fail-on", "any", "--json")
    found = json.loads(out)
    assert (code, found["rows"], found["failed"]) == (0, [], [])
    assert found["finding"] == "healthy: no diagnosis in these values: 200 of loss, 20 of eval_loss"
    assert found["finding"] in err


def test_csv_holds_every_value_and_json_the_findings(logs, capsys):
    code, out, _ = call(capsys, FAULTY, "--json", "--csv", "values.csv")
    assert code == 0
    table = pd.read_csv("values.csv")
    assert list(table.columns) == ["log", "split", "name", "key", "step", "epoch", "tokens_seen", "value"]
    for each in overfitted().series:
        rows = table[table["key"] == each.key]
        np.testing.assert_array_equal(rows["step"], each.steps)
        np.testing.assert_array_equal(rows["value"], each.values)
    found = json.loads(out)
    (row,) = found["rows"]
    assert (row["diagnosis"], row["fault"], row["key"], row["unit"]) == ("over-fitting", True, "eval_loss", "nats")
    assert row["first_step"] == 95, "the tenth evaluation, which is the lowest"
    assert row["size"] == pytest.approx(0.4, abs=0.1)
    losses = [each for each in found["series"] if each["name"] == "loss"]
    assert [(each["key"], each["points"], each["lowest_step"]) for each in losses][1] == ("eval_loss", 20, 95)
    assert found["logs"][0]["last_step"] == 200


@pytest.mark.parametrize(
    ("asked", "code"), [("over-fitting", 10), ("any", 10), ("spikes,over-fitting", 10), ("spikes", 0)]
)
def test_fail_on_sets_the_exit_code_and_the_result_is_written_all_the_same(asked, code, logs, capsys):
    got, out, _ = call(capsys, FAULTY, "--fail-on", asked, "--csv", "-", "--plot", "picture.png")
    assert (got, out.count("\n")) == (code, 421)
    with Image.open("picture.png") as picture:
        assert picture.width == 1200


def test_several_logs_are_told_one_by_one(logs, capsys):
    write_trainer_state(logs / "again" / FAULTY, overfitted())
    _, out, _ = call(capsys, FAULTY, HEALTHY, f"again/{FAULTY}", "--json", "--fail-on", "any", "--plot")
    found = json.loads(out)
    names = [each["log"] for each in found["logs"]]
    assert names[1] == HEALTHY
    assert names[2] == f"again/{FAULTY}"
    assert len(set(names)) == 3
    assert [row["log"] for row in found["rows"]] == [names[0], names[2]]
    assert f"{HEALTHY}: healthy" in found["finding"]
    assert Path("curve.png").is_file()


def test_the_step_is_named_from_which_two_runs_part(logs, capsys):
    losses = falling(200)
    write_trainer_state(logs / "other.json", made_log(train=np.r_[losses[:80], losses[80:] + 0.5]))
    code, out, _ = call(capsys, HEALTHY, "other.json", HEALTHY, "--json", "--plot")
    assert code == 0
    other, same = json.loads(out)["partings"]
    assert (other["first"], other["second"]) == (HEALTHY, "other.json")
    assert (other["parting"]["step"], other["parting"]["equal_until"]) == (81, 80)
    assert other["parting"]["size"] == pytest.approx(0.5)
    assert same["parting"] is None
    assert "other.json parts from fine.json at step 81: training loss +0.5000 nats" in json.loads(out)["finding"]


def test_standard_input_and_markdown(logs, capsys, monkeypatch):
    with Path(FAULTY).open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        code, out, _ = call(capsys, "-", "--markdown")
    assert code == 0
    assert out.startswith("### curve: ")
    assert "over-fitting, steps 95 to 200" in out
    assert "### findings" in out


@pytest.mark.parametrize(
    ("id_", "arguments"),
    [
        ("usage", ()),
        ("usage", (FAULTY, "--fail-on", "overfitting")),
        ("usage", (FAULTY, "--columns", "step")),
        ("usage", (FAULTY, "--vocabulary", "0")),
        ("log.empty", ("empty.json",)),
        ("log.kind", ("prose.txt",)),
        ("log.unreadable", ("missing.json",)),
        ("curve.checkpoint", (FAULTY, "--text", "prose.txt")),
        ("curve.checkpoint", (FAULTY, "--context", "64")),
        ("curve.checkpoint", (FAULTY, "--checkpoint", str(CHECKPOINT), "--deep")),
        ("curve.checkpoint", (FAULTY, HEALTHY, "--checkpoint", str(CHECKPOINT))),
        ("output.is_input", ("own.csv", "--csv", "own.csv")),
    ],
)
def test_what_is_refused(id_, arguments, logs, capsys):
    Path("empty.json").write_text("")
    Path("prose.txt").write_text("Once upon a time there was a loss of appetite.\n")
    Path("own.csv").write_bytes(Path(FAULTY).read_bytes())
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith(f"lossprobe: error[{id_}]: "), err


def test_a_stored_run_is_no_log(logs, capsys, make_run_folder):
    code, _, err = call(capsys, make_run_folder)
    assert code == 2
    assert err.startswith("lossprobe: error[curve.run]: ")


def test_of_few_values_little_is_said(logs, capsys):
    write_trainer_state(logs / "few.json", made_log(train=falling(3), validation=[3.0]))
    _, out, _ = call(capsys, "few.json", "--json")
    finding = json.loads(out)["finding"]
    assert finding == "little can be seen, and nothing was found in these values: 3 of loss, 1 of eval_loss"


def test_a_mistyped_diagnosis_is_suggested(logs, capsys):
    _, _, err = call(capsys, FAULTY, "--fail-on", "overfiting")
    assert "did you mean over-fitting?" in err


@pytest.mark.parametrize("command", [["tokens", FAULTY], ["tokens", FAULTY, "text.txt"], ["hardest", FAULTY]])
def test_a_log_in_the_place_of_a_checkpoint_says_which_command_reads_it(command, logs, capsys):
    Path("text.txt").write_text("a text")
    assert run(command) == 2
    assert f"hint: lossprobe curve {FAULTY}" in capsys.readouterr()[1]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder with a few records."""
    folder = tmp_path_factory.mktemp("evaluated")
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines(keepends=True)[:6]
    (folder / "valid.jsonl").write_text("".join(lines))
    return folder


def eval_loss(capsys) -> float:
    arguments = [
        "perplexity",
        str(CHECKPOINT),
        "valid.jsonl",
        "--protocol",
        "trainer",
        "--context",
        "256",
        "--json",
        "-q",
    ]
    assert run(arguments) == 0
    rows = json.loads(capsys.readouterr()[0])["rows"]
    return next(row["value"] for row in rows if row["measure"] == "eval_loss")


def test_a_checkpoint_says_whether_the_logged_loss_is_its_own(evaluated, monkeypatch, capsys):
    monkeypatch.chdir(evaluated)
    value = eval_loss(capsys)
    write_trainer_state(evaluated / "right.json", made_log(validation=[*falling(5), value]))
    write_trainer_state(evaluated / "wrong.json", made_log(validation=[*falling(5), value + 0.5]))
    against = ("--checkpoint", CHECKPOINT, "--text", "valid.jsonl", "--json", "-q")
    code, out, err = call(capsys, "right.json", *against)
    assert code == 0, err
    right = json.loads(out)
    assert right["checkpoint"]["verdict"] == "explained"
    assert right["checkpoint"]["recipe"].startswith("transformers' Trainer")
    assert right["checkpoint"]["logged"] == pytest.approx(value, rel=1e-12)
    assert right["logs"][0]["vocabulary"] == 1024, "of the checkpoint"
    write_trainer_state(evaluated / "trl.json", made_log(validation=[*falling(5), value]))
    state = json.loads(Path("trl.json").read_text())
    for each in state["log_history"]:
        each |= {"eval_entropy": 2.0} if "eval_loss" in each else {}
    Path("trl.json").write_text(json.dumps(state))
    _, out, _ = call(capsys, "trl.json", *against, "--context", "128")
    assert any("written by TRL" in note for note in json.loads(out)["checkpoint"]["notes"])
    code, _, err = call(capsys, "trl.json", *against, "--bos", "never")
    assert (code, "error[reconcile.option]" in err) == (2, True)
    _, out, _ = call(capsys, "wrong.json", *against)
    assert json.loads(out)["checkpoint"]["verdict"] in ("unexplained", "by chance")
