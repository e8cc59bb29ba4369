"""`lossprobe findings` end to end, and the findings that other views print."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn
from fake_runs import words, write_run

from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.analysis.findings.findings import fails_on, find_findings
from lossprobe.analysis.findings.options import FindingOptions
from lossprobe.cli.main import run
from lossprobe.report.plots.findings import multiple
from lossprobe.report.views.findings import findings_view
from lossprobe.report.views.view import draw
from lossprobe.run.reader import open_run


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, Path]:
    """Return runs of one text of 30 documents: a calibrated model, and one that is over-confident, T = 0.5."""
    rng = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("drawn")
    documents = document_numbers(rng, 3000, 30)
    logits = draw_logits(rng, 3000, 32)
    targets = draw_targets(rng, logits)
    models = {"clean": logits, "hot": tempered_logits(logits, 0.5)}
    for name, of in models.items():
        write_drawn(folder / name, of, targets, documents, name=name, sample_every=4)
    return {name: folder / name for name in models}


@pytest.fixture(scope="module")
def hot(drawn):
    return find_findings(open_run(drawn["hot"]))


def printed(capsysbinary, *arguments, code: int = 0) -> str:
    assert run(["findings", *map(str, arguments)]) == code
    return capsysbinary.readouterr().out.decode()


def test_a_calibrated_model_has_no_finding(drawn, capsysbinary):
    found = printed(capsysbinary, drawn["clean"], "--table", "--fail-on", "note")
    alone = {rule.view for rule in FINDING_RULES.values()} - {"compare", "gap", "preferences", "series"}
    looked = sum(rule.view in alone for rule in FINDING_RULES.values())
    assert f"no finding: {looked} rules looked at" in " ".join(found.split())


def test_a_terminal_of_80_columns_shows_number_interval_remedy_and_place(drawn, hot, capsysbinary, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = printed(capsysbinary, drawn["hot"], "--table", "--fail-on", "fault")
    assert max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    first = hot.findings[0]
    for words_ in (f"{first.severity} ({first.id}): {first.sentence}", "told above 0.03 nats", "do: Over-confident",
                   f"look: {first.look}"):  # fmt: skip
        assert " ".join(words_.split()) in text


@pytest.mark.parametrize("asked", ["expects-less-loss", "warning", "note", "fault", "hard-class", "near-uniform"])
def test_fail_on_takes_a_rule_or_a_severity_and_what_is_graver(hot, asked):
    assert fails_on(hot.findings, [asked]) == ([asked] if asked in ("expects-less-loss", "warning", "note") else [])


def test_the_exit_code_is_that_of_a_failed_gate(drawn, capsysbinary):
    assert printed(capsysbinary, drawn["hot"], "--csv", "-", "--fail-on", "warning", code=10)


def test_an_unknown_name_of_a_finding_is_refused(drawn, capsysbinary):
    assert run(["findings", str(drawn["hot"]), "--fail-on", "expects-les-loss"]) == 2
    assert b"did you mean expects-less-loss" in capsysbinary.readouterr().err


@pytest.mark.thorough
def test_json_and_csv_hold_the_same_findings(drawn, hot, capsysbinary):
    content = json.loads(printed(capsysbinary, drawn["hot"], "--json"))
    assert [each["id"] for each in content["findings"]] == [each.id for each in hot.findings]
    assert content["findings"][0]["value_interval"] == list(hot.findings[0].value_interval)
    rows = list(csv.DictReader(io.StringIO(printed(capsysbinary, drawn["hot"], "--csv", "-"))))
    assert [row["rule"] for row in rows] == [each.id for each in hot.findings]
    assert [float(row["low"]) for row in rows] == [each.value_interval.low for each in hot.findings]


def test_the_numbers_are_those_of_the_view_and_its_json_has_the_finding(drawn, hot, capsysbinary):
    assert run(["calibration", str(drawn["hot"]), "--json"]) == 0
    content = json.loads(capsysbinary.readouterr().out)
    excess = content["models"][0]["measures"]["nll_minus_entropy_nats"]
    (told,) = (each for each in content["findings"] if each["id"] == "expects-less-loss")
    (own,) = (each for each in hot.findings if each.id == "expects-less-loss")
    assert told["value"] == excess["value"] == own.value
    assert told["look"] == f"lossprobe calibration --plot {drawn['hot']}"
    assert run(["calibration", str(drawn["hot"]), "--table"]) == 0
    page = " ".join(capsysbinary.readouterr().out.decode().split())
    assert f"warning (expects-less-loss): {' '.join(own.sentence.split())}" in page


@pytest.mark.thorough
def test_two_models_are_compared(drawn, capsysbinary):
    both = find_findings([open_run(drawn[name]) for name in ("clean", "hot")], FindingOptions(("second-worse",)))
    assert both.failed == ["second-worse"]
    assert both.exit_code == 10
    told = dict(zip([each.id for each in both.findings], both.table["model"], strict=True))
    assert told["second-worse"] == "hot − clean"
    assert told["expects-less-loss"] == "hot"
    other = find_findings([open_run(drawn[name]) for name in ("hot", "clean")])
    assert "second-better" in {each.id for each in other.findings}


def test_the_picture_has_a_row_a_finding_in_multiples_of_its_threshold(drawn, hot):
    one = open_run(drawn["hot"])
    (axes,) = draw(findings_view([one], hot)).axes
    names = [each.get_text() for each in axes.get_yticklabels()]
    assert [name.split(":")[0] for name in names] == [each.id for each in hot.findings]
    drawn_values = np.concatenate([line.get_xdata() for line in axes.lines if line.get_marker() in "Xso"])
    assert sorted(drawn_values) == pytest.approx(sorted(multiple(each, each.value) for each in hot.findings))
    first = hot.findings[0]
    assert multiple(first, first.value) == pytest.approx(first.value / first.threshold)
    assert all(multiple(each, each.value) > 1 for each in hot.findings)
    empty = find_findings(open_run(drawn["clean"]))
    assert draw(findings_view([one], empty)).axes


def test_of_a_text_of_ten_tokens_nothing_is_told(tmp_path, capsysbinary):
    found = find_findings(write_run(tmp_path / "few", [words("first_token", *[30.0] * 10)], keep_text=False))
    assert found.findings == []
    assert "no finding" in found.finding
    assert any("only what was counted" in note for note in found.notes)
