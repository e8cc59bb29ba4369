"""Markdown: a table that a pull request shows as it is, whatever stands in it."""

import re

import pandas as pd
import pytest

from lossprobe.report.markdown import ROWS, escaped, to_markdown


def test_a_table_a_heading_and_lines():
    table = pd.DataFrame({"measure": ["nll", "ece"], "value": [1.5, float("nan")], "count": [1200, 3]})
    assert to_markdown(table, "perplexity: m on t", ["one", "", "two"]) == (
        "### perplexity: m on t\n\n"
        "| measure | value | count |\n|---|---:|---:|\n| nll | 1.500000 | 1,200 |\n| ece | n/a | 3 |\n\n"
        "one\n\ntwo\n"
    )


@pytest.mark.parametrize(
    "text",
    ["a|b", "<img src=x>", "@team", "[click](http://x)", "`code`", "$x$", "# heading", "- item", "+ item", "> quote",
     "*b*", "~~s~~", "a\\|b", "x\nmore", "\x1b[2J", "::error::x"],
)  # fmt: skip
def test_no_text_becomes_markup(text):
    lines = to_markdown(pd.DataFrame({"text": [text]}), text, [text]).split("\n")
    assert len(lines) == 8
    cell = lines[4]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", cell)) == 2, cell
    assert "<" not in cell
    assert "\x1b" not in "".join(lines)
    assert not re.search(r"(?<!\\)[`*@\[$]", "".join(lines))
    assert not re.match(r"[-+>#:|]", lines[6]) or text.startswith("::")


def test_long_tables_say_how_much_is_left():
    text = to_markdown(pd.DataFrame({"n": range(ROWS + 7)}), "t", [])
    assert text.count("\n| ") == 1 + ROWS
    assert "7 more rows" in text


def test_plain_words_stay_as_they_are():
    assert escaped("z of the gap +11.0 (design effect 2.0) – 5 %") == "z of the gap +11.0 (design effect 2.0) – 5 %"
