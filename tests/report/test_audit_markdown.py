"""An audit as Markdown for step summaries."""

import re

import pytest
from audit_results import HOSTILE, audit_result, audits, check_result, mixed, text_result
from hypothesis import given
from markdown_it import MarkdownIt

from lossprobe.report.audit import markdown as audit_markdown
from lossprobe.report.audit.markdown import audit_to_markdown

LIMITS = ("TABLE_BYTES", "REASON_BYTES", "LIST_BYTES")
LIMIT = 1024 * 1024


def rendered(text):
    """Return the tokens that a Markdown reader finds, blocks and what stands inside them."""
    blocks = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return blocks, [inner for block in blocks for inner in block.children or []]


def test_the_verdict_comes_first_and_then_the_table():
    lines = audit_to_markdown(mixed()).splitlines()
    assert lines[0] == "**lossprobe audit – fail: 6 checks (1 pass, 2 fail, 3 inconclusive), 2 warnings**"
    assert lines[2] == "model ckpt, audit file lossprobe.toml"
    assert lines[4] == "| check | verdict | metric | measured | 95% interval | limit | tokens |"
    assert lines[5] == "|---|---|---|---:|---|---|---:|"
    assert lines[7] == (
        "| late-context | fail | change of nll (nats per token): context &gt;= 128 | \\+0.0213 | \\[+0.0150, +0.0276] "
        "| ≤ +0.0100 | 8,000 |"
    )
    assert "- **inconclusive (warning)** wiki: wiki may have changed" in lines
    assert "* text heldout: valid.jsonl, 12,345 scored of 13,000 tokens in 50 documents; baseline main" in lines
    assert lines[-1] == "* note: documents were shuffled with seed 0"


def test_a_reader_finds_one_table_and_two_lists():
    blocks, _ = rendered(audit_to_markdown(mixed()))
    kinds = [block.type for block in blocks]
    assert (kinds.count("table_open"), kinds.count("tr_open"), kinds.count("bullet_list_open")) == (1, 7, 2)
    assert kinds.count("td_open") == 6 * 7


def test_an_early_end_is_said():
    text = audit_to_markdown(audit_result(check_result(), texts=[text_result(scored_share=0.125, baseline=None)]))
    assert "in 50 documents (12.5% of it was needed)\n" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_markup(name):
    hostile = check_result("fail", id=name, where=name, reason=name, measured_unit="nats")
    texts = [text_result(name=name, text=name, baseline=name)]
    text = audit_to_markdown(audit_result(hostile, model=name, file=name, notes=[name], texts=texts))
    blocks, inner = rendered(text)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    assert sum(block.type == "td_open" for block in blocks) == 7
    assert {token.type for token in inner} <= {"text", "strong_open", "strong_close", "text_special", "softbreak"}
    assert not any(block.type in ("html_block", "heading_open", "fence", "code_block") for block in blocks)
    assert not re.search(r"(?<!\\)[@`]", text)


@pytest.fixture
def tenth(monkeypatch):
    """A tenth of every limit, so that a tenth of the checks reaches it; return the bytes of all of them together."""
    for name in LIMITS:
        monkeypatch.setattr(audit_markdown, name, getattr(audit_markdown, name) // 10)
    assert sum(10 * getattr(audit_markdown, name) for name in LIMITS) < LIMIT - 100 * 1024
    return LIMIT // 10


def test_it_stays_small_and_keeps_the_worst_checks(tenth):
    passing = [check_result(id=f"pass-{number}-{'x' * 150}") for number in range(500)]
    failing = [check_result("fail", id=f"fail-{number}", reason="y" * 5000) for number in range(300)]
    warned = [check_result("fail", level="warn", id=f"warn-{number}") for number in range(300)]
    result = audit_result(
        *passing, *warned, *failing, notes=["n" * 5000] * 30, texts=[text_result(name="t" * 5000)] * 30
    )
    text = audit_to_markdown(result)
    assert 0.6 * tenth < len(text.encode()) < tenth
    rows = re.findall(r"^\| (pass|warn|fail)-", text, re.MULTILINE)
    assert (rows.count("fail"), rows.count("warn") > 0, rows.count("pass")) == (300, True, 0)
    assert rows.index("fail") > rows.index("warn"), "the order of the file stays"
    left = 1100 - len(rows)
    assert f"\n\n{left:,} more checks left out here; the JSON report has all.\n" in text
    assert text.count("\n- **fail**") + int(re.search(r"([\d,]+) more reasons", text)[1].replace(",", "")) == 600
    assert "more lines left out here" in text


def test_a_table_of_wide_characters_stays_small_too(tenth):
    failing = [check_result("fail", id="漢" * 300, where="|" * 300, reason="😀" * 2000) for _ in range(300)]
    assert len(audit_to_markdown(audit_result(*failing)).encode()) < tenth


@given(audits())
def test_any_audit_is_one_table(result):
    text = audit_to_markdown(result)
    blocks, inner = rendered(text)
    assert sum(block.type == "td_open" for block in blocks) == 7 * len(result.checks)
    assert {token.type for token in inner} <= {"text", "strong_open", "strong_close", "text_special", "softbreak"}
    assert all(character.isprintable() or character == "\n" for character in text)
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    text.encode()
