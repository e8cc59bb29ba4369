"""Markdown: a table that a pull request shows as it is, whatever stands in it."""

import re

import pandas as pd
import pytest

from lossprobe.report.formats.markdown import JOINER, ROWS, escaped, to_markdown


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


LINKS = [
    "see https://example.com/a?b=c.", "HTTP://EXAMPLE.COM", "(http://localhost:80)", "ftp://x.org/a", "www.example.com",
    "mailto:me@example.com", "xmpp:me@example.com/x", "a_b@c-d.e_f.com", "git+ssh://a@b.c:1/x", "https://u:p@x.com/#1",
]  # fmt: skip
# What GitHub turns into links, in the page that readers see; and, by its specification, in the Markdown.
LIVE = re.compile(
    r"(?i)(?:https?|ftp)://|www\.|[\w.+-]@[\w-]+\.\w|(?<!\w)@[a-z\d]|#\d|\bGH-\d|\b(?=\d*[a-f])(?=[a-f]*\d)[\da-f]{7,40}\b"
)


@pytest.mark.parametrize(
    "text", [*LINKS, "@team", "#12", "user/repo#12", "GH-12", "see 631c8b39c5", "u/r@631c8b39c5aa"]
)
def test_no_text_becomes_a_link(text):
    assert LIVE.search(text), "it would be one"
    shown = escaped(text)
    assert not LIVE.search(shown)
    assert not LIVE.search(shown.replace("\\", ""))  # what the page shows
    assert shown.replace("\\", "").replace(JOINER, "") == text


def test_no_line_becomes_a_list_and_numbers_stay_numbers():
    assert escaped("1. one") == "1\\. one"
    assert escaped("12) one") == "12\\) one"
    for text in ("1.5", "0.12345678", "1234567", "1.2345678e-05", "data.txt", "effaced"):
        assert escaped(text) == text
