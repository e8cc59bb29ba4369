"""Writes a page as one HTML file that loads nothing from elsewhere and runs nothing from the text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from lossprobe.report.formats.html import HtmlTable, Told, tables_of, told_of
from lossprobe.report.page.glossary import Entry, glossary_of
from lossprobe.report.page.section import Page, Section
from lossprobe.report.page.text_view import text_view
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.report.page.section import Exhibit

ASSETS = "lossprobe.report.page"
NAMING = ("measure", "rule", "cause")  # columns whose cells are names that have an explanation


@dataclass(frozen=True)
class DrawnExhibit:
    """An exhibit as the template takes it.

    Attributes:
        title: its heading; "" for none.
        told: what it says; see `formats.html.told_of`.
        finding: the same in one line.
        tables: its tables.
        lines: what stands below them.
        picture: the picture as a `data:` address; "" without one.
        command: the command line that prints it.
    """

    title: str
    told: tuple[tuple[Told, ...], ...]
    finding: str
    tables: tuple[HtmlTable, ...]
    lines: tuple[str, ...]
    picture: str
    command: str


def page_to_html(page: Page) -> Iterator[bytes]:
    """Yield a page as UTF-8 HTML.

    The file names no address: a Content-Security-Policy allows its own style and scripts by their hashes, and
    pictures that stand in the file, and nothing else. All text is escaped, unprintable characters are written as codes.
    """
    drawn = [(section, _drawn(section)) for section in page.sections]
    text = None if page.text is None else text_view(page.text)
    style = resources.files(ASSETS).joinpath("assets", "page.css").read_text("utf-8") + (
        "" if text is None else text.style
    )
    script = "" if text is None else text.script
    template = _environment().get_template("page.html.jinja")
    yield from (
        piece.encode()
        for piece in template.generate(
            page=page, sections=drawn, glossary=_glossary(drawn), style=style, script=script,
            policy=_policy(style, script), text=text, naming=NAMING,
        )
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(ASSETS, "assets"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"visible": visible, "base64": lambda data: base64.b64encode(data).decode()}
    return environment


def _policy(*inline: str) -> str:
    """Return the policy of a page whose inline style and script are these texts, the style first."""
    style, script = (f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inline)
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _drawn(section: Section) -> list[DrawnExhibit]:
    """Return the exhibits of a section; what an exhibit has in common with an earlier one is shown once."""
    exhibits, seen = [], set[tuple[Told, ...] | HtmlTable | str]()
    for exhibit in section.exhibits:
        view = exhibit.view
        told = tuple(group for group in told_of(view) if group not in seen)
        tables = tuple(table for table in tables_of(view) if table not in seen)
        lines = tuple(line for line in view.lines_below if line and line not in seen)
        seen |= {*told, *tables, *lines}
        exhibits.append(DrawnExhibit(
            exhibit.title, told, view.result.finding, tables, lines,
            _picture(exhibit) if exhibit.pictured else "", exhibit.command,
        ))  # fmt: skip
    return exhibits


def _picture(exhibit: Exhibit) -> str:
    from lossprobe.report.formats.output import figure_bytes
    from lossprobe.report.views.view import draw

    svg = figure_bytes(draw(exhibit.view), "svg")
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _glossary(drawn: list[tuple[Section, list[DrawnExhibit]]]) -> dict[str, Entry]:
    """Return the explanations of the columns of all tables, and of the names in their cells."""
    names: list[str] = []
    for _, exhibits in drawn:
        for table in (table for exhibit in exhibits for table in exhibit.tables):
            names += [column.name for column in table.columns]
            for at, column in enumerate(table.columns):
                if column.name in NAMING:
                    names += [row[at] for row in table.rows]
    return glossary_of(names)
