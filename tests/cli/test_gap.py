"""`lossprobe gap` end to end: two texts scored now, two stored runs, and what is refused."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from bundled import CHECKPOINT, EXAMPLES
from fake_runs import words, write_run
from PIL import Image

from lossprobe.cli.main import run
from lossprobe.run.reader import open_run


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("texts")
    made = []
    for name, count in (("train", 25), ("valid", 12)):
        lines = (EXAMPLES / f"jargon-{name}.jsonl").read_text("utf-8").splitlines(keepends=True)
        made.append(folder / f"{name}-few.jsonl")
        made[-1].write_text("".join(lines[:count]), "utf-8")
    return made


@pytest.fixture(scope="module")
def scored(tmp_path_factory, texts) -> Path:
    """A working folder in which the command itself scored both texts."""
    folder = tmp_path_factory.mktemp("gap")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run(["gap", str(CHECKPOINT), *map(str, texts), "--csv", "--plot", "--quiet"]) == 0
    finally:
        os.chdir(before)
    return folder


def runs_of(folder: Path) -> list[str]:
    """Return the runs over the training and the validation text."""
    found = {each.text_name: str(each.path) for each in map(open_run, (folder / ".lossprobe").glob("*-*"))}
    assert sorted(found) == ["train-few", "valid-few"]
    return [found["train-few"], found["valid-few"]]


def test_a_checkpoint_and_two_texts(scored):
    table = pd.read_csv(scored / "gap.csv")
    assert table["group"].iloc[0] == "all tokens"
    assert list(table.columns) == [
        "group", "kind", "train_tokens", "validation_tokens", "train_loss_nats", "train_low", "train_high",
        "validation_loss_nats", "validation_low", "validation_high", "gap_nats", "low", "high",
    ]  # fmt: skip
    train, validation = map(open_run, runs_of(scored))
    whole = table.iloc[0]
    assert whole["train_tokens"] == train.counts["scored_tokens"]
    assert whole["validation_tokens"] == validation.counts["scored_tokens"]
    mean = "SELECT avg(loss_nats::DOUBLE) FROM tokens"
    assert whole["gap_nats"] == pytest.approx(validation.scalar(mean) - train.scalar(mean), rel=1e-12)
    assert whole["gap_nats"] > 0.2, "twelve epochs leave their mark"
    with Image.open(scored / "gap.png") as picture:
        assert picture.width > 1000


def test_stored_runs_give_the_same_without_a_pass(scored, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    runs = runs_of(scored)
    assert run(["gap", *runs, "--csv", "again.csv", "--plot", "again.png"]) == 0
    assert Path("again.csv").read_bytes() == (scored / "gap.csv").read_bytes()
    assert Path("again.png").read_bytes() == (scored / "gap.png").read_bytes()
    out, err = capsys.readouterr()
    assert out == ""
    assert "validation − train +" in err


def test_scoring_again_reuses_what_is_stored(scored, texts, monkeypatch, capsys):
    monkeypatch.chdir(scored)
    assert run(["gap", str(CHECKPOINT), *map(str, texts), "--csv", "-"]) == 0
    out, err = capsys.readouterr()
    assert err.count("already scored, reusing") == 2
    assert out.encode() == (scored / "gap.csv").read_bytes()


def test_the_table_shows_both_texts_and_the_notes(scored, capsys):
    assert run(["gap", *runs_of(scored), "--table"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for word in ("gap_nats", "all tokens", "word continuation", "10-99", "train: train-few, ", "validation: valid-few",
                 "in 25 documents", "memorised 0.0% of the", "note: each text is taken for a sample", "note: verdict",
                 "note: one checkpoint"):  # fmt: skip
        assert word in " ".join(out.split()), word
    assert out.split("all tokens")[0].split().count("low") == 1, "the ends of either text are left to the CSV"


def test_json_is_one_object_with_every_number(scored, capsysbinary):
    assert run(["gap", *runs_of(scored), "--json"]) == 0
    content = json.loads(capsysbinary.readouterr().out, parse_constant=pytest.fail)
    assert content["command"] == "gap"
    assert content["verdict"] in ("no gap shown", "a gap", "over-fitted")
    assert (content["train"]["text"], content["validation"]["text"]) == ("train-few", "valid-few")
    low, high = content["gap_nats_interval"]
    assert low < content["gap_nats"] < high
    assert content["rows"][0]["gap_nats"] == content["gap_nats"]
    assert content["train"]["memorised"]["documents"] == 0
    assert content["train"]["memorised"]["table"] == []


def test_documents_known_by_heart_are_listed(tmp_path, capsys):
    known = [words("first_token", *[0.01 * (1 + index)] * 40) for index in range(2)]
    new = words("first_token", *[5.0] * 40)
    train = write_run(tmp_path / "seen", [*known, new], text_name="seen")
    validation = write_run(tmp_path / "new", [new, known[0]], text_name="new")
    assert run(["gap", str(train.path), str(validation.path), "--table"]) == 0
    out = capsys.readouterr().out
    assert "train: documents known by heart (2 of 2)" in out
    assert "validation: documents known by heart (1 of 1)" in out
    assert "begins" in out
    assert " a b c" in out
    assert "memorised 66.7% of the documents" in " ".join(out.split())
    assert "a leak of training text" in out


def test_documents_known_by_heart_fit_the_terminal_and_are_tables_in_markdown(tmp_path, capsys, monkeypatch):
    known = words("first_token", *[0.01] * 40)
    train = write_run(tmp_path / "seen", [known], text_name="seen")
    validation = write_run(tmp_path / "new", [words("first_token", *[5.0] * 40)], text_name="new")
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["gap", str(train.path), str(validation.path), "--table"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert any(line.split()[:2] == ["document", "line"] for line in out.splitlines())
    assert run(["gap", str(train.path), str(validation.path), "--markdown"]) == 0
    out = capsys.readouterr().out
    assert "known by heart" in out
    assert "\u2500" not in out
    assert any(line.startswith("| document | line |") for line in out.splitlines())


def refused(capsys, code: int, id_: str, *arguments) -> str:
    assert run(["gap", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lossprobe: error[{id_}]: ")
    return err


def test_what_is_refused(scored, texts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(scored)
    runs = runs_of(scored)
    other = tmp_path / "other"
    assert run(["score", str(CHECKPOINT), str(texts[1]), "--context", "64", "--quiet", "-o", str(other)]) == 0
    smoothed = tmp_path / "smoothed"
    assert run(["score", str(EXAMPLES / "jargon-smoothed"), str(texts[1]), "--quiet", "-o", str(smoothed)]) == 0
    capsys.readouterr()
    err = refused(capsys, 12, "runs.different", runs[0], other)
    assert "differ in context (256 and 64), stride (256 and 64)" in err
    assert "differ in checkpoint (" in refused(capsys, 12, "runs.different", runs[0], smoothed)
    refused(capsys, 2, "options.scored_already", *runs, "--context", "64")
    refused(capsys, 2, "output.several_runs", CHECKPOINT, *texts, "-o", tmp_path / "one")
    assert not (tmp_path / "one").exists()
    for destination in runs:
        refused(capsys, 2, "output.inside_run", *runs, "--csv", Path(destination) / "x.csv")


@pytest.mark.parametrize("kinds", ["", "r", "rt", "ct", "rrr", "rtt", "crt", "ctr", "cttt"])
def test_anything_but_a_pair_is_refused(scored, texts, capsys, kinds):
    places = {"r": runs_of(scored)[0], "t": texts[0], "c": CHECKPOINT}
    err = refused(capsys, 2, "gap.sources", *(places[kind] for kind in kinds))
    assert "expected CHECKPOINT TRAIN VAL or TRAIN_RUN VAL_RUN" in err
    assert f"({kinds.count('r')} of {len(kinds)} are runs)" in err


def test_a_text_that_is_not_there_is_refused_before_the_other_is_scored(texts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["gap", str(CHECKPOINT), str(texts[0]), "nothing.jsonl"]) == 2
    assert "nothing.jsonl" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_standard_input_can_be_one_of_the_texts(texts, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.chdir(tmp_path)
    data = io.TextIOWrapper(io.BytesIO(b"An entry about hackers, long enough to be scored by the model.\n"))
    monkeypatch.setattr("sys.stdin", data)
    assert run(["gap", str(CHECKPOINT), str(texts[1]), "-", "--json", "--quiet"]) == 0
    content = json.loads(capsysbinary.readouterr().out)
    assert content["verdict"] == "cannot tell"
    assert content["gap_nats_interval"] == [None, None]
