"""`lossprobe compare` end to end: runs, checkpoints, both models in one pass, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from bundled import CHECKPOINT, EXAMPLES
from PIL import Image

from lossprobe.cli.main import run

SMOOTHED = EXAMPLES / "jargon-smoothed"


@pytest.fixture(scope="module")
def pair(tmp_path_factory, text) -> Path:
    """A working folder with a run of each of the two models."""
    folder = tmp_path_factory.mktemp("compare")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for checkpoint, name in ((CHECKPOINT, "old"), (SMOOTHED, "new")):
            assert run(["score", str(checkpoint), str(text), "-o", name, "--quiet"]) == 0
    finally:
        os.chdir(before)
    return folder


def test_two_runs_as_table_csv_json_markdown_and_picture(pair, monkeypatch, capsysbinary):
    monkeypatch.chdir(pair)
    assert run(["compare", "old", "new", "--wide", "--by", "class", "--plot"]) == 0
    out = capsysbinary.readouterr().out.decode()
    for word in ("mean_difference_nats", "tokens_for_one_percent", "largest changes by class", "by context", "Holm"):
        assert word in out, word
    with Image.open("compare.png") as picture:
        assert picture.width > 1000
    assert run(["compare", "old", "new", "--csv", "-"]) == 0
    table = pd.read_csv(io.BytesIO(capsysbinary.readouterr().out))
    assert {"measure", "value", "low", "high", "unit"} == set(table.columns)
    assert run(["compare", "old", "new", "--json"]) == 0
    content = json.loads(capsysbinary.readouterr().out, parse_constant=pytest.fail)
    assert content["token_comparison"]["counts"]["tokens"] == table.set_index("measure").loc["tokens", "value"]
    assert content["divergence"] is None
    assert run(["compare", "old", "new", "--markdown", "--by", "letter"]) == 0
    page = capsysbinary.readouterr().out.decode()
    assert page.startswith("### compare: jargon-plain, jargon-smoothed")
    assert "| mean\\_difference\\_nats |" in page


def test_without_the_text_a_pair_shows_the_tokens_that_a_run_shows(tmp_path, text, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sources = ["--no-text", "--quiet", "--context", "64", str(CHECKPOINT)]
    assert run(["tokens", *sources, str(text), "--csv=one.csv"]) == 0
    assert run(["compare", "--kl", *sources, str(SMOOTHED), str(text), "--csv=both.csv", "--json"]) == 0
    alone, both = pd.read_csv("one.csv"), pd.read_csv("both.csv")
    scored = alone[alone["unscored"].isna()].reset_index(drop=True)
    assert both["text"].tolist() == scored["text"].tolist()
    assert (scored["text"] != '""').any(), "the entries of the vocabulary"
    shown = json.loads(capsys.readouterr().out)
    for row in shown["divergence"]["hardest"]:
        assert (row["before"], row["after"]) == ("", ""), "nothing around a token"


def test_two_rankings_are_two_tables(pair, monkeypatch, capsys):
    monkeypatch.chdir(pair)
    assert run(["compare", "old", "new", "--table", "--top", "5"]) == 0
    brief = capsys.readouterr().out
    assert all(f"tokens that became {direction} (2 of 5)\n" in brief for direction in ("worse", "better"))
    assert run(["compare", "old", "old", "--markdown"]) == 0
    assert "tokens that became" not in capsys.readouterr().out


def test_a_run_and_itself_do_not_differ(pair, monkeypatch, capsysbinary):
    monkeypatch.chdir(pair)
    assert run(["compare", "old", "old", "--json"]) == 0
    comparison = json.loads(capsysbinary.readouterr().out)["token_comparison"]
    assert comparison["identical"]
    assert comparison["difference"]["mean_difference_nats"] == 0
    assert comparison["difference"]["mean_difference_nats_interval"] == [0, 0]


def test_both_models_in_one_pass(pair, text, monkeypatch, capsysbinary):
    monkeypatch.chdir(pair)
    assert run(["compare", str(CHECKPOINT), str(SMOOTHED), str(text), "--kl", "--json", "--quiet"]) == 0
    content = json.loads(capsysbinary.readouterr().out, parse_constant=pytest.fail)
    divergence = content["divergence"]
    assert divergence["mean_kl_nats"] > 0
    assert 0 < divergence["same_top_share"] < 1
    means = {name: divergence[f"{name}_mean_loss"] for name in ("first", "second")}
    assert means["second"] - means["first"] == pytest.approx(
        content["token_comparison"]["difference"]["mean_difference_nats"], abs=2e-6
    )


@pytest.mark.parametrize(
    ("code", "id_", "arguments"),
    [
        (2, "compare.sources", ["old"]),
        (2, "compare.sources", ["old", "new", "old"]),
        (2, "compare.kl", ["old", "new", "--kl"]),
        (2, "fields.missing", ["old", "new", "--by", "nothing"]),
        (2, "sources.no_text", [str(CHECKPOINT), str(SMOOTHED)]),
        (2, "sources.no_checkpoint", ["old", "text.jsonl"]),
    ],
)
def test_what_is_refused(pair, text, monkeypatch, capsys, code, id_, arguments):
    monkeypatch.chdir(pair)
    Path("text.jsonl").write_bytes(text.read_bytes())
    assert run(["compare", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lossprobe: error[{id_}]: ")


@pytest.fixture(scope="module")
def stored(tmp_path_factory, text) -> Path:
    """A working folder in which both models were compared with --kl."""
    folder = tmp_path_factory.mktemp("stored")
    before = Path.cwd()
    os.chdir(folder)
    try:
        sources = [str(CHECKPOINT), str(SMOOTHED), str(text)]
        with Path("first.json").open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            assert run(["compare", *sources, "--kl", "--json", "--context", "64", "--quiet"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize("named", ["checkpoints", "runs", "nothing"])
def test_a_stored_pair_loads_no_model(stored, text, monkeypatch, capsysbinary, named):
    from lossprobe.checkpoint.spec import Opener

    monkeypatch.chdir(stored)
    monkeypatch.setattr(Opener, "open", lambda *_: pytest.fail("a model was loaded"))
    runs = [path for name in ("plain", "smoothed") for path in Path(".lossprobe").glob(f"jargon-{name}-entries-*")]
    sources = {"checkpoints": [CHECKPOINT, SMOOTHED, text, "--context", "64"], "runs": runs, "nothing": []}[named]
    assert run(["compare", *map(str, sources), "--kl", "--json", "--quiet"]) == 0
    again = json.loads(capsysbinary.readouterr().out)
    assert again == json.loads(Path("first.json").read_text())


@pytest.mark.thorough
def test_tokens_slices_and_pictures_of_a_stored_pair(stored, monkeypatch, capsysbinary):
    monkeypatch.chdir(stored)
    divergence = json.loads(Path("first.json").read_text())["divergence"]
    assert run(["compare", "--kl", "--csv", "-", "--quiet"]) == 0
    tokens = pd.read_csv(io.BytesIO(capsysbinary.readouterr().out))
    assert len(tokens) == divergence["tokens"]
    assert tokens["kl_nats"].mean() == pytest.approx(divergence["mean_kl_nats"], rel=1e-12)
    assert tokens["same_top"].mean() == pytest.approx(divergence["same_top_share"], rel=1e-12)
    hardest, told = tokens.sort_values("kl_nats", ascending=False, kind="stable").iloc[0], divergence["hardest"][0]
    assert (hardest["document"], hardest["token"]) == (told["document"], told["token"])
    assert run(["compare", "--kl", "--by", "frequency", "--table", "--quiet", "--plot=by.png"]) == 0
    shown = capsysbinary.readouterr().out.decode()
    assert "KL by frequency" in shown
    assert "share_of_kl" in shown
    with Image.open("by.png") as picture:
        assert picture.width > 1000
    assert run(["compare", "--kl", "--table", "--quiet"]) == 0
    shown = capsysbinary.readouterr().out.decode()
    assert "tokens where the models differ most (KL) (3 of 10)" in shown


def test_pairs_are_listed_verified_and_no_runs(stored, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(stored)
    assert run(["runs", "--json"]) == 0
    listed = {row["state"]: row for row in json.loads(capsys.readouterr().out)}
    pair = listed["pair"]
    assert pair["model"] == "jargon-plain ‖ jargon-smoothed"
    assert not pair["latest"]
    assert run(["verify", pair["name"]]) == 0
    assert ": 1 file intact, " in capsys.readouterr().out
    for command in (["tokens", pair["folder"]], ["runs", "latest", pair["name"]]):
        assert run(command) == 2
        assert "is a pair of runs" in capsys.readouterr().err
    copy = shutil.copytree(next(stored.rglob("pair.json")).parent, tmp_path / "copy")
    (copy / "divergence" / "part-00000.parquet").write_bytes(b"")
    assert run(["verify", str(copy)]) == 6
    assert "hint: compare again with --overwrite" in capsys.readouterr().err


def test_runs_that_were_never_compared_like_that_are_refused(pair, monkeypatch, capsys):
    monkeypatch.chdir(pair)
    assert run(["compare", "old", "new", "--kl"]) == 2
    error = capsys.readouterr().err
    assert "old and new: not compared with --kl yet, or not to the end" in error
    assert "lossprobe compare A B TEXT --kl" in error


def test_two_checkpoints_are_planned_once_and_their_runs_are_those_of_a_pass_each(pair, text, monkeypatch, tmp_path):
    """The parts of the plan, and so the text and its tokens, are made by the first pass and copied by the second."""
    from lossprobe.passes import prepared

    planned = []

    def counted(*arguments):
        planned.append(1)
        return write_plan(*arguments)

    write_plan = prepared.write_plan
    monkeypatch.setattr(prepared, "write_plan", counted)
    monkeypatch.chdir(tmp_path)
    assert run(["compare", str(CHECKPOINT), str(SMOOTHED), str(text), "--quiet"]) == 0
    assert len(planned) == 1
    stored = sorted((tmp_path / ".lossprobe").glob("jargon-*"))
    for place, name in zip(stored, ("old", "new"), strict=True):
        assert not (place / "plan").exists()
        tables = [sorted(file.read_bytes() for file in (each / "tokens").iterdir()) for each in (place, pair / name)]
        assert tables[0] == tables[1]
