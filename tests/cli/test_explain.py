"""`lossprobe explain`: every name that a table prints has an answer, within 80 columns."""

from __future__ import annotations

import json

import pytest
from bundled import CHECKPOINT, EXAMPLES

from lossprobe.cli.main import run
from lossprobe.terms.catalogue import all_terms, find_terms

PROTOCOLS_SHOWN = ("all", "paloma", "llama.cpp", "evaluate", "transformers", "nanogpt")


def explained(capsys, *arguments) -> str:
    assert run(["explain", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_a_number(capsys):
    out = explained(capsys, "confidence_gap")
    number, metric = out.split("\n\n")
    assert number.startswith("confidence_gap (number)\n  How much surer")
    assert "\n  formula      mean x − mean o" in number
    assert "\n  unit         probability\n" in number
    assert "\n  how to read  Above 0 over-confident" in number
    assert number.endswith("\n  shown by     lossprobe calibration")
    assert metric.startswith("confidence_gap (audit metric)")


def test_an_exit_code_and_an_error_id(capsys):
    assert "Runs not comparable" in explained(capsys, "12")
    out = explained(capsys, "error[text.unknown]")
    assert "  exit code    4: text refused" in out
    assert "  what to do   Check that" in out


def test_a_column_has_its_type_and_file(capsys):
    out = explained(capsys, "varentropy")
    assert "  type         float" in out
    assert "  stored in    tokens/*.parquet" in out
    assert "  unit         nats²" in out


def test_everything_fits_80_columns(capsys):
    for name in dict.fromkeys(term.name for term in all_terms()):
        lines = explained(capsys, name).splitlines()
        assert max(map(len, lines)) <= 80, name
        assert any(line.startswith(f"{name} (") for line in lines)


def test_without_a_name_all_names_are_listed_by_kind(capsys):
    out = explained(capsys)
    assert max(map(len, out.splitlines())) <= 80
    titles = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert titles == ["numbers", "columns", "exit codes", "error ids", "protocols", "audit metrics", "diagnoses",
                      "findings", "defects of a text"]  # fmt: skip
    words = set(out.replace(",", " ").split())
    assert {term.name for term in all_terms()} <= words


def test_json(capsys):
    found = json.loads(explained(capsys, "ece", "--json"))
    assert (found["schema"], found["command"]) == (1, "explain")
    assert [(term["name"], term["kind"]) for term in found["terms"]] == [("ece", "number"), ("ece", "audit metric")]
    assert all(value for term in found["terms"] for value in term.values())
    assert len(json.loads(explained(capsys, "--json"))["terms"]) == len(all_terms())
    assert json.loads(explained(capsys, "text.binary", "--json"))["terms"][0]["exit_code"] == 4


def test_an_abbreviation_is_a_name(capsys):
    assert explained(capsys, "ppl").startswith("token_perplexity (number)")


def test_an_option_of_other_commands_is_told_without_a_guess(capsys):
    assert run(["score", "a", "b", "--where", "loss > 3"]) == 2
    err = capsys.readouterr().err
    assert "Did you mean" not in err
    assert err.endswith("hint: --where is an option of tokens and objectives\n")


@pytest.mark.parametrize(
    ("name", "hint"), [("brierr", "did you mean brier"), ("zzzzzz", "lossprobe explain lists all names")]
)
def test_an_unknown_name(capsys, name, hint):
    assert run(["explain", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith(f"lossprobe: error[explain.unknown]: {name}: ")
    assert second.startswith(f"hint: {hint}")


@pytest.fixture(scope="module")
def other_text(tmp_path_factory):
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines()[8:16]
    path = tmp_path_factory.mktemp("other") / "other.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


@pytest.mark.thorough
def test_every_column_and_measure_that_a_view_prints_is_explained(work, capsys, text, other_text):
    smoothed = EXAMPLES / "jargon-smoothed"
    commands = [
        *(["tokens"], ["positions"], ["positions", "--by", "document-position"], ["hardest"], ["perplexity"]),
        *(["hardest", "--by", by] for by in ("type", "document", "class")),
        *(["perplexity", "--by", "document"], ["calibration"], ["calibration", "--by", "class"], ["objectives"]),
        *([*("compare", CHECKPOINT, smoothed, text), *more] for more in (["--kl", "--by", "class"],)),
        ["gap", CHECKPOINT, text, other_text],
        *(["perplexity", CHECKPOINT, text, "--context", "256", "--protocol", name] for name in PROTOCOLS_SHOWN),
        ["selfcheck", CHECKPOINT, text, "--tokens", "64"],
    ]
    for command in commands:
        assert run([*map(str, command), "--json"]) == 0, command
        content = json.loads(capsys.readouterr().out)
        rows = content["rows"]
        names = {*rows[0], *(row[key] for row in rows for key in ("measure", "objective", "headline") if key in row)}
        names |= {key for table in inner_tables(content) for key in table[0]}
        divergence = content.get("divergence") or {}
        names |= set(divergence) - {"first", "second", "by", "hardest", "slices", "by_position", "notes"}
        unknown = sorted(name for name in names if not find_terms(name))
        assert not unknown, command


def inner_tables(content: dict) -> list[list[dict]]:
    """Return the tables that a result has beside its rows."""
    tables = [content.get("groups"), content.get("slices"), (content.get("changes") or {}).get("table")]
    divergence = content.get("divergence") or {}
    tables += [divergence.get(name) for name in ("hardest", "slices", "by_position")]
    sides = [content[name] for name in ("train", "validation") if name in content]
    tables += [side["memorised"]["table"] for side in sides]
    tables += [content.get(name) for name in ("half_precision", "micro_batches", "weights")]
    return [table for table in tables if table]
