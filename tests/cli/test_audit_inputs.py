"""An input of an audit that does not exist, or is refused, is told with the place in the audit file that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundled import CHECKPOINT

from lossprobe.checkpoint import detect
from lossprobe.cli.main import run

FILE = """\
schema = 1
[model]
checkpoint = {model}
[data.text]
path = "text.jsonl"
[baseline]
path = "baseline"
missing = "warn"
[reference]
checkpoint = "before"
[curve]
log = "log.csv"
[[check]]
id = "distance"
metric = "mean_kl_nats"
max = 0.05
[[check]]
id = "change"
metric = "nll"
max_increase = 0.05
"""
MODEL = json.dumps(str(CHECKPOINT))


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Return a function that writes an audit file, runs a command by it, and returns exit code and error line."""
    monkeypatch.chdir(tmp_path)
    Path("text.jsonl").write_text('{"text": "a text to score"}\n')

    def say(old="", new="", *command, name="lossprobe.toml", content=FILE):
        Path(name).write_text(content.format(model=MODEL).replace(old, new, 1))
        code = run([*(command or ("audit",)), "-q"])
        return code, capsys.readouterr().err.splitlines()[0]

    return say


MISSING = "does not exist"


@pytest.mark.parametrize("command", [("audit",), ("baseline", "update"), ("baseline", "check")], ids=" ".join)
def test_a_missing_reference_is_told_before_a_model_is_opened(said, monkeypatch, command):
    monkeypatch.setattr(detect, "open_checkpoint", lambda path, _: pytest.fail(f"{path} was opened"))
    where = "lossprobe.toml: line 10: checkpoint in [reference]: before"
    assert said("", "", *command) == (2, f"lossprobe: error[checkpoint.missing]: {where}: {MISSING}")


@pytest.mark.parametrize(
    ("old", "new", "id_", "where"),
    [
        (MODEL, '"gone"', "checkpoint.missing", "lossprobe.toml: line 3: checkpoint in [model]: gone"),
        ("text.jsonl", "gone.jsonl", "text.missing", "lossprobe.toml: line 5: path in [data.text]: gone.jsonl"),
        ("text.jsonl", 'gone.txt"\nsha256 = "' + 64 * "0", "text.missing", "line 5: path in [data.text]: gone.txt"),
    ],
)
def test_another_missing_input(said, old, new, id_, where):
    Path("before").symlink_to(CHECKPOINT)
    code, line = said(old, new)
    assert (code, line.startswith(f"lossprobe: error[{id_}]: ")) == (2, True), line
    assert line.endswith(f"{where}: {MISSING}")


def test_a_missing_log(said):
    Path("before").symlink_to(CHECKPOINT)
    code, line = said()
    assert (code, "lossprobe.toml: line 12: log in [curve]: log.csv: No such file" in line) == (2, True)


def test_a_missing_tokenizer(said):
    Path("before").symlink_to(CHECKPOINT)
    code, line = said(MODEL, f'{MODEL}\ntokenizer = "t.json"')
    assert (code, "lossprobe.toml: line 4: tokenizer in [model]: t.json: no tokenizer.json" in line) == (3, True)


def test_a_reference_that_is_refused(said):
    Path("before").mkdir()
    Path("before/config.json").write_text("{")
    code, line = said()
    assert code == 3
    where = "lossprobe.toml: line 10: checkpoint in [reference]: before/config.json: "
    assert line.startswith(f"lossprobe: error[checkpoint.bad_json]: {where}")


def test_an_option_stands_for_the_place_and_a_section_has_its_whole_name(said, monkeypatch):
    Path("before").symlink_to(CHECKPOINT)
    told = f"lossprobe: error[checkpoint.missing]: --checkpoint: gone: {MISSING}"
    assert said("", "", "audit", "--checkpoint", "gone") == (2, told)
    monkeypatch.setenv("LOSSPROBE_AUDIT_CHECKPOINT", "gone")
    assert said()[1].endswith(f": LOSSPROBE_AUDIT_CHECKPOINT: gone: {MISSING}")
    monkeypatch.delenv("LOSSPROBE_AUDIT_CHECKPOINT")
    Path("before").unlink()
    section = FILE.replace("schema", "[tool.lossprobe]\nschema", 1)
    for table in ("model", "data.text", "baseline", "reference", "curve", "[check"):
        section = section.replace(f"[{table}]", f"[{table}]".replace(table, f"tool.lossprobe.{table}"))
    section = section.replace("[tool.lossprobe.[check]", "[[tool.lossprobe.check]")
    _, line = said("", "", "audit", "--config", "pyproject.toml", name="pyproject.toml", content=section)
    assert line.endswith(f": pyproject.toml: line 11: checkpoint in [tool.lossprobe.reference]: before: {MISSING}")
