"""`lossprobe selfcheck` end to end: a good model, a broken one, its outputs, and what is refused."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from bundled import CHECKPOINT
from PIL import Image

from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.cli.main import run
from lossprobe.passes.selfcheck import SEVERAL
from lossprobe.run.reader import open_run

CHECKS = ["repetition", "batch size", "batch size", "padding side", "chunk size", "threads", "reductions",
          "order of documents", "BOS", "context", "stride", "precision", "precision"]  # fmt: skip


@pytest.fixture(scope="module")
def checked(tmp_path_factory, text) -> Path:
    """A working folder in which the command checked a sample, and wrote table and picture."""
    folder = tmp_path_factory.mktemp("selfcheck")
    before = Path.cwd()
    os.chdir(folder)
    try:
        options = ["--tokens", "350", "--context", "48", "--csv", "--plot", "--quiet"]
        assert run(["selfcheck", str(CHECKPOINT), str(text), *options]) == 0
    finally:
        os.chdir(before)
    return folder


def test_a_good_model(checked):
    table = pd.read_csv(checked / "selfcheck.csv")
    assert table["check"].tolist() == CHECKS
    assert table["verdict"].tolist() == ["same"] * 8 + ["differs"] * 5
    assert (table["tokens"][:8] == 350).all()
    assert table["largest_nats"][0] == 0.0
    assert table["setting"].tolist()[-2:] == ["bfloat16", "float16"]
    assert 0 < abs(table["difference_nats"].iloc[-1]) < 0.05, "opened again in another dtype"
    assert (table["limit_nats"].notna() == (table["kind"] == "must not matter")).all()
    with Image.open(checked / "selfcheck.png") as picture:
        assert picture.width > 1000
    (stored,) = (checked / ".lossprobe").glob("*-*")
    assert open_run(stored).counts["scored_tokens"] == 350


def test_json(checked, text, monkeypatch, capsysbinary):
    monkeypatch.chdir(checked)
    arguments = ["selfcheck", str(CHECKPOINT), str(text), "--tokens", "120", "--context", "48"]
    assert run([*arguments, "--json"]) == 0
    content = json.loads(capsysbinary.readouterr().out, parse_constant=pytest.fail)
    assert (content["command"], content["tokens"], content["exit_code"], content["broken"]) == ("selfcheck", 120, 0, [])
    assert content["notes"] == ["a sample: the first 120 tokens of entries"]
    assert [row["check"] for row in content["rows"]] == CHECKS


def test_a_broken_model_fails_the_gate(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    forward = CausalLM.hidden
    monkeypatch.setattr(CausalLM, "hidden", lambda self, ids: forward(self, ids) * (1 + 0.01 * (len(ids) == SEVERAL)))
    options = ["--tokens", "200", "--context", "48", "--csv", "checks.csv", "--table"]
    assert run(["selfcheck", str(CHECKPOINT), str(text), *options]) == 10
    words = " ".join(capsys.readouterr().out.split())
    for word in ("BROKEN: the loss depends on batch size", "note: a sample: the first 200 tokens", "must not matter"):
        assert word in words, word
    table = pd.read_csv(tmp_path / "checks.csv")
    assert set(table.loc[table["verdict"] == "BROKEN", "check"]) == {"batch size"}


def test_in_a_pipe_the_table_is_csv(checked, text, monkeypatch, capsys):
    monkeypatch.chdir(checked)
    assert run(["selfcheck", str(CHECKPOINT), str(text), "--tokens", "60", "--bos", "never", "--context", "32"]) == 0
    out, err = capsys.readouterr()
    table = pd.read_csv(io.StringIO(out))
    assert table["setting"][8] == "with one before each document"
    assert "not checked: one document" in table["verdict"].tolist()
    assert "invariants held on 59 tokens" in err


@pytest.mark.parametrize(
    ("code", "id", "options"),
    [
        (2, "selfcheck.output", ["-o", "here"]),
        (2, "windows.context", ["--context", "257"]),
        (2, "usage", ["--tokens", "1"]),
    ],
)
def test_what_is_refused(code, id, options, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["selfcheck", str(CHECKPOINT), str(text), *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error[{id}" in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_no_checkpoint(checked, text, monkeypatch, capsys):
    monkeypatch.chdir(checked)
    (stored, *_) = (checked / ".lossprobe").glob("*-*")
    assert run(["selfcheck", str(stored), str(text)]) == 3
    assert capsys.readouterr().err.startswith("lossprobe: error[")
    assert run(["selfcheck", str(CHECKPOINT)]) == 2
