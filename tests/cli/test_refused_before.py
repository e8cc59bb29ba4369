"""What can be refused is refused before a checkpoint is opened: mistakes in options, sources and texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundled import CHECKPOINT, EXAMPLES

from lossprobe.checkpoint import detect
from lossprobe.cli.main import run

MODEL = str(CHECKPOINT)
OTHER = str(EXAMPLES / "jargon-smoothed")
ONE = ("tokens", "positions", "hardest", "perplexity", "calibration", "objectives", "score", "selfcheck")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with texts, good and bad, in which no checkpoint can be opened."""
    monkeypatch.chdir(tmp_path)

    def opened(path, _options=None):
        pytest.fail(f"{path} was opened")

    monkeypatch.setattr(detect, "open_checkpoint", opened)
    records = [{"text": "one text", "lang": "en"}, {"text": "another", "lang": None}]
    Path("good.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    Path("bad.jsonl").write_text('{"text": "good"}\n{"text": 3}\n', "utf-8")
    Path("latin.txt").write_bytes(b"caf\xe9")
    Path("nothing").mkdir()
    return tmp_path


def refused(arguments: list[str], capsys) -> tuple[int, str]:
    """Run a command that is refused, and return its exit code and what it says."""
    code = run(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert not Path(".lossprobe").exists(), "nothing was begun"
    return code, err


TEXTS = {
    "bad.jsonl": "text.",
    "latin.txt": "text.not_utf8",
    "missing.txt": "text.missing",
    "nothing": "text.empty_folder",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "command",
    [
        *([name, MODEL] for name in ONE),
        ["perplexity", "--protocol", "evaluate", MODEL],
        ["perplexity", "--protocol", "all", MODEL],
        ["calibration", MODEL, OTHER],
        ["compare", MODEL, OTHER],
        ["compare", "--kl", MODEL, OTHER],
        ["gap", MODEL, "good.jsonl"],
    ],
    ids=" ".join,
)
def test_a_text_that_cannot_be_read(folder, capsys, command, text):
    _, err = refused([*command, text], capsys)
    assert f"error[{TEXTS[text]}" in err


@pytest.mark.parametrize(
    ("code", "id_", "arguments"),
    [
        (2, "where.syntax", ["tokens", MODEL, "good.jsonl", "--where", "los > 5"]),
        (2, "where.syntax", ["objectives", MODEL, "good.jsonl", "--where", "loss >> 5"]),
        (2, "fields.missing", ["perplexity", MODEL, "good.jsonl", "--by", "language"]),
        (2, "fields.missing", ["hardest", MODEL, "good.jsonl", "--by", "language"]),
        (2, "fields.missing", ["calibration", MODEL, "good.jsonl", "--by", "language"]),
        (2, "fields.missing", ["compare", MODEL, OTHER, "good.jsonl", "--by", "language"]),
        (2, "fields.missing", ["compare", MODEL, OTHER, "good.jsonl", "--by", "language", "--kl"]),
        (2, "compare.sources", ["compare", MODEL, "good.jsonl"]),
        (2, "compare.sources", ["compare", MODEL, OTHER, MODEL, "good.jsonl"]),
        (2, "compare.sources", ["compare", MODEL, OTHER, "good.jsonl", "--desmooth", "0.1"]),
        (2, "compare.kl", ["compare", MODEL, "good.jsonl", "--kl"]),
        (2, "protocol.by", ["perplexity", MODEL, "good.jsonl", "--by", "lang", "--protocol", "all"]),
        (2, "protocol.plot", ["perplexity", MODEL, "good.jsonl", "--plot", "--protocol", "evaluate"]),
        (2, "output.two_results", ["perplexity", MODEL, "good.jsonl", "--json", "--csv", "-"]),
        (2, "output.two_results", ["perplexity", MODEL, "good.jsonl", "--csv=one.png", "--plot=one.png"]),
        (6, "output.write", ["perplexity", MODEL, "good.jsonl", "--csv", "no/such/folder.csv"]),
        (6, "output.write", ["perplexity", MODEL, "good.jsonl", "--plot=nothing"]),
        (6, "output.write", ["perplexity", MODEL, "good.jsonl", "-o", "good.jsonl/run"]),
        (2, "usage", ["hardest", MODEL, "good.jsonl", "--top", "0"]),
        (2, "usage", ["calibration", MODEL, "good.jsonl", "--smoothing", "1"]),
        (2, "usage", ["objectives", MODEL, "good.jsonl", "--smoothing", "2"]),
        (2, "compare.sources", ["compare", MODEL]),
        (2, "sources.no_text", ["compare", MODEL, OTHER]),
        (2, "sources.no_text", ["score", MODEL, OTHER]),
        (2, "checkpoint.missing", ["score", "no-model", "good.jsonl"]),
        (2, "gap.sources", ["gap", MODEL, "good.jsonl"]),
        (2, "selfcheck.output", ["selfcheck", MODEL, "good.jsonl", "-o", "place"]),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, list) else "",
)
def test_a_mistake_on_the_command_line(folder, capsys, code, id_, arguments):
    found, err = refused(arguments, capsys)
    assert err.startswith(f"lossprobe: error[{id_}]: ")
    assert found == code


@pytest.mark.parametrize(
    "command",
    [
        *([name, "good.jsonl", MODEL] for name in ONE),
        ["compare", "good.jsonl", MODEL],
        ["gap", "good.jsonl", "bad.jsonl", MODEL],
    ],
    ids=" ".join,
)
def test_checkpoint_and_text_are_swapped(folder, capsys, command):
    code, err = refused(command, capsys)
    assert code == 2
    assert f"good.jsonl looks like a text and {MODEL} like a checkpoint: the checkpoint comes first" in err


def test_a_field_that_one_record_has_is_enough(folder, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run(["perplexity", MODEL, "good.jsonl", "--by", "lang", "-q", "--csv", "by.csv"]) == 0


AUDIT = """\
schema = 1
[model]
checkpoint = {model}
[data.text]
path = "{text}"
{baseline}
[[check]]
id = "loss"
metric = "nll"
{limit}
{more}
"""


def write_audit(text: str = "good.jsonl", more: str = "", change: bool = False) -> None:
    limit, baseline = ("max_increase = 0.1", '[baseline]\npath = "base"') if change else ("max = 9.0", "")
    audit = AUDIT.format(model=json.dumps(MODEL), text=text, limit=limit, baseline=baseline, more=more)
    Path("lossprobe.toml").write_text(audit, "utf-8")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("command", [["audit"], ["baseline", "update"]], ids=" ".join)
def test_a_text_of_an_audit_that_cannot_be_read(folder, capsys, command, text):
    write_audit(text, change=command[0] == "baseline")
    _, err = refused(command, capsys)
    assert f"error[{TEXTS[text]}" in err


def test_a_check_on_a_field_that_no_record_has(folder, capsys):
    write_audit(more='field = "language"\nequals = "en"')
    assert "check loss: field language: no document has this field" in refused(["audit"], capsys)[1]


def test_a_check_on_a_value_that_no_record_has(folder, capsys):
    write_audit(more='field = "lang"\nequals = "english"')
    code, err = refused(["audit"], capsys)
    assert "check loss: equals 'english': no record has this in the field lang\nhint: found there: en\n" in err
    assert code == 2


@pytest.mark.parametrize("command", [["audit"], ["baseline", "update"]], ids=" ".join)
def test_a_baseline_that_cannot_be_written(folder, capsys, command):
    write_audit(change=True)
    audit = Path("lossprobe.toml").read_text("utf-8")
    Path("lossprobe.toml").write_text(audit.replace('path = "base"', 'path = "base"\nmissing = "create"'), "utf-8")
    Path("base").touch()
    code, err = refused(command, capsys)
    assert (code, "error[output.write]" in err) == (6, True), err


@pytest.mark.parametrize(
    ("id_", "arguments"),
    [("sources.swapped", ["good.jsonl", MODEL]), ("sources.no_text", [MODEL, OTHER])],
)
def test_a_starting_audit_file_of_the_wrong_sources(folder, capsys, id_, arguments):
    code, err = refused(["audit", "init", *arguments], capsys)
    assert (code, err.partition("]")[0]) == (2, f"lossprobe: error[{id_}")
    assert not Path("lossprobe.toml").exists()


@pytest.mark.parametrize(
    ("hint", "arguments"),
    [
        ("hf download gpt2 --local-dir FOLDER", ["score", "gpt2", "good.jsonl"]),
        ("hf download openai-community/gpt2 --local-dir", ["score", "openai-community/gpt2", "good.jsonl"]),
        ("an address is never opened", ["score", "https://huggingface.co/gpt2", "good.jsonl"]),
        ("an address is never opened", ["score", MODEL, "https://example.com/a.txt"]),
        ("leave out the quotes", ["score", f"'{MODEL}'", "good.jsonl"]),
        ("leave out the quotes", ["score", MODEL, '"good.jsonl"']),
        ("write / between folders", ["score", "C:\\models\\mine", "good.jsonl"]),
        ("give its folder: ", ["score", f"{MODEL}/config.json", "good.jsonl"]),
        ("checkpoints first, the text last", ["score", "good.jsonl", "bad.jsonl"]),
        ("a text its checkpoint before it", ["perplexity", "good.jsonl"]),
        ("hf download gpt2", ["audit", "init", "gpt2", "good.jsonl"]),
        ("lossprobe audit init CHECKPOINT TEXT writes it", ["audit", MODEL, "good.jsonl"]),
        ("a command comes first", [MODEL, "good.jsonl"]),
        ("did you mean lossprobe perplexity?", ["eval", MODEL, "good.jsonl"]),
        ("did you mean lossprobe audit?", ["audit", "run"]),
        ("did you mean lossprobe baseline update?", ["baseline", "create"]),
        ("did you mean lossprobe runs remove?", ["runs", "delete", "3f2a"]),
        ("--by is an option of positions, hardest,", ["score", MODEL, "good.jsonl", "--by", "class"]),
        ("did you mean class?", ["hardest", MODEL, "good.jsonl", "--by", "clas"]),
        ("did you mean loss?", ["tokens", MODEL, "good.jsonl", "--where", "los > 5"]),
        ("lossprobe runs lists the runs", ["runs", "latest", "3f2a"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_new_user_types(folder, capsys, hint, arguments):
    code, err = refused(arguments, capsys)
    assert (code, hint in err.partition("hint: ")[2]) == (2, True), err


def test_a_text_without_a_character(folder, capsys):
    Path("empty.txt").touch()
    code, err = refused(["score", MODEL, "empty.txt"], capsys)
    assert (code, err) == (5, "lossprobe: error[text.nothing_to_score]: empty: no tokens\n")
