"""`lossprobe compare` end to end: runs, checkpoints, both models in one pass, and what is refused."""

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
