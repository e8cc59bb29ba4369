"""`[curve]` of an audit file: the log of the training run is checked beside the checkpoint, in every report."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bundled import CHECKPOINT, EXAMPLES
from jsonschema import Draft202012Validator
from training_logs import made_log, overfitted, write_trainer_state

from lossprobe.cli.main import run
from lossprobe.report.audit import __file__ as reports

FILE = """\
schema = 1
[model]
checkpoint = {checkpoint}
[data.text]
path = "text.jsonl"
[curve]
log = "trainer_state.json"
{more}
[[check]]
id = "loss"
metric = "nll"
max = 9.0
"""


@pytest.fixture
def audited(tmp_path_factory, monkeypatch) -> Path:
    """A working folder of all tests here, so that the text is scored once; it has a log that over-fits."""
    folder = tmp_path_factory.getbasetemp() / "audited"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines(keepends=True)[:3]
    Path("text.jsonl").write_text("".join(lines))
    write_trainer_state(folder / "trainer_state.json", overfitted())
    return folder


def write(more: str = "") -> None:
    Path("lossprobe.toml").write_text(FILE.format(checkpoint=json.dumps(str(CHECKPOINT)), more=more))


def audit(capsys, *options) -> tuple[int, str, str]:
    code = run(["audit", "-q", *options])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("more", "code", "verdicts"),
    [
        ("", 10, {"curve.any": "fail"}),
        ('fail_on = ["spikes", "over-fitting"]', 10, {"curve.spikes": "pass", "curve.over-fitting": "fail"}),
        ('fail_on = ["any"]\nlevel = "warn"', 0, {"curve.any": "fail"}),
        ('fail_on = ["spikes"]', 0, {"curve.spikes": "pass"}),
        ('level = "off"', 0, {}),
    ],
)
def test_a_finding_in_the_log_decides_as_a_check_does(more, code, verdicts, audited, capsys):
    write(more)
    got, out, err = audit(capsys, "--json")
    assert got == code, err
    found = json.loads(out)
    schema = json.loads((Path(reports).parents[1] / "audit.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(found)
    own = {check["id"]: check for check in found["checks"] if check["data"] == "curve"}
    assert {name: check["verdict"] for name, check in own.items()} == verdicts
    for check in own.values():
        assert (check["metric"], check["unit"], check["limit"]) == (
            "findings",
            "findings",
            {"kind": "max", "value": 0.0},
        )
        assert check["value"] == (check["verdict"] == "fail")
        assert check["line"] == 6
        words = "over-fitting (steps 95 to 200)" if check["value"] else "trainer_state.json: no "
        assert words in check["reason"]


def test_every_report_has_it(audited, capsys):
    write()
    code, out, _ = audit(capsys, "--report", "junit:audit.xml", "--report", "markdown:audit.md", "--annotations")
    assert code == 10
    assert "fail: curve.any: trainer_state.json: over-fitting (steps 95 to 200)" in out
    assert "::error file=lossprobe.toml,line=6,title=lossprobe curve.any::" in out
    case = next(each for each in ET.parse("audit.xml").iter("testcase") if each.get("name") == "curve.any")
    assert (case.get("classname"), case.find("failure").get("type")) == ("lossprobe.curve", "fail")
    assert "| curve.any | fail |" in Path("audit.md").read_text()


def test_a_healthy_log_passes(audited, capsys):
    write()
    write_trainer_state(audited / "trainer_state.json", made_log())
    code, out, _ = audit(capsys)
    assert code == 0
    assert "pass: 2 checks (2 pass)" in out


@pytest.mark.parametrize(
    ("more", "id_", "says"),
    [
        ('fail_on = ["overfitting"]', "audit.value", "did you mean over-fitting?"),
        ('fail_on = "any"', "audit.value", "must be a list of names"),
        ('columns = "loss"', "audit.value", "must be written NAME=VALUE"),
        ('logs = "x"', "audit.unknown_key", "did you mean log?"),
        ('level = "fatal"', "audit.value", "must be one of off, warn, error"),
    ],
)
def test_a_mistake_in_the_table_is_told(more, id_, says, audited, capsys):
    write(more)
    code, out, err = audit(capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"lossprobe: error[{id_}]: lossprobe.toml: line 8: ")
    assert says in err


def test_a_log_that_is_missing_or_none_is_a_mistake_of_the_input(audited, capsys):
    write()
    Path("trainer_state.json").write_text("Once upon a time.")
    assert audit(capsys)[0] == 2
    Path("trainer_state.json").unlink()
    code, _, err = audit(capsys)
    assert code == 2
    assert err.startswith("lossprobe: error[log.")


def test_no_check_has_the_name_of_one_of_the_log(audited, capsys):
    write()
    text = Path("lossprobe.toml").read_text().replace('id = "loss"', 'id = "curve.any"')
    Path("lossprobe.toml").write_text(text)
    code, _, err = audit(capsys)
    assert code == 2
    assert "error[audit.duplicate_id]" in err


def test_the_log_is_never_overwritten_and_its_settings_are_listed(audited, capsys):
    write('columns = "loss=ce"')
    assert audit(capsys, "--report", "json:trainer_state.json")[0] == 2
    _, out, _ = audit(capsys, "--print-config")
    assert "curve.columns,loss=ce,lossprobe.toml line 8" in out.replace('"', "")
    assert "curve.fail_on,any,default" in out
