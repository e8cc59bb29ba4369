"""An audit as JSON, against the schema that is shipped."""

import json
import math
from dataclasses import fields
from importlib.resources import files

import numpy as np
import pytest
from audit_results import audit_result, audits, check_result, mixed, text_result
from hypothesis import given
from jsonschema import Draft202012Validator

from lossprobe.analysis.stats.interval import Interval
from lossprobe.audit.checks.metrics import METRICS
from lossprobe.audit.checks.verdicts import EXIT_CODES, VERDICTS, AuditResult, CheckResult, TextResult
from lossprobe.audit.settings import FINDINGS, INCONCLUSIVE, LEVELS, LIMITS, RULES, Check
from lossprobe.report.audit.json import audit_to_json

SCHEMA = json.loads(files("lossprobe.report").joinpath("audit.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def read(result):
    """Return the JSON of an audit, as a strict reader reads it."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = audit_to_json(result)
    assert text.isascii()
    assert text.endswith("}\n")
    content = json.loads(text, parse_constant=refuse)
    VALIDATOR.validate(content)
    return content


def test_everything_of_an_audit_is_there():
    content = read(mixed())
    assert {field.name for field in fields(AuditResult)} <= set(content)
    assert set(content["texts"][0]) == {field.name for field in fields(TextResult)}
    assert set(content["checks"][0]) == (
        {field.name for field in fields(Check)} | {field.name for field in fields(CheckResult)} | {"slice", "effect"}
    ) - {"check"}
    assert content["schema"] == "lossprobe audit"
    assert (content["version"], content["verdict"], content["exit_code"], content["success"]) == (1, "fail", 10, False)
    assert [check["effect"] for check in content["checks"]] == ["pass", "fail", "inconclusive", "warn", "warn", "pass"]
    late = content["checks"][1]
    assert late["limit"] == {"kind": "max_increase", "value": 0.01}
    assert (late["measured"], late["measured_interval"], late["line"]) == (0.0213, [0.0150, 0.0276], 18)
    assert content["nonfinite"] == []


def test_numbers_keep_their_digits():
    content = read(audit_result(check_result(value=0.1 + 0.2, measured=np.float64(1 / 3), tokens=np.int64(7))))
    check = content["checks"][0]
    assert (check["value"], check["measured"], check["tokens"]) == (0.1 + 0.2, 1 / 3, 7)


def test_what_json_cannot_write_is_null_and_named():
    check = check_result(value=math.inf, value_interval=Interval(-math.inf, math.nan), measured=None)
    content = read(audit_result(check_result(), check))
    found = content["checks"][1]
    assert (found["value"], found["value_interval"], found["measured"]) == (None, [None, None], None)
    assert content["nonfinite"] == [
        {"key": "/checks/1/value", "value": "Infinity"},
        {"key": "/checks/1/value_interval/0", "value": "-Infinity"},
        {"key": "/checks/1/value_interval/1", "value": "NaN"},
    ]


def test_names_come_back_as_they_are_and_half_pairs_are_shown():
    content = read(audit_result(check_result("fail", reason="\x1b😀\n\ufffe"), model="a\udc80b\ud800"))
    assert content["checks"][0]["reason"] == "\x1b😀\n\ufffe"
    assert content["model"] == "a\\x80b\\ud800"


def test_the_schema_is_sound_and_every_key_is_described():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    parts = [SCHEMA, *SCHEMA["$defs"].values(), SCHEMA["properties"]["nonfinite"]["items"]]
    parts.append(SCHEMA["$defs"]["check"]["properties"]["limit"])
    for part in parts:
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
        for name, described in part["properties"].items():
            assert described["description"].endswith("."), name


def test_the_schema_knows_the_words_of_an_audit_file():
    check = SCHEMA["$defs"]["check"]["properties"]
    words = {
        "metric": (*METRICS, FINDINGS),
        "level": LEVELS,
        "rule": RULES,
        "inconclusive": INCONCLUSIVE,
        "verdict": VERDICTS,
    }
    for name, values in words.items():
        assert sorted(check[name]["enum"]) == sorted(values), name
    assert tuple(check["limit"]["properties"]["kind"]["enum"]) == LIMITS
    assert SCHEMA["properties"]["exit_code"]["enum"] == list(EXIT_CODES.values())


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "pass"}, {"exit_code": 1}, {"success": True}, {"version": 2}, {"more": 1}, {"notes": [1]},
        {"seed": 1.5}, {"checks": [{}]}, {"texts": [{"name": "x"}]}, {"nonfinite": ["/checks/0/value"]},
    ],
)  # fmt: skip
def test_the_schema_refuses(change):
    content = read(mixed())
    assert not VALIDATOR.is_valid(content | change)
    assert not VALIDATOR.is_valid({key: value for key, value in content.items() if key not in change} | {"x": 0})


def test_an_empty_audit_and_one_that_passes():
    assert read(audit_result(texts=[]))["success"] is True
    early = audit_result(check_result(), stop_early=True, texts=[text_result(scored_share=0.2, baseline=None)])
    assert read(early)["finding"] == "pass: 1 check (1 pass); needed 20% of the text"
    must = audit_result(check_result("inconclusive", inconclusive="fail"))
    assert read(must)["exit_code"] == 11


@given(audits())
def test_any_audit_is_valid(result):
    content = read(result)
    for check, found in zip(result.checks, content["checks"], strict=True):
        named = any(entry["key"] == f"/checks/{result.checks.index(check)}/value" for entry in content["nonfinite"])
        assert (found["value"] is None) == (check.value is None or named)
