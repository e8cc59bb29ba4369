"""The audit file of examples/audit: it passes, and every verdict and refusal can be had from it by one small change.

One working folder for all tests, beside links to the bundled pair: each model is scored once, and its run reused.
"""

from __future__ import annotations

import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from bundled import EXAMPLES
from jsonschema import Draft202012Validator
from junitparser import Failure, JUnitXml

from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.stats.confidence_sequence import looks
from lossprobe.audit.checks.decisions import decide, measure_from_sums
from lossprobe.audit.checks.metrics import metric_of
from lossprobe.audit.checks.pairing import AuditedRun
from lossprobe.audit.config.reader import read_settings
from lossprobe.audit.gate.early import CheckSums
from lossprobe.audit.settings import Check, Limit
from lossprobe.cli.main import run
from lossprobe.run.baseline import open_baseline
from lossprobe.run.reader import latest_run

CHECKS = ("cost-of-smoothing", "no-overconfidence", "no-new-disasters", "accuracy", "good-enough", "long-context",
          "punctuation")  # fmt: skip
SCHEMA = json.loads(files("lossprobe.report").joinpath("audit.schema.json").read_text("utf-8"))
ITSELF = ("--checkpoint", "../jargon-plain")
TINY_DOCUMENTS = 3


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A copy of examples/audit, with what it points at beside it, and a tiny text."""
    root = tmp_path_factory.mktemp("examples")
    for name in ("jargon-plain", "jargon-smoothed", "jargon-valid.jsonl"):
        (root / name).symlink_to(EXAMPLES / name)
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines(keepends=True)
    (root / "tiny.jsonl").write_text("".join(lines[:TINY_DOCUMENTS]), "utf-8")
    shutil.copytree(EXAMPLES / "audit", root / "audit", ignore=shutil.ignore_patterns(".lossprobe"))
    return root / "audit"


@pytest.fixture
def audit(folder, monkeypatch, capsys):
    """Run `lossprobe audit` in the folder; return its exit code, standard output and standard error."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(*arguments: str, command: tuple[str, ...] = ("audit",)) -> tuple[int, str, str]:
        code = run([*command, "--quiet", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def changed(folder: Path, name: str, *changes: tuple[str, str]) -> str:
    """Write a changed copy of the audit file beside it; return its name."""
    text = (folder / "lossprobe.toml").read_text("utf-8")
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (folder / name).write_text(text, "utf-8")
    return name


def tightened(folder: Path) -> str:
    return changed(folder, "tight.toml", ("max_increase = 0.1\n", "max_increase = 0.01\n"))


def test_the_pair_passes_every_check_by_its_interval(audit, tmp_path):
    junit, as_json = tmp_path / "audit.xml", tmp_path / "audit.json"
    code, out, err = audit("--report", f"junit:{junit}", "--report", f"json:{as_json}", "--annotations")
    assert (code, out.splitlines()[-1]) == (0, "pass: 7 checks (7 pass)"), err
    assert re.search(
        r"cost-of-smoothing  pass +change of nll \(nats per token\) +\+0\.0697  \[\+0\.0565, \+0\.0828\]", out
    )
    report = json.loads(as_json.read_text("utf-8"))
    Draft202012Validator(SCHEMA).validate(report)
    assert [check["id"] for check in report["checks"]] == list(CHECKS)
    for check in report["checks"]:
        low, high = check["measured_interval"]
        assert low < check["measured"] < high
        assert (check["verdict"], check["rule"]) == ("pass", "interval")
    (suite,) = JUnitXml.fromfile(str(junit))
    assert (suite.tests, suite.failures, suite.errors) == (7, 0, 0)
    assert [case.name for case in suite] == list(CHECKS)


def test_a_limit_that_is_tightened_fails(audit, folder, tmp_path):
    junit = tmp_path / "audit.xml"
    code, out, _err = audit("--config", tightened(folder), "--report", f"junit:{junit}", "--annotations")
    assert code == 10
    assert out.splitlines()[-1].startswith("::error file=tight.toml,line="), "after the table"
    assert "fail: cost-of-smoothing: change +0.0697 nats per token [+0.0565, +0.0828] breaks max_increase" in out
    (suite,) = JUnitXml.fromfile(str(junit))
    assert (suite.tests, suite.failures) == (7, 1)
    assert [case.name for case in suite if any(isinstance(found, Failure) for found in case.result)] == [CHECKS[0]]


def test_a_tiny_text_is_inconclusive_and_says_how_many_tokens_would_decide(audit, folder):
    sha256 = next(line for line in (folder / "lossprobe.toml").read_text("utf-8").splitlines() if "sha256 =" in line)
    changes = (("../jargon-valid.jsonl", "../tiny.jsonl"), (sha256, ""), ('path = "baseline"', 'path = "tiny"'))
    config = changed(folder, "tiny.toml", *changes)
    code, out, err = audit("--config", config, *ITSELF, "--force", command=("baseline", "update"))
    assert code == 0, (out, err)
    code, out, _err = audit("--config", config)
    assert code == 11
    assert re.search(
        r"^inconclusive: cost-of-smoothing: .*: about [\d,]+ more such tokens would decide", out, re.MULTILINE
    )
    assert out.splitlines()[-1].startswith("inconclusive: 7 checks (")


@pytest.mark.thorough
def test_a_model_against_itself_has_not_changed_at_all(audit):
    again = ("--baseline", "again")  # made here: the one in git is another machine's, and float32 rounds differently
    code, _out, err = audit(*ITSELF, *again, command=("baseline", "update"))
    assert code == 0, err
    code, out, err = audit("--json", *ITSELF, *again)
    assert code == 0, err
    report = json.loads(out)
    Draft202012Validator(SCHEMA).validate(report)
    assert report["notes"] == []
    changes = [check for check in report["checks"] if check["id"] != "good-enough"]
    assert [(check["verdict"], check["measured"], *check["measured_interval"]) for check in changes] == [
        ("pass", 0.0, 0.0, 0.0)
    ] * 6


def test_the_baseline_in_git_is_the_plain_model(audit):
    code, out, err = audit("--json", *ITSELF)
    assert code == 0, err
    changes = [check for check in json.loads(out)["checks"] if check["id"] != "good-enough"]
    assert [check["measured"] for check in changes] == pytest.approx([0.0] * 6, abs=1e-4)


def test_it_stops_once_a_clear_regression_is_shown(audit, folder):
    checks = (folder / "lossprobe.toml").read_text("utf-8").split("\n\n# The purpose of smoothing")[0]
    (folder / "one.toml").write_text(checks.replace("max_increase = 0.1\n", "max_increase = 0.01\n"), "utf-8")
    code, out, err = audit("--config", "one.toml", "--stop-early", "--json")
    assert code == 10, err
    (text,) = json.loads(out)["texts"]
    assert 0 < text["scored_share"] < 0.5


@pytest.mark.parametrize(("file", "before", "after"), [
    ("baseline.json", b'"scored_tokens": 22880', b'"scored_tokens": 22881'),
    ("tokens.parquet", None, None),
])  # fmt: skip
def test_an_edited_baseline_is_refused(audit, folder, tmp_path, file, before, after):
    baseline = tmp_path / "edited"
    shutil.copytree(folder / "baseline", baseline)
    (path,) = (baseline / "jargon").glob(file)
    data = path.read_bytes()
    if before is None:
        middle = len(data) // 2
        before, after = data[middle : middle + 64], bytes([data[middle] ^ 1]) + data[middle + 1 : middle + 64]
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))
    code, out, err = audit("--baseline", str(baseline))
    assert (code, out) == (12, "")
    assert err.startswith("lossprobe: error[baseline.damaged]: ")
    assert "edited" in err


@pytest.mark.parametrize(("arguments", "id"), [
    (("--baseline", "elsewhere"), "baseline.missing"),
    (("--dtype", "bfloat16"), "baseline.different"),
])  # fmt: skip
def test_a_baseline_that_is_missing_or_of_another_dtype_is_refused(audit, arguments, id):
    code, out, err = audit(*arguments)
    assert (code, out) == (12, "")
    assert err.startswith(f"lossprobe: error[{id}]: ")
    assert ("dtype" in err) == (id == "baseline.different")


def test_a_typo_is_refused_with_line_and_key(audit, folder):
    config = changed(folder, "typo.toml", ("max_increase = 0.1\n", "max_increse = 0.1\n"))
    line = (folder / config).read_text("utf-8").splitlines().index("max_increse = 0.1") + 1
    code, out, err = audit("--config", config)
    assert (code, out) == (2, "")
    assert f"typo.toml: line {line}: " in err
    assert "max_increse" in err
    assert "did you mean max_increase?" in err


def test_the_baseline_is_small_and_says_nothing_of_the_machine_it_was_made_on():
    folder = EXAMPLES / "audit" / "baseline" / "jargon"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 300_000

    def texts(value):
        if isinstance(value, dict):
            return [text for pair in value.items() for part in pair for text in texts(part)]
        return [value] if isinstance(value, str) else []

    found = texts(json.loads((folder / "baseline.json").read_text("utf-8")))
    assert "jargon-plain" in found
    assert not [text for text in found if re.search(r"[/\\@]", text)], "no path, no address"


def test_the_audit_file_shows_what_an_audit_can_do():
    settings = read_settings(EXAMPLES / "audit" / "lossprobe.toml")
    assert {check.metric for check in settings.checks} >= {
        "nll",
        "confidence_gap",
        "share_above",
        "accuracy",
        "perplexity",
    }
    assert any(check.inconclusive == "fail" for check in settings.checks)
    assert any(check.where for check in settings.checks)
    assert settings.data[0].sha256 is not None


def test_a_summary_that_cannot_be_written_costs_no_verdict(audit, folder, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "nowhere" / "summary.md"))
    code, out, err = audit("--report", f"json:{folder / 'report.json'}")
    assert code == 0, err
    assert out.splitlines()[-1].startswith("pass: 7 checks")
    assert "not added to the summary" in err
    assert json.loads((folder / "report.json").read_text("utf-8"))["verdict"] == "pass"


def test_a_report_without_a_folder_is_refused_before_anything_is_scored(audit, folder):
    code, out, err = audit("--report", f"junit:{folder / 'nowhere' / 'audit.xml'}")
    assert (code, out) == (6, "")
    assert "its folder does not exist" in err


def test_two_hundred_orders_of_the_text_decide_as_the_whole_text_does_and_sooner(audit):
    """The plain model against the smoothed one: its over-confidence grew, by 14 standard errors of the whole text.

    The documents' sums are taken once, from runs of the whole text; an order of them is all that a seed changes.
    """
    assert audit("--baseline", "smoothed", command=("baseline", "update"))[0] == 0
    assert audit(*ITSELF, "--baseline", "smoothed")[0] == 10
    plain = latest_run(Path())
    scored = AuditedRun(plain, find_clusters(plain), open_baseline(Path("smoothed/jargon")))
    check = Check("no-overconfidence", "jargon", "confidence_gap", Limit("max_increase", 0.0))
    metric = metric_of(check, 0)
    sums = scored.sums(check, metric)
    assert decide(check, measure_from_sums(check, metric, sums, 0.95).held) == "fail"
    shares = []
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(len(sums))
        collected, before = CheckSums(check, metric), 0
        for look in looks(len(sums)):
            collected.sums.append(sums[np.sort(order[before:look])])
            before = look
            if look < len(sums):
                collected.look(len(sums), 0.95)
            if collected.decided is not None:
                break
        assert decide(check, collected.end(0.95).held) == "fail"
        shares.append(before / len(sums))
    assert np.mean(shares) < 0.2
    assert np.quantile(shares, 0.95) < 0.25
