"""`lossprobe perplexity --protocol` end to end: one tool, all of them, and what is refused."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from bundled import CHECKPOINT, EXAMPLES
from PIL import Image

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.cli.main import cli, run
from lossprobe.cli.wording import with_options
from lossprobe.passes.protocols import score_protocol
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.run.reader import open_run
from lossprobe.text.documents import open_text

SHORT = ["--context", "64"]


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("protocols") / "few.jsonl"
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:2]), "utf-8")
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, few) -> Path:
    """A working folder in which the command wrote the table of all protocols, and the picture."""
    folder = tmp_path_factory.mktemp("all")
    before = Path.cwd()
    os.chdir(folder)
    try:
        options = ["--protocol", "all", "--csv", "--plot", "--quiet", *SHORT]
        assert run(["perplexity", str(CHECKPOINT), str(few), *options]) == 0
    finally:
        os.chdir(before)
    return folder


def runs_in(folder: Path) -> list[Path]:
    return sorted((folder / ".lossprobe").glob("*-*"))


def test_all(done):
    table = pd.read_csv(done / "protocols.csv")
    assert table["protocol"].tolist() == ["lossprobe", *PROTOCOLS]
    assert list(table.columns) == [
        "protocol", "headline", "value", "nats_per_token", "difference_nats", "tokens_scored", "tokens_unscored",
        "mean_context", "why",
    ]  # fmt: skip
    assert table["value"].notna().all()
    with Image.open(done / "protocols.png") as picture:
        assert picture.width > 1000
    assert len(runs_in(done)) == 9, "the loop twice, the two validation losses, and LLaMA-Factory and TRL share a pass"


def test_all_again_comes_from_the_stored_runs(done, few, monkeypatch, capsys):
    monkeypatch.chdir(done)
    monkeypatch.setattr("lossprobe.scoring.scorer.queue_part", lambda *_: pytest.fail("scored again"))
    arguments = ["perplexity", str(CHECKPOINT), str(few), "--protocol", "all", *SHORT]
    assert run([*arguments, "--table", "--csv", "again.csv"]) == 0
    assert (done / "again.csv").read_bytes() == (done / "protocols.csv").read_bytes()
    words = " ".join(capsys.readouterr().out.split())
    assert "the same model on the same text: token perplexity " in words
    for protocol, each in PROTOCOLS.items():
        assert f"{protocol}: {each.why}" in words
    assert run([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [row["protocol"] for row in content["rows"]] == ["lossprobe", *PROTOCOLS]


@pytest.mark.parametrize("protocol", ["lm-eval", "llama.cpp"])
def test_one(protocol, done, few, monkeypatch, capsysbinary):
    monkeypatch.chdir(done)
    arguments = ["perplexity", str(CHECKPOINT), str(few), "--protocol", protocol, *SHORT]
    assert run([*arguments, "--csv", "-"]) == 0
    out = capsysbinary.readouterr().out
    before = runs_in(done)
    assert run([*arguments, "--csv", "-"]) == 0
    again, err = capsysbinary.readouterr()
    assert again == out
    assert b"already scored, reusing" in err
    assert runs_in(done) == before
    checkpoint = load_huggingface(CHECKPOINT, LoadOptions())
    expected = score_protocol(protocol, checkpoint, open_text(few), ScoreOptions(context=64))[1]
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(out)), expected.table, rtol=1e-12)
    assert expected.finding in err.decode()
    row = pd.read_csv(done / "protocols.csv").set_index("protocol").loc[protocol]
    assert row["value"] == pytest.approx(expected.value, rel=1e-12)
    assert row["tokens_unscored"] == sum(expected.tokens_unscored.values())
    assert run([*arguments, "--json"]) == 0
    content = json.loads(capsysbinary.readouterr().out, parse_constant=pytest.fail)
    for name in ("protocol", "headline", "value", "tokens_scored", "tokens_unscored", "mean_context", "notes"):
        assert content[name] == getattr(expected, name), name
    assert run([*arguments, "--table"]) == 0
    words = " ".join(capsysbinary.readouterr().out.decode().split())
    assert f"as {with_options(PROTOCOLS[protocol].tool, cli)}" in words
    assert PROTOCOLS[protocol].why in words
    assert expected.headline in words


def test_one_run_where_the_user_wants_it(few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["perplexity", str(CHECKPOINT), str(few), "--protocol", "nanogpt", *SHORT, "-o", "here", "--quiet"]
    assert run(arguments) == 0
    assert open_run(Path("here")).context == 64
    assert not runs_in(tmp_path)
    capsys.readouterr()
    assert run(["perplexity", str(CHECKPOINT), str(few), "--protocol", "levanter", *SHORT, "-o", "here"]) == 6
    assert "error[output.other_settings]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "id", "options"),
    [
        (2, "protocol.plot", ["--protocol", "lm-eval", "--plot"]),
        (2, "protocol.by", ["--protocol", "all", "--by", "document"]),
        (2, "protocol.by", ["--protocol", "paloma", "--by", "document"]),
        (2, "output.several_runs", ["--protocol", "all", "-o", "here"]),
        (2, "protocol.option", ["--protocol", "nanogpt", "--stride", "8"]),
        (2, "protocol.option", ["--protocol", "levanter", "--bos", "never"]),
        (2, "windows.context", ["--protocol", "paloma", "--context", "257"]),
        (4, "text.too_long", ["--protocol", "evaluate"]),
        (4, "protocol.too_short", ["--protocol", "llama.cpp"]),
        (2, "usage", ["--protocol", "nothing"]),
    ],
)
def test_what_is_refused(code, id, options, few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if id == "protocol.too_short":
        few = tmp_path.with_name("short.txt")
        few.write_text("A hacker is one who enjoys the challenge of programming. " * 14, "utf-8")
    assert run(["perplexity", str(CHECKPOINT), str(few), *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error[{id}" in err
    assert list(tmp_path.iterdir()) == [] or code == 4


@pytest.mark.parametrize("protocol", ["all", "lm-eval"])
def test_a_stored_run_has_windows_of_its_own(protocol, done, monkeypatch, capsys):
    monkeypatch.chdir(done)
    for sources in ([], [str(runs_in(done)[0])]):
        assert run(["perplexity", *sources, "--protocol", protocol]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"error[protocol.sources]: --protocol {protocol}: a stored run has its own windows" in err


def test_a_run_is_no_checkpoint(done, few, monkeypatch, capsys):
    monkeypatch.chdir(done)
    for protocol in ("all", "nanogpt"):
        assert run(["perplexity", str(runs_in(done)[0]), str(few), "--protocol", protocol]) in (2, 3)
        assert capsys.readouterr().err.startswith("lossprobe: error[")


def test_no_text_of_a_stream_is_written_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        Path(name).write_text("the quick brown fox jumps over the lazy dog\n" * 9, "utf-8")
    before = Path("b.txt").read_bytes()
    assert run(["perplexity", str(CHECKPOINT), "a.txt", "b.txt", "--protocol", "nanogpt", *SHORT, "--csv=b.txt"]) == 2
    assert "error[output.is_input]: b.txt" in capsys.readouterr().err
    assert Path("b.txt").read_bytes() == before


def test_one_tool_does_not_become_the_latest_run_and_says_what_it_joined(tmp_path, few, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["perplexity", str(CHECKPOINT), str(few), "--protocol", "llama.cpp", *SHORT]) == 0
    assert "notice: few: 2 documents joined by blank lines" in capsys.readouterr().err
    assert run(["perplexity"]) == 2
    (made,) = runs_in(tmp_path)
    assert run(["perplexity", str(made), "--table"]) == 0
    assert "windows second_half" in capsys.readouterr().out


def test_damage_is_no_refusal_of_a_tool(tmp_path, few, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["perplexity", str(CHECKPOINT), str(few), "--quiet", *SHORT, "--protocol"]
    assert run([*arguments, "llama.cpp"]) == 0
    (made,) = runs_in(tmp_path)
    (made / "documents.parquet").unlink()
    assert run([*arguments, "all"]) == 6
    assert "documents.parquet is missing" in capsys.readouterr().err
