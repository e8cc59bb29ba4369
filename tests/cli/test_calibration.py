"""`lossprobe calibration` end to end: one run, several, a text scored now, and what is refused."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from bundled import CHECKPOINT, EXAMPLES
from PIL import Image

from lossprobe.cli.main import run
from lossprobe.run.reader import latest_run, open_run

SMOOTHED = EXAMPLES / "jargon-smoothed"


@pytest.fixture(scope="module")
def pair(tmp_path_factory, text) -> Path:
    """A working folder in which both models of the pair were scored by the command itself, one of them de-smoothed."""
    folder = tmp_path_factory.mktemp("pair")
    before = Path.cwd()
    os.chdir(folder)
    try:
        arguments = ["calibration", str(CHECKPOINT), str(SMOOTHED), str(text), "--desmooth", "0.1"]
        assert run([*arguments, "--plot", "--csv", "bins.csv", "--quiet"]) == 0
    finally:
        os.chdir(before)
    return folder


def runs_of(folder: Path) -> dict[str, Path]:
    found = [open_run(file.parent) for file in folder.glob(".lossprobe/*/run.json")]
    return {each.name: each.path for each in found}


@pytest.mark.thorough
def test_checkpoints_are_scored_as_they_are_and_de_smoothed(pair):
    names = {"jargon-plain", "jargon-plain de-smoothed 0.1", "jargon-smoothed", "jargon-smoothed de-smoothed 0.1"}
    assert set(runs_of(pair)) == names
    bins = pd.read_csv(pair / "bins.csv")
    assert set(bins["model"]) == names
    with Image.open(pair / "calibration.png") as picture:
        assert picture.width > 1000


def test_stored_runs_are_put_side_by_side_without_a_pass(pair, monkeypatch, capsysbinary):
    monkeypatch.chdir(pair)
    found = runs_of(pair)
    both = [str(found["jargon-plain"]), str(found["jargon-smoothed"])]
    assert run(["calibration", *both, "--json"]) == 0
    content = json.loads(capsysbinary.readouterr().out, parse_constant=pytest.fail)
    assert [model["name"] for model in content["models"]] == ["jargon-plain", "jargon-smoothed"]
    assert content["models"][0]["measures"]["ece"]["noise_floor"] > 0
    assert {row["measure"] for row in content["smoothing"]["table"]} >= {"nll_difference_nats"}
    assert run(["calibration", *both, "--table"]) == 0
    out, err = capsysbinary.readouterr()
    for word in (
        "jargon-plain, jargon-smoothed",
        "confidence_gap",
        "best temperature",
        "nll_difference_nats",
        "note: ",
    ):
        assert word in out.decode(), word
    assert err == b""


@pytest.mark.thorough  # test_views holds it for views of one run
def test_the_same_runs_give_the_same_bytes(pair, monkeypatch, capsys):
    monkeypatch.chdir(pair)
    found = runs_of(pair)
    names = ("jargon-plain", "jargon-plain de-smoothed 0.1", "jargon-smoothed", "jargon-smoothed de-smoothed 0.1")
    stored = [str(found[name]) for name in names]  # in the order in which the command scored them
    assert run(["calibration", *stored, "--plot", "again.png", "--csv", "again.csv", "--quiet"]) == 0
    capsys.readouterr()
    assert (pair / "again.png").read_bytes() == (pair / "calibration.png").read_bytes()
    assert (pair / "again.csv").read_bytes() == (pair / "bins.csv").read_bytes()


def test_alone_it_takes_the_latest_run(work, capsysbinary):
    assert run(["calibration", "--by", "letter", "--csv", "-"]) == 0
    out, err = capsysbinary.readouterr()
    slices = pd.read_csv(io.BytesIO(out))
    assert set(slices["model"]) == {latest_run(work).name}
    assert {"group", "count", "confidence_gap", "ece", "ece_noise_floor"} <= set(slices.columns)
    assert b"ECE" in err
    assert b"noise floor" in err


def test_a_text_of_standard_input_serves_both_models(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    data = io.TextIOWrapper(io.BytesIO(b"An entry about hackers, long enough to be scored by both models.\n"))
    monkeypatch.setattr("sys.stdin", data)
    assert run(["calibration", str(CHECKPOINT), str(SMOOTHED), "-", "--table", "--quiet"]) == 0
    assert "jargon-plain, jargon-smoothed on" in capsys.readouterr().out


def refused(capsys, code: int, id_: str, *arguments) -> str:
    assert run([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lossprobe: error[{id_}]: ")
    return err


def test_what_is_refused(pair, tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(pair)
    found = runs_of(pair)
    other = tmp_path / "other"
    assert run(["score", str(SMOOTHED), str(text), "--context", "64", "--quiet", "-o", str(other)]) == 0
    capsys.readouterr()
    plain = found["jargon-plain"]
    err = refused(capsys, 12, "runs.different", "calibration", plain, other)
    assert "context (256 and 64), stride (256 and 64)" in err
    assert run(["calibration", str(plain), str(other), "--allow-different", "--table"]) == 0
    capsys.readouterr()
    refused(capsys, 2, "options.scored_already", "calibration", plain, "--desmooth", "0.1")
    refused(capsys, 2, "output.several_runs", "calibration", CHECKPOINT, SMOOTHED, text, "-o", "x")
    refused(capsys, 2, "output.inside_run", "calibration", plain, found["jargon-smoothed"],
            "--csv", found["jargon-smoothed"] / "x.csv")  # fmt: skip
    refused(capsys, 2, "usage", "calibration", CHECKPOINT, text, "--desmooth", "1")
    refused(capsys, 2, "run.several", "calibration", tmp_path)
